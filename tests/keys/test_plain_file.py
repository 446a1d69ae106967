"""Plaintext by ranges: any range, by any number of threads at once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lakelog.errors import DamagedSegment, InvalidKey
from lakelog.keys import envelope
from lakelog.keys.plain_file import PlainFile
from tests.support.processes import environment

SECRET = bytes(range(32))


def written(path: Path, size: int) -> bytes:
    """Write an envelope of random bytes; return these."""
    plain = random.Random(size).randbytes(size)
    path.write_bytes(envelope.encrypt(plain, b"12345678", SECRET))
    return plain


def test_any_range_is_read(tmp_path: Path) -> None:
    """Within a chunk, over several, to the end and beyond it."""
    plain = written(tmp_path / "file", 300_000)
    with PlainFile(str(tmp_path / "file"), lambda _: SECRET) as file:
        for start, count in ((0, 10), (65_530, 12), (1, 200_000), (299_990, 100), (400_000, 5)):
            assert file.seek(start) == start
            assert file.read(count) == plain[start : start + count]
        assert file.seek(-7, 2) == 299_993
        assert file.read() == plain[-7:]


def test_threads_that_share_a_file_read_what_they_asked_for(tmp_path: Path) -> None:
    """To go to a byte and to read from there are two calls, as the engine makes them."""
    plain = written(tmp_path / "file", 500_000)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with PlainFile(str(tmp_path / "file"), lambda _: SECRET) as file:

            def read_some(seed: int) -> bool:
                rng = random.Random(seed)
                for _ in range(100):
                    start, count = rng.randrange(500_000), rng.randrange(100_000)
                    file.seek(start)
                    if file.read(count) != plain[start : start + count]:
                        return False
                return True

            with ThreadPoolExecutor(8) as threads:
                assert all(threads.map(read_some, range(8)))
    finally:
        sys.setswitchinterval(interval)


def test_a_changed_chunk_is_named_when_it_is_read(tmp_path: Path) -> None:
    """The others are read; a file that is no envelope is damaged."""
    path = tmp_path / "file"
    plain = written(path, 200_000)
    data = bytearray(path.read_bytes())
    data[150_000] ^= 1
    path.write_bytes(data)
    with PlainFile(str(path), lambda _: SECRET) as file:
        assert file.read(100) == plain[:100]
        file.seek(140_000)
        with pytest.raises(DamagedSegment, match="its chunk 2 was changed"):
            file.read(20_000)
    path.write_bytes(b"PAR1" * 20)
    with pytest.raises(DamagedSegment, match="it is no envelope"):
        PlainFile(str(path), lambda _: SECRET)


def test_what_is_remembered_of_a_file_is_no_answer_without_it_or_its_key(tmp_path: Path) -> None:
    """A chunk that was read before: damaged since, in another file of the name, without a key."""
    path = tmp_path / "file"
    plain = written(path, 1000)

    def read_again() -> bytes:
        with PlainFile(str(path), lambda _: SECRET) as file:
            return file.read()

    def refuse(_: bytes) -> bytes:
        raise InvalidKey("none")

    assert read_again() == read_again() == plain
    with pytest.raises(InvalidKey):
        PlainFile(str(path), refuse)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    os.utime(path, (2e9, 2e9))  # as a clock of a coarse grain may not show that it was changed
    with pytest.raises(DamagedSegment):
        read_again()
    path.unlink()
    assert written(path, 2000) == read_again()


def test_a_file_that_got_inode_and_time_of_another_is_read_anew(tmp_path: Path) -> None:
    """A file system gives a freed inode to the next file, and clocks of files have coarse ticks."""
    path = tmp_path / "file"
    for plain in (b"erased" * 100, b"stored" * 100):
        path.write_bytes(envelope.encrypt(plain, b"12345678", SECRET))
        os.utime(path, ns=(0, 0))
        with PlainFile(str(path), lambda _: SECRET) as file:
            assert file.read(600) == plain


def test_a_file_that_is_gone_is_said_once(tmp_path: Path) -> None:
    """From 3.13 on Python reports of what was not opened that it cannot be closed, as 3.11 does in
    development mode."""
    code = f"from lakelog.keys.plain_file import PlainFile\nPlainFile('{tmp_path}/gone', bytes)"
    command = [sys.executable, "-X", "dev", "-c", code]
    done = subprocess.run(
        command, env=environment(), stderr=subprocess.PIPE, text=True, check=False
    )
    assert "FileNotFoundError" in done.stderr
    assert "ignored" not in done.stderr
