"""Repair of a lake in use: what gc packs meanwhile is read where it is then."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

import lakelog
from lakelog.maintain.repair import recover
from tests.support import seam


def test_repair_concurrent_with_gc_reads_packed_moves(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for type_ in "abc":
        lake.append({"type": type_})
        lake.settle()
    gone: list[str] = []

    def hook(name: str, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        by = sys._getframe(2).f_code.co_filename
        if name == "read" and by == recover.__file__ and not gone:
            gone.append(args[0])  # as between its listing and its reading
            raise FileNotFoundError(args[0])
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        seam.install(patch, hook)
        outcome = lake.repair()
    assert gone
    assert not outcome.lost
    assert lake.count() == 3
