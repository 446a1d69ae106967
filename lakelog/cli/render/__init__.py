"""What the command line writes: tables, formats, progress, and whether there is a terminal."""
