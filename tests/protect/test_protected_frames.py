"""Data frames of a lake with protected fields."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import protected
from tests.support.cli import run
from tests.support.protected import PLANTED


def test_followers_see_the_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tail, data frames, and a subscription."""
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        protected.append(lake, range(10))
        lake.settle()
        protected.append(lake, range(10, 20))
        out = run(tmp_path / "lake", "tail", "-n", "20").stdout
        data = [json.loads(line)["data"] for line in out.splitlines()]
        assert sorted(data, key=lambda d: d["n"]) == [protected.payload(n) for n in range(20)]
        frame = lake.to_polars().collect()
        assert sorted(json.loads(d)["n"] for d in frame["data"]) == [*range(20)]
        assert all(PLANTED in d for d in frame["data"])
