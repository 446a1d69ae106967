"""Podcasts of the OOS log stream, under their old names: episodes are found in feeds and processed.

    processor = SimpleLogProcessor(feeds={"TechPodcast": "https://feeds.example.com/tech"})
    processor.discover_new_episodes(max_episodes=20)
    processor.process_episodes_batch(batch_size=5)
    processor.get_analytics_summary()

Every step is a fact of an oos.log or a lake (`log`: a path, or an open lake), which is all the
state there is: after a kill the same program goes on, and completes no episode twice. Episodes are
the items of the queue `podcast`, with the podcast as source; a feed that was read is an event FETCH
of the category `feed`, which has what a conditional request needs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import tomllib
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lakelog import pipeline
from lakelog.disk import Folder
from lakelog.errors import DownloadFailed, InvalidSetting
from lakelog.lake import Lake
from lakelog.oos import download as http
from lakelog.oos.database_sync import BATCH_SIZE, DEFAULT_DATABASE, BatchDatabaseSync
from lakelog.oos.oos_views import DEFAULT_LOG, get_views
from lakelog.pipeline import FETCH, Fact, Item, RunReport, WorkQueue
from lakelog.runtime.progress import ProgressCallback
from lakelog.values import JsonObject, from_micros

FEEDS_FILE = "feeds.toml"
DOWNLOADS = "downloads"
_HOW_TO_NAME = "write one with [[feed]] tables, or give feeds="
_QUEUE, _FEED = "podcast", "feed"
_EXTENSIONS = {
    "text/vtt": ".vtt",
    "application/srt": ".srt",
    "application/x-subrip": ".srt",
    "application/json": ".json",
    "text/html": ".html",
    "text/plain": ".txt",
}
Log = Lake | str | os.PathLike[str]
Episode = Mapping[str, object]
EpisodeProcessor = Callable[[str, str, str], object] | str | Sequence[str]


class PodcastProcessor:
    """Processes episodes, each until it is completed or has failed `attempts` times.

    `processor` is called with url, podcast and id, or is a command that is given these as
    arguments (a .py file is run by this Python). What a function returns, and a JSON object that a
    command prints, is stored with COMPLETE; False, an exception or an exit code is a failure.
    Without one, the episode is downloaded into `directory`, with a transcript if one is offered.
    `progress` is called with how many episodes of a batch are done, and how many it has.
    """

    def __init__(
        self,
        log: Log = DEFAULT_LOG,
        processor: EpisodeProcessor | None = None,
        *,
        directory: str | os.PathLike[str] = DOWNLOADS,
        attempts: int = 3,
        timeout: float = 3600.0,
        backoff: float = 1.0,
        limits: http.RequestLimits | None = None,
        progress: ProgressCallback | None = None,
    ) -> None:
        self.progress = progress
        self.log, self.processor, self.directory = log, processor, os.fspath(directory)
        self.queue = WorkQueue(log, _QUEUE, attempts=attempts, timeout=timeout, backoff=backoff)
        self._timeout = timeout
        self._limits = limits or http.RequestLimits(bytes=2_000_000_000, seconds=timeout)

    def process_episode(self, url: str, podcast: str, id: str) -> bool:
        """Process an episode; return whether it is completed now, or was before."""
        return self.process_batch([{"url": url, "podcast_name": podcast, "id": id}])[id]

    def process_batch(self, episodes: Iterable[Episode], batch_size: int = 5) -> dict[str, bool]:
        """Process episodes {'url', 'podcast_name', 'id'}, so many at once; return which are
        completed, by id."""
        items = [_item(episode) for episode in episodes]
        self.queue.add(items)
        # Whoever asks for an episode by name wants it tried, also if it has failed before.
        self.queue.requeue(items)
        if items:
            self.queue.run(self.process, concurrency=batch_size, only=items, progress=self.progress)
        completed = {(item.source, item.id) for item in self.queue.items("completed")}
        return {item.id: (item.source, item.id) in completed for item in items}

    def process(self, item: Item) -> object:
        """Process an item of the queue: what a work queue calls. Raises what the processor does."""
        url = str(item.data.get("url") or "")
        if self.processor is None:
            return self._download(item, url)
        if callable(self.processor):
            result = self.processor(url, item.source, item.id)
            if result is False:
                raise RuntimeError("the processor returned False")
            return result
        return _run(self.processor, [url, item.source, item.id], self._timeout)

    def _download(self, item: Item, url: str) -> dict[str, object]:
        """Fetch an episode and its transcript."""
        directory = os.path.join(self.directory, _file_name(item.source))
        Folder(os.path.abspath(directory)).make_all()
        stem = os.path.join(directory, _file_name(item.id))
        ending = os.path.splitext(urllib.parse.urlsplit(url).path)[1]
        ending = ending if re.fullmatch(r"\.\w{1,8}", ending) else ""
        downloaded = http.download(url, stem + ending, self._limits)
        result: dict[str, object] = {
            "file": downloaded.path,
            "bytes": downloaded.bytes,
            "sha256": downloaded.sha256,
        }
        result |= {"resumed_at": downloaded.resumed_at} if downloaded.resumed_at else {}
        offered = item.data.get("transcript")
        if isinstance(offered, dict) and offered.get("url"):
            media_type = str(offered.get("type") or "").partition(";")[0].strip().lower()
            path = f"{stem}.transcript{_EXTENSIONS.get(media_type, '.txt')}"
            try:
                result["transcript"] = http.download(
                    offered["url"], path, http.RequestLimits()
                ).path
            except DownloadFailed as error:  # the episode is there all the same
                result["transcript_error"] = str(error)
        return result


class SimpleLogProcessor:
    """Finds the new episodes of feeds, and processes them.

    `feeds` are addresses, or addresses by the name of the podcast, or a file like feeds.toml:
    tables [[feed]] with `url` and, if you like, `name`. Without any, ./feeds.toml; while there is
    none, no feed is read, and `problems` says so. `database` is kept up to date by
    `run_continuous_processing` (see BatchDatabaseSync), which `stop` ends as the method does. The
    rest is as for PodcastProcessor. Raises InvalidSetting.
    """

    def __init__(
        self,
        feeds: Mapping[str, str] | Iterable[str] | str | os.PathLike[str] | None = None,
        log: Log = DEFAULT_LOG,
        processor: EpisodeProcessor | None = None,
        *,
        limits: http.RequestLimits | None = None,
        database: str | os.PathLike[str] | None = None,
        stop: threading.Event | None = None,
        **options: Any,
    ) -> None:
        self._has_file = feeds is not None or os.path.exists(FEEDS_FILE)
        self.feeds = _feeds(FEEDS_FILE if feeds is None else feeds) if self._has_file else []
        self.database = database
        self.processor = PodcastProcessor(log, processor, **options)
        self.queue, self.log = self.processor.queue, log
        self.problems: dict[str, str] = {}
        """What was wrong with feeds at the last look, by address."""
        self._limits = limits or http.RequestLimits()
        self._facts = pipeline.open_log(log)
        self._seen: dict[str, dict[str, object]] = {}
        self._stop = stop or threading.Event()

    def discover_new_episodes(self, max_episodes: int | None = None) -> list[JsonObject]:
        """Look into all feeds; return the episodes that are new, at most so many.

        A feed that has not changed is not sent again. One that cannot be fetched or read is an
        event FETCH with the error, and in `problems`; the others are read all the same.
        """
        self._refresh()
        self.problems.clear()
        if not self._has_file:
            self.problems[FEEDS_FILE] = f"there is no {FEEDS_FILE}: {_HOW_TO_NAME}"
        episodes: list[dict[str, object]] = []
        for name, url in self.feeds:
            remaining = None if max_episodes is None else max_episodes - len(episodes)
            if remaining is None or remaining > 0:
                episodes += self._look(name, url, remaining)
        return episodes

    def process_episodes_batch(
        self, episodes: Iterable[Episode] | None = None, batch_size: int = 5
    ) -> JsonObject:
        """Process episodes, or `batch_size` of those that wait; return {'processed', 'completed',
        'failed'}."""
        if episodes is not None:
            outcomes = self.processor.process_batch(episodes, batch_size)
            return _summary(sum(outcomes.values()), len(outcomes) - sum(outcomes.values()))
        report = self._batch(batch_size)
        return _summary(report.completed, report.failed)

    def run_continuous_processing(
        self, batch_size: int = 5, max_batches: int | None = None, interval: float = 300.0
    ) -> JsonObject:
        """Look into the feeds and process what is new, in batches, until `stop` or so many batches.

        Between two looks it waits `interval` seconds; with `max_batches` it ends as soon as nothing
        is left. Returns the analytics summary.
        """
        batches, looked = 0, -interval
        while not self._stop.is_set() and (max_batches is None or batches < max_batches):
            if time.monotonic() - looked >= interval:
                self.discover_new_episodes()
                looked = time.monotonic()
            if self.queue.counts()["waiting"]:
                self._batch(batch_size)
                batches += 1
            elif max_batches is not None:
                break
            else:
                self._stop.wait(max(looked + interval - time.monotonic(), 0.1))
        if self.database is not None:
            self.sync_database()
        return self.get_analytics_summary()

    def sync_database(self, batch_size: int = BATCH_SIZE) -> JsonObject:
        """Bring `database`, or else oos.db, up to date with the log; return what
        `BatchDatabaseSync.full_sync` does. Raises as it does."""
        with BatchDatabaseSync(self.database or DEFAULT_DATABASE, self.log) as sync:
            return sync.full_sync(batch_size)

    def stop(self) -> None:
        """End `run_continuous_processing` after what is running; any thread may ask for it."""
        self._stop.set()

    def get_analytics_summary(self) -> JsonObject:
        """Return the five views: podcast_status, throughput (of a day), errors, source_reliability
        and system_health."""
        views = get_views(self.log if isinstance(self.log, Lake) else os.fspath(self.log))
        return {
            "podcast_status": views.podcast_status_view(),
            "throughput": views.throughput_view("24h"),
            "errors": views.error_analysis_view(),
            "source_reliability": views.source_reliability_view(),
            "system_health": views.system_health_view(),
        }

    def _batch(self, batch_size: int) -> RunReport:
        return self.queue.run(
            self.processor.process,
            concurrency=batch_size,
            max_items=batch_size,
            stop=self._stop,
            progress=self.processor.progress,
        )

    def _refresh(self) -> None:
        facts, is_new = self._facts.read(_FEED)
        if is_new:
            self._seen.clear()
        for fact in facts:
            if fact["type"] == FETCH and isinstance(fact.get("data"), dict):
                self._seen[str(fact.get("subject"))] = fact["data"]

    def _look(self, name: str, url: str, limit: int | None) -> list[dict[str, object]]:
        """Fetch a feed and add its new episodes."""
        # What is stored of a feed, such as its address, has no password.
        address = _without_login(url).replace("|", "%7C")
        earlier = self._seen.get(address, {})
        etag, modified = str(earlier.get("etag") or ""), str(earlier.get("modified") or "")
        try:
            answer = http.fetch(url, etag=etag, modified=modified, limits=self._limits)
        except DownloadFailed as error:
            self._report(name, address, {"error": str(error), "etag": etag, "modified": modified})
            self.problems[url] = str(error)
            return []
        if not answer.is_new:
            return []
        feed = pipeline.parse_feed(answer.content, answer.url, answer.content_type)
        if feed.problem:
            self.problems[url] = feed.problem
        podcast = _field(name or feed.title or urllib.parse.urlsplit(address).netloc)
        # By address as well: an older program numbered its episodes.
        known_ids = {
            name
            for i in self.queue.items()
            if i.source == podcast
            for name in (i.id, i.data.get("url"))
        }
        episodes = [self._episode(podcast, entry, answer.url) for entry in feed.entries]
        new = [e for e in episodes if e is not None and known_ids.isdisjoint((e["id"], e["url"]))]
        selected = new if limit is None else new[:limit]
        self.queue.add(_item(episode) for episode in selected)
        # After its episodes: a feed that was marked as read too early would hide them. The same if
        # some were left out.
        data: dict[str, object] = {"entries": len(feed.entries), "new": len(selected)}
        if len(selected) == len(new) and not feed.problem.startswith("no feed"):
            data |= {"etag": answer.etag, "modified": answer.modified}
        self._report(podcast, address, data | ({"problem": feed.problem} if feed.problem else {}))
        return selected

    def _episode(
        self, podcast: str, entry: pipeline.FeedEntry, base: str
    ) -> dict[str, object] | None:
        """Return an entry as an episode, or None if it names nothing to process."""
        played = [e for e in entry.enclosures if e.type.startswith(("audio/", "video/"))]
        enclosure = next(iter([*played, *entry.enclosures]), None)
        address = enclosure.url if enclosure is not None else ""
        if not address and self.processor.processor is not None:
            address = entry.link
        if not address:
            return None
        digest = hashlib.sha256(entry.id.encode("utf-8", "replace")).hexdigest()[:12]
        episode: dict[str, object] = {
            "url": urllib.parse.urljoin(base, address),
            "podcast_name": podcast,
            "id": f"{podcast}_{digest}",
            "guid": entry.id,
            "title": entry.title,
            "published": None if entry.published is None else entry.published.isoformat(),
        }
        for offered in entry.transcripts[:1]:
            enclosure_url = urllib.parse.urljoin(base, offered.url)
            episode["transcript"] = {"url": enclosure_url, "type": offered.type}
        return episode

    def _report(self, name: str, address: str, data: dict[str, object]) -> None:
        moment = from_micros(time.time_ns() // 1000).replace(tzinfo=None)
        fact: Fact = {
            "time": f"{moment.isoformat(timespec='microseconds')}Z",
            "type": FETCH,
            "category": _FEED,
            "source": _field(name or urllib.parse.urlsplit(address).netloc),
            "subject": address,
            "data": {key: value for key, value in data.items() if value != ""},
        }
        with pipeline.locked(self._facts.lock_path(_FEED)):
            self._facts.append([fact])


def _without_login(url: str) -> str:
    """An address without user and password; one that cannot be divided is no address."""
    try:
        return http.divide_login(url)[0]
    except DownloadFailed:
        return "no address"


def _item(episode: Episode) -> Item:
    """Return an episode as an item of the queue. Raises InvalidSetting."""
    missing = [name for name in ("url", "podcast_name", "id") if not episode.get(name)]
    if missing:
        raise InvalidSetting(f"an episode has url, podcast_name and id; {missing[0]} is missing")
    data = {k: v for k, v in episode.items() if k not in ("podcast_name", "id") and v is not None}
    return Item(_field(str(episode["podcast_name"])), str(episode["id"]), data)


def _feeds(feeds: Any) -> list[tuple[str, str]]:
    """Return names and addresses of feeds. Raises InvalidSetting."""
    if isinstance(feeds, str) and feeds.startswith(("http://", "https://")):
        return [("", feeds)]
    if isinstance(feeds, (str, os.PathLike)):
        return _of_file(os.fspath(feeds))
    pairs = feeds.items() if isinstance(feeds, Mapping) else (("", url) for url in feeds)
    return [_feed(name, url, "feeds") for name, url in pairs]


def _of_file(path: str) -> list[tuple[str, str]]:
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except FileNotFoundError:
        raise InvalidSetting(f"there is no {path}: {_HOW_TO_NAME}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"{path}: {error}") from None
    tables = content.get("feed", content.get("feeds"))
    if isinstance(tables, dict):
        return [_feed(name, url, path) for name, url in tables.items()]
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InvalidSetting(f"{path} has no [[feed]] tables")
    return [_feed(table.get("name", ""), table.get("url"), path) for table in tables]


def _feed(name: object, url: object, place: str) -> tuple[str, str]:
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise InvalidSetting(f"{place}: the url of a feed begins with http, not {url!r}")
    return str(name), url


def _run(command: str | Sequence[str], arguments: list[str], timeout: float) -> dict[str, object]:
    """Run a command; return the JSON object that it prints last. Raises RuntimeError."""
    program = [command] if isinstance(command, str) else list(command)
    program = [sys.executable, *program] if program[0].endswith(".py") else program
    try:
        process = subprocess.run(
            [*program, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{program[-1]} timed out after {timeout:g} s") from None
    if process.returncode:
        last_line = (process.stderr.strip() or process.stdout.strip()).splitlines()[-1:]
        raise RuntimeError(": ".join([f"exit code {process.returncode}", *last_line]))
    try:
        result = json.loads(process.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    return result if isinstance(result, dict) else {}


def _summary(completed: int, failed: int) -> dict[str, object]:
    return {"processed": completed + failed, "completed": completed, "failed": failed}


def _field(value: str) -> str:
    """Return text as a field of an OOS line."""
    return re.sub(r"\s*\|\s*|[\r\n]+", " - ", value).strip()


def _file_name(name: str) -> str:
    """Return a text as a name of a file; two texts have two."""
    plain = re.sub(r"[^\w.-]+", "_", name).strip(".")[:100]
    if plain == name:
        return plain
    return f"{plain}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"
