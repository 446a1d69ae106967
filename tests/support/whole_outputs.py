"""What the random histories of all entrances ask of answers that are kept: tables of others, views,
states of folds and templates, each brought up to date where it stood in another state before."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deltalake
import duckdb

from lakelog.folds import Fold
from lakelog.open_tables import publish_delta
from lakelog.views import LakeViews
from tests.support import cli
from tests.support.whole_model import SUBJECTS, TYPES, Event, State, same

if TYPE_CHECKING:
    from random import Random

VIEW = """-- map
SELECT subject, count(*) AS events, max((data->>'n')::INT) AS newest FROM segment
WHERE data->>'n' IS NOT NULL GROUP BY subject
-- merge
SELECT subject, sum(events)::BIGINT AS events, max(newest) AS newest FROM partials GROUP BY subject
-- finish
SELECT subject, events, newest FROM state
"""
NUMBERS: Fold[int] = Fold(
    "numbers",
    lambda: 0,
    dict.fromkeys(("COMPLETE", "FAIL", "note"), lambda sum_, event: sum_ + event.data["n"]),
)


class Outputs:
    """Steps and questions of a history (`whole_history`), which has what is named here."""

    if TYPE_CHECKING:
        home: Path
        path: str
        dice: Random
        lake: Any
        state: State
        hidden: list[str]

        def events(self, most: int = 4) -> list[Event]:
            """New events."""

    # --- steps ---

    def do_append_awaited(self) -> None:
        """Append from two tasks of an event loop."""
        events = self.events(2), self.events(2)

        async def both() -> None:
            await asyncio.gather(
                *(self.lake.aappend([event.record for event in some]) for some in events)
            )

        # Which of two events with one id is first is not known.
        names = [(e.source, e.id) for some in events for e in some if e.id is not None]
        if len(set(names)) == len(names):
            asyncio.run(both())
            self.state = self.state.add(*events[0], *events[1])

    def do_quarantine(self) -> None:
        """Ingest a line that is no event, and try to parse what is in quarantine again."""
        path = self.home / "bad.jsonl"
        with path.open("a") as file:
            file.write(f'{{"n": {len(str(path))}, "word": "secret"\n')
        self.lake.ingest(path)
        cli.run(self.path, "--branch", self.lake.branch_name, "quarantine", "replay")

    def do_rotate_key(self) -> None:
        """Give an encrypted lake a new data key."""
        if self.lake.store.paths.keys is not None:
            cli.run(self.path, "key", "rotate", "--data")

    # --- questions ---

    def ask_synced(self) -> None:
        """Bring a table of SQLite or DuckDB up to date, and read it."""
        scheme = self.dice.choice(["sqlite", "duckdb"])
        mode = self.dice.choice(["upsert", "append", "replace"])
        branch, path = self.lake.branch_name, f"{self.home}/synced.{scheme}"
        table = f"{mode}_{branch}"
        queries = dict.fromkeys(("upsert", "append"), "SELECT data->>'n' AS n, source FROM events")
        queries["replace"] = "SELECT count(data->>'n') AS n, source FROM events GROUP BY source"
        words = ("--once", "--table", table, "--mode", mode, "--query", queries[mode])
        cli.run(self.path, "--branch", branch, "sync", f"{scheme}:{path}", *words)
        if mode == "upsert":
            # Of this table: another that was not synced since an erasure has rows too many.
            words = ("sync", "check", f"{scheme}:{path}", "--table", table)
            cli.run(self.path, "--branch", branch, *words)
        base = sqlite3.connect(path) if scheme == "sqlite" else duckdb.connect(path)
        with closing(base):
            rows = base.execute(f"SELECT n, source FROM {table}").fetchall()
        events = self.state.events
        found = Counter((int(n), source) for n, source in rows if n is not None and int(n))
        wanted = Counter((event.number, event.source) for event in events)
        if mode == "replace":
            sources = Counter(event.source for event in events)
            wanted = Counter((count, source) for source, count in sources.items())
        same(found, wanted, (scheme, mode))

    def ask_published(self) -> None:
        """Bring a Delta table up to date, and read it; of protected lakes there is none."""
        paths = self.lake.store.paths
        if paths.keys is not None or paths.protection is not None:
            return
        target = str(self.home / f"delta-{self.lake.branch_name}")
        publish_delta(self.lake, target)
        found = deltalake.DeltaTable(target).to_pyarrow_table(columns=["message"])
        messages = [m for m in found["message"].to_pylist() if m and " tok" in m]
        same(Counter(messages), Counter(event.message for event in self.state.events), "delta")

    def ask_own_view(self) -> None:
        """Ask a view of the lake, which is created where the state has none."""
        views = LakeViews(self.lake)
        if "by_subject" not in {definition.name for definition, _ in views.listed()}:
            views.create("by_subject", VIEW)
        wanted: dict[str | None, tuple[int, int]] = {}
        for event in self.state.events:
            events, newest = wanted.get(event.subject, (0, 0))
            wanted[event.subject] = events + 1, max(newest, event.number)
        rows = self.lake.view("by_subject").to_pylist()
        same({row["subject"]: (row["events"], row["newest"]) for row in rows}, wanted, "view")

    def ask_folded(self) -> None:
        """Fold the events of each subject, from the state that was saved last."""
        for subject in SUBJECTS[:-1]:
            wanted = sum(event.number for event in self.state.events if event.subject == subject)
            same(NUMBERS.of(self.lake, subject).state, wanted, subject)

    def ask_templates(self) -> None:
        """Count the events of the templates of messages."""
        found = Counter[str]()
        for template, count in self.lake.sql("SELECT template, count FROM patterns").fetchall():
            word = template.split()[0]
            if word in {f"{type_.lower()}ing" for type_ in TYPES}:
                found[word] += count
        same(found, Counter(event.message.split()[0] for event in self.state.events), "templates")
