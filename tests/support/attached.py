"""Machines that share a lake: directories of their own, attached to one bucket."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import lakelog
from lakelog.lake import Lake
from lakelog.remotes.shared import attach


class Killed(BaseException):
    """A machine ends here."""


class SharedMachines:
    """Directories below a path that are attached to one bucket, each opened once."""

    def __init__(self, root: Path, url: str = "") -> None:
        self.root, self.url = root, url or f"file://{root}/bucket"
        self._lakes: dict[str, Lake] = {}

    def __getitem__(self, name: str) -> Lake:
        """Return the open lake of a machine, which is attached when it is first asked for."""
        if name not in self._lakes:
            attach(self.url, f"{self.root}/{name}")
            self._lakes[name] = lakelog.open(f"{self.root}/{name}", create=False)
        return self._lakes[name]

    def reopened(self, name: str) -> Lake:
        """Close the lake of a machine and open it again."""
        self._lakes.pop(name).close()
        self._lakes[name] = lakelog.open(f"{self.root}/{name}", create=False)
        return self._lakes[name]

    def exchange(self, *names: str) -> None:
        """Let machines exchange, one after the other, until each has what the others had."""
        for name in (*names, *names):
            self[name].exchange()

    def close(self) -> None:
        """Close all lakes."""
        for lake in self._lakes.values():
            lake.close()


def numbers(lake: Lake, where: str = "TRUE") -> list[int]:
    """Return the numbers in the payloads of a lake's events, in their order."""
    return [
        n for (n,) in lake.sql(f"SELECT (data->>'n')::int FROM events WHERE {where} ORDER BY 1")
    ]


def append(lake: Lake, *values: int, type: str = "T") -> None:
    """Append events with these numbers."""
    lake.append([{"type": type, "data": {"n": value}} for value in values])


def publish_each(lake: Lake, values: Iterable[int]) -> None:
    """Append events with these numbers, and publish each in a move of its own."""
    for value in values:
        append(lake, value)
        lake.exchange()


def origins(lake: Lake) -> Counter[tuple[str, int]]:
    """Count the events of each writer and position."""
    return Counter(lake.sql("SELECT origin, position FROM events").fetchall())


def before_links(lake: Lake, *steps: Callable[[], object]) -> None:
    """Let something happen right before each of the next attempts of a machine to publish."""
    volume, waiting = lake.store.volume, list(steps)
    link = volume.link

    def late_link(*words: object) -> None:
        if waiting:
            waiting.pop(0)()
        link(*words)

    volume.link = late_link


def die() -> None:
    """End a machine that is about to publish."""
    raise Killed


def offer_and_die(machines: SharedMachines, value: int, other: int) -> None:
    """Let machine a lose a move to b, which publishes `other`, offer its own event, and end."""
    append(machines["a"], value)
    append(machines["b"], other)
    before_links(machines["a"], machines["b"].exchange, die)
    with contextlib.suppress(Killed):
        machines["a"].exchange()
