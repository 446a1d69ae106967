"""What several tests use: publishing, step by step."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

import lakelog
from lakelog.disk import disk
from lakelog.identities import IdentityKeys
from lakelog.moves.publication import Change, publish


def event(name: str, given: str | None = None) -> dict[str, Any]:
    """An event with a name, and with an id if one is given."""
    return {"type": "T", "source": "s", "subject": name} | ({"id": given} if given else {})


def found(lake: lakelog.Lake) -> list[str]:
    """The names of all events, sorted."""
    return sorted(name for (name,) in lake.sql("SELECT subject FROM events").fetchall())


def before_next_move(patch: pytest.MonkeyPatch, act: Callable[[], object]) -> list[str]:
    """Do something right before the next move is linked; return the moves that were tried."""
    real, tried = disk.link, list[str]()

    def link(source: str, target: str) -> None:
        if "/refs/heads/" in target and target.endswith(".json"):
            tried.append(os.path.basename(target))
            if len(tried) == 1:
                act()
        real(source, target)

    patch.setattr(disk, "link", link)
    return tried


def publish_ids(lake: lakelog.Lake, keys: list[str]) -> None:
    """Publish a run of ids, as whoever takes in files does."""
    text = [f"sha256('s' || chr(0) || '{key}')[1:24]" for key in keys]
    table = lake._session.connect().sql(f"SELECT unnest([{', '.join(text)}]) AS key")
    runs = IdentityKeys.of(table.to_arrow_table()["key"]).write(lake.store.paths, disk.random_hex())
    publish(lake.store, "main", lambda *_: Change("ingest", ids_add=runs))
