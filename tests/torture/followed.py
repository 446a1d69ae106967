"""Watched directories: every scenario of tests/collect/test_watch.py, then random ones.

At any step the watcher may live on, be started anew, be down, or die in the middle of a publish.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable

import lakelog
from lakelog.audit.audit import audit
from lakelog.collect import watch
from lakelog.collect.watch import Watcher
from tests.support import lakes
from tests.support.watching import PLAYS, SCENARIOS, Place, Step, die_at, stored
from tests.support.world import warm_engine
from tests.torture.case import Case, Row


def scenarios(case: Case) -> None:
    """Play one scenario and require every line once."""
    warm_engine(case.patch)
    case.patch.setattr(watch, "STABLE", -1.0)
    if case.number < len(PLAYS) and case.seed == 1:
        name, way, at = PLAYS[case.number]
        steps, ways = SCENARIOS[name], {at: way}
        told = f"{name}, {way} at step {at}"
    else:
        steps, ways, told = made(case.dice)
    with lakes.opened(str(case.place / "lake")) as lake:
        place = Place(case.place / "logs")
        try:
            _play(case, lake, place, steps, ways)
        except Exception as error:
            raise AssertionError(f"{told}: {type(error).__name__}: {error}") from error
    case.tally.notes["lines"] += len(place.written)
    case.verified(sum(way != "alive" for way in ways.values()))


def _play(
    case: Case, lake: lakelog.Lake, place: Place, steps: list[Step], ways: dict[int, str]
) -> None:
    watcher = Watcher(lake, [str(place.root)])
    for number, step in enumerate(steps):
        way = ways.get(number, "alive")
        if way == "restart":
            watcher.close()
            watcher = Watcher(lake, [str(place.root)])
        step(place)
        if way == "kill":
            with case.patch.context() as patch:
                patch.setattr("lakelog.ingest.batch.publish", die_at(0))
                with contextlib.suppress(KeyboardInterrupt):
                    watcher.round()
            watcher.close()
            watcher = Watcher(lake, [str(place.root)])
        if way != "down":
            watcher.round()
    watcher.round(final=True)
    _every_line_once(lake, place)
    watcher.close()
    again = Watcher(lake, [str(place.root)])
    assert again.round(final=True) == 0, "another watcher took lines again"
    again.close()
    proof = audit(lake.store, lake.branch_name, lake.engine, [str(place.root)])
    assert not proof.wrong, "the audit finds something wrong"
    assert not proof.failed, "the audit could not read something"


def _every_line_once(lake: lakelog.Lake, place: Place) -> None:
    found, wanted = stored(lake), Counter(place.written)
    assert found == wanted, f"lost {list(wanted - found)[:5]}, doubled {list(found - wanted)[:5]}"
    assert lake.sql("SELECT count(*) FROM quarantine").fetchall() == [(0,)]


class Rotation:
    """One log and its older names, as some rotator keeps them."""

    def __init__(self, dice: random.Random, name: str) -> None:
        self._dice, self.name = dice, name
        self._old: list[str] = []
        self._copies, self._open, self._there = 0, False, False
        self._begins_alike = dice.random() < 0.4

    def step(self) -> tuple[str, Callable[[Place], None]]:
        """Choose what happens next."""
        kinds = ["write", "write", "write", "half"]
        if self._there and not self._open:
            kinds += ["rename", "rename", "copy"]
        if self._old:
            kinds += ["gz", "zst"]
        kind = self._dice.choice(kinds)
        return f"{self.name} {kind}", getattr(self, f"_{kind}")()

    def finish(self) -> tuple[str, Callable[[Place], None]]:
        """End the last line: until then it is left for the next time."""
        return f"{self.name} end", lambda p: p.end(self.name, b"\n") if self._open else None

    def _write(self) -> Callable[[Place], None]:
        # Two lines at least: from a single short one nothing is concluded (F18.4), and where its
        # file is packed or cut, it may be stored again.
        count, ended = self._dice.randint(2, 40), self._open
        banner = self._begins_alike and not self._there
        self._open, self._there = False, True

        def write(place: Place) -> None:
            if ended:
                place.end(self.name, b"\n")
            if banner:
                place.banner(self.name)
            place.write(self.name, count)

        return write

    def _half(self) -> Callable[[Place], None]:
        ended, self._open, self._there = self._open, True, True
        return lambda p: (
            p.end(self.name, b"\n") if ended else None,
            p.write(self.name, 3, end=""),
        )[0]

    def _rename(self) -> Callable[[Place], None]:
        moves = [(f"{n}", _shifted(f"{n}")) for n in reversed(self._old)]
        self._old = [f"{self.name}.1", *(new for _, new in reversed(moves))]
        self._there = False
        return lambda p: [p.move(a, b) for a, b in [*moves, (self.name, f"{self.name}.1")]] and None

    def _copy(self) -> Callable[[Place], None]:
        self._copies += 1
        name = f"{self.name}.copy{self._copies}"
        self._there = False
        return lambda p: p.copy_truncate(self.name, name)

    def _gz(self) -> Callable[[Place], None]:
        return self._pack("gz")

    def _zst(self) -> Callable[[Place], None]:
        return self._pack("zst")

    def _pack(self, how: str) -> Callable[[Place], None]:
        plain = [n for n in self._old if not n.endswith(("gz", "zst"))]
        if not plain:
            return lambda p: None
        name = self._dice.choice(plain)
        self._old[self._old.index(name)] = f"{name}.{how}"
        return lambda p: p.pack(name, how)


def _shifted(name: str) -> str:
    """The next older name: a.log.1.gz becomes a.log.2.gz."""
    stem, _, rest = name.partition(".log.")
    number, dot, packing = rest.partition(".")
    return f"{stem}.log.{int(number) + 1}{dot}{packing}"


def made(dice: random.Random) -> tuple[list[Step], dict[int, str], str]:
    """A scenario of one to three logs, the way of each step, and what it is."""
    logs = [Rotation(dice, f"{name}.log") for name in "abc"[: dice.randint(1, 3)]]
    chosen = [dice.choice(logs).step() for _ in range(dice.randint(4, 12))]
    chosen += [log.finish() for log in logs]
    odds = ["alive", "alive", "alive", "restart", "kill", "down"]
    ways = {n: dice.choice(odds) for n in range(len(chosen))}
    told = "; ".join(f"{name} ({ways[n]})" for n, (name, _) in enumerate(chosen))
    return [step for _, step in chosen], ways, told


ROWS = [Row("watch", "watcher scenarios", 300, 3000, 45, scenarios)]
