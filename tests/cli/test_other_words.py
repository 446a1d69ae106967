"""Words of other tools, paths that are not there, and directories that are deeply nested."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import lakelog
from lakelog.cli import cli, exits
from lakelog.collect import loop, watch
from tests.support import lakes


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["-q", *words])


def said(*words: str) -> str:
    """What the command line says of a mistake."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        cli.main([*words], standalone_mode=False)
    return exits.words_of(caught.value)


@pytest.mark.parametrize(
    ("word", "verb"),
    [
        ("restore", "rollback"),
        ("checkout", "rollback"),
        ("query", "sql"),
        ("drop", "view drop"),
        ("grep", "search"),
        ("vacuum", "gc"),
    ],
)
def test_words_of_other_tools_name_the_verb(word: str, verb: str) -> None:
    """Who types a word of another tool reads the verb that does it here, in one line."""
    line = said(word)
    assert line.startswith(f"there is no verb {word!r}: use lakelog ")
    assert verb in line


def test_each_hint_names_verbs_that_are_there() -> None:
    """A hint never sends to a verb or option that does not exist."""
    with_context = cli.make_context("lakelog", ["stats"])
    verbs = set(cli.list_commands(with_context))
    for hint in exits.hints()["verbs"].values():
        first = hint.replace(",", " ").split()[0]
        assert first in verbs or first == "--branch", hint
    for verb, options in exits.hints()["options"].items():
        command = cli.get_command(with_context, verb)
        assert command is not None
        assert all(not options.keys() & set(p.opts) for p in command.params)


@pytest.mark.parametrize("verb", ["sql", "export", "log", "diff"])
def test_since_is_explained_where_it_is_no_option(verb: str) -> None:
    """`--since` of a verb that has none says how to ask for times there."""
    assert said(verb, "--since", "2h").startswith(f"{verb} has no --since: ")


def test_tail_since(tmp_path: Path) -> None:
    """`tail --since` shows all events since a time, or the last -n of them."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        lake.append([{"type": "OLD", "time": "2001-01-01T00:00:00Z"}])
        lake.append([{"type": f"NEW{n}"} for n in range(30)])
    shown = run("--lake", path, "tail", "--since", "1h", "--where", "type <> 'NEW0' OR false")
    assert shown.stdout.count("\n") == 29
    assert "OLD" not in shown.stdout
    assert run("--lake", path, "tail", "--since", "1h", "-n", "3").stdout.count("\n") == 3
    assert run("--lake", path, "tail", "--since", "1990-01-01").stdout.count("\n") == 31
    assert "a span such as 2h" in said("--lake", path, "tail", "--since", "yesterday")


@pytest.mark.parametrize(
    "words",
    [
        "ingest missing",
        "watch missing --once",
        "audit missing",
        "formats test missing",
        "state save --dir missing",
        "backups list missing",
        "repair --from missing",
        "import-sqlite missing",
        "check-proof missing --signed-by missing",
        "backup missing copy",
        "clone missing copy",
        "sql --file missing",
        "sign v1 --key missing",
        "verify --signed-by missing",
        "train check missing",
    ],
)
@pytest.mark.parametrize("has_lake", [True, False])
def test_a_path_that_is_not_there_fails_with_1(
    words: str, has_lake: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file or directory that is named and missing is a failure, not wrong usage, of all verbs;
    and no lake is made for it."""
    monkeypatch.chdir(tmp_path)
    if has_lake:
        lakes.opened("lake").close()
    code = exits.guard(lambda: cli.main(["-q", *words.split()], standalone_mode=False))
    assert code == exits.FAILED
    assert has_lake or words.startswith("watch") or not Path("lake").exists()


LEVELS = 1100


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A directory with a log below more levels than Python may recurse."""
    here = os.open(".", os.O_RDONLY)
    root = tmp_path / "deep"
    root.mkdir()
    os.chdir(root)
    try:
        for _ in range(LEVELS):
            os.mkdir("d")
            os.chdir("d")
        Path("a.jsonl").write_text('{"type": "DEEP"}\n')
    finally:
        os.fchdir(here)
        os.close(here)
    yield tmp_path
    subprocess.run(["rm", "-rf", tmp_path], check=True)  # pytest would recurse


def test_directories_may_be_nested_a_thousand_deep(deep: Path) -> None:
    """Ingest, watch, audit, backups and saved states reach what is below a thousand levels."""
    path, copies, deep = str(deep / "lake"), str(deep / "copies"), deep / "deep"
    assert run("--lake", path, "ingest", str(deep)).exit_code == 0
    assert run("--lake", path, "watch", str(deep), "--once", "--backup-dir", copies).exit_code == 0
    audit = run("--lake", path, "audit", str(deep))
    assert (audit.exit_code, '"lines":1' in audit.stdout) == (0, True)
    assert run("--lake", path, "backups", "verify", "--backup-dir", copies).exit_code == 0
    assert run("--lake", path, "state", "save", "--dir", str(deep)).exit_code == 0
    with lakelog.open(path) as lake:
        found = lake.sql("SELECT count(*) FROM events WHERE type = 'DEEP'").fetchall()
    assert found == [(1,)]


@pytest.mark.parametrize("out", ["o\udce9.parquet", "o\udce9.arrow", "o\udce9.csv", "o\udce9/"])
def test_names_that_are_no_utf_8(out: str, tmp_path: Path) -> None:
    """A log of such a name is ingested, found again by the audit of all that was ingested, and
    followed; rows are exported to such paths."""
    path, logs = str(tmp_path / "lake"), tmp_path / "logs\udcff"
    logs.mkdir()
    (logs / "caf\udce9.jsonl").write_text('{"type": "N"}\n')
    assert run("--lake", path, "ingest", str(logs)).exit_code == 0
    assert run("--lake", path, "watch", str(logs), "--once").exit_code == 0
    for words in ([], [str(logs)]):
        audit = run("--lake", path, "audit", *words)
        assert (audit.exit_code, audit.stdout.count('"state":"sound"')) == (0, 1), audit.output
    there = f"{tmp_path}/{out}"
    assert run("--lake", path, "export", "events", "-o", there).exit_code == 0
    files = [there] if os.path.isfile(there) else [f"{there}{name}" for name in os.listdir(there)]
    assert sum(map(os.path.getsize, files)) > 0


def test_a_deep_directory_is_followed(deep: Path) -> None:
    """A watcher of it goes on, if need be without notifications, which it says."""
    said: list[str] = []
    stop = threading.Event()
    with lakes.opened(str(deep / "lake")) as lake:
        watcher = watch.Watcher(lake, [str(deep / "deep")], say=said.append)
        threading.Timer(1.0, stop.set).start()
        loop.run(watcher, stop, interval=0.1, poll=False, say=said.append)
        assert lake.sql("SELECT count(*) FROM events WHERE type = 'DEEP'").fetchall() == [(1,)]
    assert not [words for words in said if "scanning instead" not in words]
