"""`python -m lakelog` is the command line."""

from __future__ import annotations

from lakelog.cli import main

if __name__ == "__main__":
    main()
