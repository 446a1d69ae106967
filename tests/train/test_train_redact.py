"""Redaction: what is found, what is left alone, and that it can be joined and parsed afterwards."""

from __future__ import annotations

import ipaddress
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lakelog import train
from lakelog.train import patterns
from tests.support.redaction import luhn, mod97
from tests.support.requirements import need
from tests.support.trainsets import lake_of, recipe, rows
from tests.support.tree import SHARED as DATA


def card(rng: random.Random) -> str:
    head = rng.choice(["4", "51", "55", "2221", "6011", "34", "37", "36"])
    length = {"34": 15, "37": 15, "36": 14}.get(head, 16)
    body = head + "".join(rng.choices("0123456789", k=length - len(head) - 1))
    digits = next(body + c for c in "0123456789" if luhn(body + c))
    if length == 16 and rng.random() < 0.5:
        return rng.choice("- ").join(digits[n : n + 4] for n in range(0, 16, 4))
    return digits


def iban(rng: random.Random) -> str:
    country, length = rng.choice([("DE", 22), ("FR", 27), ("GB", 22), ("NO", 15), ("PL", 28)])
    body = "".join(rng.choices("0123456789", k=length - 4))
    if country == "GB":
        body = "WEST" + body[4:]
    made = next(f"{country}{n:02d}{body}" for n in range(2, 99) if mod97(f"{country}{n:02d}{body}"))
    if rng.random() < 0.5:
        return " ".join(made[n : n + 4] for n in range(0, len(made), 4))
    return made


def token(rng: random.Random) -> str:
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789"

    def some(count: int, of: str = letters) -> str:
        return "".join(rng.choices(of, k=count))

    upper, hexes = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "0123456789abcdef"
    return rng.choice(
        [
            f"AKIA{some(16, upper)}",
            f"ghp_{some(36)}",
            f"glpat-{some(20)}",
            f"xoxb-{some(12, '0123456789')}-{some(24)}",
            f"AIza{some(35)}",
            f"sk_live_{some(24)}",
            f"sk-proj-{some(48)}",
            f"hf_{some(34)}",
            f"npm_{some(36)}",
            f"dop_v1_{some(64, hexes)}",
            f"eyJ{some(20)}.eyJ{some(30)}.{some(43)}",
            f"SG.{some(22)}.{some(43)}",
        ]
    )


def address(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return str(ipaddress.IPv6Address(rng.getrandbits(128)))
    return ".".join(str(rng.randrange(1, 256)) for _ in range(4))


def phone(rng: random.Random) -> str:
    a, b, c = rng.randrange(201, 990), rng.randrange(201, 990), rng.randrange(1000, 9999)
    return rng.choice(
        [
            f"+1 {a} {b} {c}",
            f"({a}) {b}-{c}",
            f"{a}-{b}-{c}",
            f"+49 30 {c}{b}",
            f"+1{a}{b}{c}",
            f"+44 20 {c} {c}",
            f"{a}.{b}.{c}",
        ]
    )


def email(rng: random.Random) -> str:
    user = rng.choice(["bob", "a.b+c", "j_doe", "x-y.z", "n1"])
    host = rng.choice(["example.com", "mail.example.co.uk", "e-x.org"])
    host = rng.choice(["example.com", "mail.example.co.uk", "e-x.org"])
    return f"{user}{rng.randrange(1000)}@{host}"


def name(rng: random.Random) -> str:
    return rng.choice(patterns.names())


MAKERS: dict[str, Callable[[random.Random], str]] = {
    "email": email,
    "phone": phone,
    "ip": address,
    "card": card,
    "iban": iban,
    "key": token,
    "name": name,
}


def real_lines(most: int = 4000) -> list[str]:
    """Lines of real logs, or of none where the samples are missing."""
    found: list[str] = []
    for file in sorted(DATA.glob("services/*.log")) + sorted(DATA.glob("loghub/*.log")):
        found += file.read_text("utf-8", "replace").splitlines()[:40]
    return [line for line in found if line.strip()][:most]


def redacted(home: Path, lines: list[str], mode: str = "mask", **more: Any) -> list[str]:
    """Return the lines as an export has them, in their order."""
    events = [
        {"type": "log", "message": line or "-", "data": {"n": n, "t": line}}
        for n, line in enumerate(lines)
    ]
    query = "SELECT (data->>'$.n')::INT AS n, message, data FROM events"
    redact = {"kinds": "all", "mode": mode, **more}
    made = recipe("events", query, redact=redact, split={"train": 1.0})
    with lake_of(home / "lake", events) as lake:
        train.export(lake, made, home / "out")
    found = sorted(rows(home / "out"), key=lambda row: row["n"])
    for row in found:
        assert json.loads(row["data"])["t"] == row["message"] or not row["message"]
    return [row["message"] for row in found]


@pytest.mark.matrix
@pytest.mark.parametrize("kind", MAKERS)
def test_what_was_planted_in_real_lines_is_gone(home: Path, kind: str) -> None:
    """Of each kind at least 99 of 100 planted values are replaced, among real log lines."""
    need("../shared")
    lines, rng = real_lines(600), random.Random(kind)
    planted = [MAKERS[kind](rng) for _ in lines]
    cut = [re.sub(r"\S*$", "", line[: rng.randrange(len(line) + 1)]) for line in lines]
    made = [f"{c} {p} {line[len(c) :]}" for c, p, line in zip(cut, planted, lines, strict=True)]
    found = redacted(home, made)
    left = [p for p, text in zip(planted, found, strict=True) if p in text]
    assert len(left) <= 0.01 * len(planted), left[:5]


def test_what_is_alike_is_left_alone(home: Path) -> None:
    """Versions, clocks, ids, wrong checksums, units and words are no finds."""
    lines = [
        "Apache/2.4.41 (Ubuntu) at 12:34:56.789 on Tuesday",
        "oid 1.3.6.1.4.1.311 build 1.2.3",
        "id 1758931200123456 epoch 1758931200123",
        "card 4111111111111112",
        "300.1.2.3 is no address",
        "DE89370400440532013001 is no account",
        "getty@tty1.service started",
        "MAC 00:1a:2b:3c:4d:5e",
        "+0200 offset, 2026-11-20 date, 555-1234",
        "sk-short ghp_tooshort",
        "logo@2x.png",
        "std::vector<Foo::Bar> a::b",
        "GET /a/b?c=d HTTP/1.1 200 5123 17",
    ]
    assert redacted(home, lines) == lines


def test_replacements_hold_for_an_independent_reader(home: Path) -> None:
    """In real lines, what was replaced is what the standard library takes for the same thing."""
    need("../shared")
    lines = real_lines()
    refused = 0
    for line, made in zip(lines, redacted(home, lines), strict=True):
        parts = re.split(r"<(?:EMAIL|PHONE|IP|CARD|IBAN|KEY|NAME)>", made)
        pattern = "(.*?)".join(map(re.escape, parts))
        match = re.fullmatch(pattern, line, re.S)
        assert match, (line, made)
        for mark, value in zip(re.findall(r"<([A-Z]+)>", made), match.groups(), strict=False):
            refused += not holds(mark, value)
    assert refused <= len(lines) / 1000


def holds(mark: str, value: str) -> bool:
    if mark == "IP":
        try:
            return bool(ipaddress.ip_address(value))
        except ValueError:
            return False
    if mark == "CARD":
        return luhn(re.sub(r"\D", "", value))
    if mark == "IBAN":
        return mod97(value.replace(" ", ""))
    if mark == "EMAIL":
        return bool(re.fullmatch(r"[^@\s]+@[^@\s]+\.[A-Za-z]{2,}", value))
    if mark == "PHONE":
        return 7 <= len(re.sub(r"\D", "", value)) <= 15
    return mark in ("NAME", "KEY")


def test_pseudonyms_join_and_reveal_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal values get equal pseudonyms under one key, and others under another key."""
    lines = ["from bob@example.com", "to BOB@example.com", "cc eve@example.com"]
    monkeypatch.setenv("THE_KEY", "k1")
    (home / "a").mkdir()
    (home / "b").mkdir()
    one = redacted(home / "a", lines, "pseudonym", key_env="THE_KEY")
    monkeypatch.setenv("THE_KEY", "k2")
    two = redacted(home / "b", lines, "pseudonym", key_env="THE_KEY")
    marks = [re.search(r"<EMAIL:[a-p]{16}>", text)[0] for text in [*one, *two]]  # type: ignore[index]
    assert marks[0] == marks[1] != marks[2]
    assert marks[0] != marks[3]


def test_groups_survive_pseudonyms_and_are_refused_by_masks(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People as groups are split by what they were; a mask that would merge them is refused."""
    from lakelog.errors import ExportRefused

    events = [
        {"type": "t", "subject": f"u{n % 50}@example.com", "message": f"hello {n}"}
        for n in range(200)
    ]
    monkeypatch.setenv("THE_KEY", "k1")
    keyed = {"kinds": ["email"], "mode": "pseudonym", "key_env": "THE_KEY"}
    split = {"group": "subject"}
    with lake_of(home / "lake", events) as lake:
        made = recipe("events", "SELECT subject, message FROM events", redact=keyed, split=split)
        done = train.export(lake, made, home / "out")
        assert done.certificate.clean
        assert len({row["subject"] for row in rows(home / "out")}) == 50
        masked = {**made, "redact": {"kinds": ["email"]}}
        with pytest.raises(ExportRefused, match="pseudonym"):
            train.export(lake, masked, home / "masked")
        report = (home / "out/manifest.json").read_text() + (home / "out/report.md").read_text()
    assert "@example.com" not in report
    assert done.manifest["redaction"]["found"] == {"email": 200}


def test_json_stays_json(home: Path) -> None:
    """Finds inside escapes, keys and bare numbers are replaced, and the payload still parses."""
    payloads = [
        {"t": 'line\nbob@example.com\t"1.2.3.4"'},
        {"p": "C:\\users\\10.0.0.1\\x"},
        {"card": 4111111111111111, "n": [4111111111111111, 5]},
        {"bob@example.com": "4111111111111111, 1"},
        {"deep": [{"x": ["GB82 WEST 1234 5698 7654 32"]}]},
    ]
    events = [{"type": "t", "data": data} for data in payloads]
    made = recipe(
        "events", "SELECT data FROM events", redact={"kinds": "all"}, split={"train": 1.0}
    )
    with lake_of(home / "lake", events) as lake:
        done = train.export(lake, made, home / "out")
    found = [json.loads(row["data"]) for row in rows(home / "out")]
    assert found == [
        {"t": 'line\n<EMAIL>\t"<IP>"'},
        {"p": "C:\\users\\<IP>\\x"},
        {"card": "<CARD>", "n": ["<CARD>", 5]},
        {"<EMAIL>": "<CARD>, 1"},
        {"deep": [{"x": ["<IBAN>"]}]},
    ]
    counts = {kind: n for kind, n in done.manifest["redaction"]["found"].items() if n}
    assert counts == {"email": 2, "ip": 2, "card": 3, "iban": 1}


def test_a_word_begins_behind_an_escape(home: Path) -> None:
    """Of JSON that is a payload, a text, or within other JSON."""
    secrets = "AKIAIOSFODNN7EXAMPLE DE89370400440532013000 10.20.30.40 4111111111111111".split()

    def nested(value: str, depth: int) -> str:
        return nested(json.dumps({"v": value}), depth - 1) if depth else value

    texts = [
        nested(f"a{character}{secret}{character}{depth}", depth)
        for secret in secrets
        for character in '\n\r\t\b\f"\\'
        for depth in range(4)
    ]
    # Each by itself: a row that has a hint is looked at as a whole.
    events = [{"type": "T", "data": {"v": text}} for text in texts]
    events += [{"type": "T", "message": text} for text in texts]
    made = recipe(
        "events",
        "SELECT message, data FROM events",
        redact={"kinds": ["key", "iban", "ip", "card"]},
        split={"train": 1.0},
        dedupe={"exact": False},
    )
    with lake_of(home / "lake", events) as lake:
        train.export(lake, made, home / "out")
    found = [f"{row['message']} {row['data']}" for row in rows(home / "out")]
    assert len(found) == len(events)
    assert not [text for text in found if any(secret in text for secret in secrets)]


def test_the_deeper_pass_names_its_extra_or_finds_more(home: Path) -> None:
    """Without the library one sentence names the extra; with it more is taken out."""
    from importlib.util import find_spec

    from lakelog.errors import ExportRefused

    if find_spec("datafog") is None:
        with pytest.raises(ExportRefused, match=r"lakelog\[redact\]"):
            redacted(home, ["my ssn is 123-45-6789"], deep=True)
    else:
        assert "123-45-6789" not in redacted(home, ["my ssn is 123-45-6789"], deep=True)[0]
