"""The SQL by which the engine reads Parquet files, and how it is told which."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from lakelog import sql
from lakelog.database import block_ranges
from lakelog.errors import InvalidName
from lakelog.keys import VAULT
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    from lakelog.database import engine_files
else:
    engine_files = Lazy("lakelog.database.engine_files")

_WILDCARD = re.compile(r"[*?\[]")


def parquet_sql(paths: Iterable[str], *options: str, between: str = ", ") -> str:
    """Return the table function that reads exactly these Parquet files, in this order.

    Raises InvalidName for a path that the engine cannot be given.
    """
    literals = between.join(sql.literal(file_pattern(path)) for path in paths)
    # DuckDB 2.0 takes a directory named `type=web` for a partition, and its name for the value of
    # every row's column `type`.
    settings = ", ".join(("hive_partitioning = false", *options))
    return f"read_parquet([{literals}], {settings})"


def file_pattern(path: str) -> str:
    """Return the pattern that matches this file alone, as DuckDB takes every path for a pattern.

    Raises InvalidName for a path with both a wildcard and a backslash, which has none.
    """
    path = engine_files.engine_name(path) if VAULT.lakes or block_ranges.OPEN else path
    if not _WILDCARD.search(path):
        return path
    if "\\" in path:
        raise InvalidName(
            f"{path!r}: the SQL engine cannot read a path with both a backslash and one of * ? [;"
            " rename the directory"
        )
    return _WILDCARD.sub(lambda match: f"[{match[0]}]", path)
