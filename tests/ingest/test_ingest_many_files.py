"""Ingest of many files at once: few publishes, and each file's report is its own."""

from __future__ import annotations

import gzip
from dataclasses import asdict
from pathlib import Path

import pytest

import lakelog
from lakelog.audit.audit import audit
from lakelog.ingest import group

KEYED = '{"type":"T","id":"%d"}\n'


def fill(root: Path) -> None:
    """Files of several kinds: short, bad, unfinished, with known ids, packed, empty, large."""
    root.mkdir()
    for n in range(60):
        (root / f"{n:02}.log").write_text(
            "".join(f'{{"type":"T","n":{10 * n + i}}}\n' for i in range(3))
        )
    (root / "bad.log").write_text('{"type":"T"}\n{"type":\n')
    (root / "ids-1.log").write_text(KEYED % 1 + KEYED % 2)
    (root / "ids-2.log").write_text(KEYED % 2 + KEYED % 3)
    (root / "packed.gz").write_bytes(gzip.compress(b'{"type":"T","packed":1}\n'))
    (root / "empty.log").write_text("")
    (root / "open.log").write_text('{"type":"T"}\n{"type":"half')
    (root / "large.log").write_text('{"type":"L"}\n' * 400)


def test_many_files_share_few_moves(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What 67 files bring is a handful of moves, and the audit finds each line once."""
    monkeypatch.setattr(group, "PIECE_MAX", 4_000)
    fill(tmp_path / "logs")
    before = len(list(lake.log()))
    report = lake.ingest(str(tmp_path / "logs"))
    assert len(list(lake.log())) - before <= 8
    assert [Path(file.path).name for file in report.files] == sorted(
        path.name for path in (tmp_path / "logs").iterdir()
    )
    assert report.events == 60 * 3 + 1 + 3 + 1 + 1 + 400
    assert (report.quarantined, report.skipped) == (2, 1)
    by_name = {Path(file.path).name: file for file in report.files}
    assert (by_name["ids-2.log"].events, by_name["ids-2.log"].skipped) == (1, 1)
    assert (by_name["bad.log"].quarantined, by_name["open.log"].quarantined) == (1, 1)
    proof = audit(lake.store, lake.branch_name, lake.engine, [str(tmp_path / "logs")])
    assert not proof.wrong


def test_a_second_time_all_is_known(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Each file says how many of its lines are known."""
    fill(tmp_path / "logs")
    first = lake.ingest(str(tmp_path / "logs"))
    again = lake.ingest(str(tmp_path / "logs"))
    assert (again.events, again.quarantined) == (0, 0)
    assert [file.skipped for file in again.files] == [file.lines for file in first.files]


def test_a_dry_run_counts_the_same(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A dry run of many files says what an ingest then does, and changes nothing."""
    fill(tmp_path / "logs")
    tried = lake.ingest(str(tmp_path / "logs"), dry_run=True)
    assert lake.count() == 0
    done = lake.ingest(str(tmp_path / "logs"))
    assert list(map(asdict, tried.files)) == list(map(asdict, done.files))
