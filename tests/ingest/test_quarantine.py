"""Quarantine: lines that were no events are listed, shown, tried again, dropped, brought back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import lakelog
from lakelog.cli import cli
from lakelog.errors import InvalidSetting, WouldDropEvents
from lakelog.ingest import quarantine
from lakelog.ingest.quarantine import Quarantine
from tests.support.feeds import bad_lines, event, feed, keyed, numbers, put, text

MakeLake = Callable[..., lakelog.Lake]
BARS = '2026-05-01T12:00:00|A|podcast|s|x|{"n": 7}'
MIXED = feed(2) + text([BARS, "oops", '{"type":"A","time":"no time"}']) + feed(1, 2)


def replay(lake: lakelog.Lake, **options: Any) -> tuple[int, int, int]:
    """Try quarantined lines again; return how many were stored, known and left."""
    done = Quarantine(lake.store, lake.branch_name).replay(lake.engine, **options)
    return done.stored, done.skipped, done.left


def drop(lake: lakelog.Lake) -> int:
    """Take quarantined lines off the branch."""
    return Quarantine(lake.store, lake.branch_name).drop()


def run(lake: lakelog.Lake, *words: str, code: int = 0, **rest: Any) -> Any:
    """Run `lakelog quarantine`; return what it says in JSON."""
    result = CliRunner().invoke(cli, ["--lake", lake.path, "quarantine", *words, "--json"], **rest)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if result.stdout else result.stderr


# --- Python ---------------------------------------------------------------------------------------


def test_bad_lines_are_no_events(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Quarantined lines carry file, offset, reason and text, and count nowhere as events."""
    report = lake.ingest(put(tmp_path / "f.jsonl", MIXED))
    assert (report.events, report.quarantined, lake.count()) == (3, 3, 3)
    query = "SELECT DISTINCT origin FROM {} ORDER BY 1"
    origins = [lake.sql(query.format(t)).fetchall() for t in ("events", "quarantine")]
    assert origins[0] == origins[1]
    assert Quarantine(lake.store, "main").names() == {origins[0][0][0]: str(tmp_path / "f.jsonl")}
    for position, _, line in bad_lines(lake):
        assert MIXED[position:].startswith(line.encode() + b"\n")
    assert lake.at("main").sql("SELECT count(*) AS n FROM quarantine").fetchall() == [(3,)]


def test_names_stay_as_a_short_file_grows(lake: lakelog.Lake, tmp_path: Path) -> None:
    """The file of a quarantined line is known by its newest name, however the file grew."""
    path = Path(put(tmp_path / "f.jsonl", b"oops\n"))
    lake.ingest(str(path))
    with path.open("ab") as file:
        file.write(feed(100) + b"again\n")
    lake.ingest(str(path.rename(tmp_path / "g.jsonl")))
    ((origin,),) = lake.sql("SELECT DISTINCT origin FROM quarantine").fetchall()
    assert Quarantine(lake.store, "main").names() == {origin: str(tmp_path / "g.jsonl")}


def test_replay_with_another_format(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Lines that parse under another rule become events at their place; the others stay."""
    lake.ingest(put(tmp_path / "f.jsonl", MIXED))
    before = bad_lines(lake)
    assert replay(lake, form="oos", dry_run=True) == (1, 0, 2)
    assert bad_lines(lake) == before
    assert replay(lake, form="oos") == (1, 0, 2)
    assert numbers(lake) == [0, 1, 7, 2]
    assert [line for _, _, line in bad_lines(lake)] == ["oops", '{"type":"A","time":"no time"}']
    row = "SELECT source, subject, category FROM events WHERE data->>'n' = '7'"
    assert lake.sql(row).fetchall() == [("s", "x", "podcast")]
    assert replay(lake, form="oos") == (0, 0, 2)
    assert lake.ingest(str(tmp_path / "f.jsonl")).events == 0


def test_replay_looks_at_each_line(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Without a format each line is read as what it looks like."""
    lake.ingest(put(tmp_path / "f.jsonl", b"2026-05-01T12:00:00|A||||\n" + MIXED))
    assert len(bad_lines(lake)) == 4
    assert replay(lake) == (2, 0, 2)
    assert sorted(n for n in numbers(lake) if n is not None) == [0, 1, 2, 7]


@pytest.mark.parametrize("form", ["plain~latin-1", "plain~gb18030"])
def test_replay_of_text_in_another_encoding(lake: lakelog.Lake, form: str) -> None:
    """Quarantine has text, whatever the encoding of the lines that the format was made for."""
    lake.quarantine([("a.log", 1, "bad", "déjà vu")])
    lake.settle()
    assert replay(lake, form=form) == (1, 0, 0)
    assert lake.sql("SELECT message FROM events").fetchall() == [("déjà vu",)]


def test_replay_gives_a_type(lake: lakelog.Lake) -> None:
    """Lines from elsewhere become events of the type that is given, if they have none."""
    lines = ['{"n":1}', '{"type":"B","n":2}', '{"n":', "", "x" * 65_536]
    lake.quarantine([("other", n, "no type", line) for n, line in enumerate(lines)])
    lake.settle()
    assert replay(lake, type_="LATE") == (2, 0, 3)
    found = lake.sql("SELECT type, origin, position FROM events ORDER BY position").fetchall()
    assert found == [("LATE", "other", 0), ("B", "other", 1)]


def test_replay_is_idempotent_by_id(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Of quarantined lines with a known id none is stored again, nor one of them twice."""
    lake.ingest(put(tmp_path / "f.jsonl", keyed(range(3))))
    lines = keyed([1, 3, 3, 4]).decode().splitlines()
    lake.quarantine([("f", n, "some", line) for n, line in enumerate(lines)])
    lake.settle()
    assert replay(lake) == (2, 2, 0)
    assert sorted(numbers(lake)) == list(range(5))
    assert lake.ingest(put(tmp_path / "g.jsonl", keyed(range(5)))).events == 0


def test_what_is_not_kept_whole_is_not_replayed(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Lines whose bytes were escaped, or that came in parts, stay: what is stored must be what was
    there."""
    escaped = b"2026-05-01T12:00:00|A||s\xff\x01||{}\n"
    cut = b"2026-05-01T99:00:00|A||s||" + "ž".encode() * 40_000 + b"\n"
    lake.ingest(put(tmp_path / "f.jsonl", feed(0) + escaped + cut), format="oos")
    assert replay(lake, form="oos") == (0, 0, 2)
    assert lake.count() == 0


def test_replay_beside_other_moves(
    make_lake: MakeLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the branch moved meanwhile, replay looks again and stores each line once."""
    lake, other = make_lake(), make_lake()
    lake.ingest(put(tmp_path / "f.jsonl", MIXED))
    real, turns = quarantine.publish, [0]

    def publish(*arguments: Any) -> Any:
        turns[0] += 1
        if turns[0] == 1:
            other.ingest(put(tmp_path / "g.jsonl", feed(3, 50) + text([BARS, BARS])))
        return real(*arguments)

    monkeypatch.setattr(quarantine, "publish", publish)
    assert replay(lake, form="oos") == (3, 0, 2)
    assert turns == [2]
    assert sorted(numbers(lake)) == [0, 1, 2, 7, 7, 7, 50, 51, 52]


def test_drop_and_undo(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Dropped lines are gone from the branch; undo brings them back, and the cursor stays."""
    lake.ingest(put(tmp_path / "f.jsonl", MIXED))
    lake.quarantine([("x", 0, "some", "line")])
    lake.settle()
    before = bad_lines(lake)
    assert drop(lake) == len(before) == 4
    assert (bad_lines(lake), drop(lake)) == ([], 0)
    assert lake.ingest(str(tmp_path / "f.jsonl")).quarantined == 0
    lake.undo()
    assert sorted(bad_lines(lake)) == sorted(before)
    assert numbers(lake) == [0, 1, 2]


def test_replay_and_undo(lake: lakelog.Lake, tmp_path: Path) -> None:
    """An undone replay takes its events away again; events that came later are not lost so."""
    lake.ingest(put(tmp_path / "f.jsonl", MIXED))
    before = bad_lines(lake)
    replay(lake, form="oos")
    lake.undo()
    assert (bad_lines(lake), numbers(lake)) == (before, [0, 1, 2])
    assert replay(lake, form="oos") == (1, 0, 2)
    lake.append(event(99))
    with pytest.raises(WouldDropEvents):
        lake.undo()
    assert sorted(numbers(lake)) == [0, 1, 2, 7, 99]


def test_quarantine_goes_back_with_a_rollback(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Quarantined lines commit and roll back with the rows and the cursor beside them."""
    lake.ingest(put(tmp_path / "f.jsonl", b"oops\n"))
    lake.tag("v1")
    lake.ingest(put(tmp_path / "f.jsonl", b"oops\n" + MIXED))
    assert len(bad_lines(lake)) == 4
    lake.rollback("v1")
    assert len(bad_lines(lake)) == 1
    assert lake.ingest(str(tmp_path / "f.jsonl")).quarantined == 3
    assert len(bad_lines(lake)) == 4


def test_compaction_leaves_quarantine_alone(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Compacting events keeps every quarantined line."""
    for n in range(3):
        lake.ingest(put(tmp_path / f"f{n}.jsonl", feed(5, 5 * n) + b"oops %d\n" % n))
    before = bad_lines(lake)
    lake.compact()
    assert bad_lines(lake) == before
    assert numbers(lake) == list(range(15))


def test_nothing_to_replay_or_drop(lake: lakelog.Lake) -> None:
    """With an empty quarantine nothing happens, and an unknown format is refused."""
    before = lake.store.refs.head("main").move
    assert (replay(lake), drop(lake)) == ((0, 0, 0), 0)
    assert lake.store.refs.head("main").move == before
    with pytest.raises(InvalidSetting, match="no format 'xml'"):
        replay(lake, form="xml")


# --- the command line -----------------------------------------------------------------------------


def test_list_and_show(lake: lakelog.Lake, tmp_path: Path) -> None:
    """list counts by file and kind of reason, show gives each line; both name the file."""
    path = put(tmp_path / "f.jsonl", MIXED + b"{x\n{yy\n\xff\nabc\xff\n")
    lake.ingest(path)
    listed = run(lake, "list")
    assert [(r["file"], r["lines"]) for r in listed] == [(path, r["lines"]) for r in listed]
    assert sum(r["lines"] for r in listed) == 7
    at = len(MIXED) + 7
    utf = next(r for r in listed if r["reason"].startswith("not UTF-8"))
    assert utf == {"file": path, "reason": "not UTF-8 at byte N", "lines": 2, "first_offset": at}
    shown = run(lake, "show")
    assert [r["offset"] for r in shown] == sorted(r["offset"] for r in shown)
    assert shown[0]["line"] == BARS
    assert {r["file"] for r in shown} == {path}


def test_replay_by_command_line(lake: lakelog.Lake, tmp_path: Path) -> None:
    """replay says what it stored; a dry run says the same and changes nothing."""
    lake.ingest(put(tmp_path / "f.jsonl", MIXED))
    lake.quarantine([("tail", 0, "some", '{"type":"A","time":1,"data":{"n":9}}')])
    assert run(lake, "replay", "--as", "oos", "--dry-run") == {"stored": 1, "skipped": 0, "left": 3}
    assert len(bad_lines(lake)) == 4
    assert run(lake, "replay", "--as", "oos") == {"stored": 1, "skipped": 0, "left": 3}
    assert run(lake, "replay", "--type", "X") == {"stored": 1, "skipped": 0, "left": 2}
    assert sorted(numbers(lake)) == [0, 1, 2, 7, 9]


def test_drop_by_command_line(lake: lakelog.Lake, tmp_path: Path) -> None:
    """drop asks before it removes, needs --yes where nobody can be asked, and is undone by undo."""
    lake.ingest(put(tmp_path / "f.jsonl", MIXED))
    assert run(lake, "drop", "--dry-run") == {"dropped": 3}
    assert "add --yes" in run(lake, "drop", code=2)
    assert len(bad_lines(lake)) == 3
    assert run(lake, "drop", "--yes") == {"dropped": 3}
    assert run(lake, "list") == []
    assert run(lake, "drop") == {"dropped": 0}
    undone = CliRunner().invoke(cli, ["--lake", lake.path, "undo"])
    assert undone.exit_code == 0
    assert len(run(lake, "show")) == 3


def test_replay_and_show_hold_few_lines(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines are tried some at a time and an id is stored once across them; what none of is an event
    keeps its segment; show gives rows before it has read them all."""
    monkeypatch.setattr(quarantine, "_LINES", 10)
    monkeypatch.setattr(quarantine, "_EVENT_BYTES", 1)
    texts = [f'{{"id":"e{n % 50}","type":"T"}}' if n % 3 else f"no event {n}" for n in range(120)]
    lake.quarantine([("a.log", n, "unread", text) for n, text in enumerate(texts)])
    lake.settle()
    lake.quarantine([("b.log", n, "unread", f"{{ {n}") for n in range(30)])
    lake.settle()
    before = segments_of(lake, "quarantine")
    done = Quarantine(lake.store, "main").replay(lake.engine, form="jsonl")
    assert (done.stored, done.stored + done.skipped, done.left) == (50, 80, 70)
    assert len(segments_of(lake, "events")) > 2  # they were written as they were made
    assert lake.count() == 50
    assert lake.sql("SELECT count(*) FROM quarantine").fetchall() == [(70,)]
    assert len(before & segments_of(lake, "quarantine")) == 1
    lake.verify().require()


def segments_of(lake: lakelog.Lake, kind: str) -> set[str]:
    state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
    return {e.key for e in lake.store.manifests.segments(state) if e.kind == kind}
