"""Folding of entries: a later one hides an earlier one of its key."""

from __future__ import annotations

from lakelog.entries import Entry, Removal


def fold(runs: list[tuple[Entry, ...]], oldest: bool) -> tuple[Entry, ...]:
    """Merge runs of entries, oldest first: the newest entry of a key wins. The `oldest` run of a
    manifest needs no tombstones."""
    newest: dict[tuple[str, str], Entry] = {}
    for run in runs:
        for entry in run:
            key = (entry.what, entry.key)
            # A dict keeps the place of a key that is set again; live entries go by the last `add`.
            newest.pop(key, None)
            newest[key] = entry
    # Below any other page a tombstone may still hide something, so only the oldest run drops it.
    return tuple(e for e in newest.values() if not (oldest and isinstance(e, Removal)))
