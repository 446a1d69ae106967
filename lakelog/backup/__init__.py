"""Backups of watched files: made, listed, pruned by count and age, verified and restored."""
