"""What was erased from a lake, what is refused since, and where the rows of the lake went."""
