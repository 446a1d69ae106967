"""DuckDB, Arrow, NumPy and what draws, each loaded when it is first used: the first three take a
quarter of a second.

Modules take their names from here, and a type checker sees the libraries themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import altair as alt
    import duckdb
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    import vl_convert
    from rich import cells as rich_cells
else:
    duckdb, np, pa = Lazy("duckdb"), Lazy("numpy"), Lazy("pyarrow")
    pc, pq = Lazy("pyarrow.compute"), Lazy("pyarrow.parquet")
    alt, vl_convert = Lazy("altair"), Lazy("vl_convert")
    rich_cells = Lazy("rich.cells")

Booleans: TypeAlias = "npt.NDArray[np.bool_]"
Floats: TypeAlias = "npt.NDArray[np.float64]"
Integers: TypeAlias = "npt.NDArray[np.int64]"

__all__ = [
    "Booleans",
    "Floats",
    "Integers",
    "alt",
    "duckdb",
    "np",
    "pa",
    "pc",
    "pq",
    "rich_cells",
    "vl_convert",
]
