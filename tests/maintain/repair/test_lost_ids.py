"""The ids of events that a repair gave up can be stored again; those of all others cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import lakelog
from tests.support import lakes


def send(lake: lakelog.Lake, *numbers: int) -> None:
    """Send events with ids, of which one is sent twice, and seal them."""
    lake.append([{"type": "A", "id": f"i{n}", "data": {"n": n}} for n in (*numbers, numbers[0])])
    lake.settle()


def two(lake: lakelog.Lake) -> None:
    send(lake, *range(5))
    send(lake, *range(5, 10))


def merged(lake: lakelog.Lake) -> None:
    for n in range(9):
        send(lake, n)
    send(lake, 9)
    assert len(lake.store.state("main").ids) < 9


def compacted(lake: lakelog.Lake) -> None:
    two(lake)
    lake.compact()


def ingested(lake: lakelog.Lake) -> None:
    log = Path(lake.path).parent / "a.jsonl"
    log.write_text("".join(f'{{"type":"A","id":"i{n}"}}\n' for n in range(5)))
    lake.ingest(str(log))
    send(lake, *range(5, 10))


def remove(path: Path) -> None:
    path.unlink()


def flip(place: float) -> Callable[[Path], None]:
    """Damage a byte at a part of a file's length."""

    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(len(data) * place)] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)

    return damage


def numbers(lake: lakelog.Lake) -> list[int]:
    """The numbers of all events."""
    return [n for (n,) in lake.sql("SELECT substr(id, 2)::INT FROM events ORDER BY 1").fetchall()]


DAMAGES = {"gone": remove, "body": flip(0.3), "footer": flip(0.97)}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("build", [two, merged, compacted, ingested])
def test_lost_events_are_stored_when_they_are_sent_again(
    tmp_path: Path, build: Callable[[lakelog.Lake], None], damage: str
) -> None:
    """F14.5: whichever way a segment is damaged, whether its run was merged or it was compacted,
    its ids are free again, and each of them once; ids of other events stay taken."""
    path = tmp_path / "lake"
    with lakes.opened(str(path)) as lake:
        build(lake)
        entries = lake.store.manifests.segments(lake.store.state("main"), "events")
        parts = [*entries[0].made_from, entries[0].key]
        for part in parts:
            DAMAGES[damage](Path(lake.store.paths.object("segments", part)))
    for file in (path / "wal/main").iterdir():
        file.unlink()
    with lakes.opened(str(path)) as lake:
        assert lake.repair().lost
        left = numbers(lake)
        assert 0 <= len(left) < 10
        for _ in range(2):
            send(lake, *range(10))
            assert numbers(lake) == list(range(10))
        assert lake.verify().problems == ()


def test_what_was_removed_on_purpose_stays_removed(tmp_path: Path) -> None:
    """F13.4, F14.5: where retention removed some events and a segment of others is lost, only those
    come back when all are sent again."""
    path = tmp_path / "lake"
    with lakes.opened(str(path)) as lake:
        old = {"type": "OLD", "id": "old", "time": "2001-01-01T00:00:00Z"}
        lake.append(old)
        lake.settle()
        send(lake, 1, 2)
        lake.retention("365d", apply=True)
        assert numbers(lake) == [1, 2]
        (entry,) = lake.store.manifests.segments(lake.store.state("main"), "events")
        Path(lake.store.paths.object("segments", entry.key)).unlink()
    for file in (path / "wal/main").iterdir():
        file.unlink()
    with lakes.opened(str(path)) as lake:
        assert lake.repair().lost
        assert lake.count() == 0
        lake.append(old)
        send(lake, 1, 2)
        assert numbers(lake) == [1, 2]
