"""The SQL shell: statements, line editing, completion and what the screen shows."""
