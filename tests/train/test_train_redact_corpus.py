"""Redaction over a generated corpus: what is found of each provider, and what is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import redaction as measured
from tests.support import redaction


def test_every_provider_and_kind_is_found() -> None:
    """Of the secrets of each provider and of each kind of personal data none is left."""
    found = measured.recall(12)
    assert len(redaction.PROVIDERS) >= 60
    assert len(redaction.PERSONAL) >= 20
    assert {kind: part for kind, part in found.items() if part < 1} == {}


@pytest.mark.thorough
def test_innocent_lines_are_left_alone() -> None:
    """Of hashes, versions, times, ids, code and real lines at most one in a thousand changes."""
    hit, total = measured.touched(4_000)
    assert sum(hit.values()) <= sum(total.values()) / 1000, hit


FOUND = {
    "PGP": "-----BEGIN PGP MESSAGE-----\n\n{}\n=abcd\n-----END PGP MESSAGE-----",
    "escaped once more": '{{\\"api_key\\": \\"{}\\"}}',
    "flag": "deploy --token {} --force",
    "bare URL": "amqp://u:{}@mq/vhost",
}


@pytest.mark.matrix
@pytest.mark.parametrize("form", FOUND)
def test_other_forms_are_found(home: Path, form: str) -> None:
    """Keys in armor, in JSON inside a text, behind a flag and in URLs are taken out."""
    value = "q7Zt2mWc9Lx4Vb8Nd3Kf6Hj1"
    (shown,) = redaction.redacted(home, [FOUND[form].format(value)])
    assert all("<KEY>" in text and redaction.is_gone([value], text) for text in shown)


KEPT = {
    "password=hunter2hunter2": "password=<KEY>",
    "X-API-Key: 0a1b2c3d4e5f60718293": "X-API-Key: <KEY>",
    "Cookie: a=b; c=d": "Cookie: <KEY>",
    '"Set-Cookie":["a=b; Path=/"]': '"Set-Cookie":["<KEY>"]',
    "map[X-Api-Key:[0a1b2c3d4e5f60718293]]": "map[X-Api-Key:[<KEY>]]",
    "Authorization: 0a1b2c3d4e5f60718293": "Authorization: <KEY>",
    "password: [required]": "password: [required]",
    "host 10.1.2.3:8080 up": "host <IP>:8080 up",
    "redis://:s3cr3ts3cr3t@cache:6379": "redis://:<KEY>@cache:6379",
    "mail bücher@bücher.example now": "mail <EMAIL> now",
    "from ::ffff:10.1.2.3 to": "from <IP> to",
}


def test_what_stands_around_a_find_is_kept(home: Path) -> None:
    """Names of fields, headers, hosts and ports stay readable."""
    shown = redaction.redacted(home, list(KEPT))
    assert [text for text, _ in shown] == list(KEPT.values())
    assert all(text == inner for text, inner in shown)
