"""FORMAT.md, saved states of folds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import orjson

from lakelog.folds import Fold
from tests.support import lakes


def test_saved_states_of_folds(tmp_path: Path) -> None:
    """F8.16: a saved state, the events that it is of, and that it may be gone or damaged."""
    path = tmp_path / "lake"
    count: Fold[int] = Fold("count", lambda: 0, {"A": lambda state, event: state + 1}, every=2)
    with lakes.opened(str(path)) as lake:
        lake.append([{"type": "A", "subject": "s"} for _ in range(3)])
        assert count.of(lake, "s").applied == 3
        (file,) = (path / "cache/folds").iterdir()
        assert len(file.stem) == 40
        line, checksum, end = file.read_bytes().split(b"\n")
        assert (checksum, end) == (hashlib.sha256(line).hexdigest().encode(), b"")
        saved = orjson.loads(line)
        assert (saved["events"], saved["state"]) == (3, 3)
        marks = lake.sql("SELECT seq, epoch_us(ingested_at) FROM events ORDER BY seq").fetchall()
        assert saved["digest"] == hashlib.sha256(orjson.dumps(marks)).hexdigest()
        assert count.of(lake, "s").applied == 0
        file.write_bytes(line.replace(b'"state":3', b'"state":9') + b"\n" + checksum + b"\n")
        assert (count.of(lake, "s").state, count.of(lake, "s").applied) == (3, 0)
        file.unlink()
        assert (count.of(lake, "s").state, len(list((path / "cache/folds").iterdir()))) == (3, 1)
