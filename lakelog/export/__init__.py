"""Rows as files for other tools: `lake.export` and `lakelog export`."""
