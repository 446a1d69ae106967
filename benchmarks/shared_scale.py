"""A model of many machines that publish to one bucket, for what cannot be measured on one machine.

    python -m benchmarks.shared_scale [--writers 1000] [--every 10] [--latency 0.1] [--lost 0.01]

Each machine publishes after a pause that varies, by the requests that an exchange makes (FORMAT.md,
22): it looks for moves, stores a segment, puts down an offer if it lost before, lists and reads
offers, and tries to create the next move. Requests take `latency` on average; of some the answer
is lost, and they are made again a second later. Processors and bandwidth have no bound.
"""

from __future__ import annotations

import argparse
import heapq
import random
import statistics
from dataclasses import dataclass, field

from lakelog.remotes.shared.offers import ENTRIES_MAX, HEADS, READ_MAX, READERS

TIME_OUT = 1.0
"""Seconds until an answer counts as lost."""


@dataclass
class Machine:
    """What one machine has to publish since when, what it offers, and the offers that it read."""

    since: float = 0.0
    offered_at: int = -1
    is_contested: bool = False
    known: set[tuple[int, int]] = field(default_factory=set)
    serial: int = 0


@dataclass
class Bucket:
    """Machines, the newest move, and what was counted."""

    arguments: argparse.Namespace
    chance: random.Random
    machines: list[Machine]
    move: int = 0
    offers: dict[int, tuple[int, int]] = field(default_factory=dict)
    requests: int = 0
    delays: list[float] = field(default_factory=list)
    carried: list[int] = field(default_factory=list)

    def seconds(self, count: int = 1, rounds: int = 1) -> float:
        """How long it takes to make `rounds` of requests one after the other, `count` in all."""
        self.requests += count
        total = 0.0
        for _ in range(rounds):
            total += self.chance.uniform(0.5, 1.5) * self.arguments.latency
            while self.chance.random() < self.arguments.lost:
                self.requests += 1
                total += TIME_OUT
        return total

    def publish(self, number: int, now: float) -> None:
        """Note that what a machine had is visible now."""
        self.delays.append(now - self.machines[number].since)
        self.offers.pop(number, None)


def prepare(bucket: Bucket, number: int) -> float:
    """Look for moves and store a segment, and an offer where that is due; return the seconds."""
    machine = bucket.machines[number]
    machine.serial += 1
    seconds = bucket.seconds(5, 3) + bucket.seconds()
    if machine.is_contested:
        seconds += offer(bucket, number)
    return seconds


def offer(bucket: Bucket, number: int) -> float:
    """Put down an offer."""
    machine = bucket.machines[number]
    machine.offered_at = bucket.move
    bucket.offers[number] = (machine.serial, bucket.move)
    return bucket.seconds()


def attempt(bucket: Bucket, number: int) -> tuple[float, int, list[tuple[int, int]]]:
    """List and read offers and try to make the next move; return the seconds that this takes, the
    number that was tried, and the offers that go with it."""
    machine = bucket.machines[number]
    listed = {(n, serial) for n, (serial, _) in bucket.offers.items() if n != number}
    fresh = sorted(listed - machine.known)[:READ_MAX]
    machine.known = (machine.known & listed) | set(fresh)
    rounds = -(-len(fresh) // READERS)
    seconds = bucket.seconds(1 + len(listed) // 1000, 1 + len(listed) // 1000)
    seconds += bucket.seconds(2 * len(fresh), 2 * rounds)
    return seconds + bucket.seconds(), bucket.move + 1, sorted(machine.known)[:ENTRIES_MAX]


def run(arguments: argparse.Namespace) -> Bucket:
    """Let all machines publish for some time."""
    chance = random.Random(arguments.seed)
    bucket = Bucket(arguments, chance, [Machine() for _ in range(arguments.writers)])
    starts = (chance.uniform(0, arguments.every) for _ in bucket.machines)
    events: list[tuple[float, int, str, object]] = [
        (at, number, "begin", None) for number, at in enumerate(starts)
    ]
    heapq.heapify(events)
    published = [0] * arguments.writers
    while events and events[0][0] < arguments.seconds:
        now, number, step, tried = heapq.heappop(events)
        machine = bucket.machines[number]

        def later(seconds: float, step: str, words: object = None) -> None:
            heapq.heappush(events, (now + seconds, number, step, words))  # noqa: B023

        if step == "begin":
            machine.since = now
            later(prepare(bucket, number), "try")
        elif published[number] == machine.serial:
            # Another machine has published its offer: it sees that with the next move.
            later(bucket.seconds() + arguments.every * chance.uniform(0.5, 1.5), "begin")
        elif step == "try":
            seconds, move, offers = attempt(bucket, number)
            later(seconds, "decide", (move, offers))
        else:
            assert isinstance(tried, tuple)
            move, offers = tried
            if move == bucket.move + 1:
                bucket.move = move
                count = 1
                for other, serial in offers:
                    standing = bucket.offers.get(other, (0, 0))
                    if standing[0] == serial and move <= standing[1] + HEADS:
                        published[other] = serial
                        bucket.publish(other, now)
                        count += 1
                published[number] = machine.serial
                bucket.publish(number, now)
                bucket.carried.append(count)
                machine.is_contested = False
                later(bucket.seconds() + arguments.every * chance.uniform(0.5, 1.5), "begin")
            else:
                machine.is_contested = True
                is_due = (
                    number not in bucket.offers or bucket.move - machine.offered_at > HEADS // 2
                )
                seconds = bucket.seconds(2, 1) + (offer(bucket, number) if is_due else 0.0)
                if arguments.wait:
                    seconds += chance.uniform(0, arguments.latency * len(bucket.offers) / 4)
                later(seconds, "try")
    return bucket


def main() -> None:
    """Print what a run gives."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {"writers": 1000, "seconds": 120, "seed": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, figure in {"every": 10.0, "latency": 0.1, "lost": 0.01}.items():
        parser.add_argument(f"--{name}", type=float, default=figure)
    parser.add_argument("--wait", type=int, default=1, help="0: losers try again at once")
    arguments = parser.parse_args()
    bucket = run(arguments)
    delays = sorted(bucket.delays)
    print(
        f"{len(delays) / arguments.seconds:.1f} publishes/s, "
        f"{bucket.move / arguments.seconds:.1f} moves/s, "
        f"{statistics.mean(bucket.carried):.1f} in a move, "
        f"visible after {delays[len(delays) // 2]:.1f} s "
        f"(p99 {delays[len(delays) * 99 // 100]:.1f}), "
        f"{bucket.requests / len(delays):.0f} requests each"
    )


if __name__ == "__main__":
    main()
