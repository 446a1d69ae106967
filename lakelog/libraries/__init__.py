"""DuckDB, Arrow and NumPy, each loaded when it is first used: all three take a quarter of a second.

Modules take their names from here, and a type checker sees the libraries themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
else:
    duckdb, np, pa = Lazy("duckdb"), Lazy("numpy"), Lazy("pyarrow")
    pc, pq = Lazy("pyarrow.compute"), Lazy("pyarrow.parquet")

__all__ = ["duckdb", "np", "pa", "pc", "pq"]
