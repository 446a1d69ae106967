"""What else stands in directories of logs: said once, and everything else is read."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from click.testing import CliRunner, Result

import lakelog
from lakelog.audit.audit import audit
from lakelog.cli import cli
from lakelog.collect import loop, watch
from lakelog.files.scan import Selection
from tests.support import lakes
from tests.support.watching import Place, Watched, stored

SPECIAL = {"null": "a device", "zero": "a device", "pipe": "a pipe", "socket": "a socket"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A directory with a log, devices, a pipe, a socket, loops, and names of any bytes."""
    monkeypatch.setattr(watch, "STABLE", -1.0)
    place = Place(tmp_path / "logs")
    place.write("a.log", 3)
    (place.root / "null").symlink_to("/dev/null")
    (place.root / "zero").symlink_to("/dev/zero")
    os.mkfifo(place.root / "pipe")
    here = os.getcwd()
    os.chdir(place.root)  # a socket's path may not be long
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    os.chdir(here)
    (place.root / "loop").symlink_to("loop")
    (place.root / "sub").mkdir()
    (place.root / "sub/up").symlink_to("..")
    place.write("two\nlines.log", 2)
    place.write(os.fsdecode(b"\xff\xfe.log"), 2)
    return place


def close_directory(monkeypatch: pytest.MonkeyPatch, closed: Path) -> None:
    """Let one directory be closed to everybody, root too."""

    def guard(real: Callable[[Any], Any]) -> Callable[..., Any]:
        def listing(path: Any = ".") -> Any:
            if os.fspath(path) == str(closed):
                raise PermissionError(13, "Permission denied", str(closed))
            return real(path)

        return listing

    monkeypatch.setattr(os, "scandir", guard(os.scandir))
    monkeypatch.setattr(os, "listdir", guard(os.listdir))


def run(lake: Path, *words: str) -> Result:
    """Run a verb."""
    return CliRunner().invoke(cli, ["--lake", str(lake), *words])


def test_ingest_reads_files_only(lake: lakelog.Lake, place: Place) -> None:
    """Devices, pipes and sockets below a directory are left out and said; a link that leads
    nowhere is a fault; all else comes in."""
    report = lake.ingest(str(place.root))
    by_name = {Path(file.path).name: file for file in report.files}
    ignored = {name: file.ignored for name, file in by_name.items() if file.ignored}
    assert ignored == {name: f"left out: it is {kind}" for name, kind in SPECIAL.items()}
    assert [name for name, file in by_name.items() if file.error] == ["loop"]
    assert stored(lake) == Counter(place.written)
    proof = audit(lake.store, lake.branch_name, lake.engine, [str(place.root)])
    assert not proof.wrong
    assert [Path(file.source).name for file in proof.failed] == ["loop"]


@pytest.mark.parametrize("name", ["null", "zero", "socket"])
def test_ingest_of_a_special_file(lake: lakelog.Lake, place: Place, name: str) -> None:
    """One that is named is a fault."""
    (file,) = lake.ingest(str(place.root / name)).files
    assert file.error == f"not a regular file: it is {SPECIAL[name]}"


def test_watch_says_each_once(lake: lakelog.Lake, place: Place) -> None:
    """Every odd thing is said once, however many rounds there are."""
    said: list[str] = []
    with Watched(lake, place) as watcher:
        watcher._reporter.say = said.append
        for _ in range(3):
            place.write("a.log", 1)
            watcher.round()
        assert watcher.has_unreadable
        json.dumps(watcher.memory())
    names = Counter(Path(line.rpartition(": ")[0].partition(": ")[0]).name for line in said)
    assert names == Counter([*SPECIAL, "loop"])
    assert stored(lake) == Counter(place.written)


def test_a_directory_that_may_not_be_entered(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported once by its name; ingest, watch and audit read all others."""
    place = Place(tmp_path / "logs")
    for folder in ("a", "closed", "z"):
        (place.root / folder).mkdir()
    place.write("a/1.log")
    place.write("z/2.log")
    close_directory(monkeypatch, place.root / "closed")
    report = lake.ingest(str(place.root))
    faults = [(file.path, file.error) for file in report.files if file.error]
    assert faults == [(str(place.root / "closed"), "Permission denied")]
    place.write("z/2.log")
    said: list[str] = []
    with Watched(lake, place) as watcher:
        watcher._reporter.say = said.append
        for _ in range(3):
            watcher.round()
        assert watcher.has_unreadable
    assert said == [f"{place.root / 'closed'}: Permission denied"]
    assert stored(lake) == Counter(place.written)
    proof = audit(lake.store, lake.branch_name, lake.engine, [str(place.root)])
    assert not proof.wrong
    assert len(proof.files) >= 2


def test_a_directory_that_goes_and_comes_back(lake: lakelog.Lake, tmp_path: Path) -> None:
    """It is said once that it is gone and once that it is there again; what it then holds is
    read."""
    place = Place(tmp_path / "logs")
    place.write("a.log")
    said: list[str] = []
    with Watched(lake, place) as watcher:
        watcher._reporter.say = said.append
        watcher.round()
        shutil.rmtree(place.root)
        for _ in range(3):
            watcher.round()
        place.root.mkdir()
        place.write("b.log")
        watcher.round()
        watcher.round()
        assert not watcher.has_unreadable
    assert said == [f"{place.root}: No such file or directory", f"{place.root}: there again"]
    assert stored(lake) == Counter(place.written)


def test_a_file_that_went_is_no_fault(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is packed between the scan and its reading leaves no "No such file" behind."""
    monkeypatch.setattr(watch, "STABLE", -1.0)
    place = Place(tmp_path / "logs")
    place.write("a.log")
    real = Selection.scan

    def scan(*args: Any) -> Any:
        found = real(*args)
        monkeypatch.setattr(Selection, "scan", real)
        place.pack("a.log")
        return found

    monkeypatch.setattr(Selection, "scan", scan)
    with Watched(lake, place) as watcher:
        watcher.round()
        watcher.round()
        assert watcher.totals.faults == {}
        assert not watcher.has_unreadable
    assert stored(lake) == Counter(place.written)


def test_once_fails_where_nothing_can_be_read(tmp_path: Path) -> None:
    """`watch --once` on a directory that is not there says so and exits 1; devices do not."""
    done = run(tmp_path / "lake", "watch", str(tmp_path / "none"), "--once")
    assert done.exit_code == 1
    assert f"{tmp_path / 'none'}: No such file or directory" in done.output
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/null").symlink_to("/dev/null")
    done = run(tmp_path / "lake", "watch", str(tmp_path / "logs"), "--once")
    assert done.exit_code == 0
    assert "left out: it is a device" in done.output


def test_a_full_disk_is_said_once(lake: lakelog.Lake, tmp_path: Path) -> None:
    """What keeps the lake from being written is said once with its path, and when it is over."""
    said: list[str] = []

    class Failing(watch.Watcher):
        """A watcher on a disk that is full for two rounds."""

        left = 2

        def round(self, *, final: bool = False) -> int:
            """Fail, and then do it."""
            self.left -= 1
            if self.left >= 0:
                raise OSError(28, "No space left on device")
            return super().round(final=final)

    (tmp_path / "logs").mkdir()
    patience = loop._RetryingRounds(Failing(lake, [str(tmp_path / "logs")]), said.append)
    for _ in range(4):
        patience.round()
    trouble = f"the lake {lake.store.paths.root} cannot be written: No space left on device"
    assert said == [
        f"{trouble}; nothing is lost, trying again until it works",
        f"resolved: {trouble}",
    ]


def test_a_file_that_shrinks_while_it_is_read(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A file that is cut between two looks gives what is written next, and no fault."""
    place = Place(tmp_path / "logs")
    place.write("a.log", 500)
    with Watched(lake, place) as watcher:
        watcher.round()
        os.truncate(place.root / "a.log", 40)
        watcher.round()
        place.write("b.log", 3)
        watcher.round()
        assert not watcher.has_unreadable
    assert stored(lake) >= Counter(place.written)


EXPORT = (
    '<?xml version="1.0" encoding="utf-16"?>\r\n<Events><Event><System><EventID>7036</EventID>'
    '<Level>3</Level><TimeCreated SystemTime="2024-05-01T10:00:00.5Z"/><Computer>PC</Computer>'
    "</System><EventData><Data Name='to'>läuft</Data></EventData></Event></Events>\r\n"
)
WIDE = {
    "x.log": (
        "2024-05-01 10:00:00 INFO hällo\r\n2024-05-01 10:00:01 WARN 😀\r\n",
        "applog",
        [("INFO", "hällo"), ("WARN", "😀")],
    ),
    "x.csv": (
        '"Time","Level","Message"\r\n"2024-05-01 10:00:00","Warning","ü"\r\n',
        "csv",
        [("WARN", "ü")],
    ),
    "x.xml": (EXPORT, "winevent", [("WARN", None)]),
}


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("name", WIDE)
def test_a_file_in_utf_16(lake: lakelog.Lake, tmp_path: Path, name: str, order: str) -> None:
    """Exports of Windows and PowerShell say by a mark that they are UTF-16: they are read as such,
    also while they grow by half a character, and an audit finds each line."""
    text, form, rows = WIDE[name]
    data, path = ("\ufeff" + text).encode(f"utf-16-{order}"), tmp_path / name
    forms = set()
    with path.open("wb") as writer:
        for part in (data[:67], data[67:]) if form == "applog" else (data,):
            writer.write(part)
            writer.flush()
            forms.add(lake.ingest(str(path)).files[0].format)
    assert forms - {""} == {form}
    assert lake.ingest(str(path)).events == 0
    query = "SELECT level, message FROM events ORDER BY position"
    assert lake.sql(query).fetchall() == rows
    assert lake.sql("SELECT count(*) FROM quarantine").fetchall() == [(0,)]
    assert [f.wrong for f in audit(lake.store, lake.branch_name, lake.engine, []).files] == [0]


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}


@pytest.mark.matrix
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("ending", PACKERS)
def test_a_file_in_utf_16_with_and_without_mark_and_packing(
    lake: lakelog.Lake, tmp_path: Path, ending: str, order: str, mark: str
) -> None:
    """It is read as text, whoever packed it, and known again as what it was packed from."""
    text, _, rows = WIDE["x.log"]
    data = (mark + text).encode(f"utf-16-{order}")
    path = tmp_path / f"x.log{ending}"
    path.write_bytes(PACKERS[ending](data))
    assert lake.ingest(str(path)).quarantined == 0
    query = "SELECT level, message FROM events ORDER BY position"
    assert lake.sql(query).fetchall() == rows
    plain = tmp_path / "plain.log"
    plain.write_bytes(data)
    assert lake.ingest(str(plain)).files[0].same_as == str(path)
    assert [f.wrong for f in audit(lake.store, lake.branch_name, lake.engine, []).files] == [0]


def test_a_short_file_in_utf_16_that_zstd_packed_as_it_is(
    lake: lakelog.Lake, tmp_path: Path
) -> None:
    path = tmp_path / "x.jsonl.zst"
    path.write_bytes(zstandard.compress('{"type":"T","n":1,"m":"grün"}\n'.encode("utf-16")))
    assert lake.ingest(str(path)).events == 1
    assert lake.sql("SELECT data->>'m' FROM events").fetchall() == [("grün",)]


@pytest.mark.parametrize("cut", [1, 10, 65, 200])
def test_a_packed_file_in_utf_16_that_is_cut_short(
    lake: lakelog.Lake, tmp_path: Path, cut: int
) -> None:
    """What was read before the fault is stored, and the fault is said."""
    path = tmp_path / "x.log.gz"
    text = "".join(f"2024-05-01 10:00:{n % 60:02} INFO line {n * 7919}\r\n" for n in range(4000))
    path.write_bytes(gzip.compress(text.encode("utf-16"))[:-cut])
    (file,) = lake.ingest(str(path)).files
    assert "ends too early" in file.error
    assert 3000 < file.events <= 4000
    assert file.quarantined == 0


def test_the_last_line_of_a_watched_file_in_utf_16(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stored although nothing is written behind it, and what is, is stored later; a file at
    rest is not published again."""
    monkeypatch.setattr(watch, "STABLE", -1.0)
    place = Place(tmp_path / "logs")
    path = place.root / "x.log"
    path.write_bytes(("\ufeff" + WIDE["x.log"][0]).encode("utf-16-le"))
    with Watched(lake, place) as watcher:
        for _ in range(4):
            watcher.round()
        assert lake.count() == 2
        assert not watcher.has_open_ends
        with path.open("ab") as file:
            file.write("2024-05-01 10:00:02 INFO more\r\n".encode("utf-16-le"))
        for _ in range(4):
            watcher.round()
        before = lake.store.refs.head("main").move.number
        watcher.round()
        assert lake.store.refs.head("main").move.number == before
    assert lake.count() == 3


@pytest.mark.parametrize("trailing", [b"\0" * 700, b"garbage\n" * 90, b"\0" * 512 + b"x", b"\x1e"])
@pytest.mark.parametrize("packer", [gzip, bz2])
def test_bytes_after_the_last_member_are_ignored(
    packer: Any, trailing: bytes, tmp_path: Path
) -> None:
    """What stands after a gzip or bzip2 stream is no part of it, as for gzip(1): zeros are padding,
    anything else is said; all lines are stored once, and the audit agrees."""
    file = tmp_path / "app.jsonl.packed"
    members = [packer.compress(b'{"type": "A", "data": %d}\n' % n) for n in range(3)]
    file.write_bytes(b"".join(members) + trailing)
    with lakes.opened(str(tmp_path / "lake")) as lake:
        (report,) = lake.ingest(str(file)).files
        assert (report.events, report.error) == (3, "")
        assert ("were ignored" in report.note) == bool(trailing.strip(b"\0"))
        (again,) = lake.ingest(str(file)).files
        assert (again.events, again.error) == (0, "")
        assert lake.count() == 3
        (audited,) = audit(lake.store, "main", lake.engine, [str(file)]).files
        assert (audited.lines, audited.error, audited.wrong) == (3, "", False)


def test_a_member_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    """The beginning of another member is no garbage: its lines come once it is whole."""
    file, more = tmp_path / "app.jsonl.gz", gzip.compress(b'{"type": "B"}\n')
    for cut in (1, 9):
        file.write_bytes(gzip.compress(b'{"type": "A"}\n') + more[:cut])
        with lakes.opened(str(tmp_path / f"lake{cut}")) as lake:
            (report,) = lake.ingest(str(file)).files
            assert (report.events, "too early" in report.error) == (1, True)
            file.write_bytes(gzip.compress(b'{"type": "A"}\n') + more)
            assert lake.ingest(str(file)).events == 1
