"""The OOS log stream at work: every component is used once, in a directory of its own, and checked.

Nothing outside the directory is read or written, and no network is needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lakelog import lake as lakes
from lakelog.loggers import get_ai_logger, get_logger
from lakelog.oos.database_sync import TRANSCRIPTS, BatchDatabaseSync
from lakelog.oos.oos_views import get_views
from lakelog.oos.podcasts import PodcastProcessor, SimpleLogProcessor
from lakelog.runtime.progress import ProgressCallback

PODCASTS = ("TechPodcast", "NewsPodcast", "SciencePodcast")
EPISODES = 8  # of each podcast
_BAD = f"{PODCASTS[1]}_003"


@dataclass(frozen=True)
class DemoCheck:
    """What was checked, how long it took in ms, and what is wrong: nothing, as a rule."""

    component: str
    ms: float
    fault: str = ""


def play(
    directory: str, progress: ProgressCallback | None = None
) -> Iterator[tuple[DemoCheck, object]]:
    """Use each component; yield whether it did what it promises, and what it answered.

    `progress` is called with how many episodes are processed, and how many there are.
    """
    log, ai_log = os.path.join(directory, "oos.log"), os.path.join(directory, "ai.log")
    yield _checked("OOS logger", lambda: _log(log))
    yield _checked("processing", lambda: _process(log, progress))
    yield _checked("views", lambda: _view(log))
    yield _checked("end to end", lambda: _summarize(log))
    yield _checked("AI logger", lambda: _decide(ai_log))
    lake = os.path.join(directory, "lake")
    yield _checked("lake", lambda: _load(lake, [log, ai_log]))
    yield _checked("database sync", lambda: _sync(os.path.join(directory, "oos.db"), log, lake))


def _checked(component: str, use: Callable[[], object]) -> tuple[DemoCheck, object]:
    """Use a component; whatever it raises is its fault."""
    started, answer, fault = time.perf_counter(), None, ""
    try:
        answer = use()
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
    return DemoCheck(component, round((time.perf_counter() - started) * 1000, 1), fault), answer


def _log(path: str) -> dict[str, int]:
    logger = get_logger(path)
    for podcast in PODCASTS:
        for n in range(EPISODES):
            episode = {"url": f"https://feeds.example.com/{podcast}/{n}.mp3", "title": f"Part|{n}"}
            logger.discover("podcast", podcast, f"{podcast}_{n:03}", episode)
    logger.flush()
    with open(path) as file:
        lines = [line.rstrip("\n").split("|", 5) for line in file]
    _expect(len(lines), len(PODCASTS) * EPISODES, "lines")
    _expect(json.loads(lines[-1][5])["title"], f"Part|{EPISODES - 1}", "the last title")
    return {"events": len(lines)}


def _process(path: str, progress: ProgressCallback | None) -> dict[str, object]:
    calls: list[str] = []

    def transcribe(url: str, podcast: str, id: str) -> dict[str, int]:
        calls.append(id)
        if id == _BAD:
            raise ValueError("audio cannot be decoded")
        return {"word_count": 1000 + len(url)}

    # Two attempts and a short pause, so that the failing one ends soon.
    processor = PodcastProcessor(path, transcribe, attempts=2, backoff=0.001)
    report = processor.queue.run(processor.process, concurrency=4, progress=progress)
    _expect(report.completed, len(PODCASTS) * EPISODES - 1, "completed episodes")
    _expect([x.item.id for x in processor.queue.dead_letters()], [_BAD], "dead letters")
    # The same again, as after a restart: nothing is processed twice.
    before = len(calls)
    PodcastProcessor(path, transcribe).queue.run(processor.process)
    _expect(len(calls), before, "calls of the processor")
    return {"completed": report.completed, "failed_attempts": report.failed, "dead": report.dead}


def _view(path: str) -> dict[str, object]:
    views = get_views(path)
    whole = len(PODCASTS) * EPISODES
    standing = {"discovered": 0, "processing": 0, "completed": whole - 1, "failed": 1}
    _expect(views.podcast_status_view(), standing, "podcast_status_view")
    _expect(views.throughput_view("1h")["total_completed"], whole - 1, "throughput_view")
    errors = views.error_analysis_view()["error_types"]
    _expect(errors, {"ValueError: audio cannot be decoded": 2}, "error_analysis_view")
    rates = {name: n["success_rate"] for name, n in views.source_reliability_view().items()}
    _expect(rates[PODCASTS[0]], 1.0, "source_reliability_view")
    _expect(views.system_health_view()["podcast_status"], standing, "system_health_view")
    return {"podcast_status": standing, "source_reliability": rates}


def _summarize(path: str) -> dict[str, object]:
    processor = SimpleLogProcessor(feeds=[], log=path, processor=lambda *_: None)
    summary = processor.run_continuous_processing(batch_size=5, max_batches=3)
    _expect(summary["podcast_status"]["completed"], len(PODCASTS) * EPISODES - 1, "completed")
    return summary


def _decide(path: str) -> dict[str, int]:
    logger = get_ai_logger(path, source="demo")
    logger.log_system_start("demo", "1.0", {"podcasts": len(PODCASTS)})
    for n in range(10):
        with logger.measure_operation("route", episode=n):
            decision = logger.ai_decision("model", ["small", "large"], "small", 0.8, "short")
        decision.outcome("accepted", reward=1.0)
    logger.pattern_detected("burst", {"count": 7}, confidence=0.9, impact="low")
    logger.flush()
    with open(path) as file:
        kinds = [json.loads(line)["event_type"] for line in file]
    _expect(kinds.count("decision"), 10, "decisions")
    _expect(kinds.count("outcome"), 10, "outcomes")
    return {"events": len(kinds)}


def _load(path: str, logs: list[str]) -> dict[str, int]:
    with lakes.open(path) as lake:
        report = lake.ingest(logs)
        _expect(report.quarantined, 0, "quarantined lines")
        # Ingested again: nothing is read twice.
        _expect(lake.ingest(logs).events, 0, "events of a second ingest")
        standing = get_views(lake).podcast_status_view()
        _expect(standing["completed"], len(PODCASTS) * EPISODES - 1, "completed episodes")
        (count,) = lake.sql("SELECT count(*) FROM omega.patterns").fetchall()
        _expect(count[0], 1, "patterns")
        return {"events": report.events}


def _sync(database: str, log: str, lake: str) -> dict[str, object]:
    completed = len(PODCASTS) * EPISODES - 1
    with BatchDatabaseSync(database, log, lake=lake) as sync:
        result = sync.full_sync()
        _expect(result["transcripts"], completed, "rows written")
        _expect(result["stats"]["completed"], completed, "completed episodes")
        _expect(sync.full_sync()["transcripts"], 0, "rows of a second sync")
    with contextlib.closing(sqlite3.connect(database)) as rows:
        (count,) = rows.execute(f"SELECT count(*) FROM {TRANSCRIPTS}").fetchone()
    _expect(count, completed, "rows of the database")
    return {"transcripts": result["transcripts"], "stats": result["stats"]}


def _expect(value: object, right: object, subject: str) -> None:
    if value != right:
        raise AssertionError(f"{subject}: {value!r} instead of {right!r}")
