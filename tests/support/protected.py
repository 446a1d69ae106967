"""What tests of protected fields use: keys of their own, and lakes with planted words."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lakelog
from tests.support import encrypted

PLANTED = "zzplanted"
FIELDS = ("email", "person")
ROWS = "SELECT subject, data FROM events ORDER BY (data->>'n')::INT"


def keys_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let this process have its master key, and files of keys in a folder; return the folder."""
    keys = folder / "keys"
    keys.mkdir(exist_ok=True)
    monkeypatch.setenv("LAKELOG_KEY", encrypted.KEY)
    monkeypatch.setenv("LAKELOG_SUBJECT_KEYS", str(keys))
    return keys


def create(root: Path, monkeypatch: pytest.MonkeyPatch) -> lakelog.Lake:
    """Create a lake that protects FIELDS, with keys beside it."""
    keys_in(root.parent, monkeypatch)
    lake = lakelog.open(root)
    lake.protect(FIELDS)
    return lake


def key_file(folder: Path) -> Path:
    """Return the only file of keys that lakes in a folder have."""
    (path,) = (folder / "keys").glob("*.subjects")
    return path


def append(lake: lakelog.Lake, numbers: Iterable[int]) -> None:
    """Append the events with some numbers, in one batch."""
    lake.append([event(number) for number in numbers])


def event(number: int, subjects: int = 5) -> dict[str, object]:
    """An event with planted words in its protected fields."""
    return {
        "type": "SIGNUP",
        "subject": f"s{number % subjects}",
        "message": "hello",
        "data": {
            "n": number,
            "email": f"{PLANTED}{number % subjects}@example.org",
            "plan": "pro",
            "person": {"name": f"{PLANTED} {number}", "age": 1.5},
        },
    }


def payload(number: int, subjects: int = 5) -> dict[str, object]:
    """The payload of such an event, where its fields are open."""
    data = event(number, subjects)["data"]
    assert isinstance(data, dict)
    return data


def payloads(lake: Any) -> list[tuple[str, dict[str, Any]]]:
    """The subjects and payloads of all events that a lake shows."""
    return [(subject, json.loads(data)) for subject, data in lake.sql(ROWS).fetchall()]


def shown(numbers: Iterable[int], erased: tuple[str, ...] = ()) -> list[tuple[str, dict[str, Any]]]:
    """What a lake shows of events with these numbers."""
    rows = []
    for number in numbers:
        subject, members = f"s{number % 5}", payload(number)
        fields = FIELDS if subject in erased else ()
        rows.append((subject, {k: v for k, v in members.items() if k not in fields}))
    return rows


@contextlib.contextmanager
def without_keys(folder: Path) -> Iterator[None]:
    """Be as a process that has no keys."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LAKELOG_SUBJECT_KEYS", str(folder / "nowhere"))
        yield
