"""An engine of its own for one export or check: in memory, offline, bounded, able to spill."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakelog.settings import Settings
from lakelog.store import engine
from lakelog.store.layout import Layout
from lakelog.train.selecting import text_of

if TYPE_CHECKING:
    import duckdb

MEMORY_BYTES = 500_000_000
"""Most that each of an export's two engines may take; rows beyond it spill."""


def connect(spill: str, memory_bytes: int = MEMORY_BYTES) -> duckdb.DuckDBPyConnection:
    """Return a database that spills below `spill`."""
    made = engine.connect(Layout(spill), Settings(memory_bytes=memory_bytes))
    made.execute(f"SET temp_directory = {text_of(spill + '/spill')}")
    return made


def parquet(paths: list[str], numbered: bool = False) -> str:
    """Return SQL that reads Parquet files in order."""
    listed = ", ".join(map(text_of, paths))
    return f"read_parquet([{listed}]{', file_row_number = true' if numbered else ''})"
