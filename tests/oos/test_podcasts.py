"""The podcast classes of the OOS log stream, as their programs use them."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import PodcastProcessor, SimpleLogProcessor, get_views
from lakelog.errors import InvalidSetting
from lakelog.oos.download import RequestLimits
from tests.support.cli import run
from tests.support.feed_server import AUDIO, SHA256, FeedServer, rss, serving
from tests.support.processes import environment
from tests.support.real_files import DATA, FACTS
from tests.support.requirements import need_module

need_module("feedparser")
REAL = [name for name in FACTS if name.startswith("feeds/")]


@pytest.fixture
def server() -> Iterator[FeedServer]:
    """A server with one feed of five episodes."""
    with serving() as running:
        running.pages["/feed.xml"] = rss(running.base, range(5))
        yield running


def facts(path: Path, *types: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Type, item and data of the lines of an oos.log."""
    lines = (line.split("|", 5) for line in path.read_text("utf-8").splitlines())
    return [(p[1], p[4], json.loads(p[5])) for p in lines if p[1] in types]


def test_a_program_of_the_older_system(
    server: FeedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds episodes, downloads them with their transcripts, and reads the analytics; a second
    run finds and processes nothing, and the feed is not sent again."""
    monkeypatch.chdir(tmp_path)
    processor = SimpleLogProcessor(feeds={"": f"{server.base}/feed.xml"})
    episodes = processor.discover_new_episodes(max_episodes=20)
    assert [episode["title"] for episode in episodes] == [f"Episode {n}" for n in (4, 3, 2, 1, 0)]
    assert {episode["podcast_name"] for episode in episodes} == {"Tech - Podcast"}
    done = processor.process_episodes_batch(batch_size=5)
    assert done == {"processed": 5, "completed": 5, "failed": 0}
    summary = processor.get_analytics_summary()
    assert summary["podcast_status"] == {
        "discovered": 0,
        "processing": 0,
        "completed": 5,
        "failed": 0,
    }
    assert summary["source_reliability"] == {
        "Tech - Podcast": {"success_rate": 1.0, "total_processed": 5}
    }
    results = {item: data for _, item, data in facts(tmp_path / "oos.log", "COMPLETE")}
    for episode in episodes:
        result = results[episode["id"]]
        assert Path(result["file"]).read_bytes() == AUDIO
        assert (result["bytes"], result["sha256"]) == (len(AUDIO), SHA256)
        if "transcript" in episode:
            assert Path(result["transcript"]).read_bytes() == b"WEBVTT\n"
            assert result["transcript"].endswith(".vtt")
    assert sum("transcript" in result for result in results.values()) == 3
    again = SimpleLogProcessor(feeds={"": f"{server.base}/feed.xml"})
    assert again.discover_new_episodes() == []
    assert "If-None-Match" in server.requests[-1][1]
    assert again.process_episodes_batch() == {"processed": 0, "completed": 0, "failed": 0}
    server.pages["/feed.xml"] = rss(server.base, range(1, 7))
    assert [e["title"] for e in again.discover_new_episodes()] == ["Episode 6", "Episode 5"]


def test_a_limited_look_hides_no_episode(server: FeedServer, lake: lakelog.Lake) -> None:
    """What max_episodes left out is found at the next look, in a lake as well."""
    processor = SimpleLogProcessor([f"{server.base}/feed.xml"], lake, lambda *_: {"words": 5})
    assert len(processor.discover_new_episodes(max_episodes=2)) == 2
    assert len(processor.discover_new_episodes(max_episodes=2)) == 2
    assert len(processor.discover_new_episodes()) == 1
    assert processor.discover_new_episodes() == []
    assert processor.run_continuous_processing(batch_size=2, max_batches=9)["podcast_status"] == {
        "discovered": 0,
        "processing": 0,
        "completed": 5,
        "failed": 0,
    }
    words = lake.sql("SELECT data->>'words' FROM events WHERE type = 'COMPLETE'").fetchall()
    assert words == [("5",)] * 5


def test_feeds_that_are_broken_stop_nothing(server: FeedServer, tmp_path: Path) -> None:
    """Each is a fact with its reason, and the episodes of the others are found."""
    server.pages["/broken.xml"] = rss(server.base, range(10, 12), "Broken")[:-30] + b"&bad;<"
    server.pages["/none.xml"] = b"<html>moved</html>"
    pages = ("broken.xml", "loop", "endless", "none.xml", "missing", "feed.xml")
    config = "".join(f'[[feed]]\nname = "{p}"\nurl = "{server.base}/{p}"\n' for p in pages)
    (tmp_path / "feeds.toml").write_text(config)
    log = tmp_path / "oos.log"
    limits = RequestLimits(bytes=500_000, seconds=240)
    processor = SimpleLogProcessor(tmp_path / "feeds.toml", log, print, limits=limits)
    found = Counter(episode["podcast_name"] for episode in processor.discover_new_episodes())
    assert found == {"broken.xml": 2, "feed.xml": 5}
    assert set(processor.problems) == {f"{server.base}/{p}" for p in pages[:-1]}
    errors = {item.rpartition("/")[2]: data for _, item, data in facts(log, "FETCH")}
    assert "redirects more than 5" in errors["loop"]["error"]
    assert "more than 500,000 bytes" in errors["endless"]["error"]
    assert "HTTP 404" in errors["missing"]["error"]
    assert "no feed" in errors["none.xml"]["problem"]
    assert errors["feed.xml"]["new"] == 5
    status = get_views(log).podcast_status_view()
    assert status["discovered"] == 7


def test_episodes_are_processed_by_a_function(tmp_path: Path) -> None:
    """It is called with url, podcast and id; failures are tried again, and named if they stay."""
    calls = Counter[str]()

    def process(url: str, podcast: str, id: str) -> dict[str, int]:
        calls[f"{url} {podcast} {id}"] += 1
        if id == "ep_2" and calls[f"{url} {podcast} {id}"] < 3:
            raise OSError("flaky")
        if id == "ep_3":
            raise ValueError("no audio")
        return {"word_count": 5120}

    log = tmp_path / "oos.log"
    processor = PodcastProcessor(log, process, backoff=0.001)
    assert processor.process_episode("https://x/1", "Tech", "ep_1") is True
    assert processor.process_episode("https://x/1", "Tech", "ep_1") is True
    episodes = [
        {"url": f"https://x/{n}", "podcast_name": "Tech", "id": f"ep_{n}"} for n in (1, 2, 3)
    ]
    assert processor.process_batch(episodes, batch_size=2) == {
        "ep_1": True,
        "ep_2": True,
        "ep_3": False,
    }
    assert calls == {
        "https://x/1 Tech ep_1": 1,
        "https://x/2 Tech ep_2": 3,
        "https://x/3 Tech ep_3": 3,
    }
    views = get_views(log)
    assert views.podcast_status_view()["failed"] == 1
    assert views.error_analysis_view()["error_types"] == {
        "ValueError: no audio": 3,
        "OSError: flaky": 2,
    }
    assert PodcastProcessor(log, lambda *_: None).process_episode("https://x/3", "Tech", "ep_3")


def test_episodes_are_processed_by_a_command(tmp_path: Path) -> None:
    """A single_episode_processor.py is given the three arguments; what it prints is stored."""
    script = tmp_path / "single_episode_processor.py"
    script.write_text(
        "import json, sys\nurl, podcast, id = sys.argv[1:]\n"
        "if id == 'bad': sys.exit('cannot decode ' + url)\n"
        "print('working'); print(json.dumps({'url_seen': url, 'podcast': podcast}))\n"
    )
    log = tmp_path / "oos.log"
    processor = PodcastProcessor(log, str(script), attempts=1)
    assert processor.process_episode("https://x/1", "Tech", "good")
    assert not processor.process_episode("https://x/2", "Tech", "bad")
    ((_, _, data),) = facts(log, "COMPLETE")
    assert (data["url_seen"], data["podcast"]) == ("https://x/1", "Tech")
    ((_, _, failure),) = facts(log, "FAIL")
    assert failure["error"] == "RuntimeError: exit code 1: cannot decode https://x/2"


def test_a_command_that_hangs_is_ended(tmp_path: Path) -> None:
    """Each attempt has its time, and says so; the episode fails after the last."""
    script = tmp_path / "single_episode_processor.py"
    script.write_text("import time; time.sleep(600)")
    log = tmp_path / "oos.log"
    processor = PodcastProcessor(log, str(script), attempts=2, timeout=0.3, backoff=0.001)
    assert not processor.process_episode("https://x/1", "Tech", "ep_1")
    errors = [data["error"] for _, _, data in facts(log, "FAIL")]
    assert len(errors) == 2
    assert all("timed out after 0.3 s" in error for error in errors)


@pytest.mark.needs("../shared")
def test_episodes_of_real_feeds(server: FeedServer, tmp_path: Path) -> None:
    """As many as their items, with their dates; those that have no enclosure are processed by a
    function, and without one only what can be downloaded is an episode."""
    names = [name for name in REAL if "items" in FACTS[name]]
    for name in names:
        server.pages[f"/{name}"] = (DATA / name).read_bytes()
    addresses = {Path(name).stem: f"{server.base}/{name}" for name in names}
    processor = SimpleLogProcessor(addresses, tmp_path / "oos.log", lambda *_: {"words": 7})
    episodes = processor.discover_new_episodes()
    assert processor.problems == {}
    found = Counter(episode["podcast_name"] for episode in episodes)
    assert found == {Path(name).stem: FACTS[name]["items"] for name in names}
    dated = Counter(e["podcast_name"] for e in episodes if e["published"] is not None)
    assert dated == {Path(name).stem: FACTS[name]["items_with_date"] for name in names}
    assert len({episode["id"] for episode in episodes}) == len(episodes)
    summary = processor.run_continuous_processing(batch_size=20, max_batches=99)
    assert summary["podcast_status"]["completed"] == len(episodes)
    assert set(summary["source_reliability"]) == set(addresses)
    downloads = SimpleLogProcessor(addresses, tmp_path / "downloads.log")
    enclosed = sum(FACTS[name]["enclosures"] for name in names)
    assert len(downloads.discover_new_episodes()) == enclosed


@pytest.mark.parametrize("options", [{"batch_size": 3}, {}])
def test_progress_of_a_batch(tmp_path: Path, options: dict[str, int]) -> None:
    """It counts the episodes of the batch, those that fail too."""
    told: list[tuple[int, int]] = []

    def process(url: str, podcast: str, id: str) -> None:
        if id == "ep_4":
            raise ValueError("no audio")

    processor = PodcastProcessor(
        tmp_path / "oos.log", process, attempts=1, progress=lambda *counts: told.append(counts)
    )
    episodes = [{"url": f"https://x/{n}", "podcast_name": "T", "id": f"ep_{n}"} for n in range(9)]
    processor.process_batch(episodes, **options)
    assert told[-1] == (9, 9)
    assert {total for _, total in told} == {9}


def test_crash_recovery_processes_nothing_twice(server: FeedServer, tmp_path: Path) -> None:
    """A program that is killed in the middle goes on where it was, download included."""
    program = f"""
import sys, time
from lakelog import SimpleLogProcessor

seen = []

def process(url, podcast, id):
    seen.append(id)
    with open("effects", "a") as out:
        out.write(id + "\\n")
    # One that is to be killed does not come to its end before that.
    time.sleep(600 if "killed" in sys.argv and len(seen) > 3 else 0.05)

podcasts = SimpleLogProcessor({f"{server.base}/feed.xml"!r}, processor=process)
podcasts.run_continuous_processing(batch_size=2, max_batches=99)
"""
    server.pages["/feed.xml"] = rss(server.base, range(12))
    log = tmp_path / "oos.log"
    for kill in (True, True, False):
        words = [sys.executable, "-c", program, "killed" if kill else "ended"]
        running = subprocess.Popen(words, cwd=tmp_path, env=environment())
        before = len(facts(log, "COMPLETE")) if log.exists() else 0
        while kill and running.poll() is None:
            time.sleep(0.01)
            if log.exists() and log.read_text().count("|COMPLETE|") > before:
                running.send_signal(signal.SIGKILL)
        assert running.wait(240) == (-signal.SIGKILL if kill else 0)
    completed = Counter(item for _, item, _ in facts(log, "COMPLETE"))
    assert len(completed) == 12
    assert set(completed.values()) == {1}
    effects = Counter((tmp_path / "effects").read_text().splitlines())
    # Only what was being processed at a kill is seen again: two items each time at most.
    assert sum(effects.values()) - 12 <= 4


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("[[feed]]\nurl = 5", "the url of a feed begins with http, not 5"),
        ("[feeds]\na = 'ftp://x'", "begins with http, not 'ftp://x'"),
        ("x = 1", r"has no \[\[feed\]\] tables"),
        ("[[feed", "feeds.toml: "),
        (None, r"there is no .*feeds.toml: write one with \[\[feed\]\] tables"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, config: str | None, said: str) -> None:
    """What, where, and what next."""
    if config is not None:
        (tmp_path / "feeds.toml").write_text(config)
    with pytest.raises(InvalidSetting, match=said):
        SimpleLogProcessor(tmp_path / "feeds.toml", tmp_path / "oos.log")
    with pytest.raises(InvalidSetting, match="podcast_name and id; id is missing"):
        PodcastProcessor(tmp_path / "oos.log").process_batch([{"url": "u", "podcast_name": "p"}])


@pytest.mark.thorough
def test_command_processes_feeds(server: FeedServer, tmp_path: Path) -> None:
    """`lakelog oos process` finds what is new, downloads it and fills the database, each once."""
    (tmp_path / "feeds.toml").write_text(f'[[feed]]\nurl = "{server.base}/feed.xml"\n')
    words = "oos process --max-batches 3 --database data/oos.db --json".split()
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "lakelog", *words],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["podcast_status"]["completed"] == 5
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "oos.db")) as database:
        (count,) = database.execute("SELECT count(*) FROM completed_transcripts").fetchone()
    assert count == 5


def test_without_a_file_of_feeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the log holds is processed all the same, and `problems` says what is missing."""
    monkeypatch.chdir(tmp_path)
    processor = SimpleLogProcessor(processor=lambda *_: None)
    assert processor.discover_new_episodes() == []
    assert "write one with [[feed]] tables" in processor.problems["feeds.toml"]
    episode = {"url": "http://127.0.0.1/1.mp3", "podcast_name": "P", "id": "P_1"}
    assert processor.process_episodes_batch([episode])["completed"] == 1
    assert processor.sync_database()["transcripts"] == 1


def test_the_command_says_at_once_that_there_are_no_feeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on until Ctrl-C, so that nobody would see it at the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(SimpleLogProcessor, "run_continuous_processing", lambda *_: {})
    said = run("lake", "oos", "process").stderr
    assert said == "no feed is read: write [[feed]] tables to feeds.toml\n"
