"""lakelog as a process: pipes, signals, terminals, full disks, and how fast it starts."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import resource
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tests.support.cli import answer, flip, lines, run, segments
from tests.support.processes import environment
from tests.support.requirements import MOUNTS, need_module
from tests.support.tree import ROOT

LAKELOG = [sys.executable, "-m", "lakelog"]
COUNT = "SELECT count(*) AS n FROM events"


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A lake with ten events."""
    path = tmp_path / "lake"
    run(path, "append", input=lines(10))
    return path


def counted(lake: Path) -> int:
    """Return the number of events."""
    return answer(lake, "sql", COUNT)[0]["n"]


def start(lake: Path, *words: str, **rest: Any) -> subprocess.Popen[bytes]:
    """Start a command line with pipes."""
    return subprocess.Popen(
        [*LAKELOG, "--lake", str(lake), *words],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **rest,
    )


def wait(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    """Wait for a process; return its exit code and what it said."""
    out, err = process.communicate(timeout=240)
    return process.returncode, out.decode(), err.decode()


def wait_fed(process: subprocess.Popen[bytes], text: bytes) -> tuple[int, str, str]:
    """Feed a process, which may stop reading, and wait for it."""
    out, err = process.communicate(text, timeout=240)
    return process.returncode, out.decode(), err.decode()


def until(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    """Wait until something holds while a process runs."""
    end = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, wait(process)
        if time.monotonic() > end:
            process.kill()  # else it goes on for ever
            raise AssertionError(f"it does not come about: {wait(process)}")
        time.sleep(0.05)


def on_terminal(
    lake: Path, *words: str, typed: Mapping[bytes, bytes] = MappingProxyType({})
) -> tuple[int, str]:
    """Run on a terminal of 80 columns; type an answer to each text in turn once it is shown; return
    exit code and screen text."""
    answers = list(typed.items())
    child, screen = pty.fork()
    if child == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        os.execve(LAKELOG[0], [*LAKELOG, "--lake", str(lake), *words], environment())
    shown = b""
    for chunk in _chunks(screen):
        shown += chunk
        if answers and answers[0][0] in shown:
            time.sleep(0.2)
            os.write(screen, answers.pop(0)[1])
    os.close(screen)
    _, status = os.waitpid(child, 0)
    text = shown.decode().replace("\r\n", "\n")
    return os.waitstatus_to_exitcode(status), text


def _chunks(screen: int) -> Iterator[bytes]:
    end = time.monotonic() + 240
    while time.monotonic() < end:
        try:
            if select.select([screen], [], [], 1)[0]:
                chunk = os.read(screen, 65536)
                if not chunk:
                    return
                yield chunk
        except OSError:
            return


def plain(shown: str) -> list[str]:
    """Return the lines a reader sees: no colours, only what was written last on each line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    return [line.split("\r")[-1].replace("\x1b[K", "") for line in text.split("\n")]


# --- pipes ----------------------------------------------------------------------------------------


def test_an_argument_is_utf8_in_every_locale(lake: Path) -> None:
    """As standard input is; bytes of no encoding are kept as they are."""
    words = [*LAKELOG, "--lake", str(lake), "append", "--source", "ß"]
    names = {**environment(), "LC_ALL": "C", "PYTHONUTF8": "0"}
    subprocess.run([*words, "type=ä", "data.x=ü"], check=True, env=names)
    subprocess.run([*words, b"type=\xff"], check=True, env=names)
    stored = answer(lake, "sql", "SELECT type, source, data FROM events ORDER BY seq DESC LIMIT 2")
    assert [(event["type"], event["source"]) for event in stored] == [("?", "ß"), ("ä", "ß")]
    assert stored[1]["data"] == {"x": "ü"}
    assert "udcff" in stored[0]["data"]["lakelog_exact"]


def test_what_is_piped_in_slowly_is_stored_at_once(lake: Path) -> None:
    """append does not wait for a full batch or the end of the input, only for whole lines."""
    process = start(lake, "append")
    assert process.stdin is not None
    for stored, text in ((11, b'{"type":"a"}\n{"type":'), (12, b'"b"}\n')):
        process.stdin.write(text)
        process.stdin.flush()
        until(process, lambda stored=stored: counted(lake) == stored)
    code, _, said = wait(process)
    assert (code, "stored 2 events" in said) == (0, True)


def test_a_reader_that_leaves_is_no_error(lake: Path) -> None:
    """`| head` ends a long result quietly."""
    process = start(lake, "sql", "SELECT range FROM range(10000000)")
    assert process.stdout is not None
    assert process.stdout.readline() == b'{"range":0}\n'
    process.stdout.close()
    assert process.wait(timeout=240) == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.stdin is not None
    process.stdin.close()


def test_an_output_that_is_full_is_one_line(lake: Path) -> None:
    """The interpreter, which flushes what is left at its end, adds neither words nor a code."""
    for words in (("sql", "SELECT 1"), ("stats",), ("help",)):
        with open("/dev/full", "wb") as full:
            command = [*LAKELOG, "--lake", str(lake), *words]
            said = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment())
        assert (said.returncode, said.stderr.count(b"\n")) == (1, 1), said.stderr


def test_interrupting_is_130_and_keeps_what_was_stored(lake: Path) -> None:
    """Ctrl-C ends append with 130, in two words, with all complete lines stored."""
    process = start(lake, "append")
    assert process.stdin is not None
    process.stdin.write(lines(3).encode() + b'{"type":"half')
    process.stdin.flush()
    until(process, lambda: counted(lake) == 13)
    process.send_signal(signal.SIGINT)
    code, _, said = wait(process)
    assert code == 130
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "lakelog: interrupted"
    assert answer(lake, "sql", COUNT) == [{"n": 13}]


def test_interrupting_a_query_leaves_no_file(lake: Path, tmp_path: Path) -> None:
    """Ctrl-C ends a running query with 130 and takes the unfinished output along."""
    path = tmp_path / "out.csv"
    query = "SELECT a.range AS a, b.range AS b FROM range(1000000) a, range(1000000) b"
    process = start(lake, "sql", query, "-o", str(path))
    until(process, lambda: bool(list(tmp_path.glob("*out.csv*"))))
    process.send_signal(signal.SIGINT)
    code, _, said = wait(process)
    assert (code, said.split("\n")[-2]) == (130, "lakelog: interrupted")
    assert not list(tmp_path.glob("*out.csv*"))


# --- terminals ------------------------------------------------------------------------------------


def test_a_terminal_gets_a_table_that_fits(lake: Path) -> None:
    """On a terminal of 80 columns results are tables with bold heads, never wider."""
    code, shown = on_terminal(lake, "sql", "SELECT * FROM events")
    assert code == 0
    assert "\x1b[1mtime" in shown
    table = [line for line in plain(shown) if "PING" in line]
    assert len(table) == 10
    assert max(map(len, table)) <= 80


def test_progress_is_wiped_off_the_terminal(lake: Path) -> None:
    """verify shows progress on stderr and leaves only its result."""
    code, shown = on_terminal(lake, "verify")
    assert (code, "verifying" in shown) == (0, True)
    assert len(plain(shown)) == 2
    assert plain(shown)[0].startswith("intact: ")


def test_items_are_counted_on_a_terminal_only(lake: Path) -> None:
    """The check of the OOS log stream shows how many episodes are processed, and wipes it off."""
    code, shown = on_terminal(lake, "oos", "validate")
    assert (code, "processing  [" in shown) == (0, True), shown
    assert "24 of 24 episodes" in shown
    assert not any("episodes" in line for line in plain(shown))
    assert "\r" not in run(lake, "oos", "validate").stderr


@pytest.mark.parametrize(("typed", "code"), [(b"y\n", 0), (b"n\n", 1), (b"\x03", 130)])
def test_a_terminal_is_asked_before_repair(lake: Path, typed: bytes, code: int) -> None:
    """repair asks; anything but yes changes nothing."""
    run(lake, "snapshot")
    flip(segments(lake)[0])
    found, shown = on_terminal(lake, "repair", typed={b"[y/N]": typed})
    assert found == code, shown
    assert "[y/N]" in shown
    assert bool(list((lake / "cache").glob("damaged/*"))) is (code == 0)


# --- disks ----------------------------------------------------------------------------------------


@pytest.mark.needs(MOUNTS)
def test_a_full_disk_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """On a full disk append stops in one line; every event it had counted is there."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)], check=True)
    try:
        noise = (os.urandom(300).hex() for _ in range(20_000))
        text = "".join(f'{{"type":"N","data":"{n}"}}\n' for n in noise)
        process = start(small / "lake", "append")
        code, _, said = wait_fed(process, text.encode())
        assert code == 1
        assert said.splitlines()[-1].endswith(
            "the disk is full: free space and run it again; nothing acknowledged is lost"
        )
        stored = int(re.search(r"stored ([\d,]+) events", said)[1].replace(",", ""))  # type: ignore[index]
        assert stored >= 1000
        for waste in (small / "lake").glob(".tmp-*"):
            waste.unlink()
        found = json.loads(run(small / "lake", "sql", COUNT).stdout)["n"]
        assert stored <= found <= stored + 1000
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_file_size_limit_is_one_line(tmp_path: Path) -> None:
    """Where files may not grow, append stops in one line and says what to do."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    run(tmp_path / "lake", "init")
    noise = "".join(f'{{"type":"N","data":"{os.urandom(300).hex()}"}}\n' for _ in range(2000))
    process = start(tmp_path / "lake", "append", preexec_fn=limit)
    code, _, said = wait_fed(process, noise.encode())
    assert code == 1
    assert "grow beyond its limit" in said.splitlines()[-1]
    assert "Traceback" not in said


@pytest.mark.needs(MOUNTS)
def test_a_read_only_lake_can_be_read(lake: Path, tmp_path: Path) -> None:
    """On a read-only mount queries and verify work; append fails in one line."""
    run(lake, "snapshot")
    place = tmp_path / "mounted"
    place.mkdir()
    subprocess.run(["mount", "--bind", str(lake), str(place)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
        assert answer(place, "sql", "SELECT count(type) AS n FROM events") == [{"n": 10}]
        assert answer(place, "verify")["intact"] is True
        assert answer(place, "stats")["events"] == 10
        said = run(place, "append", "type=a", code=1).stderr
        assert said.count("\n") == 1
        assert "the file system is read-only" in said
        states = {c["check"]: c["state"] for c in answer(place, "doctor")}
        assert states["head"] == "OK"
    finally:
        subprocess.run(["umount", str(place)], check=True)


# --- starting -------------------------------------------------------------------------------------


def loaded(lake: Path, *words: str) -> set[str]:
    """Return the packages that a command line has loaded by its end."""
    script = (
        "import sys; from lakelog.cli import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "finally: print('\\nloaded', *{m.split('.')[0] for m in sys.modules})"
    )
    command = [sys.executable, "-c", script, "--lake", str(lake), *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_verbs_load_only_what_they_need(lake: Path) -> None:
    """Help and append load no data library; a small query loads neither Arrow nor rich."""
    heavy = {"duckdb", "pyarrow", "polars", "numpy", "rich", "prompt_toolkit"}
    run(lake, "snapshot")
    assert loaded(lake, "-h") & heavy == set()
    assert loaded(lake, "append", "type=a") & heavy == set()
    assert loaded(lake, "log") & heavy == set()
    run(lake, "snapshot")
    for query in (COUNT, "SELECT type, max(time) FROM events GROUP BY 1"):
        assert loaded(lake, "sql", query) & heavy == {"duckdb"}


def test_a_verb_does_not_load_pandas_where_it_is_installed(lake: Path, tmp_path: Path) -> None:
    """pyarrow would, at its first array of Python values: 0.3 s and 45 MB that nothing needs."""
    need_module("pandas")
    (tmp_path / "app.log").write_text('{"type": "a", "data": {"n": 1}}\n')
    words = [sys.executable, "-X", "importtime", "-m", "lakelog", "--lake", str(lake)]
    done = subprocess.run(
        [*words, "ingest", str(tmp_path / "app.log")],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert "pyarrow" in done.stderr
    assert not re.search(r"\| +pandas\.", done.stderr)
    assert counted(lake) == 11


def test_the_command_line_runs_out_of_a_zip_file(tmp_path: Path) -> None:
    """Its tables are read by what has loaded it: it starts, stores, explains itself and asks."""
    program = tmp_path / "lakelog.zip"
    with zipfile.ZipFile(program, "w") as packed:
        for path in (ROOT / "lakelog").rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                packed.write(path, path.relative_to(ROOT))
    outputs = list[str]()
    for words in (["append", "type=a"], ["append", "-h"], ["sql", COUNT, "--format", "csv"]):
        done = subprocess.run(
            [*LAKELOG, "--lake", str(tmp_path / "lake"), *words],
            env={**environment(), "PYTHONPATH": str(program), "PYTHONSAFEPATH": "1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert "Examples:" in outputs[1]
    assert outputs[2].split() == ["n", "1"]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("sql", "FROM odd", "--format", "csv"), "\\x1b[2J\\x07"),
        (("sql", "FROM odd", "--format", "md"), "\\x1b[2J\\x07"),
        (("sql", "FROM odd", "--format", "ndjson"), "\\u001b[2J\\u0007\\u009b1m"),
        (("sql", "SELECT v::INT FROM odd"), "Could not convert string '\\x1b[2J\\x07"),
        (("--lake", "\x1b[2J", "stats"), "/\\x1b[2J: create one"),
        (("ingest", "\x1b[2J"), "\\x1b[2J: No such file"),
    ],
)
def test_nothing_in_data_or_names_commands_a_terminal(
    lake: Path, words: tuple[str, ...], shown: str
) -> None:
    """In every format and message; what a file or a program gets stays as it is."""
    odd = "(SELECT chr(27) || '[2J' || chr(7) || chr(155) || '1m' AS v) AS odd"
    words = tuple(word.replace("FROM odd", f"FROM {odd}") for word in words)
    _, screen = on_terminal(lake, *words)
    assert shown in screen
    assert all(command not in screen for command in ("\x1b[2J", "\x07", "\x9b"))
    if "csv" in words:
        assert run(lake, *words).stdout_bytes == b"v\r\n\x1b[2J\x07\xc2\x9b1m\r\n"


def test_lines_typed_at_a_terminal_stand_alone(lake: Path) -> None:
    """No line of progress stands before what is typed next."""
    typed = {b"Ctrl-D ends them": b'{"type":"TYPED"}\n', b'"TYPED"}': b"\x04"}
    code, screen = on_terminal(lake, "append", typed=typed)
    assert code == 0
    assert "stored 1 event in" in screen
    assert "storing" not in screen
