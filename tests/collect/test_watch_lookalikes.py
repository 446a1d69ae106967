"""Watching files that look alike: as many files as there are, each line once, however equal."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest

import lakelog
from lakelog.audit.audit import audit
from lakelog.collect import watch
from tests.support.effort import share
from tests.support.lookalike_files import BANNER, PACKERS, Workers, play

FILES = share(100)


@pytest.fixture
def workers(lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workers:
    """Logs in a directory that is watched; copies in it are made in one step."""
    monkeypatch.setattr(watch, "STABLE", -1.0)
    return Workers(tmp_path / "logs", lake)


@pytest.mark.matrix
@pytest.mark.rounds
@pytest.mark.parametrize("restarts", [False, True])
def test_lookalike_files_that_grow_apart_are_exact(
    workers: Workers, lake: lakelog.Lake, restarts: bool
) -> None:
    """Many equal files grow apart, are rotated twice and packed: every line once."""
    names = [f"worker-{n}.log" for n in range(FILES)]
    for name in names:
        workers.write(name, BANNER)
    workers.look(restarts=restarts)
    for name in names:
        workers.write(name)
    workers.look(restarts=restarts)
    for turn in range(2):
        for name in names:
            if turn:
                workers.rename(f"{name}.1", f"{name}.2")
            workers.rename(name, f"{name}.1")
            workers.write(name, BANNER)
        workers.look(restarts=restarts)
        for number, name in enumerate(names):
            workers.write(name)
            if turn:
                workers.pack(f"{name}.2", list(PACKERS)[number % len(PACKERS)])
        workers.look(restarts=restarts)
    workers.close()
    proof = audit(lake.store, lake.branch_name, lake.engine, [str(workers.root)])
    assert not proof.wrong
    assert not proof.failed


@pytest.mark.matrix
@pytest.mark.parametrize("seed", range(3))
def test_random_histories_of_lookalike_files_are_exact(workers: Workers, seed: int) -> None:
    """Files that stay equal for a while, grow, are renamed, begun anew and packed in any order."""
    play(workers, random.Random(seed), files=30, turns=8)
    workers.close()


LINES = [f"INFO job {n} took {n * 37} ms" for n in range(20)]


@pytest.mark.parametrize("ending", ["gz", "zst", "xz"])
def test_a_packed_log_that_is_unpacked_again_is_not_stored_again(
    workers: Workers, ending: str
) -> None:
    workers.write("app.log.2", *LINES)
    workers.pack("app.log.2", ending)
    workers.look()
    plain, packed = workers.root / "app.log.2", workers.root / f"app.log.2.{ending}"
    plain.write_text("".join(f"{line}\n" for line in LINES))
    os.utime(plain, ns=(packed.stat().st_atime_ns, packed.stat().st_mtime_ns))
    workers.look(restarts=True)
    workers.write("app.log.1", *LINES)  # the same words of another day are its own
    workers.look()


def test_a_touched_banner_that_is_packed_while_nobody_looks_is_not_stored_again(
    workers: Workers,
) -> None:
    """Where words say nothing, a packed file is known by its time: the one that it had last."""
    workers.write("worker.log.1", BANNER)
    for seconds in (100, 50):
        then = time.time_ns() - seconds * 10**9
        os.utime(workers.root / "worker.log.1", ns=(then, then))
        workers.look(restarts=True)
    workers.close()
    workers.pack("worker.log.1", "gz")
    workers.look(restarts=True)


def test_a_file_with_the_inode_number_of_a_removed_copy_is_its_own(workers: Workers) -> None:
    """A copy goes, and its inode number is given to a file equal to the original: both count."""
    workers.write("app.log", *LINES)
    workers.look()
    shutil.copy(workers.root / "app.log", workers.root / "app.log.1")
    workers.look()
    workers.write("app.log")
    workers.look()
    # What an equal file under a number that is used again looks like.
    workers.rename("app.log.1", "twin.log")
    original = (workers.root / "app.log").read_text()
    (workers.root / "twin.log").write_text(original)
    workers.written.update(original.splitlines())
    workers.look()
    workers.close()


def test_a_file_with_the_inode_number_of_a_removed_log_is_its_own(workers: Workers) -> None:
    """A log is removed; another, that begins with the same banner, is given its inode number."""
    workers.write("worker.log", BANNER)
    workers.look()
    # What it looks like where the number is used again: the same inode, another name, and more.
    workers.rename("worker.log", "other.log")
    workers.write("other.log")
    workers.written[BANNER] += 1
    workers.look()
    workers.close()


def test_a_copy_of_a_log_that_grows_meanwhile_is_not_stored_again(workers: Workers) -> None:
    """As of a rotation by `cp`, whose original is written on before anybody looks."""
    workers.write("app.log", *LINES)
    workers.look()
    shutil.copy(workers.root / "app.log", workers.root / "app.log.1")
    workers.write("app.log")
    workers.look()
    workers.write("app.log")
    workers.look()
    workers.close()


def test_a_copy_that_lacks_the_newest_lines_is_read_from_what_both_have(workers: Workers) -> None:
    """A rotation copied a log, it was written on and read, then truncated: of the copy nothing is
    stored again but what came since it was last known."""
    workers.write("app.log", *LINES[:10])
    workers.look()
    workers.write("app.log", LINES[10])
    shutil.copy(workers.root / "app.log", workers.root / "app.log.1.part")
    workers.write("app.log", *LINES[11:])
    (workers.root / "app.log.1.part").rename(workers.root.parent / "app.log.1")
    workers.look()
    (workers.root.parent / "app.log.1").rename(workers.root / "app.log.1")
    os.truncate(workers.root / "app.log", 0)
    workers.write("app.log")
    workers.written[LINES[10]] += 1  # behind the last place at which the copy is known
    workers.look()
    workers.close()


def test_what_a_copy_has_before_its_original_is_cut_is_read_from_it(workers: Workers) -> None:
    """A copy that is known is made anew, with lines that nobody has read yet, and the original is
    cut: the copy is all that has them."""
    log, copy = workers.root / "app.log", workers.root / "app.log.1"
    workers.write("app.log", *LINES[:10])
    workers.look()
    shutil.copy(log, copy)
    workers.look()
    workers.write("app.log", *LINES[10:15])
    shutil.copy(log, copy)
    os.truncate(log, 0)
    workers.write("app.log")
    workers.look()
    workers.close()


@pytest.mark.parametrize("stable", [-1.0, 60.0])
@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("packed", ["app.log.1", "app.log.2"])
def test_a_line_behind_what_a_packer_read_doubles_none(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, packed: str, seen: bool, stable: float
) -> None:
    """logrotate packs a log at once, and its program, which reopens it late, writes a line behind
    what gzip read: that one is stored too, and the packed ones are not stored again."""
    monkeypatch.setattr(watch, "STABLE", stable)
    workers.write("app.log", *LINES[:5])
    workers.look()
    late = (workers.root / "app.log").open("a")
    workers.write("app.log", *LINES[5:10])
    workers.rename("app.log", "app.log.1")
    workers.write("app.log")
    if seen:
        workers.look()
    workers.write("app.log.1", *LINES[10:15])
    shutil.copy(workers.root / "app.log.1", workers.root / "read.part")
    late.write(f"{LINES[15]}\n")
    late.close()
    workers.written[LINES[15]] += 1
    (workers.root / "app.log.1").unlink()
    (workers.root / "read.part").rename(workers.root / packed)
    workers.pack(packed, "gz")
    for _ in range(3):
        workers.look()
    workers.close()


def test_a_banner_beside_a_log_that_is_packed_is_its_own(workers: Workers) -> None:
    """A log is rotated twice between two looks, the first time packed as well: that the second one
    begins as the first did, which is open without a name, does not make it a copy of that."""
    workers.write("app.log", BANNER, *LINES)
    workers.look()
    workers.rename("app.log", "app.log-20261129")
    workers.write("app.log", BANNER)
    workers.pack("app.log-20261129", "gz")
    workers.rename("app.log", "app.log-20261130")
    workers.write("app.log")
    for _ in range(3):
        workers.look()
    workers.close()
