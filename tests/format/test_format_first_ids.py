"""An id that arrives by several ways: the first event that was acknowledged stays, in any state."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lakelog.ingest.quarantine import Quarantine
from tests.support import seam
from tests.support.identity_machine import History

HISTORIES = int(os.environ.get("LAKELOG_ID_HISTORIES", "2"))
ENTRANCES = "append ingest watch consume replay".split()


def event(value: int, ident: str = "i1") -> dict[str, Any]:
    return {"type": "A", "source": "s", "id": ident, "data": {"v": value}}


@pytest.fixture
def history(home: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    return History(home, 0, monkeypatch)


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_an_id_of_the_tail_is_idempotent(history: History, entrance: str) -> None:
    """F13.5: a follower saw the event before it was sealed."""
    history.append(0, [event(1)])
    history.look(1)
    getattr(history, entrance)(1, [event(2), event(3, "i2")])
    for change in (lambda: None, history.lake(0).settle, history.lake(0).compact):
        change()
        history.look(0)
        assert history.seen == {"i1": 1, "i2": 3}
    history.close()


@pytest.mark.parametrize("entrance", ENTRANCES[1:])
def test_an_append_in_the_middle_of_a_publish_stays(
    history: History, entrance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F13.5: the tail is looked at right before the link, and what was read is read again."""
    began: list[str] = []

    def hook(name: str, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # The move is written, and about to be linked.
        if name == "begin_file" and "refs" in str(args[0]) and not began:
            began.append(name)
            history.append(1, [event(1)])
            history.look(1)
        return real(*args, **kwargs)

    events = [event(2), event(3, "i2")]
    if entrance == "replay":
        lake = history.lake(0)
        history.put_aside(lake, events)
        seam.install(monkeypatch, hook)
        Quarantine(lake.store, "main").replay(lake.engine)
    else:
        seam.install(monkeypatch, hook)
        getattr(history, entrance)(0, events)
    assert began
    assert history.seen == {"i1": 1}
    history.look(0)
    assert history.seen.items() >= {"i1": 1, "i2": 3}.items()
    history.close()


@pytest.mark.timeout(60 + 10 * HISTORIES)
def test_ids_are_idempotent_on_every_entrance_at_once(home: Path) -> None:
    for seed in range(HISTORIES):
        folder = home / str(seed)
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            history = History(folder, seed, patch)
            try:
                history.play()
            except BaseException as error:
                error.add_note(f"history {seed}:\n" + "\n".join(history.log))
                raise
