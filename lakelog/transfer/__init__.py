"""Snapshots that travel: remotes, signatures and proofs, and recipes of deployments."""
