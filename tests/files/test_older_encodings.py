"""Text that is not UTF-8: read as Windows-1252, marked, every byte of it retrievable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lakelog
from lakelog.audit.audit import audit
from lakelog.formats.line_encoding import LineEncoding
from lakelog.formats.registry import FORMATS
from lakelog.ingest import records, transform

MARK = {"encoding": "windows-1252"}
LINES: list[tuple[bytes, dict[str, Any]]] = [
    (
        b"2024-10-10 13:55:01,123 INFO [main] a.b.C: caf\xe9 \x80 5",
        {
            "level": "INFO",
            "source": "a.b.C",
            "message": "café € 5",
            "data": {"thread": "main", **MARK},
        },
    ),
    (
        "Oct 10 13:55:01 web sshd[7]: Привет \xab".encode() + b"\xd0",
        {
            "source": "sshd",
            "message": "ÐŸÑ€Ð¸Ð²ÐµÑ‚ Â«Ð",
            "data": {"host": "web", "procid": "7", "pri": None, **MARK},
        },
    ),
    (
        "Oct 10 13:55:01 web sshd[7]: Привет".encode() + b" \xd0",
        {
            "source": "sshd",
            "message": "Привет Ð",
            "data": {"host": "web", "procid": "7", "pri": None, **MARK},
        },
    ),
    (
        b"\xa1hola, se\xf1or! \x81\x8d\x8f\x90\x9d",
        {"message": "¡hola, señor! \x81\x8d\x8f\x90\x9d", "data": MARK},
    ),
    (
        b'{"type":"A","time":1,"data":{"n":"\xff","encoding":"own"}}',
        {"data": {"n": "ÿ", "encoding": "own"}},
    ),
    (b'{"type":"A","time":1,"data":"\xff"}', {"data": "ÿ"}),
    (
        b'time=2024-10-10T13:55:01Z msg="\xfcber" k=\xe9',
        {"message": "über", "data": {"k": "é", **MARK}},
    ),
]


def events(lake: lakelog.Lake) -> list[dict[str, Any]]:
    """The rows in the order of their places."""
    query = "SELECT * FROM events ORDER BY origin, position"
    return [dict(row) for row in lake.sql(query).to_arrow_table().to_pylist()]


@pytest.mark.matrix
@pytest.mark.parametrize("times", [1, 600])
@pytest.mark.parametrize(("line", "told"), LINES, ids=range(len(LINES)))
def test_a_line_of_an_older_encoding(
    lake: lakelog.Lake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: bytes,
    told: dict[str, Any],
    times: int,
) -> None:
    """It is an event of its format, by SQL as by the exact rule, whose payload says so; each line
    is there once, and more of the file goes on behind it."""
    monkeypatch.setattr(transform, "FEW", 0 if times > 1 else 500)
    path = tmp_path / "x.log"
    path.write_bytes((line + b"\n") * times)
    report = lake.ingest(str(path))
    assert (report.events, report.quarantined) == (times, 0)
    for event in events(lake):
        data = event["data"] and lakelog.values.parse_value(event["data"].encode())
        said = {name: data if name == "data" else event[name] for name in told}
        assert said == told
    with path.open("ab") as file:
        file.write(line + b"\n")
    assert lake.ingest(str(path)).events == 1
    (checked,) = audit(lake.store, lake.branch_name, lake.engine, []).files
    assert (checked.wrong, checked.stored) == (0, times + 1)


@given(
    st.binary(max_size=12) | st.text(max_size=4).map(lambda t: t.encode() + b"\xe9" + t.encode())
)
def test_every_byte_can_be_had_back(data: bytes) -> None:
    """Text of an older encoding gives its bytes again; UTF-8 and what is no text stay."""
    text = LineEncoding.recoded(data)
    if text is not None:
        assert LineEncoding.original(text.decode()) == data
    controls = any((b < 32 and b not in b"\t\n\v\f\r\x1b") or b == 127 for b in data)
    valid = data.decode("utf-8", "ignore").encode() == data
    assert (text is None) == (valid or controls)


def test_bytes_that_are_no_text_stay_in_quarantine(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Lines with NULs or controls between bytes that are no UTF-8 are damage, as before."""
    path = tmp_path / "x.log"
    path.write_bytes(b"fine\n\xff\x00\xfe\n\x01\xe9\nfine\n")
    report = lake.ingest(str(path))
    assert (report.events, report.quarantined) == (2, 2)


def test_columns_are_named_in_the_encoding_of_their_file(
    lake: lakelog.Lake, tmp_path: Path
) -> None:
    """A spreadsheet's export has umlauts in its header, too."""
    path = tmp_path / "x.csv"
    path.write_bytes("Größe;Ort\n7;Köln\n8;Ulm\n".encode("cp1252"))
    assert lake.ingest(str(path)).quarantined == 0
    assert [event["data"] for event in events(lake)] == [
        '{"Größe":7,"Ort":"Köln","encoding":"windows-1252"}',
        '{"Größe":8,"Ort":"Ulm"}',
    ]


def test_ingesting_a_file_again_is_idempotent(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A lake whose ingest quarantined such lines keeps them; the file goes on behind them."""
    path = tmp_path / "x.log"
    path.write_bytes(b"one\ncaf\xe9\n")
    with pytest.MonkeyPatch.context() as context:
        context.setattr(LineEncoding, "recoded", lambda _: None)
        assert lake.ingest(str(path)).quarantined == 1
    with path.open("ab") as file:
        file.write(b"th\xe9\n")
    report = lake.ingest(str(path))
    assert (report.events, report.quarantined) == (1, 0)
    (checked,) = audit(lake.store, lake.branch_name, lake.engine, []).files
    assert (checked.wrong, checked.stored, checked.quarantined) == (0, 2, 1)


def test_a_half_written_line_waits(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A last line without newline is one event with its end, in whatever encoding it is."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"type":"A","message":"a"}\n{"type":"A","message":"caf\xe9')
    assert records.is_cut(b'{"a":"caf\xe9', FORMATS["jsonl"])
    assert not records.is_cut(b'{"a":"caf\xe9"}', FORMATS["jsonl"])
    lake.ingest(str(path))
    with path.open("ab") as file:
        file.write(b' au lait"}\n')
    lake.ingest(str(path))
    found = "".join(event["message"] for event in events(lake))
    assert found == "acafé au lait"
