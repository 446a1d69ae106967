"""One file per input format: `format.py` says what one is, `registry.py` lists them."""
