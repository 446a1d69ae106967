"""The SQL engine as lakelog opens it."""

from __future__ import annotations

from pathlib import Path

from lakelog.database import connect
from lakelog.paths import Paths
from lakelog.settings import DEFAULTS


def test_no_statement_has_to_compress_the_tables_of_others(tmp_path: Path) -> None:
    """Tables in memory stay as they were written, however much is written beside them."""
    database = connect(Paths(str(tmp_path)), DEFAULTS)
    columns = "'item-' || i AS subject, 'cat' || i % 5 AS category, i::HUGEINT AS place"
    given = database.sql(f"SELECT {columns} FROM range(300000) t(i)").to_arrow_table()
    database.register("given", given)
    database.execute("CREATE TABLE kept AS FROM given")
    database.unregister("given")
    for number in range(100):
        database.execute(f"CREATE TABLE t{number} AS FROM kept LIMIT 10000")
        database.execute(f"DROP TABLE t{number}")
    stored = database.execute(
        "SELECT DISTINCT compression FROM pragma_storage_info('kept')"
        " WHERE segment_type = 'VARCHAR'"
    ).fetchall()
    assert stored == [("Uncompressed",)]
