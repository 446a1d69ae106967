"""A push that erases at a remote while another clone pushes: no row stays there, and nothing of
others is lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog import remotes
from lakelog.errors import Diverged, TransferRefused
from lakelog.lake import Lake
from lakelog.remotes.directory import DirectoryRemote
from lakelog.remotes.erasures import RemoteErasures
from tests.support.erased_lakes import ADA, SETTINGS, add, found

_REQUESTS = ("stream", "names", "size", "put", "put_new", "replace", "remove")


@pytest.fixture
def clones(tmp_path: Path) -> tuple[Lake, Lake]:
    """A lake that erased a subject, and a clone that has events of its own, of one remote."""
    far = str(tmp_path / "far")
    lake = lakelog.open(tmp_path / "lake", settings=SETTINGS)
    remotes.add_tested(lake.store, "origin", far)
    for n in range(2):
        add(lake, 10 * n)
        remotes.push(lake, "origin", branches=["main"])
    remotes.clone(far, str(tmp_path / "clone"))
    clone = lakelog.open(tmp_path / "clone", settings=SETTINGS)
    add(clone, 20)
    lake.erase(subject=ADA, why="asked")
    return lake, clone


def push_main(lake: Lake) -> None:
    remotes.push(lake, "origin", branches=["main"])


def push_branch(lake: Lake) -> None:
    lake.branch("side").close()
    remotes.push(lake, "origin", branches=["side"])


def push_tag(lake: Lake) -> None:
    lake.tag("v1")
    remotes.push(lake, "origin", tags=["v1"])


@contextlib.contextmanager
def interrupted(step: int, act: Callable[[], None]) -> Iterator[None]:
    """Let somebody else act before some request to the remote of this thread, to its end unless it
    waits for a lock."""
    requests, thread = 0, threading.get_ident()

    def run() -> None:
        with contextlib.suppress(TransferRefused, Diverged):
            act()

    other = threading.Thread(target=run)

    def asking(real: Callable[..., object]) -> Callable[..., object]:
        def ask(*words: object) -> object:
            nonlocal requests
            if threading.get_ident() == thread:
                requests += 1
                if requests == step:
                    other.start()
                    other.join(1)
            return real(*words)

        return ask

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(TransferRefused, Diverged):
        for name in _REQUESTS:
            patch.setattr(DirectoryRemote, name, asking(getattr(DirectoryRemote, name)))
        yield
    assert requests >= step
    other.join()


def require_erased(tmp_path: Path, lake: Lake, clone: Lake) -> None:
    """Once both have pulled and pushed, no copy has a row, and each has all of the others'."""
    for _ in range(2):
        for each in (clone, lake):
            with contextlib.suppress(TransferRefused, Diverged):
                remotes.pull(each, "origin", merge=True)
            with contextlib.suppress(TransferRefused, Diverged):
                remotes.push(each, "origin", branches=each.branches())
    assert found(tmp_path / "far") == found(tmp_path / "lake") == found(tmp_path / "clone") == []
    remotes.clone(str(tmp_path / "far"), str(tmp_path / "later"))
    with lakelog.open(tmp_path / "later") as later:
        assert all(later.at(tag.name).count() for tag in later.tags())
        for each in (lake, clone, later):
            assert each.count() == 6
            assert each.verify().intact
            assert remotes.check(each, "origin", read_data=True).faults == []
            assert each.erasures()[0].is_done
    assert found(tmp_path / "later") == []


@pytest.mark.parametrize("act", [push_main, push_branch, push_tag])
@pytest.mark.parametrize("step", [9, 19, 24])
def test_a_clone_pushes_while_a_push_erases(
    clones: tuple[Lake, Lake], tmp_path: Path, step: int, act: Callable[[Lake], None]
) -> None:
    """Whatever it brings after the remote was looked at is erased from, too, or refused."""
    lake, clone = clones
    with interrupted(step, lambda: act(clone)):
        push_main(lake)
    require_erased(tmp_path, lake, clone)


@pytest.mark.parametrize("act", [push_main, push_branch, push_tag])
@pytest.mark.parametrize("step", [8, 11, 13, 14])
def test_a_push_erases_while_a_clone_pushes(
    clones: tuple[Lake, Lake], tmp_path: Path, step: int, act: Callable[[Lake], None]
) -> None:
    """The clone had looked for erasures before: it looks again when it names a state there."""
    lake, clone = clones
    with interrupted(step, lambda: push_main(lake)):
        act(clone)
    require_erased(tmp_path, lake, clone)


@pytest.mark.parametrize("is_added_again", [False, True])
def test_a_pull_that_refuses_rows_lets_the_next_push_erase_them(
    clones: tuple[Lake, Lake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_added_again: bool
) -> None:
    """A clone was killed once it had named a state there, and before it looked again."""
    lake, clone = clones
    push_main(lake)
    if is_added_again:
        remotes.remove(lake.store, "origin")
        remotes.add_tested(lake.store, "origin", str(tmp_path / "far"))
    with monkeypatch.context() as patch:
        patch.setattr(RemoteErasures, "refuse_unknown", lambda _: None)
        patch.setattr(RemoteErasures, "push", lambda *_, **__: [])
        push_tag(clone)
    assert found(tmp_path / "far")
    with pytest.raises(TransferRefused, match="`lakelog push` erases them there"):
        remotes.pull(lake, "origin")
    assert not lake.erasures()[0].is_done
    key = lake.erasures()[0].erasure.key
    assert remotes.push(lake, "origin", branches=["main"]).erased == [key]
    assert found(tmp_path / "far") == []
    assert remotes.pull(lake, "origin").refs["v1"] == "new"
    assert lake.erasures()[0].is_done
