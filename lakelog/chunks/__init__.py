"""A directory as chunks that are stored once and an index: the files, and how they are read."""
