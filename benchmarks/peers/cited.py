"""Figures that others published. None was measured here, on this machine or with these events."""

from __future__ import annotations

CITED = (
    (
        "DuckLake",
        "100 appends of 1,000 rows 1.1 s, pyiceberg 9.1 s; scan after 0.02 and 0.63 s; local",
        "ducklake-dataframe project page; third party, 4-core ARM",
    ),
    (
        "DuckLake",
        "30,000 batches of 10 rows in 375 s, inlined in the catalog (12.5 ms a commit)",
        "ducklake.select, 2026-04-02; vendor, c7g.2xlarge, PostgreSQL catalog, S3",
    ),
    (
        "DuckLake against Iceberg",
        "1,000 batches of 10 rows 10.9 s and 1,149 s",
        "the same; Iceberg by pyiceberg and Polaris",
    ),
    ("Vector", "file to TCP 76.7 MiB/s", "Vector's README, old; vendor, not a core"),
    ("Fluent Bit", "file to TCP 35 MiB/s", "Vector's README, old; by a rival, not a core"),
    (
        "VictoriaLogs 1.17",
        "121.7 bytes an event and 6 to 52 ms a query, 1 M events of 482 bytes",
        "JSONBench, published results of November 2025",
    ),
    (
        "VictoriaLogs 1.26",
        "3.64 µs of processor time an event by HTTP, storage included; it answers before its sync,"
        " and after a kill 21,000 answered lines were gone",
        "measured apart from these rows, on a machine of this kind",
    ),
    (
        "ClickHouse 25.11",
        "98.5 bytes an event and 4 to 22 ms a query, the same",
        "JSONBench, published results of November 2025",
    ),
    ("KurrentDB", "15,000 writes/s, 50,000 reads/s", "repeated by a third party, not verified"),
)
