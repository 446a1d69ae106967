"""Peers: the same work on the same events by each of them, the way its own pages say is fastest.

A peer is a module with a class `Peer`; `work.py` runs one piece of work on one peer in a process
of its own, `compare.py` runs all of them in turn and prints the tables. `DURABLE` says what is on
the medium when a commit returns; where a peer has the choice, it syncs.
"""

NAMES = (
    "lakelog", "duckdb_table", "duckdb_copy", "sqlite", "deltalake", "pyiceberg", "lance", "chdb",
)  # fmt: skip
