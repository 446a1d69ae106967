"""What the random histories of all entrances ask at the edges of a lake: recorded events are given
out again, and events are found among others or by rank."""

from __future__ import annotations

import json
from collections import Counter
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lakelog.errors import LakelogError
from tests.support import cli
from tests.support.search_states import places_near
from tests.support.whole_model import TYPES, State, same

if TYPE_CHECKING:
    from random import Random


class Edges:
    """Questions of a history (`whole_history`), which has what is named here."""

    if TYPE_CHECKING:
        path: str
        dice: Random
        lake: Any
        log: list[str]
        state: State

    # --- questions ---

    def ask_neighbours(self) -> None:
        """Show the events of one type among those of their source."""
        kind, size = self.dice.choice(TYPES), self.dice.randrange(3)
        query = "SELECT seq, source, (data->>'n')::INT, starts_with(message, ?) FROM events"
        rows = self.lake.sql(f"{query} ORDER BY seq", [f"{kind.lower()}ing "]).fetchall()
        wanted = set[int]()
        for source in {row[1] for row in rows}:
            beside = [row for row in rows if row[1] == source]
            hits = [place for place, row in enumerate(beside) if row[3]]
            wanted |= {beside[place][0] for place in places_near(hits, size, size, len(beside))}
        words = ("search", f"{kind.lower()}ing", "-C", str(size), "--all", "--format", "ndjson")
        shown = cli.run(self.path, "--branch", self.lake.branch_name, *words).stdout.splitlines()
        same(Counter(json.loads(line)["seq"] for line in shown), Counter(wanted), (kind, size))

    def ask_ranked(self) -> None:
        """Search for a word, those first that match best; encrypted lakes have no such index."""
        if find_spec("tantivy") is None or self.lake.store.paths.keys is not None:
            return
        word = f"{self.dice.choice(TYPES).lower()}ing"
        try:
            self.lake.search(word, rank=True)
        except LakelogError:  # of an index that lost files in `do_forget_caches`, which is told
            assert "do_forget_caches" in self.log
        found = self.lake.search(word, rank=True, limit=10_000).to_arrow_table()
        wanted = Counter(e.message for e in self.state.events if e.message.startswith(word))
        same(Counter(found["message"].to_pylist()), wanted, word)

    def ask_replayed(self) -> None:
        """Give all events out again, in the order of their times."""
        words = ("replay", "--speed", "max", "--where", "data->>'n' IS NOT NULL")
        shown = cli.run(self.path, "--branch", self.lake.branch_name, *words).stdout.splitlines()
        events = [json.loads(line) for line in shown]
        same(Counter(e["data"]["n"] for e in events), Counter(e.number for e in self.state.events))
        same([e["time"] for e in events], sorted(e["time"] for e in events), "order")
