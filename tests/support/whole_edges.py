"""What the random histories of all entrances ask at the edges of a lake: recorded events are given
out again, and events are found among others or by rank."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lakelog.analyze import dedupe
from lakelog.errors import LakelogError
from tests.support import cli
from tests.support.search_states import places_near
from tests.support.whole_model import TYPES, Event, State, same

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
        retained: set[Event]

        def _moved(self, target: State) -> None:
            """Note a move that an undo takes back."""

        def _erase(self, chosen: Collection[str | int], **condition: Any) -> None:
            """Erase subjects, or events by their numbers."""

    # --- steps ---

    def do_dedupe(self) -> None:
        """Remove all but the first or the last of the events that are alike."""
        keep, alike = self.dice.choice(["first", "last"]), defaultdict[object, list[Event]](list)
        for event in sorted(self.state.events, key=lambda event: (event.time, event.number)):
            if event.subject is not None:
                alike[event.type, event.subject, event.shard].append(event)
        if self.dice.random() < 0.5 or not alike:
            return
        kept = {events[0 if keep == "first" else -1] for events in alike.values()}
        doubled = {event for events in alike.values() for event in events} - kept
        gone = frozenset(event for event in doubled if event.number not in self._versioned())
        removal = dedupe.plan(self.lake, ["type", "subject", "data.shard"], keep)
        same(len(removal), len(gone), "dedupe")
        dedupe.apply(self.lake, removal)
        if gone:
            self.retained |= gone
            self._moved(self.state.without(gone))

    def do_erase_events(self) -> None:
        """Erase an event or two by a condition: they are gone from every state, and refused."""
        numbers = {event.number for event in self.state.events if event.id is None}
        numbers -= self._versioned()
        if self.dice.random() < 0.3 and len(numbers) > 2:
            chosen = self.dice.sample(sorted(numbers), 2)
            listed = ", ".join(map(str, chosen))
            self._erase(chosen, where=f"(data->>'n')::INT IN ({listed})")

    def _versioned(self) -> set[int]:
        return {number for _, numbers in self.state.streams for number in numbers}

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
