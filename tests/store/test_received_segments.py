"""Notes of segments that came from other lakes stay few where nobody collects garbage."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakelog import document
from lakelog.store import received_segments
from lakelog.store.received_segments import ReceivedSegments
from lakelog.volume import DirectoryVolume


def test_notes_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is lost, long ones are left as they are, and what is none is passed over."""
    monkeypatch.setattr(received_segments, "_LONG", 150)
    folder, volume = tmp_path / "gc" / "received", DirectoryVolume(str(tmp_path))
    folder.mkdir(parents=True)
    (folder / "other.json").write_bytes(document.encode({"segments": [1]}))
    (folder / "torn.json").write_bytes(b"{")
    keys = [f"{n:064x}" for n in range(500)]
    for key in keys:
        ReceivedSegments.note(volume, [key])
        assert len(list(folder.iterdir())) <= 102
    notes = [
        document.decode(file.read_bytes())["segments"]
        for file in folder.iterdir()
        if file.stem not in ("other", "torn")
    ]
    assert sorted(key for note in notes for key in note) == keys
    assert sum(len(note) >= 150 for note in notes) >= 2
