"""Lakes of the conformance kit of which something was erased."""

from __future__ import annotations

import hashlib
import os
from typing import Any
from unittest import mock

from tests.golden import make
from tests.support import lakes


def erased(path: str) -> None:
    """Erased rows: a tag and moves name states of before, in whose place others are read."""
    with lakes.opened(path) as lake:
        lake.append([{"type": "A", "subject": name, "time": make.NEW_YEAR} for name in "abcab"])
        lake.quarantine([("a.log", 3, "no event", "broken b"), ("a.log", 9, "no event", "whole")])
        lake.tag("v1")
        lake.append([{"type": "B", "subject": name, "time": make.NEW_YEAR} for name in "bc"])
        lake.settle()
        lake.erase(subject="b", why="asked")
        lake.append({"type": "C", "subject": "b", "time": "2030-01-01T00:00:00Z"})


def erased_shards(path: str) -> None:
    """Erased rows in an old lake: what is read in the place of so many states has shards."""
    erased(path)
    with lakes.opened(path) as lake:
        digests = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(150)]
        lake.store.erased.add(dict.fromkeys(digests, digests[0]), {})


def sealed(path: str) -> None:
    """Protected fields, as a reader without keys has them: in segments, in the tail, and NULL where
    a key was destroyed; and a quarantined line, which is sealed whole."""
    fields = {"LAKELOG_KEY": "5a" * 32, "LAKELOG_SUBJECT_KEYS": f"{path}.subjects"}

    def events(count: int, time: str = make.NEW_YEAR) -> list[dict[str, Any]]:
        data = {"n": 1, "email": "x@example.org"}
        subjects = ("a", "b", None)
        return [
            {"type": "A", "subject": subjects[n % 3], "time": time, "data": data}
            for n in range(count)
        ]

    with mock.patch.dict(os.environ, fields), lakes.opened(path) as lake:
        lake.protect(["email"])
        lake.append(events(6))
        lake.quarantine([("a.log", 3, "no event", "broken")])
        lake.settle()
        lake.erase(subject="a", why="request 7")
        lake.compact()
        lake.append(events(3, "2030-01-01T00:00:00Z"))
