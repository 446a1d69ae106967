"""What several tests use: lakelog as a process."""

from __future__ import annotations

import os

from tests.support.tree import ROOT


def environment(**more: str) -> dict[str, str]:
    """The environment of a process: this package, and nothing of the user's lakelog."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LAKELOG_")}
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        kept.pop(name, None)
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm", **more}
