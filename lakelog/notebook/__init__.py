"""lakelog in Jupyter: `%load_ext lakelog`."""
