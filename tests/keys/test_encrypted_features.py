"""An encrypted lake in which many features were used: no word of an event, subject, source, rule
or file name is in any byte of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import lakelog
from tests.support import encrypted
from tests.support.cli import run

PLANTED = "zzplanted"
NAMES = "type subject source message value key file line tag why rule program".split()
WORDS = [PLANTED + name for name in NAMES]


def _events() -> list[dict[str, object]]:
    return [
        {
            "type": f"{PLANTED}type",
            "source": f"{PLANTED}source",
            "subject": f"{PLANTED}subject{n % 2}",
            "message": f"{PLANTED}message {n}",
            "data": {"email": f"{PLANTED}value", f"{PLANTED}key": n},
        }
        for n in range(6)
    ]


def test_no_word_is_in_any_byte_after_every_feature_was_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams, branches, alerts, subscriptions, patterns, syncs, exports, replays, protected
    fields, erasures, remotes, backups, and the notes that each of them leaves."""
    monkeypatch.setenv("LAKELOG_SUBJECT_KEYS", str(tmp_path / "subjects"))
    (tmp_path / "subjects").mkdir()
    root = Path(encrypted.create(tmp_path / "lake", monkeypatch))
    folder = tmp_path / f"{PLANTED}file"
    folder.mkdir()
    log, message = folder / f"{PLANTED}file.jsonl", f"{PLANTED}message"
    log.write_text(f'{{"type": "x", "data": {{}}}}\n{{"type": "{PLANTED}line", \n')
    run(root, "config", "protect", "email")
    with lakelog.open(root) as lake:
        for n, event in enumerate(_events()):
            lake.append(event, expect={str(event["subject"]): n // 2})
        lake.settle()
    run(root, "ingest", str(log), code=1)
    program = folder / f"{PLANTED}program"
    program.write_text("#!/bin/sh\ncat > /dev/null\n")
    program.chmod(0o755)
    rule = ("--search", message, "--above", "0", "--every", "1m", "--to", f"command:{program}")
    for words in (
        ("branch", "work"),
        ("tag", "v1", "-m", f"{PLANTED}tag"),
        ("subscriptions", "run", "mail", "--once", "--to-command", str(program)),
        ("patterns",),
        ("search", message),
        ("sql", "SELECT * FROM events", "-o", str(folder / "rows.csv")),
        ("export", "events", "-o", str(folder / "all.parquet")),
        ("replay", "--speed", "max", "--to-command", str(program)),
        ("alerts", "add", f"{PLANTED}rule", *rule),
        ("alerts", "run", "--once"),
        ("sync", f"sqlite:{folder}/rows.db", "--once"),
        ("remote", "add", "far", str(folder / "far")),
        ("push", "far"),
        ("backup", str(root), str(folder / "copy")),
        ("state", "save", "--dir", str(folder)),
        ("erase", "--subject", f"{PLANTED}subject0", "--rows", "--why", f"{PLANTED}why", "--yes"),
        ("compact",),
        ("push", "far"),
    ):
        run(root, *words)
    places = [root, folder / "far", folder / "copy"]
    assert [hit for place in places for hit in encrypted.found(place, WORDS)] == []
    with lakelog.open(root) as lake:
        names = {(copy["place"], copy["name"]) for copy in lake.erasures()[-1].copies}
    assert {("subscription", "mail"), ("replay", str(program))} <= names
    assert {place for place, _ in names} >= {"alert", "sync", "export", "backup"}
