"""SQL that reads columns of events from the zstd frames of a WAL, without making rows of them."""

from __future__ import annotations

from collections.abc import Iterable

from lakelog import sql

TIMES = ("time", "timestamp", "ts", "@timestamp")
COLUMNS = (
    ("type", "event_type"),
    ("category", "content_type"),
    ("source",),
    ("subject", "item_id"),
    ("level",),
    ("message",),
    ("id",),
    ("key",),
)
"""The members of a line that name a column, the first that is there and not null."""
_MEMBERS = {"time": TIMES, **{names[0]: names for names in COLUMNS}}
SCANNED = frozenset(_MEMBERS) - {"key", "id"}
"""The columns that `scan_sql` can read: identities need more, and a payload its own spelling."""
_READ_LEAST = 1 << 20
"""The engine reads twice as many bytes at a time."""


def scan_sql(files: list[str], line_max: int, columns: Iterable[str]) -> str:
    """Return SQL for columns among SCANNED of the events in files of frames, in order.

    Each file is frames' zstd frames one after the other; no line has more than `line_max` bytes.
    Unlike `events`, the engine parses payloads: it may fail where they are unusual.
    """
    members = {column: _MEMBERS[column] for column in sorted(columns)}
    types = ", ".join(f"'{name}': 'VARCHAR'" for names in members.values() for name in names)
    values = ", ".join(
        f"""coalesce({", ".join(map(sql.identifier, names))})"""
        f"""{"::TIMESTAMPTZ" if column == "time" else ""} AS {column}"""
        for column, names in members.items()
    )
    names = ", ".join(map(sql.literal, files))
    return (
        # Of a single column the engine would look first whether lines are objects, in all files.
        f"SELECT {values} FROM read_json([{names}], format = 'newline_delimited', records = true,"
        f" compression = 'zstd', maximum_object_size = {max(line_max, _READ_LEAST)},"
        f" columns = {{{types}}})"
    )
