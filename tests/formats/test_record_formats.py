"""Lines of containers and records of auditd: cut, joined and read the same in both ways."""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lakelog
from lakelog.audit.audit import audit
from lakelog.formats import auditd, cri
from lakelog.formats.registry import FORMATS
from lakelog.ingest import transform
from lakelog.ingest.transform import Transformer
from lakelog.lines.pieces import Chunk
from tests.support.effort import share
from tests.support.record_texts import AUDIT, CRI
from tests.support.table_heads import made
from tests.support.text_facts import FACTS, SHARED, events
from tests.support.text_lines import edited


@pytest.mark.parametrize(
    ("form", "seeds"), [(cri.FORM, CRI), (auditd.FORM, AUDIT)], ids=["cri", "auditd"]
)
@settings(max_examples=share(80))
@given(data=st.data())
def test_records_by_sql_are_those_of_the_exact_rule(
    engine: Any, form: Any, seeds: list[str], data: Any
) -> None:
    """Whatever becomes of the lines, both ways give the same rows and the same bad lines."""
    lines = data.draw(st.lists(edited(seeds), min_size=1, max_size=16))
    text = b"\n".join(lines) + b"\n"
    assert made(engine, form, text, 0) == made(engine, form, text, 10_000)


def test_partial_lines_are_joined_on_their_stream(engine: Any) -> None:
    """Pieces of two streams that take turns become one event each, at their first piece."""
    text = "".join(line + "\n" for line in CRI[:8]).encode()
    for few in (0, 1000):
        with mock.patch.object(transform, "FEW", few):
            table = Transformer(lambda: engine, cri.FORM, "o").run(Chunk(text, 0), final=True).table
        rows = table.to_pylist()
        found = [row["message"] for row in rows]
        assert found == ["one", "two three four", "three\tfive", None, "\tat a.b"]
        starts = list(itertools.accumulate((len(line) + 1 for line in CRI), initial=0))
        assert [row["position"] for row in rows] == [starts[i] for i in (0, 1, 2, 6, 7)]
        assert rows[1]["data"] == '{"stream":"stdout"}'
        assert rows[2]["data"] == '{"stream":"stderr"}'


def test_a_line_of_a_container_is_there_at_once(engine: Any) -> None:
    """While a file is followed only what is cut waits for its end."""
    for lines, taken in ((CRI[:1], 1), (CRI[:2], 1), (CRI[:5], 1), (CRI[:6], 6)):
        text = "".join(line + "\n" for line in lines).encode()
        found = Transformer(lambda: engine, cri.FORM, "o", mode="follow").run(Chunk(text, 0))
        assert found.length == sum(len(line) + 1 for line in lines[:taken])


def test_a_piece_without_end_stands_for_itself(engine: Any) -> None:
    """A stream that never ends its line holds nothing back for ever."""
    text = (CRI[1] + "\n").encode() + (CRI[7] + "\n").replace("stdout", "stderr").encode() * 50
    with mock.patch.object(cri.FORM, "traits", replace(cri.FORM.traits, record_max=500)):
        table = Transformer(lambda: engine, cri.FORM, "o", mode="follow").run(Chunk(text, 0)).table
    assert table["message"].to_pylist() == ["two", *["\tat a.b"] * 49]


def test_records_of_one_event_share_their_subject(engine: Any) -> None:
    """Pairs within msg and translated ones are data; failure is a warning; words the message."""
    text = "".join(line + "\n" for line in AUDIT).encode()
    rows, bad = made(engine, auditd.FORM, text, 0)
    assert len(bad) == 0
    found = list(rows.values())
    assert [row["type"] for row in found[:4]] == ["SYSCALL", "PROCTITLE", "USER_AUTH", "AVC"]
    assert found[0]["subject"] == found[1]["subject"] == "1684329817.579:2995"
    assert found[0]["time"] == dt.datetime(2023, 5, 17, 13, 23, 37, 579000, tzinfo=dt.UTC)
    assert [row["level"] for row in found[:5]] == ["INFO", None, "WARN", None, "WARN"]
    user = dict(found[2]["data"])
    assert (user["acct"], user["op"], found[2]["source"]) == ("root", "PAM:authentication", "h1")
    assert found[3]["message"] == "avc: denied { read } for"
    assert dict(found[4]["data"])["UID"] == "bui"
    assert dict(found[7]["data"]) == {"item": "0", "item_2": "1", "name": "a=b c"}


@pytest.mark.matrix
@pytest.mark.parametrize("cut", range(5, 300, 41))
@pytest.mark.parametrize(("name", "lines"), [("cri", CRI[:8]), ("auditd", AUDIT[:6])])
def test_records_that_grow_are_audited(
    lake: lakelog.Lake, tmp_path: Path, name: str, lines: list[str], cut: int
) -> None:
    """Wherever the file was cut, what is taken in is there once, and an audit says so."""
    text = "".join(line + "\n" for line in [lines[0], *lines])
    path = tmp_path / "grows.log"
    with path.open("a") as writer:  # as long as it is open, an unfinished last line waits
        for part in (text[: len(lines[0]) + 1 + cut], text):
            writer.truncate(0)
            writer.write(part)
            writer.flush()
            assert lake.ingest(str(path)).files[0].format == name
    ((count, places),) = lake.sql(
        "SELECT count(*), count(DISTINCT position) FROM events"
    ).fetchall()
    # a line that was cut in its text gives two
    assert places == count >= (6 if name == "cri" else 7)
    assert [f.wrong for f in audit(lake.store, lake.branch_name, lake.engine, []).files] == [0]


@pytest.mark.needs("../shared")
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("services/auditd-suid-crash__auditd-suid-crash.log", "auditd"),
        ("services/auditd-logs__auditd-logs.log", "auditd"),
        ("services/envoy-http-crawl-non_statics__envoy-http-crawl-non_statics.log", "cri"),
        ("services/envoy-logs__envoy.log", "cri"),
    ],
)
def test_real_records(lake: lakelog.Lake, name: str, form: str) -> None:
    """Every line of real files is an event of their format."""
    report = lake.ingest(str(SHARED / name))
    assert report.files[0].format == form
    lines = FACTS[name]["lines"] - FACTS[name]["blank_lines"]
    assert (report.events, report.quarantined) == (lines, 0)
    assert all(event["time"].year in (2023, 2025, 2026) for event in events(lake))


def test_they_are_told_by_content() -> None:
    """Each is known by its lines, whatever the file is called."""
    for name, seeds in (("cri", CRI), ("auditd", AUDIT)):
        text = "\n".join(seeds[:4]).encode()
        assert name == FORMATS.detect(text, text, "x.json").NAME
