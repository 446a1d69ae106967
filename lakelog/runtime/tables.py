"""Data beside the modules that read it: tables in TOML, and other texts."""

from __future__ import annotations

import os.path
import sys
from typing import TYPE_CHECKING, Any, cast

from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import tomllib
    from importlib.abc import SourceLoader
else:
    tomllib = Lazy("tomllib")


class ModuleFiles:
    """The files beside a module; `module` is its `__file__`."""

    def __init__(self, module: str) -> None:
        self._folder = os.path.dirname(module)

    def text(self, name: str) -> str:
        """Return the text of a file. Raises OSError."""
        # By what has loaded the package, which may be in a zip file. Without pathlib, which would
        # take longer to load than the text.
        loader = cast("SourceLoader", sys.modules[__name__].__loader__)
        return loader.get_data(os.path.join(self._folder, name)).decode()

    def tables(self, name: str) -> dict[str, Any]:
        """Return the tables of a file, in their order. Raises TOMLDecodeError, OSError."""
        return tomllib.loads(self.text(name))
