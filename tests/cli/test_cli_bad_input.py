"""What a user may get wrong: one line says what, where and what to do; no trace, the right code."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from lakelog import document, errors
from lakelog.cli import cli, exits
from lakelog.cli.exits import FAILED, INTERRUPTED, USAGE, WRONG
from lakelog.disk import disk
from tests.support.cli import answer, flip, lines, run, segments

READING = [
    ("sql", "SELECT 1"),
    ("stats",),
    ("log",),
    ("show",),
    ("diff", "a"),
    ("snapshot",),
    ("tag",),
    ("tag", "x"),
    ("branch",),
    ("rollback", "x"),
    ("undo",),
    ("verify",),
    ("repair",),
    ("compact",),
    ("gc",),
    ("retention", "--older-than", "1d"),
    ("config", "set", "threads=1"),
]


def refused(lake: Path | str, *words: str, code: int = FAILED, **rest: Any) -> str:
    """Run a command line that fails, and return the one line it says."""
    said = run(lake, *words, code=code, **rest)
    *before, last = said.stderr.splitlines()
    assert last.startswith("lakelog: error: ")
    assert not [line for line in before if line.startswith(("Traceback", "lakelog: error"))]
    return last.removeprefix("lakelog: error: ")


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A lake with ten published events under the tag v1."""
    path = tmp_path / "lake"
    run(path, "append", input=lines(10))
    run(path, "tag", "v1")
    return path


# --- no lake, another lake, a broken lake ---------------------------------------------------------


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_no_verb_makes_a_lake_by_the_way(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Where there is no lake every other verb says so and makes none."""
    said = refused(tmp_path / "none", *words)
    assert said == f"no lake at {tmp_path / 'none'}: create one with `lakelog init`"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("words", [("stats",), ("append", "type=a"), ("init",)], ids=" ".join)
def test_a_file_is_no_lake(tmp_path: Path, words: tuple[str, ...]) -> None:
    """A file in the lake's place is named, and stays as it is."""
    path = tmp_path / "file"
    path.write_text("mine")
    assert str(path) in refused(path, *words)
    assert path.read_text() == "mine"


def test_a_directory_of_others_is_left_alone(tmp_path: Path) -> None:
    """init and append refuse a directory that holds something else."""
    (tmp_path / "letter.txt").write_text("dear")
    for words in (("init",), ("append", "type=a")):
        assert "not empty and not a lake" in refused(tmp_path, *words)
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


def test_a_second_init_is_refused(lake: Path) -> None:
    """init does not touch a lake that is there."""
    assert "a lake already exists" in refused(lake, "init")


def test_a_lake_of_a_later_format_is_not_opened(lake: Path) -> None:
    """A format from the future asks for an upgrade; nothing is called damaged."""
    body = document.decode((lake / "lakelog.json").read_bytes())
    (lake / "lakelog.json").write_bytes(document.encode({**body, "format": 99}))
    for words in (("stats",), ("append", "type=a"), ("verify",), ("sql", "SELECT 1")):
        assert "upgrade lakelog" in refused(lake, *words)


def test_a_damaged_lakelog_json_is_named_and_mended(lake: Path) -> None:
    """Every verb names the file; verify still works, and repair makes it anew."""
    (lake / "lakelog.json").write_bytes(b"{}\n")
    for words in (("stats",), ("append", "type=a"), ("sql", "SELECT count(*) FROM events")):
        said = refused(lake, *words)
        assert f"{lake}/lakelog.json" in said
        assert "lakelog repair" in said
    assert answer(lake, "doctor", code=1)[-1]["state"] == "failed"
    assert answer(lake, "verify", code=WRONG)["problems"][0]["path"] == "lakelog.json"
    run(lake, "repair", "--yes")
    assert answer(lake, "sql", "SELECT count(*) AS n FROM events") == [{"n": 10}]


def test_a_damaged_segment_is_never_wrong_rows(lake: Path) -> None:
    """A query over a damaged segment fails, naming the file; so does a checked rollback."""
    flip(segments(lake)[0])
    for words in (("sql", "SELECT type FROM events"), ("rollback", "v1", "--verify")):
        assert str(segments(lake)[0]) in refused(lake, *words)


def test_a_damaged_tag_is_named(lake: Path) -> None:
    """A tag that cannot be read fails what needs it; verify reports it as wrong."""
    (lake / "refs" / "tags" / "v1.json").write_bytes(b"junk")
    assert "v1.json" in refused(lake, "rollback", "v1")
    assert answer(lake, "verify", "v1", code=WRONG)["problems"][0]["path"] == "refs/tags/v1.json"
    assert answer(lake, "sql", "SELECT count(*) AS n FROM events") == [{"n": 10}]


# --- names, refs, settings, options ---------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("show", "nope"),
        ("rollback", "nope"),
        ("diff", "nope"),
        ("diff", "v1", "nope"),
        ("verify", "nope"),
        ("stats", "--at", "nope"),
        ("tag", "x", "nope"),
        ("branch", "x", "nope"),
        ("sql", "SELECT 1", "--at", "nope"),
        ("show", "v1~99"),
        ("show", "@99"),
        ("show", "1999-01-01"),
        ("tag", "--delete", "nope"),
        ("branch", "--delete", "nope"),
        ("log", "--branch", "nope"),
    ],
    ids=" ".join,
)
def test_an_unknown_ref_is_said_to_be_so(lake: Path, words: tuple[str, ...]) -> None:
    """A tag, branch, move or time that is not there fails in one line that names it."""
    assert words[-1].partition("~")[0].strip("@") in refused(lake, *words)


@pytest.mark.parametrize(
    "name", ["", " x", "a~b", "@x", 'a"b', "2026-01-01", "deadbeef", "x" * 300]
)
def test_an_impossible_name_is_wrong_usage(lake: Path, name: str) -> None:
    """A name that could be mistaken for something else is refused, for tags and branches."""
    for verb in ("tag", "branch"):
        assert "cannot be a name" in refused(lake, verb, name, code=USAGE)


@pytest.mark.matrix
@pytest.mark.parametrize(
    "words",
    [
        ("init", "--setting", "nope=1"),
        ("init", "--setting", "threads"),
        ("init", "--setting", "threads=many"),
        ("config", "set", "seal=sometimes"),
        ("config", "set", "rotate_bytes=0"),
        ("config", "get", "nope"),
        ("config", "set"),
        ("sqll",),
        ("sql", "--fromat", "csv"),
        ("sql", "SELECT 1", "--format", "xml"),
        ("sql", "SELECT 1", "--json", "--format", "csv"),
        ("sql", "SELECT 1", "-o", "a.xyz"),
        ("sql", "SELECT 1", "-f", "x.sql"),
        ("sql", "SELECT $a", "--param", "a"),
        ("sql", " "),
        ("retention",),
        ("retention", "--older-than", "soon"),
        ("retention", "--older-than", "1d", "--apply", "--dry-run"),
        ("log", "-n", "x"),
        ("log", "-n", "-1"),
        ("search", "x", "-n", "9" * 20),
        ("patterns", "-n", "9" * 20),
        ("tag", "--list", "x"),
        ("tag", "--delete"),
        ("tag", "--delete", "a", "b"),
        ("tag", "list"),
        ("tag", "delete", "v1"),
        ("branch", "list"),
        ("verify", "v1", "--repair"),
        ("completion", "tcsh"),
        ("rollback",),
        ("demo", "--sample", "/dev/null"),
        ("compact", "--every", "x"),
        ("append", "--dedupe", "id"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_code_2(lake: Path, words: tuple[str, ...]) -> None:
    """Options, arguments and settings that cannot be are wrong usage, in one line."""
    refused(lake if words[0] != "init" else lake / "new", *words, code=USAGE)


def test_no_arguments_show_the_help() -> None:
    """`lakelog` alone shows how to use it, as wrong usage."""
    result = CliRunner().invoke(cli, [])
    assert result.exit_code == USAGE
    assert result.stderr.startswith("Usage: lakelog [OPTIONS] VERB")


def test_a_query_is_needed_on_a_terminal(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sql without a query does not wait on a terminal for one whose answer goes elsewhere."""
    monkeypatch.setattr(
        "lakelog.cli.render.terminal.is_terminal", lambda stream: stream is sys.stdin
    )
    assert "a query is needed" in refused(lake, "sql", code=USAGE)


# --- SQL ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nope", "nope does not exist"),
        ("SELECT nope FROM events", "nope"),
        ("SELECT 'x'::INT", "Could not convert"),
        ("SELECT range || 'x' AS x, x::INT FROM range(5000)", "Could not convert"),
        ("SELECT if(range < 4000, 1, error('boom')) FROM range(5000)", "boom"),
        ("SELECT $a", "a"),
        ("SELECT * FROM 'nope.csv'", "nope.csv"),
        ("SELECT abs('x', 1)", "abs"),
        ("FROM events WHERE time > 'soon'", "soon"),
    ],
)
def test_wrong_sql_is_one_line(lake: Path, query: str, words: str) -> None:
    """What the engine says of a query is one line, whenever it says it."""
    assert words in refused(lake, "sql", query)


def test_parquet_cannot_hold_everything(lake: Path, tmp_path: Path) -> None:
    """A type that Parquet does not know fails in one line, which says what to write, and leaves no
    file."""
    path = tmp_path / "x.parquet"
    line = refused(lake, "sql", "SELECT INTERVAL '1 day' AS i", "-o", str(path))
    assert "cast it, as in CAST(x AS VARCHAR)" in line
    assert "interval" in line
    assert not list(tmp_path.glob("x.parquet*"))


# --- asking before removing -----------------------------------------------------------------------


def test_without_a_terminal_removing_needs_yes(tmp_path: Path) -> None:
    """repair and retention --apply do not remove unasked where nobody can be asked."""
    lake = tmp_path / "lake"
    run(lake, "append", input=lines(3, time="2020-01-01"))
    run(lake, "snapshot")
    words = ("retention", "--older-than", "1d", "--apply")
    assert "add --yes" in refused(lake, *words, code=USAGE, input="y\n")
    flip(segments(lake)[0])
    before = sorted(p.name for p in lake.rglob("*"))
    for repairing in (("repair",), ("verify", "--repair")):
        assert "add --yes" in refused(lake, *repairing, code=USAGE, input="y\n")
    assert sorted(p.name for p in lake.rglob("*")) == before


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("n\n", FAILED), ("", INTERRUPTED)])
def test_on_a_terminal_it_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    """On a terminal the answer decides; no answer is no."""
    lake = tmp_path / "lake"
    run(lake, "append", input=lines(3, time="2020-01-01"))
    run(lake, "snapshot")
    monkeypatch.setattr("lakelog.cli.render.terminal.is_terminal", lambda stream: True)
    words = ("retention", "--older-than", "1d", "--apply", "--format", "json")
    run(lake, *words, code=code, input=typed)
    monkeypatch.undo()
    assert answer(lake, "show")["events"] == (0 if code == 0 else 3)


# --- the disk -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full: free space and run it again"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "/lake/x: the file system is read-only"),
        (errno.EACCES, "/lake/x: no permission"),
        (errno.EIO, "/lake/x: Input/output error"),
    ],
)
def test_failures_of_the_disk_are_one_line(
    lake: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    """An OSError says which path and what to do; what was stored before it stays."""

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number), "/lake/x")

    monkeypatch.setattr(disk, "create", fail)
    assert words in refused(lake, "append", input=lines(3))
    assert words in refused(lake, "append", "type=a")
    monkeypatch.undo()
    assert answer(lake, "sql", "SELECT count(*) AS n FROM events") == [{"n": 10}]


def test_a_path_nobody_can_write_is_named(tmp_path: Path) -> None:
    """A lake where no directory can be made fails in one line that names the place."""
    for words in (("init",), ("append", "type=a")):
        assert "/proc/" in refused("/proc/self/none/lake", *words)
    assert "no lake at /proc" in refused("/proc/self/none", "stats")


def test_output_that_cannot_be_written_is_named(lake: Path, tmp_path: Path) -> None:
    """-o into nowhere, or onto a directory, names FILE itself."""
    for path in (tmp_path / "none" / "x.csv", tmp_path):
        said = refused(lake, "sql", "SELECT 1", "--format", "csv", "-o", str(path))
        assert said.startswith(f"{path}: ")
    assert "no such file" in refused(lake, "sql", "-f", str(tmp_path / "none.sql"))
    assert "full" in refused(lake, "sql", "SELECT 1", "--format", "csv", "-o", "/dev/full")


# --- the table of exit codes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidSetting("x"), USAGE),
        (errors.InvalidName("x"), USAGE),
        (errors.InvalidEvent("x"), USAGE),
        (errors.LakeNotFound("x"), FAILED),
        (errors.DamagedSegment("x", "y"), FAILED),
        (click.UsageError("x"), USAGE),
        (click.ClickException("x"), FAILED),
        (KeyboardInterrupt(), INTERRUPTED),
        (click.Abort(), INTERRUPTED),
        (BrokenPipeError(), 0),
        (OSError(), FAILED),
        (ValueError("x"), FAILED),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_error_has_one_code(error: BaseException, code: int) -> None:
    """The table maps each class of errors to its exit code."""
    assert exits.code_of(error) == code


def test_the_trace_is_for_those_who_ask(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LAKELOG_DEBUG=1 shows where an error came from, before the one line."""
    said = run(lake, "show", "nope", code=FAILED, env={"LAKELOG_DEBUG": "1"}).stderr
    assert "Traceback" in said
    assert said.splitlines()[-1].startswith("lakelog: error: no tag")


def test_a_mistake_of_ours_is_one_line_too(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even an error nobody thought of names itself and how to see more."""
    monkeypatch.setattr("lakelog.lake.Lake.log", lambda *_: {}["x"])
    assert refused(lake, "log") == "KeyError: 'x'; LAKELOG_DEBUG=1 shows where"


def test_every_verb_survives_an_empty_lake(tmp_path: Path) -> None:
    """On a lake without events every verb has something to say, in words and in JSON."""
    lake = tmp_path / "lake"
    run(lake, "init")
    for words in [
        ("sql", "SELECT * FROM events"),
        ("stats",),
        ("stats", "--columns"),
        ("log",),
        ("show",),
        ("diff", "main"),
        ("snapshot",),
        ("tag",),
        ("branch",),
        ("rollback", "main"),
        ("verify",),
        ("repair",),
        ("compact",),
        ("gc",),
        ("retention", "--older-than", "1d"),
        ("doctor",),
        ("config",),
    ]:
        run(lake, *words, "--format", "table")
        said = run(lake, *words, "--json").stdout
        assert json.loads(said) is not None
    run(lake, "log", "-o", str(tmp_path / "log.parquet"))
    run(lake, "undo")
    run(lake, "undo")


def test_an_export_to_stdout_is_named(lake: Path) -> None:
    """`-` is no file: who wants the rows on stdout is told how."""
    assert "lakelog sql QUERY" in refused(lake, "export", "events", "-o", "-", code=USAGE)
    assert not Path("-").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("ingest", "x.jsonl", "--source", "\udcff"),
        ("remote", "add", "r", "/tmp/\udcff"),
        ("patterns", "--type", "\udcff"),
    ],
)
def test_an_argument_that_is_no_unicode(
    lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Bytes that a terminal of another encoding gives are said to be what they are."""
    monkeypatch.chdir(tmp_path)
    Path("x.jsonl").write_text(lines(1))
    assert "not valid Unicode" in refused(lake, *words)
