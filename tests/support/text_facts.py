"""What several tests use: formats of text on real files, against facts counted by other means."""

from __future__ import annotations

import json
from typing import Any

import lakelog
from tests.support.tree import SHARED


def all_facts() -> dict[str, Any]:
    """What is known of every file, nothing where the files are not."""
    if not SHARED.is_dir():
        return {}
    found: dict[str, Any] = json.loads((SHARED / "facts.json").read_text())["files"]
    return found


FACTS = all_facts()


def events(lake: lakelog.Lake) -> list[dict[str, Any]]:
    """All events in the file's order, data parsed."""
    found = lake.sql(
        "SELECT time, type, source, level, message, data FROM events ORDER BY origin, position"
    ).to_arrow_table()
    return [row | {"data": json.loads(row["data"] or "{}")} for row in found.to_pylist()]
