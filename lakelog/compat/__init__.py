"""The older systems under their own names; nothing but the command line imports this."""
