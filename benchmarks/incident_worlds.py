"""Days of real logs with incidents planted into them, the same for the same seed.

The lines are those of public logs: an Apache access log (four days), OpenSSH (four hours), an
Apache error log (two days), HDFS (two days) and Thunderbird (a quarter of an hour). They are too
short for two weeks, so blocks of them follow one another at random, with the gaps that they have;
the access log, whose times stand still within each hour, goes by the daily curve of New York's
taxis, and model calls by the token counts of recorded traces. Jobs are Thunderbird's cron lines,
and events that begin and end.
"""

from __future__ import annotations

import csv
import datetime
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START, DAY, MINUTE = 1_780_012_800, 86_400, 60
_SYSLOG = re.compile(r"^\S+ (\d{10}) \S+ \S+ \w+ +\d+ [\d:]+ \S+ (.*)")
_TOKENS = re.compile(r"tokens\D{1,60}?(\d+)")
_TOKENS_MIN = 10
_ACCESS = re.compile(r'"(\S+ \S+)[^"]*" (\d{3}) (\d+|-)')
_NEW_ERRORS = (
    "connection pool exhausted: {n} waiting for a slot",
    "cannot write block {n}: no space left on device",
    "certificate of peer {n} has expired",
    "out of memory: killed process {n}",
)
Event = dict[str, Any]
Lines = list[tuple[float, str]]
"""Seconds, and what was said."""


@dataclass(frozen=True)
class Planted:
    """An incident: when it begins, from when it can be seen, when it ends, and which series show
    the cause: words that the name of a finding has one of."""

    incident: str
    start: float
    visible: float
    end: float
    causes: tuple[str, ...]


class RealLogs:
    """What the public logs say, read once."""

    def __init__(self, folder: Path) -> None:
        loghub = folder / "loghub"
        self.ssh = _stamped(
            loghub / "OpenSSH_2k.log", r"^(\w+ +\d+ [\d:]+) \S+ \S+ (.*)", "%b %d %X"
        )
        self.apache = _stamped(
            loghub / "Apache_2k.log", r"^\[\w+ (\w+ \d+ [\d:]+) \d+\] (.*)", "%b %d %X"
        )
        self.hdfs = _stamped(loghub / "HDFS_2k.log", r"^(\d{6} \d{6}) \d+ (.*)", "%y%m%d %H%M%S")
        lines = (loghub / "Thunderbird_2k.log").read_text("utf-8", "replace").splitlines()
        said = [(float(m[1]), m[2]) for line in lines if (m := _SYSLOG.match(line))]
        self.cron = [text for _, text in said if "session" in text and "crond" in text]
        self.syslog = [(at, text) for at, text in said if "crond" not in text]
        access = (folder / "web" / "apache_combined_access.log").read_text("utf-8", "replace")
        self.access = [m.groups() for line in access.splitlines() if (m := _ACCESS.search(line))]
        traces = (path.read_text("utf-8") for path in sorted((folder / "llm_traces").iterdir()))
        self.tokens = [
            int(n) for text in traces for n in _TOKENS.findall(text) if int(n) >= _TOKENS_MIN
        ]
        with (folder / "nab" / "realKnownCause" / "nyc_taxi.csv").open(encoding="utf-8") as file:
            rides = [float(row["value"]) for row in csv.DictReader(file)]
        days = [rides[n : n + 48] for n in range(0, 48 * 56, 48)]
        mean = sum(map(sum, days)) / (48 * len(days))
        self.curves = [[value / mean for value in day] for day in days]


def _stamped(path: Path, expression: str, form: str) -> Lines:
    pattern, lines = re.compile(expression), []
    for line in path.read_text("utf-8", "replace").splitlines():
        if match := pattern.match(line):
            moment = datetime.datetime.strptime(f"2004 {match[1]}", f"%Y {form}")
            lines.append((moment.replace(tzinfo=datetime.UTC).timestamp(), match[2]))
    return sorted(lines, key=lambda pair: pair[0])


class World:
    """A number of days, and what is planted after the first of them."""

    def __init__(self, logs: RealLogs, seed: int, days: int, planted: list[Planted]) -> None:
        self._logs, self._dice, self._days = logs, random.Random(seed), days
        self._planted = planted
        first = self._dice.randrange(len(logs.curves) - days)
        self._curves = logs.curves[first : first + days]

    def events(self) -> list[Event]:
        """All events, in order of time."""
        syslog = self._logs.syslog
        every: list[Event] = [
            *self._blocks("sshd", self._logs.ssh, 1_800, 0.5),
            *self._blocks("httpd", self._logs.apache, 3_600, 1.0),
            *self._blocks("hdfs", self._logs.hdfs, 3_600, 1.0),
            *self._blocks("syslog", syslog, 60, 4 * 14.5 / len(syslog)),
            *self._access(),
            *self._model_calls(),
            *self._jobs(),
            *self._errors(),
        ]
        return sorted(every, key=lambda event: event["time"])

    def _at(self, moment: float, incident: str, name: str) -> Planted | None:
        """The incident of a moment, if it is of this kind and source."""
        for planted in self._planted:
            is_it = planted.incident == incident and name in planted.causes[0]
            if is_it and planted.start <= moment < planted.end:
                return planted
        return None

    def _moments(self, name: str, moment: float) -> Iterator[float]:
        """The times of an event as the incidents of its source have it: none, or several."""
        if self._at(moment, "silence", name):
            return
        yield moment
        if self._at(moment, "burst", name):
            yield from (moment + self._dice.random() * 20 for _ in range(7))

    def _blocks(self, name: str, lines: Lines, seconds: int, share: float) -> Iterator[Event]:
        """Blocks of a log, one after another, each of as many seconds."""
        blocks: dict[int, Lines] = {}
        for at, text in lines:
            blocks.setdefault(int(at - lines[0][0]) // seconds, []).append((at % seconds, text))
        numbers = range(max(blocks) + (0 if len(blocks) > 2 else 1))
        for begin in range(START, START + self._days * DAY, seconds):
            for offset, text in blocks.get(self._dice.choice(numbers), ()):
                if self._dice.random() < share:
                    for moment in self._moments(name, begin + offset):
                        yield {"type": "log", "source": name, "time": moment, "message": text}

    def _by_day(self, rate: float) -> Iterator[float]:
        """Moments that go by the curve of each day, `rate` a minute in the mean."""
        moment = float(START)
        while moment < START + self._days * DAY:
            curve = self._curves[int(moment - START) // DAY]
            moment += self._dice.expovariate(rate * curve[int(moment % DAY) // 1_800] / MINUTE)
            yield moment

    def _access(self) -> Iterator[Event]:
        for number, at in enumerate(self._by_day(6.0)):
            request, status, size = self._logs.access[number % len(self._logs.access)]
            for moment in self._moments("web", at):
                yield {
                    "type": "access",
                    "source": "web",
                    "time": moment,
                    "level": "ERROR" if status[0] == "5" else "INFO",
                    "message": request[:200],
                    "data": {"status": int(status), "bytes": int(size) if size != "-" else 0},
                }

    def _model_calls(self) -> Iterator[Event]:
        for at in self._by_day(4.0):
            tokens = round(self._dice.choice(self._logs.tokens) * self._dice.lognormvariate(0, 0.2))
            ms = 400 * self._dice.lognormvariate(0, 0.4)
            if creep := self._at(at, "creep", "ms"):
                ms *= 1 + 2 * (at - creep.start) / (creep.end - creep.start)
            if self._at(at, "cost", "cost"):
                tokens *= 8
            for moment in self._moments("agent", at):
                data = {"tokens": tokens, "cost": tokens * 3e-6, "ms": round(ms, 1)}
                yield {"type": "llm_call", "source": "agent", "time": moment, "data": data}

    def _jobs(self) -> Iterator[Event]:
        for number, begin in enumerate(range(START, START + self._days * DAY, 600)):
            end = begin + self._dice.uniform(60, 240)
            for name in ("batch", "cron"):
                is_lost = self._at(begin, "missing end", name) or self._at(begin, "stuck job", name)
                for moment in (begin + self._dice.random() * 5, None if is_lost else end):
                    if moment is not None:
                        yield self._step(name, number, moment, is_end=moment == end)

    def _step(self, name: str, number: int, moment: float, *, is_end: bool) -> Event:
        event: Event = {"source": name, "time": moment}
        if name == "batch":
            type_ = "job_end" if is_end else "job_start"
            return event | {"type": type_, "subject": f"job{number}", "message": f"job {number}"}
        action = "closed" if is_end else "opened"
        text = next(text for text in self._logs.cron[number % 9 :] if action in text)
        return event | {"type": "log", "message": text}

    def _errors(self) -> Iterator[Event]:
        for number, planted in enumerate(self._planted):
            if planted.incident != "new error":
                continue
            moment = planted.start
            while moment < planted.end:
                text = _NEW_ERRORS[number % len(_NEW_ERRORS)].format(n=self._dice.randrange(9_999))
                yield {
                    "type": "log",
                    "source": planted.causes[1],
                    "time": moment,
                    "level": "ERROR",
                    "message": text,
                }
                moment += self._dice.expovariate(2 / MINUTE)


def plan(seed: int, first_day: int, days: int, kinds: list[str]) -> list[Planted]:
    """Return incidents at random times, one after another with hours between them."""
    dice = random.Random(f"plan {seed}")
    slot = days * DAY / max(len(kinds), 1)
    return [
        _PLANS[kind](dice, START + first_day * DAY + slot * number + dice.random() * slot * 0.3)
        for number, kind in enumerate(kinds)
    ]


def _busy(kind: str) -> Callable[[random.Random, float], Planted]:
    def planned(dice: random.Random, start: float) -> Planted:
        # Those that are neither silent for minutes nor burst by themselves, as sshd does.
        name = dice.choice(("web", "web", "syslog", "agent", "agent"))
        return Planted(kind, start, start, start + dice.uniform(20, 60) * MINUTE, (name,))

    return planned


def _new_error(dice: random.Random, start: float) -> Planted:
    name = dice.choice(("web", "httpd", "hdfs", "syslog"))
    causes = ("errors of", name, "pool", "no space", "certificate", "out of memory")
    return Planted("new error", start, start, start + dice.uniform(20, 40) * MINUTE, causes)


def _creep(dice: random.Random, start: float) -> Planted:
    length = dice.uniform(90, 180) * MINUTE
    # It can be seen once it is half as much again as usual; at its end it is three times.
    return Planted("creep", start, start + length / 4, start + length, ("ms of llm_call",))


def _cost(dice: random.Random, start: float) -> Planted:
    end = start + dice.uniform(20, 60) * MINUTE
    return Planted("cost", start, start, end, ("cost of llm_call", "tokens of llm_call"))


def _lost_ends(kind: str, length: float) -> Callable[[random.Random, float], Planted]:
    def planned(dice: random.Random, start: float) -> Planted:
        start = start // 600 * 600
        # The longest job takes four minutes.
        return Planted(kind, start, start + 240, start + length, (dice.choice(("batch", "cron")),))

    return planned


_PLANS: dict[str, Callable[[random.Random, float], Planted]] = {
    "burst": _busy("burst"),
    "silence": _busy("silence"),
    "new error": _new_error,
    "creep": _creep,
    "stuck job": _lost_ends("stuck job", 600),
    "cost": _cost,
    "missing end": _lost_ends("missing end", 3_600),
}
KINDS = tuple(_PLANS)
