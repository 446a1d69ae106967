"""How rows are files, and files rows."""
