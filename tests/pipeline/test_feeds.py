"""Feeds of every kind: their entries, dates and enclosures; broken ones say what is wrong."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from lakelog.pipeline import feeds
from tests.support.real_files import DATA, FACTS
from tests.support.requirements import need_module

need_module("feedparser")
REAL = [name for name in FACTS if name.startswith("feeds/")]
FIXTURES = [name for name in FACTS if name.startswith("feedparser/wellformed/")]


@pytest.mark.needs("../shared")
@pytest.mark.parametrize("name", REAL or [""])
def test_real_feeds_have_what_they_say(name: str) -> None:
    """Entries, dates, ids and enclosures are those counted without any of this code."""
    facts: dict[str, Any] = FACTS[name]
    feed = feeds.parse_feed((DATA / name).read_bytes())
    assert len(feed.entries) == facts.get("items", facts.get("item_open_tags"))
    assert len({entry.id for entry in feed.entries}) == len(feed.entries)
    if "items" in facts:
        assert feed.problem == ""
        assert feed.title == facts["title"]
        enclosed = [link for entry in feed.entries for link in entry.enclosures]
        assert len(enclosed) == facts["enclosures"]
        assert sum(link.bytes or 0 for link in enclosed) == facts["enclosure_bytes"]
        dated = sum(entry.published is not None for entry in feed.entries)
        assert dated == facts["items_with_date"]
    else:
        assert feed.problem


@pytest.mark.needs("../shared")
def test_fixtures_are_read_without_a_problem() -> None:
    """Feeds that are well-formed have no problem, and their titles and items are there."""
    for name in FIXTURES:
        content = (DATA / name).read_bytes()
        feed = feeds.parse_feed(content)
        assert not feed.problem, name
        assert len(feed.entries) == len(re.findall(rb"(?i)<(?:item|entry)\b", content)), name


def test_json_feeds() -> None:
    """Items with their dates and attachments; what is not as it should be is left out."""
    items = [
        {
            "id": "1",
            "url": "https://example.org/1",
            "title": "One",
            "date_published": "2025-09-29T04:00:00+02:00",
            "attachments": [
                {"url": "https://example.org/1.mp3", "mime_type": "audio/mpeg", "size_in_bytes": 9},
                "none",
            ],
        },
        {"id": 2, "date_published": "soon", "attachments": "none", "external_url": "https://x/2"},
        "none",
    ]
    content = {"version": "https://jsonfeed.org/version/1.1", "title": "T", "items": items}
    feed = feeds.parse_feed(b"\xef\xbb\xbf" + json.dumps(content).encode())
    assert (feed.title, feed.problem) == ("T", "")
    first, second = feed.entries
    assert first.published == datetime(2025, 9, 29, 2, tzinfo=UTC)
    assert first.enclosures == (feeds.Link("https://example.org/1.mp3", "audio/mpeg", 9),)
    assert (second.id, second.published, second.link) == ("2", None, "https://x/2")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"/etc/passwd",
        b"http://127.0.0.1:1/feed",
        b"\x00\xff" * 500,
        b"<html><body>not found</body></html>",
        b'{"version": "https://jsonfeed.org/version/1", "items": 5}',
        b'{"a": ',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"<rss><channel><item><title>" + b"<b>" * 5000,
        b'<?xml version="1.0"?><!DOCTYPE r [<!ENTITY a "aaaaaaaaaa">'
        + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9))
        + b"]><rss><channel><title>&j;</title></channel></rss>",
        b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><rss><channel><title>&x;</title>',
    ],
)
def test_what_is_no_feed_is_a_problem_and_no_exception(content: bytes) -> None:
    """Nothing is opened that the content names, and nothing grows without bound."""
    feed = feeds.parse_feed(content)
    assert len(feed.title) < 1000
    assert "root:" not in feed.title
    assert feed.problem or not feed.entries


def test_entries_without_ids_stay_apart() -> None:
    """An entry without a guid is known by its link, or by what it says: at every look the same."""
    content = b"""<rss version="2.0"><channel><item><title>A</title></item>
        <item><title>B</title></item><item><link>http://x/c</link></item></channel></rss>"""
    first, again = feeds.parse_feed(content), feeds.parse_feed(content)
    assert [entry.id for entry in first.entries] == [entry.id for entry in again.entries]
    assert len({entry.id for entry in first.entries}) == 3
    assert first.entries[2].id == "http://x/c"
