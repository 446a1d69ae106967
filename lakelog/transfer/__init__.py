"""Snapshots that travel: signatures and proofs, and recipes of deployments."""
