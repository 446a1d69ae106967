"""Lines in an encoding that the user names: read as text, with the positions of the file."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

import lakelog
from lakelog.audit.audit import audit
from lakelog.cli import cli, exits
from lakelog.collect import watch
from lakelog.collect.watch import Watcher
from lakelog.errors import InvalidSetting
from lakelog.formats.definition import FormatDefinition
from lakelog.formats.line_encoding import LineEncoding
from lakelog.formats.registry import FORMATS
from lakelog.ingest import transform
from lakelog.ingest.batch import Job
from lakelog.ingest.message_events import Message
from lakelog.ingest.messages import MessageBatch
from lakelog.ingest.quarantine import Quarantine
from lakelog.ingest.stream_cursor import StreamCursor

TEXTS = {
    "latin-1": "Größe: ÿ Ã¼",
    "cp1251": "Привет, мир",
    "koi8-r": "Привет, мир",
    "shift_jis": "表示ソフト 能力",
    "euc_jp": "エラー発生",
    "gb18030": "系统错误 😀",
    "big5": "許功蓋 系統",
    "euc-kr": "시스템 오류",
    "iso2022_jp": "エラー発生",
}


def form(encoding: str, **rules: str) -> str:
    """How --encoding asks for it."""
    return FormatDefinition(encoding=encoding, **rules).spelled()


def proven(lake: lakelog.Lake) -> int:
    """The rows that an audit found, each where its line is."""
    found = audit(lake.store, "main", lake.engine, [])
    assert (found.wrong, found.failed) == ([], [])
    return sum(file.stored for file in found.files)


@pytest.mark.parametrize("encoding", TEXTS)
def test_a_file_in_a_named_encoding(lake: lakelog.Lake, tmp_path: Path, encoding: str) -> None:
    """Few lines and many are read as text of a detected format; what is appended is, too."""
    text = TEXTS[encoding]
    line = f"2026-11-24 10:00:00 WARN app: {text}\n".encode(encoding)
    few, many = tmp_path / "few.log", tmp_path / "many.log"
    few.write_bytes(line * 2)
    many.write_bytes(b"2026-11-24 09:00:00 INFO app: start\n" + line * 700)
    lake.ingest([str(few), str(many)], format=form(encoding))
    with few.open("ab") as file:
        file.write(line)
    report = lake.ingest(str(few), format=form(encoding))
    assert (report.events, report.quarantined) == (1, 0)
    query = "SELECT DISTINCT level, message, data FROM events WHERE level = 'WARN'"
    ((level, message, data),) = lake.sql(query).fetchall()
    assert (level, message.endswith(text), "encoding" in (data or "")) == ("WARN", True, False)
    position = "SELECT max(position) FROM events WHERE level = 'WARN'"
    assert lake.sql(position).fetchall()[0][0] == many.stat().st_size - len(line)
    assert proven(lake) == 704


@pytest.mark.parametrize("encoding", ["cp1251", "shift_jis", "iso2022_jp"])
def test_many_lines_are_read_as_few_are(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """Queries and the exact rule give the same events: stack traces, other styles, plain text,
    lines in pairs, bytes that are no characters."""
    text, lines = TEXTS[encoding], list[bytes]()
    for n in range(900):
        lines += [
            f"2026-11-24 10:{n // 60:02}:{n % 60:02} ERROR app: {text} {n}".encode(encoding),
            f"  at {text} {n}".encode(encoding),
            f"level=warn time=2026-11-24T10:00:00Z msg={text}{n} n={n}".encode(encoding),
            b"2026-11-24 10:00:00 INFO app: \xff\x80 %d" % n,
        ]
    columns = "position, time, type, level, source, message, data::VARCHAR"
    answers = []
    for few, form_ in ((0, ""), (10_000, ""), (0, "json"), (10_000, "json")):
        monkeypatch.setattr(transform, "FEW", few)
        data = b"\n".join(lines) + b"\n"
        if form_:
            data = b"".join(
                f'{{"time":"2026-11-24T10:00:00Z","message":"{text}","n":{n}}}\n'.encode(encoding)
                for n in range(900)
            )
        path = tmp_path / f"{few}{form_}.log"
        path.write_bytes(data)
        lake.ingest(str(path), format=form(encoding), source=path.name)
        query = f"SELECT {columns} FROM events JOIN files USING (origin) WHERE path = ?"
        rows = lake.sql(query.replace("source", "origin <> ''"), [str(path)]).fetchall()
        answers.append(sorted(rows))
    assert answers[0] == answers[1]
    assert answers[2] == answers[3]
    assert len(answers[0]) >= 1800
    assert len(answers[2]) == 900


def test_an_encoding_with_a_zone_a_pattern_or_a_table(lake: lakelog.Lake, tmp_path: Path) -> None:
    """It goes with a zone, with a format, and with a pattern, whose literals are text."""
    path = tmp_path / "zone.log"
    path.write_bytes("2026-11-24 10:00:00 INFO app: Größe\n".encode("latin-1"))
    lake.ingest(str(path), format=form("latin-1", zone="Europe/Berlin"))
    path = tmp_path / "own.log"
    path.write_bytes("Größe=7 über\n".encode("latin-1"))
    pattern = "Größe=%{INT:size:int} %{GREEDYDATA:message}"
    lake.ingest(str(path), format=form("latin-1", pattern=pattern))
    path = tmp_path / "table.csv"
    path.write_bytes("Größe;Ort\n7;Köln\n".encode("latin-1"))
    lake.ingest(str(path), format=form("latin-1", format="csv"))
    query = "SELECT message, data FROM events ORDER BY origin"
    rows = {(message, data) for message, data in lake.sql(query).fetchall()}
    assert {message for message, _ in rows} >= {"über"}
    assert any(data and '"size":7' in data for _, data in rows)
    assert any(data and '"Größe":7' in data and "Köln" in data for _, data in rows)
    times = lake.sql("SELECT count(*) FROM events WHERE time = '2026-11-24 09:00:00Z'").fetchall()
    assert times == [(1,)]
    assert lake.sql("SELECT count(*) FROM quarantine").fetchall() == [(0,)]
    assert proven(lake) == 3


def test_a_watched_file_in_a_named_encoding(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A character that is written in two halves is read as one."""
    monkeypatch.setattr(watch, "STABLE", -1.0)
    path = tmp_path / "logs" / "a.log"
    path.parent.mkdir()
    line = "2026-11-24 10:00:00 WARN app: 表示\n".encode("shift_jis")
    watcher = Watcher(lake, [str(path.parent)], form=form("shift_jis"))
    for part in (line[:-2], line[-2:], line):
        with path.open("ab") as file:
            file.write(part)
        watcher.round()
        watcher.round()
    watcher.close()
    messages = lake.sql("SELECT message FROM events").fetchall()
    assert [message.endswith("表示") for (message,) in messages] == [True, True]


def consume(lake: lakelog.Lake, values: list[bytes], form_: str) -> None:
    """Store messages of a topic."""
    job = Job(lake.store, "main", lake.engine, form=form_, label="topic")
    with closing(MessageBatch(job)) as batch:
        batch.move(batch.cursors.get("topic/0") or StreamCursor("topic/0", "topic/0"))
        messages = [
            Message("topic/0", str(n + 1), n, value, None, None, b"{}", "kafka")
            for n, value in enumerate(values)
        ]
        batch.add(messages, "topic/0")
        batch.publish("topic/0")


@pytest.mark.parametrize("encoding", ["cp1251", "shift_jis", "iso2022_jp"])
def test_messages_in_a_named_encoding(lake: lakelog.Lake, encoding: str) -> None:
    """Their format is detected in it, and it goes with a zone."""
    line = f"2026-11-24 10:00:00 WARN app: {TEXTS[encoding]}".encode(encoding)
    consume(lake, [line] * 3, form(encoding, zone="Europe/Berlin"))
    query = (
        "SELECT time = '2026-11-24 09:00:00Z', level, message, count(*) FROM events GROUP BY ALL"
    )
    assert lake.sql(query).fetchall() == [(True, "WARN", f"app: {TEXTS[encoding]}", 3)]


def test_messages_of_a_table_are_refused_in_any_encoding(lake: lakelog.Lake) -> None:
    with pytest.raises(InvalidSetting, match="needs the lines before a line"):
        consume(lake, [b"a,b", b"1,2"], form("cp1251", format="csv"))


def test_quarantined_lines_are_read_in_a_named_encoding(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A replay that detects the format of a line reads it as its file was to be read."""
    path, text = tmp_path / "app.log", TEXTS["iso2022_jp"]
    path.write_bytes(f"2026-11-24 10:00:00 WARN app: {text}\n".encode("iso2022_jp"))
    assert lake.ingest(str(path), format="json").quarantined == 1
    result = Quarantine(lake.store, "main").replay(lake.engine, form=form("iso2022_jp"))
    assert result.stored == 1
    assert lake.sql("SELECT message FROM events").fetchall() == [(f"app: {text}",)]


def test_quarantine_has_the_text_of_a_named_encoding(lake: lakelog.Lake, tmp_path: Path) -> None:
    """So has the event that a replay makes of it, with the format for all lines too."""
    path = tmp_path / "app.log"
    path.write_bytes("Привет\n".encode("cp1251"))
    lake.ingest(str(path), format=form("cp1251", format="syslog"))
    assert lake.sql("SELECT line FROM quarantine").fetchall() == [("Привет",)]
    replayed = form("cp1251", format="plain")
    assert Quarantine(lake.store, "main").replay(lake.engine, form=replayed).stored == 1
    assert lake.sql("SELECT message FROM events").fetchall() == [("Привет",)]


def test_actions_and_documents_in_a_named_encoding(lake: lakelog.Lake, tmp_path: Path) -> None:
    path = tmp_path / "bulk.json"
    lines = ['{"index":{"_index":"a","_id":"1"}}', '{"message":"Привет"}', '{"index":{}}', "Привет"]
    path.write_bytes("\n".join([*lines, ""]).encode("cp1251"))
    assert lake.ingest(str(path), format=form("cp1251", format="bulk")).quarantined == 1
    assert lake.sql("SELECT id, message FROM events").fetchall() == [("1", "Привет")]
    assert lake.sql("SELECT line FROM quarantine").fetchall() == [("Привет",)]


def test_a_zone_leaves_the_encoding_of_a_format() -> None:
    """What a cursor names is in both, whichever was given first."""
    name = FORMATS.in_encoding("applog", "cp1251")
    assert FORMATS.in_zone(name, "Europe/Berlin") == "applog@Europe/Berlin~cp1251"
    assert FORMATS.in_zone("applog@+02:00~cp1251", "UTC") == "applog~cp1251"


def test_the_option(tmp_path: Path) -> None:
    """`ingest`, `watch` and `formats` have it; what lines cannot be in is refused."""
    path, run = tmp_path / "app.log", CliRunner().invoke
    path.write_bytes("2026-11-24 10:00:00 WARN app: 表示\n".encode("shift_jis"))
    at = ["--lake", str(tmp_path / "lake")]
    for bad in ("utf-16", "cp037", "rot13", "none"):
        assert run(cli, [*at, "ingest", str(path), "--encoding", bad]).exit_code == exits.USAGE
        with pytest.raises(InvalidSetting):
            LineEncoding.codec_of(bad)
    assert "表示" in run(cli, [*at, "formats", "test", str(path), "--encoding", "sjis"]).output
    added = run(cli, [*at, "formats", "add", "japan", "--encoding", "sjis", "--for", "app*"])
    assert added.exit_code == 0, added.output
    assert run(cli, [*at, "ingest", str(path)]).exit_code == 0
    with lakelog.open(tmp_path / "lake") as lake:
        assert lake.sql("SELECT message LIKE '%表示' FROM events").fetchall() == [(True,)]
