"""Feeds: what RSS, Atom, CDF and JSON Feed say of their entries, however broken they are.

`parse_feed` takes bytes and never raises for what is in them: a feed that is damaged gives the
entries that can be read, and says what is wrong. RSS and Atom are read by feedparser, an extra.
"""

from __future__ import annotations

import calendar
import hashlib
import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from lakelog.errors import InvalidEvent, MissingPackage
from lakelog.values import parse_time

_ROOT = re.compile(rb"<(?:\w+:)?(?:rss|rdf|feed|channel)\b", re.IGNORECASE)
JSON_FEED = "https://jsonfeed.org/version/"


@dataclass(frozen=True)
class Link:
    """A file that an entry names: its address, media type, and size in bytes if that is said."""

    url: str
    type: str = ""
    bytes: int | None = None


@dataclass(frozen=True)
class FeedEntry:
    """An entry: its id (guid, link or a hash), what it says, and the files that it names."""

    id: str
    title: str
    link: str
    published: datetime | None
    enclosures: tuple[Link, ...] = ()
    transcripts: tuple[Link, ...] = ()


@dataclass(frozen=True)
class Feed:
    """A feed; `problem` says what is wrong with it, if anything is."""

    title: str
    entries: tuple[FeedEntry, ...]
    problem: str = ""


def parse_feed(content: bytes, url: str = "", content_type: str = "") -> Feed:
    """Return what a feed says. `url` is what relative addresses refer to.

    Raises MissingPackage without feedparser.
    """
    # By its first character: the media types of feeds are often wrong.
    if content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{":
        return _json_feed(content)
    with MissingPackage.unless("feeds", "feeds are read by feedparser"):
        import feedparser
    headers = {"content-location": url} if url else {}
    headers |= {"content-type": content_type} if content_type else {}
    # A stream: text or bytes it would take for the name of a file or an address, and open that.
    document = feedparser.parse(io.BytesIO(content), response_headers=headers, sanitize_html=False)
    problem = str(document.get("bozo_exception") or "damaged") if document.bozo else ""
    # A channel of CDF without items has no version.
    if not document.get("version") and not document.entries and not _ROOT.search(content[:4096]):
        problem = f"no feed: {problem or 'it has no entries and is of no known kind'}"
    entries = _told_apart(_entry(entry) for entry in document.entries)
    return Feed(_text(document.feed.get("title")), entries, problem)


def _entry(entry: Any) -> FeedEntry:
    links = [
        Link(_text(link.get("href")), _text(link.get("type")), _size(link.get("length")))
        for link in entry.get("enclosures", ())
    ]
    # RDF feeds have a module for enclosures, and podcasts one for transcripts.
    enclosure = entry.get("enc_enclosure")
    if isinstance(enclosure, dict):
        # Sizes in feeds are often wrong, or no numbers.
        size = _size(enclosure.get("length"))
        links.append(Link(_text(enclosure.get("resource")), _text(enclosure.get("type")), size))
    transcript = entry.get("podcast_transcript")
    transcripts = [transcript] if isinstance(transcript, dict) else []
    # Of the dict itself: feedparser's own `get` takes one date for the other, with a warning.
    moment = dict.get(entry, "published_parsed") or dict.get(entry, "updated_parsed")
    return _made(
        _text(entry.get("id")),
        _text(entry.get("title")),
        _text(entry.get("link")),
        _moment(moment),
        links,
        [Link(_text(t.get("url")), _text(t.get("type"))) for t in transcripts],
    )


def _json_feed(content: bytes) -> Feed:
    try:
        # Not orjson: a feed may begin with a byte order mark, and hold numbers of any size.
        feed = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return Feed("", (), f"no feed: {error}")
    items = feed.get("items")
    if not str(feed.get("version", "")).startswith(JSON_FEED) or not isinstance(items, list):
        return Feed("", (), "no feed: JSON, but no JSON Feed")
    entries = _told_apart(_json_entry(item) for item in items if isinstance(item, dict))
    return Feed(_text(feed.get("title")), entries)


def _json_entry(item: dict[str, object]) -> FeedEntry:
    attachments = item.get("attachments")
    links = [
        Link(_text(a.get("url")), _text(a.get("mime_type")), _size(a.get("size_in_bytes")))
        for a in (attachments if isinstance(attachments, list) else ())
        if isinstance(a, dict)
    ]
    try:
        moment = item.get("date_published") or item.get("date_modified")
        published = None if moment is None else parse_time(moment)
    except InvalidEvent:
        # A date that nobody can read is no reason to lose the entry.
        published = None
    title, link = _text(item.get("title")), _text(item.get("url") or item.get("external_url"))
    return _made(_text(item.get("id")), title, link, published, links, [])


def _told_apart(entries: Iterable[FeedEntry]) -> tuple[FeedEntry, ...]:
    """Give entries that share an id, but not the files, ids of their own: it happens in real feeds
    that somebody copies an entry to write the next one."""
    by_id: dict[str, FeedEntry] = {}
    for entry in entries:
        earlier = by_id.get(entry.id, entry)
        if earlier.enclosures != entry.enclosures or earlier.title != entry.title:
            entry = replace(entry, id=f"{entry.id}#{_digest(entry)[:12]}")
        by_id.setdefault(entry.id, entry)
    return tuple(by_id.values())


def _digest(entry: FeedEntry) -> str:
    fields = (entry.title, str(entry.published or ""), *(e.url for e in entry.enclosures))
    return hashlib.sha256("\0".join(fields).encode("utf-8", "replace")).hexdigest()


def _made(
    id: str,
    title: str,
    link: str,
    published: datetime | None,
    enclosures: list[Link],
    transcripts: list[Link],
) -> FeedEntry:
    """Return an entry; one without an id is known by its link, or by what it says."""
    enclosed = tuple(e for e in enclosures if e.url)
    offered = tuple(t for t in transcripts if t.url)
    entry = FeedEntry(id or link, title, link, published, enclosed, offered)
    # Known by what it says: else each fetch would find it new.
    return entry if entry.id else replace(entry, id=_digest(entry)[:32])


def _moment(parsed: Any) -> datetime | None:
    try:
        # timegm: the parsed time is in UTC.
        return None if parsed is None else datetime.fromtimestamp(calendar.timegm(parsed), UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _size(value: Any) -> int | None:
    try:
        size = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return size if 0 < size < 2**63 else None


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else "" if value is None else str(value)
