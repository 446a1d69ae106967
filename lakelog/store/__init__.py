"""The lake's files and the rules by which processes that share only a directory agree."""
