"""Output of the command line: tables, formats, progress, and terminal detection."""
