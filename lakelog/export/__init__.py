"""Rows as files for other tools: `lake.export`, `lakelog export`, and what results look like."""
