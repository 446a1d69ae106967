"""formats: list, test, add, show, remove; and patterns given to ingest, watch and dump."""

from __future__ import annotations

import gzip
import json
import os
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import lakelog
from lakelog.cli import cli
from lakelog.formats.registry import FORMATS
from lakelog.ingest import Preview
from tests.support.cli import answer, offers, run
from tests.support.kept_formats import PATTERN, ROWS, TEXT, rows

ADD = (
    "formats",
    "add",
    "shop",
    "--pattern",
    PATTERN,
    "--begins",
    r"\d{4}-",
    "--zone",
    "Europe/Berlin",
    "--level",
    "SCHWER=ERROR",
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of a kind of its own."""
    path = tmp_path / "shop.log"
    path.write_text(TEXT)
    return path


def test_a_pattern_is_developed_without_a_lake(tmp_path: Path, log: Path) -> None:
    """test says the format, why, and what became of each field; nothing is made or stored."""
    lake = tmp_path / "lake"
    found = answer(lake, "formats", "test", str(log))
    assert (found["format"], found["events"]) == ("applog", 4 - found["quarantined"])
    assert found["scores"][0]["format"] == "applog"
    options = ADD[3:]
    found = answer(lake, "formats", "test", str(log), *options)
    assert (found["why"], found["events"], found["quarantined"]) == ("as asked for", 3, 1)
    assert found["groups"] == {
        "time": "time",
        "level": "level",
        "source": "source",
        "message": "message",
    }
    first, second, third, *_ = found["outcomes"]
    assert first["event"] | {"data": None} == {
        "time": "2026-07-01T10:00:00Z",
        "type": "log",
        "source": "web",
        "level": "INFO",
        "message": "start",
        "data": None,
    }
    assert (second["line"], second["event"]["level"]) == (2, "ERROR")
    assert (third["line"], third["quarantine"]) == (4, "the pattern does not fit the line")
    assert third["fits"] == "2026-07-01 12:00:02 no "
    assert third["stops_at"].startswith(r"\[%{DATA:source}")
    assert not lake.exists()


@pytest.mark.parametrize("columns", [80, 40, 120])
def test_people_read_it_in_their_terminal(tmp_path: Path, log: Path, columns: int) -> None:
    """No line is wider than the terminal, whatever stands in the file."""
    with log.open("ab") as file:
        file.write(
            "2026-07-01 12:00:03 INFO [wéb] \x1b[31m界界\x00".encode() + b"x" * 500 + b"\n\xff\n"
        )
    for words in ((), ("--format", PATTERN), ("--format", "csv"), ("--as", "plain", "-n", "50")):
        result = run(
            tmp_path / "lake", "formats", "test", str(log), *words, env={"COLUMNS": str(columns)}
        )
        assert max(map(len, result.stdout.splitlines())) <= columns
        assert "\x1b" not in result.stdout
        assert "\x00" not in result.stdout
        assert "\nline 2  2026-07-01" in result.stdout


def test_what_the_lake_says_of_a_file_is_told(tmp_path: Path, log: Path) -> None:
    """With a lake its formats count, and the reason names the one that is for the file."""
    lake = tmp_path / "lake"
    run(lake, *ADD, "--for", "shop*.log", "--source", "till")
    found = answer(lake, "formats", "test", str(log))
    assert (found["format"], found["why"]) == ("shop", "this lake's shop is for shop*.log")
    assert "shop" in [score["format"] for score in found["scores"]]
    other = log.rename(tmp_path / "x")
    assert answer(lake, "formats", "test", str(other))["format"] == "applog"
    found = answer(lake, "formats", "test", str(other), "--source", "till")
    assert found["why"] == "this lake's shop is for --source till"
    found = answer(lake, "formats", "test", str(other), "--format", "shop", "--zone", "UTC")
    assert found["outcomes"][0]["event"]["time"] == "2026-07-01T12:00:00Z"


def test_stdin_empty_and_packed_files_are_looked_at(tmp_path: Path, log: Path) -> None:
    """- is stdin; an empty file says nothing; a file that is not there is one line."""
    lake = tmp_path / "lake"
    found = answer(lake, "formats", "test", "-", input=TEXT)
    assert (found["file"], found["lines"]) == ("-", 5)
    log.write_bytes(b"")
    found = answer(lake, "formats", "test", str(log))
    assert (found["events"], found["outcomes"]) == (0, [])
    assert "no such file" in run(lake, "formats", "test", "none", code=1).stderr
    run(lake, "formats", "test", str(tmp_path), code=1)


def test_stdin_is_previewed_as_ingest_reads_it(tmp_path: Path) -> None:
    """Packed, in another encoding or a table: what ingest - takes, its preview shows."""
    table = tmp_path / "shop.parquet"
    pq.write_table(pa.table({"type": ["A"], "n": [1]}), table)
    for content in (gzip.compress(TEXT.encode()), TEXT.encode("utf-16"), table.read_bytes()):
        named = tmp_path / "named"
        named.write_bytes(content)
        outcomes = []
        for path in (str(named), "-"):
            arguments = ["--lake", str(tmp_path / "lake"), "formats", "test", path, "--json"]
            result = CliRunner().invoke(cli, arguments, input=content)
            assert result.exit_code == 0, result.output
            found = json.loads(result.stdout)
            outcomes.append((found["format"], found["events"], found["quarantined"]))
        assert outcomes[0] == outcomes[1]
        assert outcomes[0][1] >= 1


def test_a_preview_of_a_closed_stdin_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without standard input there is one clear line, as ingest has it."""
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(OSError, match="standard input is closed"):
        Preview.of("-", lambda: None, formats={})


def test_a_long_sample_is_read_as_far_as_it_is_shown(make_lake: type, tmp_path: Path) -> None:
    """Only the beginning of a large file is read, and no line is cut."""
    path = tmp_path / "large.log"
    path.write_text("2026-07-01 12:00:00 INFO a: one\n" * 50_000)
    with lakelog.open(str(tmp_path / "lake")) as lake:
        found = Preview.of(str(path), lake.engine, formats={})
    assert (found.lines, found.events, found.quarantined) == (8192, 8191, 0)


def test_formats_are_listed_shown_and_removed(tmp_path: Path) -> None:
    """list names those of the lake first; show is the command that adds it again."""
    lake = tmp_path / "lake"
    listed = {record["format"]: record["about"] for record in answer(lake, "formats", "list")}
    assert list(listed) == list(FORMATS)
    assert "Parquet" in listed["parquet"]
    assert len(set(listed.values())) == len(listed) - 1  # CEF and LEEF are one
    assert not lake.exists()
    made = run(lake, *ADD, "--for", "shop*.log", "--define", "X=a b")
    assert "added format shop to" in made.stderr
    first = answer(lake, "formats", "list")[0]
    assert (first["format"], first["from"], first["for"]) == ("shop", "this lake", "shop*.log")
    shown = answer(lake, "formats", "show", "shop")
    assert shown["pattern"] == PATTERN
    assert shown["levels"] == {"SCHWER": "ERROR"}
    command = run(lake, "formats", "show", "shop", "--format", "table").stdout
    words = shlex.split(command.replace("\\\n", " "))[1:]
    run(lake, *words, code=1)
    run(lake, *words, "--replace")
    assert answer(lake, "formats", "show", "shop") == shown
    run(lake, "formats", "remove", "shop")
    assert "no format 'shop'" in run(lake, "formats", "remove", "shop", code=1).stderr
    assert "no format 'shop'" in run(lake, "formats", "show", "shop", code=1).stderr


@pytest.mark.parametrize("way", ["ingest", "watch", "dump"])
def test_a_pattern_is_given_where_files_come_in(tmp_path: Path, log: Path, way: str) -> None:
    """--format takes a pattern with all that goes with it; audit reads the file so again."""
    lake = tmp_path / "lake"
    words = {
        "ingest": ("ingest", str(log)),
        "watch": ("watch", str(tmp_path), "--pattern", log.name, "--once"),
        "dump": ("dump", "--logs-dir", str(tmp_path), "--backup-dir", str(log) + "s", "--once"),
    }[way]
    run(lake, *words, "--format", PATTERN, *ADD[5:], code=1 if way == "ingest" else 0)
    with lakelog.open(str(lake), create=False) as opened:
        assert rows(opened) == ROWS
    (found,) = answer(lake, "audit", str(log))
    assert (found["state"], found["lines"], found["quarantined"]) == ("sound", 4, 1)


def test_a_format_of_the_lake_is_asked_for_by_its_name(tmp_path: Path, log: Path) -> None:
    """ingest --format NAME, audit --as NAME and quarantine replay --as NAME know it."""
    lake = tmp_path / "lake"
    run(lake, *ADD)
    other = log.rename(tmp_path / "x")
    run(lake, "ingest", str(other), "--format", "shop", code=1)
    with lakelog.open(str(lake), create=False) as opened:
        assert rows(opened) == ROWS
    assert answer(lake, "audit", str(other), "--as", "shop")[0]["state"] == "sound"
    assert answer(lake, "quarantine", "replay", "--as", "shop")["left"] == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--format", "%{IPP:a}"), "did you mean 'IP'?"),
        (("--format", "(?P<a>"), "missing"),
        (("--format", "aplog"), "did you mean 'applog'?"),
        (("--begins", "x"), "go with a pattern"),
        (("--format", "applog", "--begins", "x"), "go with a pattern"),
        (("--format", "%{WORD:a}", "--zone", "CET"), "write Europe/Berlin"),
        (("--zone", "CET"), "write Europe/Berlin"),
        (("--format", "%{WORD:a}", "--level", "x"), "--level is WORD=LEVEL"),
        (("--format", "%{WORD:a}", "--level", "x=y"), "choose from TRACE"),
        (("--format", "%{WORD:a}", "--define", "=y"), "--define is NAME=REGEX"),
        (("--format", "%{WORD:time}", "--time-format", "HH:mm"), "has to give month"),
        (("--format", "applog@CET"), "write Europe/Berlin"),
    ],
)
@pytest.mark.parametrize("verb", ["ingest", "watch", "formats test", "formats add x"])
def test_mistakes_are_one_line_before_anything_is_made(
    tmp_path: Path, log: Path, verb: str, words: tuple[str, ...], reason: str
) -> None:
    """A wrong pattern or option ends with 2 and one line; no lake is made for it."""
    lake = tmp_path / "lake"
    files = () if "add" in verb else (str(tmp_path if verb == "watch" else log),)
    result = run(lake, *verb.split(), *files, *words, code=2)
    assert reason in result.stderr
    assert len([line for line in result.stderr.splitlines() if "error" in line]) == 1
    assert not lake.exists()


def test_a_pattern_without_a_time_is_said(tmp_path: Path, log: Path) -> None:
    """Events then have the time of their ingest, which somebody may not have meant."""
    result = run(tmp_path / "lake", "ingest", str(log), "--format", "%{WORD:y}")
    assert "has no group called time" in result.stderr
    result = run(tmp_path / "lake", "formats", "test", str(log), "--format", "%{YEAR:y}")
    assert "(time of ingest)" in result.stdout
    result = run(tmp_path / "lake", "formats", "test", str(log), "--format", PATTERN)
    assert "of ingest" not in result.stdout
    assert "SCHWER  (a level of its own: see --level)" in result.stdout


def test_a_unit_holds_the_whole_pattern(tmp_path: Path, log: Path) -> None:
    """--print-unit names all that was said, in a way that is read again."""
    lake = tmp_path / "lake"
    unit = run(lake, "watch", str(tmp_path), "--format", PATTERN, *ADD[5:], "--print-unit").stdout
    (line,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    words = shlex.split(line.removeprefix("ExecStart=").replace("%%", "%"))
    run(lake, *words[words.index("watch") :], "--once", "--pattern", "shop.log")
    with lakelog.open(str(lake), create=False) as opened:
        assert rows(opened) == ROWS


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("lakelog ingest --format sys", ["syslog-ng", "syslog"]),
        ("lakelog --lake LAKE watch --format sh", ["shop"]),
        ("lakelog --lake LAKE formats test --format sh", ["shop"]),
        ("lakelog --lake LAKE formats remove s", ["shop"]),
        ("lakelog --lake LAKE audit --as sho", ["shop"]),
        ("lakelog formats sh", ["show"]),
        ("lakelog --lake /nowhere formats show s", []),
    ],
)
def test_names_of_formats_are_completed(tmp_path: Path, words: str, found: list[str]) -> None:
    """Those that lakelog brings and those of the lake."""
    lake = tmp_path / "lake"
    run(lake, *ADD)
    assert offers(words.replace("LAKE", str(lake))) == found


def test_help_fits_a_terminal(tmp_path: Path) -> None:
    """Every verb of formats has help of at most 80 columns, with examples."""
    for words in ((), ("list",), ("test",), ("add",), ("show",), ("remove",)):
        text = run(tmp_path, "formats", *words, "-h").stdout
        assert "Examples:" in text
        assert max(map(len, text.splitlines())) <= 80, words


def test_json_of_every_field_is_json(tmp_path: Path, log: Path) -> None:
    """Names and bytes that are no text are shown all the same."""
    name = tmp_path / os.fsdecode(b"a\xffb.log")
    name.write_bytes(b"\xff\xfe\n2026-07-01 12:00:00 ERROR a: \xf0\x9f\n")
    json.loads(run(tmp_path / "lake", "formats", "test", str(name), "--json").stdout)
    log.write_bytes(b'{"type":"a","n":123456789012345678901234567890,"\\udc00":1}\n')
    assert (
        "123456789012345678901234567890"
        in run(tmp_path / "lake", "formats", "test", str(log), "--json").stdout
    )
    run(tmp_path / "lake", "formats", "test", str(name))
