"""The SQL shell, and scripts: one session for many statements, Ctrl-C, completion, the terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

import lakelog
from lakelog.cli import editor, screen, shell, terminal
from lakelog.cli.app import App
from lakelog.cli.asking import Asker
from lakelog.cli.complete import Names, Words, open_token
from lakelog.cli.waiting import Waiting, is_cancelled
from lakelog.errors import QueryFailed
from tests.conftest import MakeLake
from tests.support.lakes import events
from tests.test_cli import run

ROOT = Path(__file__).resolve().parent.parent
ENDLESS = "SELECT count(*) FROM range(300000) a, range(300000) b WHERE a.range * b.range % 7 = 3"
COUNT = "SELECT count(*) FROM events"


@pytest.fixture
def lake(make_lake: MakeLake) -> lakelog.Lake:
    """Ten published events, tagged v1, and three in the tail."""
    lake = make_lake()
    lake.append(events("PING", 10, level="ERROR"))
    lake.tag("v1")
    lake.append(events("it's", 3))
    return lake


@pytest.fixture
def asker(lake: lakelog.Lake) -> Iterator[Asker]:
    """A session over that lake."""
    with Asker(lake.store, lake.branch_name) as made:
        yield made


@pytest.fixture
def talking(lake: lakelog.Lake, asker: Asker) -> shell.Shell:
    """A shell over that lake, its timer off."""
    made = shell.Shell(App(lake.path), lake, asker, {"t": "PING"})
    made.is_timed = False
    return made


def ask(asker: Asker, query: str, **params: Any) -> Any:
    """Return the rows of one statement."""
    return asker.sql(query, params or None).fetchall()


# --- one session for many statements --------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("SELECT 1;", True), ("SELECT 1", False), ("SELECT 1;\n", True), ("SELECT 1; -- done", True),
        ("SELECT 1 -- no;", False), ("SELECT ';", False), ("SELECT ';';", True),
        ("SELECT 'it''s;", False), ('SELECT "a;', False), ("SELECT $$a;", False),
        ("SELECT $x$a;$x$;", True), ("/* a;", False), ("-- a;\n", False), ("FROM events", False),
        ("FROM events;", True), ("SELECT 1; SELECT 2", False), ("SELECT 1; SELECT 2;", True),
        ("SELCT 1;", True), ("SELECT (1;", True), ("SELCT 1", False), ("", True), (" \n", True),
        (";", True), (".help", True), (".at v1", True), ("quit", True), ("EXIT;", True),
        ("quite", False),
    ],
)  # fmt: skip
def test_a_text_is_whole_at_its_semicolon(talking: shell.Shell, text: str, whole: bool) -> None:
    """Enter runs what ends outside strings and comments, or what no more words would mend."""
    assert talking.is_whole(text) is whole


def test_what_statements_make_lasts(asker: Asker) -> None:
    """Temporary tables, variables, settings, prepared statements and transactions persist."""
    ask(asker, "CREATE TEMP TABLE pings AS SELECT * FROM events WHERE type = $t", t="PING")
    assert ask(asker, "SELECT count(*) FROM pings") == [(10,)]
    ask(asker, "SET VARIABLE first = (SELECT min(time) FROM events)")
    assert ask(asker, "SELECT count(*) FROM events WHERE time > getvariable('first')") == [(11,)]
    ask(asker, "SET TimeZone = 'Europe/Prague'")
    assert ask(asker, "SELECT current_setting('TimeZone')") == [("Europe/Prague",)]
    ask(asker, "PREPARE p AS SELECT count(*) FROM events WHERE type = $1")
    assert ask(asker, "EXECUTE p('PING')") == [(10,)]
    ask(asker, "BEGIN")
    ask(asker, "DROP TABLE pings")
    with pytest.raises(QueryFailed):
        ask(asker, "SELECT 1::INT FROM pings")
    ask(asker, "ROLLBACK")
    assert ask(asker, "SELECT count(*) FROM pings") == [(10,)]


def test_each_statement_sees_what_was_just_appended(asker: Asker, lake: lakelog.Lake) -> None:
    """The lake's tables are made anew each time, also under views and macros of the user's."""
    ask(asker, "CREATE VIEW pings AS SELECT * FROM events WHERE type = 'PING'")
    ask(asker, "CREATE MACRO of_type(t) AS TABLE SELECT * FROM events WHERE type = t")
    for count in (10, 14, 18):
        assert ask(asker, "SELECT count(*) FROM pings") == [(count,)]
        assert ask(asker, "SELECT count(*) FROM of_type('PING')") == [(count,)]
        assert ask(asker, COUNT) == [(count + 3,)]
        lake.append(events("PING", 4, count))
    assert ask(asker, "SELECT count(*) FROM events WHERE type = 'nope'") == [(0,)]
    assert ask(asker, "SELECT count(*) FROM query('FROM events')") == [(25,)]


def test_refs_are_schemas_and_states_can_be_asked(asker: Asker, lake: lakelog.Lake) -> None:
    """A branch that moves does not take what statements made with it."""
    with lake.branch("dev") as dev:
        ask(asker, "CREATE TABLE kept AS SELECT 1 AS a")
        for count in (14, 15):
            dev.append({"type": "DEV"})
            assert ask(asker, 'SELECT count(*) FROM "dev".events') == [(count,)]
    assert ask(asker, 'SELECT count(*) FROM "v1".events, kept') == [(10,)]
    assert asker.sql(COUNT, None, lake.at("v1").id).fetchall() == [(10,)]


def test_errors_keep_their_caret_and_name_refs(asker: Asker) -> None:
    """The engine's lines stay, with the names that were typed."""
    with pytest.raises(QueryFailed, match=r"LINE 2: FRM events\n +\^"):
        asker.statements("SELECT type\nFRM events e x;")
    with pytest.raises(QueryFailed, match='"v1"') as caught:
        ask(asker, 'SELECT "v1".nope(type) FROM "v1".events')
    assert "lakelog_" not in str(caught.value)


# --- scripts --------------------------------------------------------------------------------------


def script(lake: lakelog.Lake, tmp_path: Path, text: str, *words: str, code: int = 0) -> Any:
    """Run `lakelog sql -f FILE`."""
    path = tmp_path / "script.sql"
    path.write_text(text)
    return run(lake.path, "sql", "-f", str(path), *words, code=code)


def test_a_script_runs_each_statement(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Statements share tables and settings, and each one's rows are written in turn."""
    text = (
        f"CREATE TEMP TABLE n AS SELECT 7 AS a; SELECT a FROM n; SET threads = 1; {COUNT} -- all;"
    )
    said = script(lake, tmp_path, text)
    assert said.stdout.splitlines() == ['{"a":7}', '{"count_star()":13}']
    csv = script(lake, tmp_path, "SELECT 1 AS a; SELECT 'x;y' AS b;", "--format", "csv").stdout
    assert csv.split() == ["a", "1", "b", "x;y"]


def test_a_file_gets_the_rows_of_the_last(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Where only one result can be, it is that of the last statement."""
    path = tmp_path / "out.parquet"
    script(
        lake, tmp_path, "SELECT 1 AS a; CREATE TABLE t AS SELECT 2 AS b; FROM t", "-o", str(path)
    )
    assert pq.read_table(path).to_pylist() == [{"b": 2}]


def test_parameters_go_to_the_statements_that_name_them(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A parameter may be for one statement only; one for none is a mistake."""
    text = "SELECT $t AS t; SELECT 1 AS a; SELECT $t AS t, $n AS n"
    said = script(lake, tmp_path, text, "--param", "t=x", "--param", "n=3").stdout
    assert said.splitlines() == ['{"t":"x"}', '{"a":1}', '{"t":"x","n":3}']
    refused = script(lake, tmp_path, text, "--param", "t=x", "--param", "m=3", code=2)
    assert "no statement names $m" in refused.stderr


def test_a_script_stops_at_the_first_mistake(lake: lakelog.Lake, tmp_path: Path) -> None:
    """What does not parse runs nothing; what fails ends it with one line."""
    assert script(lake, tmp_path, "SELECT 1; SELCT 2;", code=1).stdout == ""
    said = script(lake, tmp_path, "SELECT 1 AS a; SELECT nope; SELECT 2;", code=1)
    assert said.stdout == '{"a":1}\n'
    assert said.stderr.count("\n") == 1
    assert (
        "one statement" in script(lake, tmp_path, "SELECT 1; SELECT 2", "--explain", code=2).stderr
    )
    assert "the query is empty" in script(lake, tmp_path, "-- nothing", code=2).stderr


# --- what the shell says --------------------------------------------------------------------------


def told(talking: shell.Shell, capsys: pytest.CaptureFixture[str], *texts: str) -> tuple[str, str]:
    """Return what texts made the shell write to stdout and stderr."""
    for text in texts:
        talking.answer(text)
    said = capsys.readouterr()
    return said.out, said.err


def test_statements_are_answered_with_tables(
    talking: shell.Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each statement of a text is answered; $names take the parameters given at the start."""
    text = f"{COUNT}; CREATE TABLE t AS FROM range(2); SELECT $t AS t, NULL AS n;"
    out, err = told(talking, capsys, text)
    assert out.split() == ["count_star()", "─" * 12, "13", "t", "n", "─" * 10, "PING", "NULL"]
    assert err == ""


def test_the_timer_tells_rows_and_time(
    talking: shell.Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr: rows and time, what changed, what is left out; .timer off leaves only the last."""
    talking.is_timed = True
    texts = (
        "SELECT 1 AS a",
        "CREATE TABLE t AS FROM range(2)",
        "SET threads = 2",
        "FROM range(201)",
    )
    _, err = told(talking, capsys, *texts, "SELECT 1 AS a WHERE false")
    heads = ["1 row,", "2 rows,", "done,", "the first 200 rows,", "0 rows,"]
    lines = err.splitlines()
    assert [line[: len(head)] for line, head in zip(lines, heads, strict=True)] == heads
    assert all(line.split(";")[0].endswith((" ms", " s")) for line in lines)
    assert lines[3].endswith("; .format csv shows all")
    _, err = told(talking, capsys, ".timer off", "SELECT 1", "FROM range(201)")
    assert err.splitlines() == ["the timer is off", ".format csv shows all"]


def test_wide_rows_name_the_columns_left_out(
    talking: shell.Shell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table fits the terminal, and says which columns did not."""
    monkeypatch.setenv("COLUMNS", "40")
    out, err = told(talking, capsys, "FROM events")
    assert max(map(len, out.splitlines())) <= 40
    assert re.search(r"\d of 13 columns, not .*data", err)


def test_other_formats_stream_everything(
    talking: shell.Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    """.format changes how rows look; the others than table have no limit."""
    out, _ = told(talking, capsys, ".format ndjson", "SELECT range AS r FROM range(3000)")
    assert [json.loads(line)["r"] for line in out.splitlines()] == list(range(3000))
    out, err = told(talking, capsys, ".format csv", "SELECT 1 AS a", ".format parquet", ".format")
    assert out.split() == ["a", "1"]
    assert "a format is one of table, json, ndjson, csv, md" in err
    assert err.endswith("the format is csv\n")


def test_a_plan_keeps_its_lines(talking: shell.Shell, capsys: pytest.CaptureFixture[str]) -> None:
    """EXPLAIN is shown as the drawing it is."""
    out, _ = told(talking, capsys, "EXPLAIN SELECT type FROM events")
    assert len(out.splitlines()) > 3
    assert "explain_value" not in out


def test_mistakes_are_shown_with_their_line(
    talking: shell.Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    """The caret stands below the word, the line has its number as typed; the rest is left out."""
    out, err = told(talking, capsys, "SELECT type\nFRM events e x;")
    assert err.splitlines()[-2:] == ["LINE 2: FRM events e x;", " " * 19 + "^"]
    out, err = told(talking, capsys, "SELECT 1 AS a; SELECT\n 1,\n 'x'::INT; SELECT 2 AS b;")
    assert "LINE 3:  'x'::INT" in err
    assert out.split() == ["a", "─", "1"]
    assert "Traceback" not in err


def test_nothing_ends_the_shell_but_leaving(
    talking: shell.Shell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C at the prompt, wrong commands and our own mistakes are survived; Ctrl-D leaves."""
    keys = iter([KeyboardInterrupt, ".nope", ".at nope", ".timer 3", "SELECT 1 AS one;", EOFError])

    def read(prompt: str) -> str:
        key = next(keys)
        if isinstance(key, str):
            return key
        raise key

    talking.talk(read)
    said = capsys.readouterr()
    assert said.out.split()[0] == "one"
    for words in ("no command .nope", "state or time 'nope'", "the timer is on or off"):
        assert words.replace("state or", "snapshot or") in said.err
    monkeypatch.setattr(talking, "_run", lambda _: {}["x"])
    assert "KeyError: 'x'" in told(talking, capsys, "SELECT 1")[1]
    for word in (".quit", ".q", ".exit", "quit", "EXIT;"):
        talking.is_over = False
        talking.talk(lambda _, word=word: word)
        assert talking.is_over


def test_at_asks_a_state_until_off(
    talking: shell.Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    """.at REF is said by the prompt and holds for every statement; .at off asks the present."""
    assert talking.prompt == "lakelog> "
    out, err = told(talking, capsys, ".at v1", COUNT)
    assert talking.prompt == "lakelog@v1> "
    assert err.startswith("asking v1, snapshot ")
    assert err.endswith(": 10 events\n")
    assert out.split()[-1] == "10"
    out, err = told(talking, capsys, ".at off", COUNT, ".at")
    assert out.split()[-1] == "13"
    assert err == "asking the present: 13 events\n" * 2
    assert talking.prompt == "lakelog> "


def test_tables_schema_and_help_tell_what_there_is(
    talking: shell.Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    """.tables lists the lake's, the user's and refs; .schema their columns; .help the commands."""
    talking.answer("CREATE TABLE mine AS SELECT 1 AS a, DATE '2026-01-01' AS d")
    out, _ = told(talking, capsys, ".tables")
    first = [line.split()[0] for line in out.splitlines()[2:]]
    assert first == ["events", "quarantine", "mine", '"v1".events', '"main".events']
    assert "13 events" in out
    out, _ = told(talking, capsys, ".schema mine")
    assert [line.split() for line in out.splitlines()[2:]] == [
        ["mine", "a", "INTEGER"], ["mine", "d", "DATE"],
    ]  # fmt: skip
    assert '"v1".events' in told(talking, capsys, '.schema "v1".events')[0]
    assert len(told(talking, capsys, ".schema")[0].splitlines()) == 2 + 13 + 5 + 2
    out, _ = told(talking, capsys, ".h")
    assert [line.split()[0] for line in out.splitlines()[: len(shell.COMMANDS)]] == [
        f".{name}" for name in shell.COMMANDS
    ]


# --- the screen -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "lines", "words"),
    [
        ("less -S", 40, ["less", "-S"]), ("less", 5, []), ("", 40, []), ("no-such-pager", 40, []),
        ("'", 40, []), (None, 40, ["less"]),
    ],
)  # fmt: skip
def test_a_pager_is_for_tall_texts_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, given: str | None, lines: int, words: list[str]
) -> None:
    """PAGER, or less, if it is there; never in a pipe, for what fits, or where PAGER is empty."""
    monkeypatch.setattr("shutil.which", lambda name: None if "no-such" in name else name)
    monkeypatch.setenv("LINES", "24")
    monkeypatch.delenv("PAGER", raising=False)
    if given is not None:
        monkeypatch.setenv("PAGER", given)
    assert screen.pager("x\n" * lines) == []
    monkeypatch.setattr(terminal, "is_terminal", lambda stream: True)
    assert screen.pager("x\n" * lines) == words


def test_a_pager_may_leave_early(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The text goes to the pager's stdin; one that stops reading is no error."""
    screen.page(b"one\ntwo\n", ["cat"])
    assert capfd.readouterr().out == "one\ntwo\n"
    screen.page(b"x\n" * 1_000_000, ["true"])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_words_of_the_engine_cannot_command_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Control characters in an error are shown, not sent."""
    screen.complain(QueryFailed("bad \x1b[31m\nline"))
    assert capsys.readouterr().err == "bad \\x1b[31m\nline\n"


# --- completion -----------------------------------------------------------------------------------


@pytest.fixture
def words(lake: lakelog.Lake, asker: Asker) -> Words:
    """What completes in a shell over the lake."""
    names = Names(lake.store, lake.branch_name, asker)
    return Words(names, shell.Shell(App(lake.path), lake, asker, {}).offers())


def offered(words: Words, text: str) -> list[str]:
    """Return the line as each completion of its end would leave it."""
    found = words.get_completions(Document(text), CompleteEvent())
    return [text[: len(text) + c.start_position] + c.text for c in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT sub", "SELECT subject"), ("SELECT * FROM ev", "SELECT * FROM events"),
        ("FROM quar", "FROM quarantine"), ("sel", "select"), ("SEL", "SELECT"),
        ("SELECT date_tr", "SELECT date_trunc("), ("SELECT * FROM v", 'SELECT * FROM "v1".'),
        ('FROM "v', 'FROM "v1".'), ('FROM "v1".ev', 'FROM "v1".events'),
        ("FROM v1.qu", "FROM v1.quarantine"), ("SELECT e.lev", "SELECT e.level"),
        ("FROM events WHERE events.ti", "FROM events WHERE events.time"),
        ("WHERE type = 'P", "WHERE type = 'PING'"), ("WHERE type = 'i", "WHERE type = 'it''s'"),
        ("WHERE level IN ('DEBUG', 'E", "WHERE level IN ('DEBUG', 'ERROR'"),
        (".fo", ".format"), (".format nd", ".format ndjson"), (".at v", ".at v1"),
        (".timer o", ".timer on"), (".schema ev", ".schema events"),
    ],
)  # fmt: skip
def test_tab_completes(words: Words, text: str, expected: str) -> None:
    """Columns, tables, refs, functions, keywords, values and commands, by what stands before."""
    assert expected in offered(words, text)


def test_tab_knows_what_was_made(words: Words, asker: Asker) -> None:
    """Tables of this session complete with their columns, and only once."""
    ask(asker, 'CREATE TEMP TABLE mine AS SELECT 1 AS alpha, 2 AS "type"')
    ask(asker, COUNT.replace("count(*)", "type"))
    assert "FROM mine" in offered(words, "FROM mi")
    assert offered(words, "SELECT mine.") == ["SELECT mine.alpha", "SELECT mine.type"]
    assert offered(words, "SELECT typ").count("SELECT type") == 1
    assert offered(words, "FROM ").count("FROM events") == 1


def test_tab_in_a_string_offers_files(words: Words, tmp_path: Path) -> None:
    """Inside quotes that are no value of a column, files and folders."""
    (tmp_path / "songs.csv").touch()
    (tmp_path / "songs").mkdir()
    text = f"FROM read_csv('{tmp_path}/so"
    assert sorted(offered(words, text)) == [f"{text}ngs", f"{text}ngs.csv"]


@pytest.mark.parametrize("text", ["-- sel", "/* sel", "SELECT 'a' || 'sel", "SELECT 1e", ".nope x"])
def test_tab_offers_nothing_where_nothing_fits(words: Words, text: str) -> None:
    """Comments, strings and numbers are left alone."""
    assert offered(words, text) == []


@pytest.mark.parametrize(
    ("text", "kind", "place"),
    [
        ("a 'b", "text", 2), ("a 'b'", "", 5), ("a 'b''", "text", 2), ("'a' \"b", "name", 4),
        ("\"a'b\" 'c", "text", 6), ("-- it's", "line", 0), ("-- it's\n", "", 8), ("/* '", "block", 0),
        ("/* ' */ 'x", "text", 8), ("", "", 0),
    ],
)  # fmt: skip
def test_an_open_quote_is_found(text: str, kind: str, place: int) -> None:
    """Quotes in comments and in other quotes open nothing."""
    assert open_token(text) == (kind, place)


# --- the line editor ------------------------------------------------------------------------------


@pytest.fixture
def type_keys(talking: shell.Shell, words: Words) -> Iterator[Callable[..., str]]:
    """Return what the editor reads when keys are typed."""

    def read(keys: str, path: str | None = None) -> str:
        with create_pipe_input() as pipe:
            pipe.send_text(keys)
            made = editor.Editor(
                talking.is_whole, words, path=path, input=pipe, output=DummyOutput()
            )
            return made.read("> ")

    return read


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("SELECT 1;\r", "SELECT 1;"), ("SELECT 1\r, 2;\r", "SELECT 1\n, 2;"),
        ("SELECT ';\r';\r", "SELECT ';\n';"), (".at v1\r", ".at v1"), ("quit\r", "quit"),
        ("SELECT 1\x1b\r", "SELECT 1"), ("\r", ""), ("\x1b[200~SELECT\n1;\x1b[201~\r", "SELECT\n1;"),
        ("FROM quar\t\r;\r", "FROM quarantine;"),
    ],
)  # fmt: skip
def test_enter_knows_what_is_whole(type_keys: Callable[..., str], keys: str, text: str) -> None:
    """Enter submits a whole text, else goes on below or takes a completion; Alt-Enter submits."""
    assert type_keys(keys) == text


@pytest.mark.parametrize(("keys", "kind"), [("SEL\x03", KeyboardInterrupt), ("\x04", EOFError)])
def test_control_keys_end_the_line(
    type_keys: Callable[..., str], keys: str, kind: type[BaseException]
) -> None:
    """Ctrl-C drops the line and Ctrl-D on an empty one leaves."""
    with pytest.raises(kind):
        type_keys(keys)


def test_history_is_kept_for_nobody_else(
    type_keys: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arrow brings back what was typed in an earlier run; the file is its owner's alone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = editor.history_path()
    assert path == str(tmp_path / "state" / "lakelog" / "history")
    type_keys("SELECT 1\r, 2;\r", path)
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700
    os.chmod(path, 0o644)
    assert type_keys("\x1b[A\r", path) == "SELECT 1\n, 2;"
    assert os.stat(path).st_mode & 0o777 == 0o600
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert editor.history_path() == str(tmp_path / ".local/state/lakelog/history")


def test_history_that_cannot_be_kept_is_no_trouble(
    type_keys: Callable[..., str], tmp_path: Path
) -> None:
    """Where no file can be made, what was typed is remembered for this run only."""
    (tmp_path / "file").touch()
    assert type_keys("SELECT 1;\r", str(tmp_path / "file" / "history")) == "SELECT 1;"


# --- Ctrl-C, and the terminal ---------------------------------------------------------------------


@pytest.mark.parametrize("query", [ENDLESS, f"CREATE TABLE t AS {ENDLESS}"])
def test_ctrl_c_stops_the_engine(asker: Asker, query: str) -> None:
    """A signal interrupts a statement that would run for hours, and the session goes on."""
    progress = terminal.Progress("running", "s")
    sender = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(BaseException) as caught, Waiting(asker.interrupt, progress):  # noqa: PT011
        sender.start()
        ask(asker, query)
    sender.join()
    assert is_cancelled(caught.value)
    assert ask(asker, COUNT) == [(13,)]


def test_waiting_counts_until_rows_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds are counted on stderr, and no more once the first rows are there."""
    monkeypatch.setattr("lakelog.cli.waiting._SILENT_S", 0.0)
    counted, calls = threading.Event(), []
    progress = SimpleNamespace()

    class Progress:
        def __call__(self, *what: Any, **more: Any) -> None:
            calls.append(what)
            counted.set()

        def __exit__(self, *_: object) -> None:
            calls.append("end")

    progress = Progress()
    with Waiting(lambda: None, progress) as waiting:  # type: ignore[arg-type]
        assert counted.wait(60)
        assert list(waiting.over([[(1,), (2,)], [(3,)]])) == [[(1,), (2,)], [(3,)]]
        assert waiting.rows == 3
    assert calls[-1] == "end"
    assert calls.count("end") == 1


class Terminal:
    """`lakelog` in a pty of 80 by 24 that is typed at and read; a context manager that ends it."""

    _CONTROL = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|\][^\x07]*\x07|[=>()][0B]?)|\r")
    _START = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "os.execv(sys.executable, [sys.executable, '-W', 'error', '-m', 'lakelog', *sys.argv[1:]])"
    )

    def __init__(self, *words: str, **environment: str) -> None:
        self._us, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._raw, self._seen = b"", 0
        given = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "NO_COLOR": ""}
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._START, *words], stdin=theirs, stdout=theirs,
            stderr=theirs, start_new_session=True, cwd=ROOT, env={**given, **environment},
        )  # fmt: skip
        os.close(theirs)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._us, text.encode())

    def wait_for(self, text: str) -> str:
        """Read until the text is shown; return what was shown since the last wait."""
        end = time.monotonic() + 120
        while True:
            shown = self._CONTROL.sub("", self._raw.decode("utf-8", "replace"))
            at = shown.find(text, self._seen)
            if at >= 0:
                before, self._seen = shown[self._seen : at], at + len(text)
                return before
            assert time.monotonic() < end, f"{text!r} is not in {shown[self._seen :]!r}"
            if select.select([self._us], [], [], 1)[0]:
                self._raw += os.read(self._us, 4096)

    def code(self) -> int:
        """Wait for the end; return the exit code."""
        try:
            while os.read(self._us, 4096):
                pass
        except OSError:  # the other side is closed
            pass
        return self._process.wait(60)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._us)


def test_a_session_on_a_terminal(lake: lakelog.Lake, tmp_path: Path) -> None:
    """From the first prompt over a table and a stopped statement to Ctrl-D, which is exit 0."""
    state = {"XDG_STATE_HOME": str(tmp_path / "state"), "PAGER": ""}
    with Terminal("--lake", lake.path, "sql", "--at", "v1", **state) as screen:
        screen.wait_for("10 events in")
        screen.wait_for("lakelog@v1> ")
        screen.type("SELECT type, count(*) AS n\rFROM events GROUP BY 1;\r")
        screen.wait_for("PING  10")
        screen.wait_for("1 row, ")
        screen.wait_for("lakelog@v1> ")
        screen.type(f"{ENDLESS};\r")
        screen.wait_for("Ctrl-C stops it")
        screen.type("\x03")
        screen.wait_for("cancelled")
        screen.wait_for("lakelog@v1> ")
        screen.type("SELECT nope;\r")
        assert "Traceback" not in screen.wait_for("lakelog@v1> ")
        screen.type("half a line\x03")
        screen.wait_for("lakelog@v1> ")
        screen.type("\x04")
        assert screen.code() == 0
    assert "FROM events GROUP BY 1;" in (tmp_path / "state/lakelog/history").read_text()


def test_ctrl_c_ends_a_query_that_is_no_shell(lake: lakelog.Lake) -> None:
    """`lakelog sql QUERY` stops at once and exits with 130."""
    with Terminal("--lake", lake.path, "sql", ENDLESS) as screen:
        screen.wait_for("Ctrl-C stops it")
        screen.type("\x03")
        screen.wait_for("lakelog: interrupted")
        assert screen.code() == 130


@pytest.mark.parametrize("words", [["--explain"], ["-o", "x.csv"]])
def test_the_shell_takes_no_option_of_a_query(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """--explain and -o are about a query, so there must be one."""
    monkeypatch.setattr(terminal, "is_terminal", lambda stream: True)
    assert "need a query" in run(lake.path, "sql", *words, code=2).stderr


def test_only_the_shell_loads_the_line_editor() -> None:
    """`import lakelog`, and a query given on the command line, load no prompt_toolkit."""
    code = "import sys, lakelog, lakelog.cli.query; sys.exit('prompt_toolkit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0
