"""The SQL shell: statements, line editing, completion and output."""
