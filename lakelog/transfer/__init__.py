"""Snapshots that travel: saved directories, remotes, signatures and proofs, deployments."""
