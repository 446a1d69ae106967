"""Proof that every line of a file that was ingested is in the lake exactly once."""
