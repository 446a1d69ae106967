"""Watching logs whose records span lines: whole where they can be, and never lost or doubled."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

import lakelog
from lakelog.audit.audit import audit
from lakelog.collect import watch
from lakelog.collect.watch import Watcher

TEXT = "".join(
    f"2024-01-02 03:04:{n:02},678 - a.b - ERROR - failed w{n}a\n"
    f"Traceback (most recent call last): w{n}b\n  File w{n}c\n\nValueError: w{n}d\n"
    f"2024-01-02 03:04:{n:02},999 - a.b - INFO - fine w{n}e\n"
    for n in range(4)
).encode()
WORDS = Counter(re.findall(r"w\d\w", TEXT.decode()))
CUTS = sorted({*range(0, len(TEXT), 31), *(m.end() for m in re.finditer(b"\n", TEXT))})


def words(lake: lakelog.Lake) -> Counter[str]:
    """The words of every line, in events and in quarantine."""
    query = "SELECT message FROM events UNION ALL SELECT line FROM quarantine"
    found = "\n".join(text for (text,) in lake.sql(query).fetchall())
    return Counter(re.findall(r"w\d\w", found))


@pytest.mark.matrix
@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_a_record_written_in_two_parts(lake: lakelog.Lake, tmp_path: Path, rounds: int) -> None:
    """Wherever a record is cut, and however long the rest takes, each line is there once, and the
    audit agrees; a rest that comes at once is joined."""
    for at in CUTS:
        logs = tmp_path / f"logs{at}"
        logs.mkdir()
        path, source = logs / "a.log", f"s{at}"
        watcher = Watcher(lake, [str(logs)], source=source)
        path.write_bytes(TEXT[:at])
        for _ in range(rounds):
            watcher.round()
        with open(path, "ab") as file:
            file.write(TEXT[at:])
        watcher.round()
        watcher.round()
        path.rename(logs / "a.log.1")
        watcher.round()
        watcher.close()
        (proof,) = audit(lake.store, lake.branch_name, lake.engine, [str(logs)], label=source).files
        assert (proof.wrong, proof.error, proof.waiting) == (0, "", 0), at
    assert words(lake) == Counter({word: len(CUTS) for word in WORDS})
    ((whole,),) = lake.sql(
        "SELECT count(*) FROM events WHERE message LIKE '%Traceback%d'"
    ).fetchall()
    assert whole == 4 * len(CUTS) if rounds <= 1 else whole < 4 * len(CUTS)


def test_the_last_record_is_seen_soon(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A record behind which nothing comes is taken in the round after."""
    (tmp_path / "a.log").write_bytes(TEXT)
    watcher = Watcher(lake, [str(tmp_path)])
    assert (watcher.round(), watcher.has_open_ends) == (7, True)
    assert (watcher.round(), watcher.has_open_ends) == (1, False)
    assert watcher.round() == 0
    watcher.close()


def test_words_before_the_first_known_line(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A file that begins with words of its own is read as what comes after them, from there on."""
    path = tmp_path / "a.log"
    path.write_text("Starting the service\n  with two lines\n")
    watcher = Watcher(lake, [str(tmp_path)])
    watcher.round()
    watcher.round()
    with open(path, "a") as file:
        file.write('{"type":"T","time":5}\n' * 3)
    watcher.round()
    watcher.close()
    query = "SELECT type, message FROM events ORDER BY position"
    found = lake.sql(query).fetchall()
    assert found == [("log", "Starting the service\n  with two lines"), *[("T", None)] * 3]
    (proof,) = audit(lake.store, lake.branch_name, lake.engine, []).files
    assert (proof.wrong, proof.format) == (0, "jsonl")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No copy need be waited for."""
    monkeypatch.setattr(watch, "STABLE", -1.0)
