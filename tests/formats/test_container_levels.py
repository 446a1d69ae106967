"""Lines of containers have the level that their program wrote, in whatever way it writes one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakelog.formats import cri, docker
from tests.support.effort import share
from tests.support.table_heads import made
from tests.support.text_lines import edited

SAID = {
    '{"level":"error","msg":"bad"}': "ERROR",
    '{"ts":"2026-11-20T08:12:13Z", "severity": "WARNING"}': "WARN",
    '{"level":50,"time":1795162333123,"msg":"bad"}': "ERROR",
    'ts=2026-11-20T08:12:13Z level=warn msg="slow"': "WARN",
    "[ERROR] bad": "ERROR",
    "INFO:     Started server process [1]": "INFO",
    "Error: listen EADDRINUSE": "ERROR",
    "2026-11-20 08:12:13,123 INFO  [main] com.acme.App - Started": "INFO",
    "2026-11-20T08:12:13.123Z [main] WARN com.acme.App - slow": "WARN",
    "2026-11-20 08:12:13,123 - app.db - CRITICAL - lost": "FATAL",
    "2026/11/20 08:12:13 [error] 31#31: *5 open() failed": "ERROR",
    "E1120 08:12:14.123456       1 controller.go:101] failed": "ERROR",
    "no error here": None,
    "Information about levels": None,
    '{"level":{"error":1},"levels":"error"}': None,
    '{"level":"unusual"}': None,
}
STAMP = "2026-11-20T08:12:13.123456789Z"


def in_cri(text: str) -> str:
    """A line as Kubernetes keeps it."""
    return f"{STAMP} stderr F {text}"


def in_docker(text: str) -> str:
    """The same as Docker does."""
    return json.dumps({"log": text + "\n", "stream": "stderr", "time": STAMP})


@pytest.mark.parametrize("few", [0, 10_000], ids=["queries", "exact rule"])
@pytest.mark.parametrize(
    ("form", "wrapped"), [(cri.FORM, in_cri), (docker.FORM, in_docker)], ids=["cri", "docker"]
)
def test_a_line_of_a_container_has_its_level(
    engine: Any, form: Any, wrapped: Any, few: int
) -> None:
    """The text stays the message, the stream what it was."""
    text = "".join(wrapped(line) + "\n" for line in SAID).encode()
    rows, refused = made(engine, form, text, few)
    assert not refused
    assert {row["message"]: row["level"] for row in rows.values()} == SAID


@settings(max_examples=share(60))
@given(data=st.data())
def test_both_ways_read_the_same_level(engine: Any, data: Any) -> None:
    """Whatever becomes of the lines."""
    lines = data.draw(st.lists(edited([in_cri(text) for text in SAID]), min_size=1, max_size=12))
    text = b"\n".join(lines) + b"\n"
    assert made(engine, cri.FORM, text, 0) == made(engine, cri.FORM, text, 10_000)
