"""Elasticsearch _bulk: an action line, then its document; `_id` is the id, `_index` the category.

`index` and `create` bring a document, `update` one under `doc`; `delete` brings none and is no
event. Actions and documents are paired line by line, the documents then read as JSON lines.
"""

from __future__ import annotations

from typing import Any

from lakelog.errors import InvalidEvent
from lakelog.event import parse_line
from lakelog.ingest.formats import jsonl

NAME = "bulk"
ACTIONS = ("index", "create", "update", "delete")


def sniff(lines: list[bytes]) -> float:
    """Say how sure it is that these are pairs of a _bulk request."""
    full = [line for line in lines if line.strip()]
    if full and full[0].split(b" ")[0] in (b"POST", b"PUT"):
        full = full[1:]
    return 1.1 if full and action_of(full[0]) else 0.0


def action_of(line: bytes) -> tuple[str, dict[str, Any]] | None:
    """Return (action, its properties) of an action line."""
    start = line.lstrip()[:12].replace(b" ", b"")
    if not start.startswith((b'{"index"', b'{"create"', b'{"update"', b'{"delete"')):
        return None
    try:
        value = parse_line(line)
    except InvalidEvent:
        return None
    if len(value) != 1:
        return None
    name, properties = next(iter(value.items()))
    return (name, properties) if name in ACTIONS and isinstance(properties, dict) else None


def parse(line: bytes) -> dict[str, Any]:
    """Return the event of one document. Raises InvalidEvent."""
    return jsonl.parse(line)


def joined(action: tuple[str, dict[str, Any]], line: bytes) -> dict[str, Any]:
    """Return the event of a document under its action. Raises InvalidEvent."""
    name, properties = action
    document = parse_line(line)
    if name == "update":
        document = document.get("doc", document)
        if not isinstance(document, dict):
            raise InvalidEvent("an update without a doc object")
    event = dict(document)
    if properties.get("_id") is not None:
        event.setdefault("id", properties["_id"])
    if properties.get("_index") is not None:
        event.setdefault("category", properties["_index"])
    if not any(event.get(k) for k in ("type", "event_type", "event", "eventName", "eventType")):
        event["type"] = jsonl.DEFAULT_TYPE
    return event


QUERY = ""  # paired in Python, then read as JSON lines
