"""What every volume has to do, so that `Refs` and `publish` stand on it: a class inherits
`VolumeSuite` and has a fixture `volume`.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakelog.entries.entry import RetentionEntry
from lakelog.errors import DamagedRef, UnknownRef
from lakelog.manifest import Manifest, manifests
from lakelog.moves.publication import Change, publish
from lakelog.paths import FORMAT, KEYS
from lakelog.refs import Head, Tag
from lakelog.remotes import known
from lakelog.remotes.remote_volume import RemoteVolume
from lakelog.settings import DEFAULTS
from lakelog.store import Store
from lakelog.volume import Volume


def retained(number: int) -> Change:
    """A change that can be read back."""
    return Change("retention", f"nr. {number}", retention=RetentionEntry(number, number))


class VolumeSuite:
    """The tests of one kind of volume."""

    @pytest.fixture
    def volume(self) -> Volume:
        """An empty volume."""
        raise AssertionError

    @pytest.fixture
    def stores(self, volume: Volume, tmp_path: Path) -> list[Store]:
        """Two processes' views of a lake whose states are in the volume."""
        stores = [
            Store(str(tmp_path / name), "", DEFAULTS, FORMAT, volume) for name in ("one", "two")
        ]
        for store in stores:
            Path(store.paths.wals).mkdir(parents=True)
        stores[0].start_branch("main")
        return stores

    def test_a_name_is_taken_once(self, volume: Volume) -> None:
        key = KEYS.tag("v1")
        volume.create(key, b"one")
        with pytest.raises(FileExistsError):
            volume.create(key, b"two")
        assert volume.read(key) == b"one"
        assert volume.exists(key)
        assert volume.names(KEYS.tags) == ["v1.json"]

    def test_what_is_missing_is_not_there(self, volume: Volume) -> None:
        assert not volume.exists(KEYS.tag("v1"))
        assert volume.names(KEYS.head_dir("main")) == []
        with pytest.raises(FileNotFoundError):
            volume.read(KEYS.tag("v1"))
        with pytest.raises(FileNotFoundError):
            volume.stamp(KEYS.tag("v1"))

    @pytest.mark.parametrize("carried_max", [0, manifests.CARRIED_MAX])
    def test_a_publish_is_read_by_another_process(
        self, stores: list[Store], carried_max: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(manifests, "CARRIED_MAX", carried_max)
        for number in (1, 2):
            head = publish(stores[0], "main", lambda *_, n=number: retained(n))  # type: ignore[misc]
            assert head is not None
            assert head.move.number == number + 1
        other = stores[1]
        assert other.refs.head("main") == head
        assert other.state("main").retention == RetentionEntry(2, 2)
        assert other.refs.numbers("main") == [1, 2, 3]
        assert other.refs.all_branches() == ["main"]
        with pytest.raises(UnknownRef):
            other.refs.head("side")

    def test_a_publish_that_loses_the_race_plans_again(self, stores: list[Store]) -> None:
        seen = list[int]()

        def plan(head: Head, _: Manifest) -> Change:
            seen.append(head.move.number)
            if len(seen) == 1:
                publish(stores[1], "main", lambda *_: retained(1))
            return retained(2)

        head = publish(stores[0], "main", plan)
        assert head is not None
        assert (seen, head.move.number) == ([1, 2], 3)
        assert [move.op for move in stores[1].refs.newest_first("main")] == [
            "retention",
            "retention",
            "init",
        ]

    def test_concurrent_publishes_take_each_number_once(self, stores: list[Store]) -> None:
        def work(store: Store) -> None:
            for number in range(3):
                publish(store, "main", lambda *_, n=number: retained(n))  # type: ignore[misc]

        threads = [threading.Thread(target=work, args=(store,)) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert stores[0].refs.numbers("main") == list(range(1, 8))

    def test_a_tag_names_a_state(self, stores: list[Store]) -> None:
        one, other = stores
        move = one.refs.head("main").move
        tag = Tag("v1", move.snapshot, 1, "tester", "", "main", move.commit, move.carried)
        one.refs.link_tag(tag)
        assert other.refs.tag("v1") == tag
        with pytest.raises(FileExistsError):
            other.refs.link_tag(dataclasses.replace(tag, message="another"))
        assert other.refs.tag_names() == ["v1"]

    def test_a_damaged_move_is_refused(self, stores: list[Store], volume: Volume) -> None:
        volume.create(KEYS.move("main", 2), b"{}\n")
        with pytest.raises(DamagedRef, match="checksum"):
            stores[1].refs.head("main")


class RemoteVolumeSuite(VolumeSuite):
    """The same for what is at the address of the fixture `url`."""

    @pytest.fixture
    def volume(self, url: str) -> Iterator[Volume]:
        with known.connected(url) as connection:
            yield RemoteVolume(connection)
