"""The ledger of the row `logrotate`: it notices lines that are lost, doubled or torn."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

import lakelog
from tests.torture import ledger
from tests.torture.ledger import Stored, Written
from tests.torture.logwriters import BANNER, FORMS, LOGS, RECORD, line


def _written(tmp_path: Path, form: str, lines: int) -> Written:
    (tmp_path / "progress").write_bytes(RECORD.pack(1.0, lines, 1))
    return Written(1, form, 0, 0, tmp_path / "progress")


@pytest.mark.parametrize("form", sorted(set(FORMS.values())))
def test_lines_of_each_form_are_counted_on_disk_and_in_the_lake(
    lake: lakelog.Lake, tmp_path: Path, form: str
) -> None:
    """Whole lines of plain and packed files are counted; a lost and a doubled one are seen."""
    written = _written(tmp_path, form, 12)
    texts = [line(form, LOGS + n) + "\n" for n in range(12)]
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.log").write_text("\0\0" + "".join(texts[:5]) + texts[5][:-5])
    (tmp_path / "logs" / "a.log.1.gz").write_bytes(gzip.compress("".join(texts[6:]).encode()))
    disk, files = ledger.on_disk([tmp_path / "logs"], written, "a.log")
    assert disk.of(disk.counts != 1) == [5]
    assert files == {"a.log": 5, "a.log.1.gz": 6}
    (tmp_path / "b").write_text("".join(texts[1:]) + f"{BANNER}\n" * (form == "text"))
    (tmp_path / "c").write_text(texts[7])
    for name in ("b", "c"):
        lake.ingest(str(tmp_path / name))
    stored = Stored(lake)
    assert stored.of(written).counts.tolist() == [0, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    assert (stored.banners, stored.others) == (int(form == "text"), [])


def test_parts_of_lines_are_torn_only_where_a_file_has_them_whole(tmp_path: Path) -> None:
    """Half of a line that copytruncate cut off is what a file holds; half of another is torn."""
    (tmp_path / "a.log").write_text(line("text", LOGS) + "\n")
    disk, _ = ledger.on_disk([tmp_path], _written(tmp_path, "text", 2), "a.log")
    parts = [f"INFO did k{LOGS + n:09d}-xx" for n in range(2)]
    assert ledger.torn(parts, {1: disk}) == parts[:1]


def test_lag_counts_from_the_note_of_a_writer_to_the_count_that_shows_it(tmp_path: Path) -> None:
    """Lines that are in no file are left out; those that no count showed are infinitely late."""
    progress = tmp_path / "progress"
    progress.write_bytes(b"".join(RECORD.pack(at, n, 0) for at, n in [(1, 0), (2, 10), (3, 20)]))
    lost = np.zeros(20, dtype=bool)
    lost[3] = True
    times, lags = ledger.lags([Written(0, "text", 0, 0, progress)], [lost], [(2.5, 8), (4.0, 9)])
    assert (times[:10].tolist(), lags[:10].tolist()) == ([2.0] * 10, [2.0] * 10)
    assert np.isinf(lags[10:]).all()
    assert len(lags) == 20
