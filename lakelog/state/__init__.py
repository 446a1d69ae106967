"""Saved directories: captured, listed, compared, restored."""
