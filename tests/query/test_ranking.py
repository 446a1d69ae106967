"""Ranked searches: the events of the search, in the order of BM25, in every state of a lake."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import lakelog
from lakelog import ranks
from lakelog.cli import cli
from lakelog.errors import InvalidSearch, MissingPackage, QueryFailed
from lakelog.maintain import indexing
from lakelog.ranks import rank_index
from tests.support import encrypted, seam
from tests.support.effort import share
from tests.support.requirements import need_module
from tests.support.search_model import SINGLE, Event, random_query, words_of
from tests.support.search_states import shrink_indexes, states

QUERIES = share(48)
FACTOR, LENGTH_FACTOR = 1.2, 0.75


@pytest.fixture(autouse=True, scope="module")
def tantivy() -> None:
    """The library that ranks."""
    need_module("tantivy")


def scores(events: list[Event], asked: list[str]) -> dict[str, float]:
    """The score of each event by the textbook, by its subject; lengths as tantivy rounds them."""
    counts = {event["subject"]: Counter(words_of(event)) for event in events}
    mean = sum(count.total() for count in counts.values()) / max(len(counts), 1)
    result = dict.fromkeys(counts, 0.0)
    for word in {word.lower() for word in asked}:
        found = {subject for subject, count in counts.items() if word in count}
        weight = math.log(1 + (len(counts) - len(found) + 0.5) / (len(found) + 0.5))
        for subject in found:
            times, length = counts[subject][word], rounded(counts[subject].total())
            damping = FACTOR * (1 - LENGTH_FACTOR + LENGTH_FACTOR * length / mean)
            result[subject] += weight * (1 + FACTOR) * times / (times + damping)
    return result


def rounded(length: int) -> int:
    """A length in one byte: those up to 40 as they are, of longer ones the first four bits."""
    shift = max((length - 24).bit_length() - 4, 0)
    return length if length < 40 else 24 + ((length - 24) >> shift << shift)


@pytest.mark.rounds
def test_order_is_that_of_the_textbook(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of words together and of either, with a condition besides: in a tail, sealed, mixed,
    compacted, branched, rolled back, pulled and erased."""
    shrink_indexes(monkeypatch, is_counted=True)
    dice = random.Random(1)
    for lake, events in states(home, dice, is_ascii=False):
        for _ in range(max(QUERIES // 14, 2)):
            first, second = dice.sample(SINGLE, 2)
            text = dice.choice(
                [f"{first}", f"{first} {second}", f"{first} OR {second} level>=INFO"]
            )
            expected = scores(events, [first] if text == first else [first, second])
            wanted = {row[4] for row in lake.search(text).fetchall()}
            rows = lake.search(text, rank=True, limit=1_000).fetchall()
            assert {row[4] for row in rows} == wanted, text
            assert [row[-1] for row in rows] == sorted((row[-1] for row in rows), reverse=True)
            assert [row[-1] for row in rows] == pytest.approx(
                [expected[row[4]] for row in rows], rel=1e-4
            ), text


@pytest.mark.rounds
def test_events_are_those_of_the_search(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any search: phrases, parts, fields and negations, as long as it has a word."""
    shrink_indexes(monkeypatch, is_counted=True)
    dice, ranked = random.Random(5), 0
    for lake, _ in states(home, dice, is_ascii=False):
        for _ in range(max(QUERIES // 14, 2)):
            text = random_query(dice).text
            try:
                rows = lake.search(text, rank=True, limit=1_000).fetchall()
            except InvalidSearch as error:
                assert "whole word" in str(error)  # noqa: PT017 - any other is a failure
                continue
            assert {r[-2] for r in rows} == {r[-1] for r in lake.search(text).fetchall()}, text
            ranked += 1
    assert ranked


@pytest.fixture
def lake(tmp_path: Path) -> lakelog.Lake:
    """A lake with thirty events that are alike, and three of them with more of a word."""
    with lakelog.open(tmp_path / "lake") as made:
        messages = [f"disk {'full ' * (n % 10 == 0)}at n{n:02d}" for n in range(30)]
        made.append(
            [
                {"type": "log", "subject": f"user-{n}", "time": 1_790_000_000 + n, "message": text}
                for n, text in enumerate(messages)
            ]
        )
        made.settle()
        return lakelog.open(made.store.paths.root)


def messages(lake: lakelog.Lake, text: str, limit: int | None = None) -> list[str]:
    return [row[6] for row in lake.search(text, rank=True, limit=limit).fetchall()]


def test_equal_ones_come_newest_first(lake: lakelog.Lake) -> None:
    """Also where more are equal than are wanted; a rare word counts for more than a frequent."""
    assert messages(lake, "disk at", 2) == ["disk at n29", "disk at n28"]
    assert messages(lake, "disk OR full", 3)[0].startswith("disk full")
    assert messages(lake, "disk subject:user-7") == ["disk at n07"]


def test_index_is_incremental(lake: lakelog.Lake) -> None:
    """What is sealed later is indexed alone, in the background too; compaction takes all new."""
    assert len(messages(lake, "disk", 50)) == 30
    folder = Path(lake.store.paths.rank_indexes)
    # A background process may be at work on one beside it.
    (before,) = (name for name in os.listdir(folder) if not name.startswith("."))
    stamp = (folder / before).stat().st_ino
    lake.append([{"type": "log", "message": "disk later"}])
    assert len(messages(lake, "disk", 50)) == 31  # of the tail
    assert os.listdir(folder) == [before]
    lake.settle()
    indexing.build_missing(lake.store, "main")
    assert len(os.listdir(folder)) == 2
    assert (folder / before).stat().st_ino == stamp
    lake.compact()
    assert before not in os.listdir(folder)
    assert len(messages(lake, "disk", 50)) == 31


def test_erased_words_are_gone(lake: lakelog.Lake) -> None:
    """Neither a search nor a file of the index has what was erased."""
    assert messages(lake, "n07") == ["disk at n07"]
    folder = Path(lake.store.paths.rank_indexes)
    before = set(os.listdir(folder))
    left_behind = folder / ".tmp-killed"
    left_behind.mkdir()
    (left_behind / "words").write_text("n07")
    lake.erase(subject="user-7", why="asked")
    assert before.isdisjoint(os.listdir(folder))
    assert not left_behind.exists()
    assert messages(lake, "n07 OR n08") == ["disk at n08"]


@pytest.mark.parametrize(
    ("damaged", "content"),
    [("*.term", b"x" * 100), ("meta.json", b"{"), ("meta.json", b"[]"), ("meta.json", b"{}")],
)
def test_damage_is_told_and_healed(lake: lakelog.Lake, damaged: str, content: bytes) -> None:
    """`verify` names the index; one that cannot be read is made again by the next search."""
    assert messages(lake, "full", 1) == ["disk full at n20"]
    folder = Path(lake.store.paths.rank_indexes)
    (name,) = os.listdir(folder)
    for file in (folder / name).glob(damaged):
        file.write_bytes(content)
    assert any("ranks" in problem.path for problem in lake.verify().problems)
    with pytest.raises(lakelog.LakelogError, match="ranked search"):
        messages(lake, "full", 1)
    assert messages(lake, "full", 1) == ["disk full at n20"]


@pytest.mark.parametrize("lost", ["*.json", "*.term", "lakelog"])
def test_an_index_that_lost_a_file_is_made_again(lake: lakelog.Lake, lost: str) -> None:
    """As by what cleans caches: a search says at most once that it failed."""
    assert messages(lake, "full", 1) == ["disk full at n20"]
    (name,) = os.listdir(lake.store.paths.rank_indexes)
    for file in Path(lake.store.paths.rank_indexes, name).glob(lost):
        file.unlink()
    with contextlib.suppress(lakelog.LakelogError):
        messages(lake, "full", 1)
    assert messages(lake, "full", 1) == ["disk full at n20"]


def test_concurrent_removal_of_an_index(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compaction that removes an index while a search puts it together makes it look again."""
    assert messages(lake, "full", 1) == ["disk full at n20"]
    removed = list[str]()

    def remove(name: str, real: seam.Hook, *args: Any, **kwargs: Any) -> Any:
        content = real(*args, **kwargs)
        if name == "read" and "cache/ranks/" in args[0] and args[0].endswith("meta.json"):
            index = Path(args[0]).parent
            if not removed and not index.name.startswith(".tmp-"):
                removed.extend(file.name for file in index.glob("*.fieldnorm"))
                (index / removed[0]).unlink()
        return content

    with monkeypatch.context() as patch:
        seam.install(patch, remove)
        assert messages(lake, "full", 1) == ["disk full at n20"]
    assert removed


@contextlib.contextmanager
def of_other_versions(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have a library of another version, as another process on the lake may have."""
    version = importlib.metadata.version

    def other(name: str) -> str:
        return f"{version(name)}.other" if name == "tantivy" else version(name)

    patch.setattr(importlib.metadata, "version", other)
    rank_index._made_by.cache_clear()
    try:
        yield
    finally:
        rank_index._made_by.cache_clear()


def test_concurrent_versions_have_an_index_each(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes whose libraries differ neither remove what the others read nor rebuild it in turn;
    gc removes what a version left behind."""
    folder = Path(lake.store.paths.rank_indexes)
    assert messages(lake, "full", 1) == ["disk full at n20"]
    (own,) = folder.iterdir()
    with monkeypatch.context() as patch:
        with of_other_versions(patch):
            assert messages(lake, "full", 1) == ["disk full at n20"]
        assert len(list(folder.iterdir())) == 2
        assert ranks.is_whole(lake.store.paths, own.name)
    assert messages(lake, "full", 1) == ["disk full at n20"]
    for index in folder.iterdir():
        os.utime(index, (1, 1))
    lake.gc()
    assert list(folder.iterdir()) == [own]


def test_gc_removes_the_indexes_of_what_is_gone(lake: lakelog.Lake) -> None:
    """With the segment, its index goes."""
    messages(lake, "disk")
    (name,) = os.listdir(lake.store.paths.rank_indexes)
    ranks.build(
        lake.store.paths,
        lake.store.manifests.segments(lake.store.state("main"))[0],
        lake.engine().cursor(),
    )
    lake.rollback("@1")
    lake.expire()
    assert name not in os.listdir(lake.store.paths.rank_indexes)


def test_encrypted_lakes_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No word of one is written in plain."""
    root = encrypted.create(home / "lake", monkeypatch)
    with lakelog.open(root) as lake:
        lake.append([{"type": "log", "message": "secretword"}])
        with pytest.raises(QueryFailed, match="encrypted"):
            lake.search("secretword", rank=True)
        assert not os.path.exists(lake.store.paths.rank_indexes)


def test_missing_extra(lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence names it; other searches need it not."""
    monkeypatch.setitem(sys.modules, "tantivy", None)
    with pytest.raises(MissingPackage, match=r"pip install 'lakelog\[search\]'"):
        lake.search("disk", rank=True)
    assert len(lake.search("disk").fetchall()) == 30


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("ms>=5", {}, "whole word"),
        ("-disk", {}, "whole word"),
        ("disk", {"limit": 10_001}, "at most 10,000"),
        ("disk", {"oldest": True}, "not both"),
    ],
)
def test_what_cannot_be_ranked(
    lake: lakelog.Lake, text: str, options: dict[str, int], said: str
) -> None:
    """A search without a word, too many events, another order."""
    with pytest.raises(InvalidSearch, match=said):
        lake.search(text, rank=True, **options)  # type: ignore[arg-type]


def test_rank_of_the_command_line(lake: lakelog.Lake) -> None:
    """Events with their scores; what gives no order of its own is refused."""
    root = str(lake.store.paths.root)
    result = CliRunner().invoke(cli, ["--lake", root, "search", "full", "--rank", "-n", "1"])
    assert '"message":"disk full at n20"' in result.stdout
    assert '"score":' in result.stdout
    refused = CliRunner().invoke(cli, ["--lake", root, "search", "full", "--rank", "--oldest"])
    assert refused.exit_code == 2
    assert "--rank goes with" in refused.output
