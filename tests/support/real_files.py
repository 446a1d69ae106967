"""What several tests use: real data."""

from __future__ import annotations

import json
from typing import Any

from tests.support.tree import SHARED as DATA

FACTS: dict[str, dict[str, Any]] = (
    json.loads((DATA / "facts.json").read_text("utf-8"))["files"] if DATA.is_dir() else {}
)
