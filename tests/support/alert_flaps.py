"""An alert that flaps while the process that evaluates it is killed: what receivers got.

    python -m tests.support.alert_flaps --flaps 100 --kills 60 --seed 1

Each step is a time at which the rule is asked, and either errors were appended before or not, so a
process that was killed plays the same step again. Kills hit before a receiver answers, after it, or
at any time: then a receiver may get a notification once more, with the same id.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import lakelog
from lakelog.alerts import AlertRule, RuleBook, history
from tests.support.alert_receivers import Received, Receiver, http_receiver, mail_receiver
from tests.support.processes import environment

START = 1_790_000_000
EVALUATOR = """
import sys, threading
import lakelog
from lakelog.alerts import evaluating

moment = [0]
with lakelog.open(sys.argv[1]) as lake:
    with evaluating(lake, lambda line: None, threading.Event(), clock=lambda: moment[0]) as rounds:
        for line in sys.stdin:
            moment[0] = int(line) * 1_000_000
            rounds.round()
            print("done", flush=True)
"""


class Evaluator:
    """A process that evaluates the rules of a lake at times that it is told."""

    def __init__(self, path: str, chance: random.Random, kills: int, steps: int) -> None:
        self.path, self._chance = path, chance
        places = chance.choices(["before", "after", "any"], k=kills)
        deliveries = chance.sample(range(2 * steps), min(kills, 2 * steps))
        self._kills = dict(zip(deliveries, places, strict=False))
        self._deliveries, self.killed = 0, 0
        self._process: subprocess.Popen[str] | None = None
        self._turn = threading.Lock()

    def hook(self, place: str) -> None:
        """Called by receivers: here the process may be killed."""
        with self._turn:
            planned = self._kills.get(self._deliveries)
            self._deliveries += place == "after"
        if planned == place:
            self._kills.pop(self._deliveries - (place == "after"), None)
            self._kill()

    def step(self, time: int) -> None:
        """Play a step until a process has come to its end."""
        while True:
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            timer = threading.Timer(self._chance.uniform(0, 0.4), self._kill)
            if is_timed := self._kills.get(self._deliveries) == "any":
                self._kills.pop(self._deliveries)
                timer.start()
            try:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(f"{time}\n")
                    process.stdin.flush()
                is_done = process.stdout.readline() == "done\n"
            finally:
                if is_timed:
                    timer.cancel()
                    timer.join()
            if is_done:
                return
            self._end(process)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._end(self._process)

    def _end(self, process: subprocess.Popen[str]) -> None:
        process.wait()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-c", EVALUATOR, self.path]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
            )
        return self._process

    def _kill(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            self.killed += 1


@contextlib.contextmanager
def play(
    home: Path, *, flaps: int, kills: int, seed: int
) -> Iterator[tuple[lakelog.Lake, Receiver, Receiver, int]]:
    """Let an alert fire and end so many times; yield the lake, both receivers, and the kills."""
    path = str(home / "lake")
    with http_receiver() as hook, mail_receiver() as mail, lakelog.open(path) as lake:
        rule = AlertRule(
            "errors",
            query="SELECT source, count(*) AS value FROM events WHERE level = 'ERROR'"
            " AND time >= $since AND time < $now GROUP BY source",
            above=2,
            window=30_000_000,
            every=10_000_000,
            sinks=(hook.url, f"mailto:ops@example.org#server=127.0.0.1:{mail.port}"),
        )
        RuleBook(lake).add(rule)
        evaluator = Evaluator(path, random.Random(seed), kills, 2 * flaps)
        hook.hook = mail.hook = evaluator.hook
        try:
            for flap in range(flaps):
                moment = START + 600 * flap
                event = {"type": "x", "source": "web", "level": "ERROR", "time": moment - 1}
                lake.append([event] * 3)
                evaluator.step(moment)
                evaluator.step(moment + 300)
            # What a process that died had to deliver yet.
            evaluator.step(START + 600 * flaps)
        finally:
            evaluator.close()
        yield lake, hook, mail, evaluator.killed


def faults(lake: lakelog.Lake, received: Receiver, flaps: int, kills: int) -> list[str]:
    """Return what a receiver got that it should not have, or lacks."""
    once = received.once()
    changes = [entry for entry in history(lake, 100_000) if entry["event"] == "change"]
    expected = [(entry["id"], entry["state"]) for entry in changes]
    got = [(one.id.partition("-")[0], _state(one)) for one in once]
    found = [] if got == expected else [f"got {got}, but changes are {expected}"]
    if [state for _, state in expected] != ["firing", "resolved"] * flaps:
        found.append(f"changes are {expected}")
    doubled = len(received.received) - len(once)
    return found if doubled <= kills else [*found, f"{doubled} came twice, {kills} kills"]


def _state(one: Received) -> str:
    if isinstance(one.body, dict):
        return str(one.body["state"])
    return one.headers["subject"].partition("]")[0].strip("[")


def _main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("flaps", 100), ("kills", 60), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as home,
        play(Path(home), flaps=options.flaps, kills=options.kills, seed=options.seed) as played,
    ):
        lake, hook, mail, killed = played
        for name, receiver in (("webhook", hook), ("mail", mail)):
            doubled = len(receiver.received) - len(receiver.once())
            print(f"{name}: {len(receiver.once())} notifications, {doubled} of them twice")
            assert not (found := faults(lake, receiver, options.flaps, killed)), found
        print(f"{options.flaps} flaps, {killed} kills: each change once, each resolved once")


if __name__ == "__main__":
    _main()
