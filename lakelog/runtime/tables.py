"""Tables: TOML files beside the modules that read them."""

from __future__ import annotations

import os.path
from typing import TYPE_CHECKING, Any

from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import tomllib
else:
    tomllib = Lazy("tomllib")


def tables_beside(module: str, name: str) -> dict[str, Any]:
    """Return the tables of a file beside a module, in their order; `module` is its `__file__`.

    Raises TOMLDecodeError, OSError.
    """
    # Without pathlib, which would take longer to load than the tables.
    with open(os.path.join(os.path.dirname(module), name), "rb") as file:
        return tomllib.load(file)
