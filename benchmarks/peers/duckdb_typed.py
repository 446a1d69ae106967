"""DuckDB, COPY to one Parquet file whose payloads are structs, as those of a lake are."""

from __future__ import annotations

from benchmarks.peers import duckdb_copy, sql


class Peer(duckdb_copy.Peer):
    """A Parquet file with typed payloads."""

    reading, questions = sql.READ_TYPED, sql.TYPED
