"""Safety tags: the state that a branch left by a rollback, under a name of its time.

The newest of each machine are kept, with the documents of their rollbacks; cache/safety.jsonl says
in which order this machine made them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import orjson

from lakelog.disk import File
from lakelog.errors import Damaged, UnknownRef
from lakelog.history import remove_tag
from lakelog.paths import encode_name
from lakelog.state import origin
from lakelog.store import Machine, Store

KEPT = 24
"""So many safety tags are kept, and as many documents of rollbacks."""
_KIND = "before-rollback"
_SAFETY = re.compile(_KIND + r"-\d{8}-\d{6}(-[0-9a-f]{6})?(-\d+)?")
_LEDGER_LINES = 8 * KEPT


class SafetyTags:
    """The safety tags of a lake."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ledger = f"{store.paths.cache}/safety.jsonl"

    def names(self, time: int) -> Iterator[str]:
        """Yield names for a safety tag of a time, the second and later ones with a number."""
        # Two machines that save states of one remote must not give the same name.
        end = origin.suffix(self._store, Machine.settle(self._store.paths).id)
        stamp = next(origin.stamps(_KIND, time, end))
        # Above all that there are: a pruned name would count as the oldest when taken again.
        names = self._store.refs.tag_names()
        suffixes = [name.removeprefix(stamp) for name in names if name.startswith(stamp)]
        numbers = [int(suffix[1:] or 1) for suffix in suffixes if re.fullmatch(r"(-\d+)?", suffix)]
        return origin.stamps(_KIND, time, end, max(numbers, default=0) + 1)

    def note(self, name: str) -> None:
        """Note that this machine made a safety tag: their order is that of the notes."""
        line = orjson.dumps({"machine": Machine.settle(self._store.paths).id, "tag": name}) + b"\n"
        with contextlib.suppress(OSError):  # then it stays until somebody deletes it
            File(self._ledger).append(line)

    def prune(self) -> None:
        """Delete all but the newest safety tags of this machine, with their documents."""
        own, tag_names = Machine.read(self._store.paths), set(self._store.refs.tag_names())
        try:
            lines = File(self._ledger).read().splitlines()
        except FileNotFoundError:
            return
        dropped = dict[str, None]()
        for line in lines:
            # Torn by a power cut.
            with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
                note = orjson.loads(line)
                if (
                    note["machine"] in own.keys
                    and note["tag"] in tag_names
                    and _SAFETY.fullmatch(note["tag"])
                ):
                    # A later line of the same tag counts.
                    dropped.pop(note["tag"], None)
                    dropped[note["tag"]] = None
        # The newest stay, by the order of the notes and not by the clock.
        for name in list(dropped)[:-KEPT]:
            # Another process may have deleted it, and a damaged one is for verify.
            with contextlib.suppress(UnknownRef, Damaged):
                remove_tag(self._store, name)
            File(f"{self._store.paths.rollbacks}/{encode_name(name)}.json").remove()
        # Lines of tags that are gone make the file longer for nothing.
        if len(lines) > _LEDGER_LINES:
            notes = [{"machine": own.id, "tag": name} for name in list(dropped)[-KEPT:]]
            content = b"".join(orjson.dumps(note) + b"\n" for note in notes)
            File(self._ledger).keep(content)
