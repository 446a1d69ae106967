"""Snapshots that travel: signatures, and proofs that an event is in a signed snapshot."""
