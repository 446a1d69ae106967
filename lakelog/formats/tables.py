"""Tables of formats: TOML files beside the modules that make formats of them."""

from __future__ import annotations

import os.path
import tomllib
from typing import Any


def read_tables(path: str) -> dict[str, Any]:
    """Return the tables of a file in their order. Raises TOMLDecodeError, OSError."""
    with open(path, "rb") as file:
        return tomllib.load(file)


def path_beside(module: str, name: str) -> str:
    """The path of a file beside a module; pathlib would take longer to load than the tables."""
    return os.path.join(os.path.dirname(module), name)
