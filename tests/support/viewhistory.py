"""Random histories of a lake whose views are read all along, with the cache lost and damaged."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

import lakelog
from lakelog import views
from lakelog.errors import LakelogError, NothingToUndo
from lakelog.views import catalog
from lakelog.views.engine import Limits, Projector
from tests.support import viewmodel

START = 1_767_225_600_000_000
TYPES = ("DISCOVER", "PROCESS", "COMPLETE", "FAIL", "PING")
AGENTS = {f"item{n}" for n in range(30, 40)}
"""Subjects whose events are those of agents."""
NOW = START + 30 * viewmodel.HOUR
WIDE = {"since": "0001-01-02", "until": "9999-12-30"}
SMALL = Limits(small=12, fold=0.3, layers=2, pieces=2, cells=400, disk_bytes=200_000)


class History:
    """One lake, one seed; `step` does something, `check` compares views with plain answers."""

    erased: frozenset[str] = frozenset()
    """Subjects of which no event may come any more."""

    def __init__(self, path: Path, seed: int, **settings: object) -> None:
        self.path, self.random = path, random.Random(seed)
        given = {"seal": "never", "segment_rows": 400, **settings}
        self.lake = lakelog.open(str(path), settings=given)
        self.tags: list[str] = []
        self.done: list[str] = []
        self.compared = 0

    def step(self) -> None:
        """Do one thing that may happen to a lake."""
        act = self.random.choice(self.acts())
        self.done.append(act.__name__)
        act()

    def acts(self) -> list[Callable[[], Any]]:
        """What may happen, the likelier the oftener it is named."""
        return [
            self.append,
            self.append,
            self.append,
            self.append,
            self.settle,
            self.settle,
            self.compact,
            self.rollback,
            self.undo,
            self.tag,
            self.branch,
            self.retain,
            self.erase,
            self.lose_cache,
            self.damage_cache,
            self.reopen,
            self.define,
            self.ingest,
            self.beside,
            self.beside,
        ]

    def append(self) -> None:
        self.lake.append([self.event() for _ in range(self.random.choice((1, 3, 20, 60)))])

    def event(self) -> dict[str, Any]:
        """An event at a time that is often late, equal to another, or far off."""
        pick = self.random
        minute = pick.choice((pick.randrange(40), pick.randrange(2000), 7, -pick.randrange(10**6)))
        data = {"duration_ms": pick.choice((0, -5, 0.25, pick.randrange(10_000)))}
        if pick.random() < 0.5:
            data["error"] = pick.choice(("", "TimeoutError", "HTTP 503"))
        made = {
            "time": START + minute * 60_000_000,
            "type": pick.choice(TYPES),
            "source": pick.choice(("a", "b", "c", None)),
            "subject": pick.choice((None, *(f"item{n}" for n in range(40)))),
            "category": pick.choice(("podcast", "podcast", "ai", None)),
            "data": data,
        }
        made["time"] = _iso(made["time"])
        if made["subject"] in self.erased:
            made["subject"] = None
        if made["subject"] in AGENTS:
            made |= agent_event(made)
        return {k: v for k, v in made.items() if v is not None}

    def settle(self) -> None:
        self.lake.settle()

    def compact(self) -> None:
        self.lake.compact()

    def ingest(self) -> None:
        """Rows that become a segment while others wait in the tail."""
        path = self.path.with_name(f"{self.path.name}-{len(self.done)}.jsonl")
        lines = [orjson.dumps(self.event()) for _ in range(self.random.choice((1, 30)))]
        path.write_bytes(b"\n".join(lines) + b"\n")
        self.lake.ingest(str(path))

    def beside(self) -> None:
        """Another process appends, and seals or compacts, between two of our reads."""
        with lakelog.open(str(self.path), create=False, branch=self.lake.branch_name) as other:
            for _ in range(self.random.choice((1, 2))):
                other.append([self.event() for _ in range(self.random.choice((1, 25)))])
                other.settle()
            self.random.choice((other.count, other.compact, other.compact))()

    def tag(self) -> None:
        name = f"t{len(self.tags)}"
        self.lake.tag(name)
        self.tags.append(name)

    def rollback(self) -> None:
        if self.tags:
            self.lake.rollback(self.random.choice(self.tags))

    def undo(self) -> None:
        with contextlib.suppress(NothingToUndo):
            self.lake.undo(force=True)

    def branch(self) -> None:
        name = f"b{len(self.done)}"
        ref = self.random.choice([None, *self.tags])
        self.lake.branch(name, ref).close()
        self.open(self.random.choice((name, "main")))

    def retain(self) -> None:
        if self.random.random() < 0.3:
            self.lake.retention(f"{self.random.randrange(1, 600)}d", apply=True)

    def erase(self) -> None:
        if self.random.random() < 0.3:
            subject = f"item{self.random.randrange(40)}"
            self.erased |= {subject}
            self.lake.erase(subject=subject, why="asked")

    def lose_cache(self) -> None:
        shutil.rmtree(self.path / "cache" / "views", ignore_errors=True)

    def damage_cache(self) -> None:
        self.lake._views.engine.background_writer.drain()
        for file in sorted((self.path / "cache" / "views").rglob("*")):
            if file.is_dir() or self.random.random() < 0.3:
                continue
            data = bytearray(file.read_bytes())
            if self.random.random() < 0.3:
                file.write_bytes(data[: self.random.randrange(len(data))])
            else:
                data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
                file.write_bytes(data)

    def reopen(self) -> None:
        self.open(self.lake.branch_name)

    def define(self) -> None:
        """A move that changes no event."""
        self.lake.snapshot("nothing new")

    def open(self, branch: str) -> None:
        """Open the lake anew, as another process would."""
        self.lake.close()
        self.lake = lakelog.open(str(self.path), create=False, branch=branch)
        session = self.lake._session
        self.lake._views._engine = Projector(
            self.lake.store, session.connect(), session.tables, SMALL
        )

    def check(self, count: int = 3) -> None:
        """Compare some views of the present, or of an older state, with plain answers."""
        old = self.random.choice(self.tags) if self.tags and self.random.random() < 0.3 else None
        state = self.lake.at(old) if old else self.lake
        rows = viewmodel.events(state)
        for name in self.random.sample(catalog.BUILT_IN, count):
            try:
                kept = views.read(state, name, now=NOW)
                cut = views.read(state, name, now=NOW, **WIDE)
            except LakelogError as error:
                if "no event has the field" not in str(error):
                    raise AssertionError(name, self.done) from error
                continue
            assert plain(kept) == plain(cut), (name, self.done)
            if name in viewmodel.MODEL:
                mine = sorted(viewmodel.given(name, kept), key=str)
                assert mine == sorted(viewmodel.MODEL[name](rows), key=str), (name, self.done)
            self.compared += 1

    def close(self) -> None:
        """Let go of the lake."""
        self.lake.close()


def run(path: Path, seed: int, steps: int = 16) -> int:
    """Live through one history; return how many answers were compared."""
    history = History(path, seed)
    history.open("main")
    try:
        for _ in range(steps):
            history.step()
            if history.random.random() < 0.4:
                history.reopen()
            if history.random.random() < 0.6:
                history.check()
        history.check(6)
    finally:
        history.close()
    return history.compared


def plain(table: Any) -> list[str]:
    """Rows as text, floats to 9 digits: sums of floats depend on their order."""
    return [
        repr([float(f"{v:.9g}") if isinstance(v, float) else v for v in row.values()])
        for row in table.to_pylist()
    ]


def agent_event(made: dict[str, Any]) -> dict[str, Any]:
    """Type and data of an event as agents record them, of one that was made up."""
    kind, name, data = made["type"], made["subject"], made["data"]
    error, number = data.get("error"), int(data["duration_ms"])
    if kind == "FAIL":
        choice = {"decision_id": name, "decision_point": "route", "chosen": made["source"]}
        return {"type": "decision", "data": {"details": choice | {"confidence": number}}}
    if kind == "PING":
        return {
            "type": "outcome",
            "data": {"decision_id": name, "outcome": error, "reward": number},
        }
    fields: dict[str, Any] = {"gen_ai.operation.name": "chat", "gen_ai.request.model": name[:5]}
    call = {"type": "tool_call", "id": name, "name": "search", "arguments": {"n": number}}
    reply = {"type": "tool_call_response", "id": name, "response": number}
    if kind == "COMPLETE":
        fields = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.id": name}
    elif kind == "PROCESS":  # as text, as the SDK of OpenTelemetry has it
        messages = [{"role": "user", "parts": []}, {"role": "tool", "parts": [reply]}]
        fields["gen_ai.input.messages"] = orjson.dumps(messages).decode()
    else:
        fields["gen_ai.output.messages"] = [{"role": "assistant", "parts": [call]}]
        fields["gen_ai.usage.input_tokens"] = number
    status = {"code": 2, "message": error} if error else {}
    fields |= {"error.type": error} if error else {}
    return {"type": "span", "data": {"name": name, "attributes": fields, "status": status}}


def _iso(micros: int) -> str:
    from lakelog.values import from_micros

    return from_micros(micros).isoformat()
