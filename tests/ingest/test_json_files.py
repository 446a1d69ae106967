"""Dialects and documents of JSON through the lake: real files, files that grow, audits."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.audit.audit import audit
from lakelog.formats import dialects
from lakelog.ingest import transform
from tests.support.document_texts import ENTRY, EVENT, LOG, SPAN, binary, logs, piece, spans
from tests.support.real_files import DATA, FACTS
from tests.support.samples import objects_of

real = pytest.mark.needs("../shared")


@pytest.fixture(params=[0, 500])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Lines so few are decided one by one: with 0 all by SQL where it can."""
    monkeypatch.setattr(transform, "FEW", request.param)
    monkeypatch.setattr(transform, "_FEW_BYTES", request.param << 20)
    return int(request.param)


def taken(lake: lakelog.Lake, name: str, form: str) -> list[dict[str, Any]]:
    """All events of a real file, data parsed."""
    report = lake.ingest(str(DATA / name))
    assert (report.quarantined, report.files[0].format) == (0, form)
    query = "SELECT * EXCLUDE (ingested_at) FROM events ORDER BY position"
    rows = lake.sql(query).to_arrow_table().to_pylist()
    return [row | {"data": json.loads(row["data"], parse_float=Decimal)} for row in rows]


@real
def test_a_real_cloudtrail(lake: lakelog.Lake, few: int) -> None:
    """Names, sources, errors and ids are those that were counted."""
    name = "cloudtrail/ec2_proxy_s3_exfiltration.ndjson"
    facts, found = FACTS[name], taken(lake, name, "cloudtrail")
    assert len(found) == len({row["id"] for row in found}) == facts["distinct_eventID"]
    assert Counter(dict(facts["by_eventName"])) <= Counter(row["type"] for row in found)
    assert Counter(dict(facts["by_source"])) <= Counter(row["source"] for row in found)
    assert sum(row["level"] == "ERROR" for row in found) == facts["error_events"]


@real
@pytest.mark.parametrize("log", ["conn", "http", "dns"])
def test_a_real_zeek_log(lake: lakelog.Lake, few: int, log: str) -> None:
    """Every line is an event of its stream, to the microsecond, and its counts are right."""
    name = f"zeek/{log}.log"
    facts, found = FACTS[name], taken(lake, name, "zeek-json")
    assert len(found) == facts["lines"]
    assert {row["type"] for row in found} == {log}
    assert min(row["time"] for row in found).timestamp() == pytest.approx(facts["min_ts"], abs=1e-6)
    for key in (k for k in facts if k.startswith("by_")):
        counts = Counter(str(row["data"].get(key[3:])) for row in found)
        assert Counter(dict(facts[key])) <= counts
    lines = (DATA / name).read_text().splitlines()
    for row, line in zip(found, lines, strict=True):
        whole = json.loads(line, parse_float=Decimal)
        assert row["data"] == {k: v for k, v in whole.items() if k != "ts"}


@real
def test_a_real_archive_of_github(lake: lakelog.Lake, few: int) -> None:
    """Types, ids and repositories are those that were counted, times those of the events."""
    name = "lnav/gharchive_log.jsonl"
    facts, found = FACTS[name], taken(lake, name, "github")
    assert Counter(row["type"] for row in found) == facts["by_type"]
    assert len({row["id"] for row in found}) == facts["distinct_ids"]
    assert len({row["subject"] for row in found}) == facts["distinct_actors"]
    assert len({row["source"] for row in found}) == facts["distinct_repos"]
    times = [row["time"].strftime("%Y-%m-%dT%H:%M:%SZ") for row in found]
    assert min(times) == facts["first_created"]


@pytest.mark.matrix
@real
@pytest.mark.parametrize(
    ("name", "form", "levels", "year"),
    [
        ("lnav/logfile_journald.json", "journald", {"FATAL": 1, "INFO": 1}, 2018),
        (
            "lnav/logfile_ecs_log.json",
            "ecs",
            {"DEBUG": 1, "INFO": 1, "WARN": 1, "ERROR": 1, "FATAL": 1},
            2025,
        ),
        ("lnav/logfile_bunyan.0", "bunyan", {"DEBUG": 9, "INFO": 1}, 2023),
        ("services/caddy-basic-auth-bf__caddy-logs.log", "golog", {"ERROR": 6}, 2024),
        (
            "services/k8s-audit-pod-exec-file__k8s-audit-pod-exec-file.log",
            "kubeaudit",
            {"INFO": 1},
            2023,
        ),
        ("services/nextcloud-logs__nextcloud-logs.log", "nextcloud", None, 2022),
        ("services/kasm__kasm-logs.log", "python-json", None, 2023),
        (
            "services/aws-cloudtrail-postexploit__aws-cloudtrail-postexploit.log",
            "cloudtrail",
            {"ERROR": 3, "INFO": 1},
            2023,
        ),
        ("lnav/logfile_cloudflare.1", "cloudflare", None, 2024),
        ("otlp/logs.json", "otlp", {"INFO": 1}, 2018),
        ("otlp/trace.json", "otlp", {None: 1}, 2018),
    ],
)
def test_real_files_of_many_programs(
    lake: lakelog.Lake, few: int, name: str, form: str, levels: dict[Any, int] | None, year: int
) -> None:
    """Each is told by its content, each line or record is an event, levels and times are right."""
    found = taken(lake, name, form)
    whole = FACTS[name].get("records") or FACTS[name].get("spans") or FACTS[name]["json_lines_ok"]
    assert len(found) == whole
    assert min(row["time"].year for row in found) == year
    if levels is None:
        assert all(row["level"] for row in found)
    else:
        assert Counter(row["level"] for row in found) == Counter(levels)


# --- files that grow ------------------------------------------------------------------------------


def lines(*found: Any) -> bytes:
    """JSON lines."""
    return b"".join(json.dumps(one).encode() + b"\n" for one in found)


PAIRS: dict[str, tuple[bytes, bytes, int]] = {
    **{
        name: (
            lines(*seeds),
            lines(seeds[0] | dict.fromkeys(("id", "eventID", "eventId", "uuid", "Id"), "9")),
            len(seeds) + 1,
        )
        for name in dialects.NAMED
        for seeds in [objects_of(name)]
    },
    "cloudevents": (lines(EVENT), lines(EVENT | {"id": "2"}), 2),
    "docker": (piece("one\n") + piece("tw") + piece("o\n"), piece("oops\n", "stderr"), 3),
    "otlp": (lines(logs(LOG, LOG), spans(SPAN)), lines(logs(LOG)), 4),
    "json": (
        json.dumps([{"time": 5, "x": 1}, 7], indent=1).encode() + b"\n",
        json.dumps({"Records": [{"time": 6}]}, indent=1).encode() + b"\n",
        3,
    ),
    "journald-export": (ENTRY + ENTRY, ENTRY.replace(b"_COMM=sh\n", binary(b"_COMM", b"\n\n")), 3),
}


@pytest.mark.matrix
@pytest.mark.parametrize("form", PAIRS)
def test_a_file_that_grows_is_taken_in_once(lake: lakelog.Lake, tmp_path: Path, form: str) -> None:
    """Whatever its format, what was there is known again, and an audit finds each event once."""
    first, second, count = PAIRS[form]
    path = tmp_path / "app.log"
    path.write_bytes(first)
    report = lake.ingest(str(path))
    assert (report.files[0].format, report.quarantined) == (form, 0)
    assert lake.ingest(str(path)).events == 0
    path.write_bytes(first + second)
    lake.ingest(str(path))
    assert lake.ingest(str(path)).events == 0
    [(stored, places)] = lake.sql(
        "SELECT count(*), count(DISTINCT position) FROM events"
    ).fetchall()
    assert stored == places == count
    checked = audit(lake.store, lake.branch_name, lake.engine, [])
    found = [(f.stored, f.missing, f.doubled, f.foreign, f.error) for f in checked.files]
    assert found == [(count, 0, 0, 0, "")]
