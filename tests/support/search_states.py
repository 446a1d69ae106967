"""The states that the events of a lake can be in, one after another, for searches in each."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import LakelogError
from lakelog.maintain import indexing
from lakelog.query import session, top_scans
from lakelog.query.sql import table_sql
from lakelog.remotes import fetches as fetch
from lakelog.search.answers import Search
from lakelog.word_indexes import joint_filter, word_index, word_indexing
from tests.support.search_model import Asked, Event, random_event

STATES = 14


def shrink_indexes(patch: pytest.MonkeyPatch, *, is_counted: bool) -> None:
    """Have word indexes of blocks of two rows, and parts of 64, of any segment, that know the
    counts of all but the rarest words, or of none, and which of all words are joined."""
    patch.setattr(word_index, "BLOCK", 2)
    patch.setattr(word_index, "PART", 64)
    patch.setattr(word_index, "LEAST", 1)
    patch.setattr(word_index, "FREQUENT", 2)
    patch.setattr(word_indexing, "_COMMON", 5)
    patch.setattr(joint_filter, "LEAST_BLOCKS", 1)
    patch.setattr(joint_filter, "_MOST", 50)
    if not is_counted:
        patch.setattr(word_indexing, "_PENDING_MAX", 100)


def shrink_scans(patch: pytest.MonkeyPatch) -> None:
    """Have the times of the newest rows looked for first even of few, in blocks of two rows."""
    patch.setattr(session, "KEPT_EVENTS", 0)
    patch.setattr(top_scans, "LEAST", 8)
    patch.setattr(top_scans, "_SHARE", 1)
    patch.setattr(top_scans, "_STEPS", (1, 20))
    patch.setattr(top_scans, "_TOGETHER", 1)
    patch.setattr(table_sql, "_VECTOR", 2)


def random_events(dice: random.Random, numbers: range, *, is_ascii: bool) -> list[Event]:
    """Random events, of ASCII alone if that is wanted, whose words have shorter patterns."""
    events = []
    for number in numbers:
        event = random_event(dice, number)
        while is_ascii and not repr(event).isascii():
            event = random_event(dice, number)
        events.append(event)
    return events


def states(
    home: Path, dice: random.Random, *, is_ascii: bool
) -> Iterator[tuple[lakelog.Lake, list[Event]]]:
    """Bring a lake into one state after another; yield it and the events of each. It is encrypted
    if one at `home / "lake"` is."""
    events = random_events(dice, range(80), is_ascii=is_ascii)
    with lakelog.open(home / "lake") as lake:
        lake.append(events)
        yield lake, events  # the tail
        lake.snapshot("sealed")
        yield lake, events
        assert indexing.build_missing(lake.store, "main") == 1
        yield lake, events
        more = random_events(dice, range(80, 120), is_ascii=is_ascii)
        lake.append(more)
        yield lake, events + more  # both
        lake.settle()
        yield lake, events + more  # with an index and without
        lake.compact()
        assert len(os.listdir(lake.store.paths.word_indexes)) == 1
        yield lake, events + more
        lake.branch("other")
        with lakelog.open(home / "lake", branch="other") as other:
            unshared = random_events(dice, range(120, 140), is_ascii=is_ascii)
            other.append(unshared)
            other.compact()
            yield other, events + more + unshared
        yield lake, events + more
        lake.rollback("@1")
        yield lake, []
        lake.undo()
        yield lake, events + more
        damage(Path(lake.store.paths.word_indexes), dice)
    with lakelog.open(home / "lake") as lake:
        yield lake, events + more
    # A directory that is a remote is a lake.
    fetch.clone(str(home / "lake"), str(home / "clone"))
    with lakelog.open(home / "clone") as clone:
        indexing.build_missing(clone.store, "main")
        yield clone, events + more
        if clone.store.paths.keys is not None:
            return  # nothing can be erased of it
        gone = {event["subject"] for event in dice.sample(events + more, 20)}
        clone.erase(where=f"subject IN {tuple(sorted(gone))}", why="asked")
        indexing.build_missing(clone.store, "main")
        yield clone, [event for event in events + more if event["subject"] not in gone]


def damage(folder: Path, dice: random.Random) -> None:
    """Give each segment the index of another one, or a part of its own."""
    files = sorted(folder.iterdir())
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents[1:] + contents[:1], strict=True):
        file.write_bytes(dice.choice([content, content[: dice.randrange(len(content))]]))


def require_right_answer(lake: lakelog.Lake, events: list[Event], asked: Asked) -> None:
    """Require that a search finds the events that a model finds, newest first, and their number."""
    wanted = {event["subject"] for event in events if asked.holds(event)}
    try:
        rows = lake.search(asked.text).fetchall()
    except LakelogError as error:
        raise AssertionError(f"{asked.text!r}: {error}") from error
    assert {row[4] for row in rows} == wanted, asked.text
    assert len(rows) == len(wanted)
    assert lake.sql(Search.of(asked.text).count()).fetchall() == [(len(wanted),)]
    times = [(row[0], row[-1]) for row in rows]
    assert times == sorted(times, reverse=True)
    count = len(rows) // 3 + 1
    assert lake.search(asked.text, limit=count).fetchall() == rows[:count], asked.text
    oldest = lake.sql(Search.of(asked.text).events(count, oldest=True)).fetchall()
    assert oldest == sorted(rows, key=lambda row: (row[0], row[-1]))[:count], asked.text
    bars = lake.sql(Search.of(asked.text).histogram()).fetchall()
    assert sum(count for _, count in bars) == len(wanted), asked.text


def places_near(hits: list[int], before: int, after: int, count: int) -> set[int]:
    """The places, of so many, that are near enough to hits."""
    return {p for h in hits for p in range(max(h - before, 0), min(h + after + 1, count))}


def require_right_neighbours(
    lake: lakelog.Lake, events: list[Event], asked: Asked, before: int, after: int
) -> None:
    """Require that events stand among those of their source, in groups that do not touch."""
    rows = lake.sql("SELECT seq, source, subject, time FROM events ORDER BY seq").fetchall()
    wanted = {event["subject"] for event in events if asked.holds(event)}
    newest = sorted((r for r in rows if r[2] in wanted), key=lambda r: (r[3], r[0]), reverse=True)
    ranks = {row[0]: number for number, row in enumerate(newest, 1)}
    groups: dict[int, list[tuple[int, bool]]] = {}
    for source in {row[1] for row in rows}:
        seqs = [row[0] for row in rows if row[1] == source]
        hits = [place for place, seq in enumerate(seqs) if seq in ranks]
        shown = places_near(hits, before, after, len(seqs))
        for start in (p for p in shown if p - 1 not in shown):
            group = itertools.takewhile(shown.__contains__, itertools.count(start))
            found = [(seqs[p], seqs[p] in ranks) for p in group]
            groups[min(ranks[seq] for seq, is_found in found if is_found)] = found
    answer = lake.sql(Search.of(asked.text).neighbours(None, before, after))
    got: dict[int, list[tuple[int, bool]]] = {}
    for row in answer.iter_rows():
        event = dict(zip(answer.columns, row, strict=True))
        got.setdefault(event["hit"], []).append((event["seq"], event["found"]))
    assert list(got.items()) == sorted(groups.items()), asked.text
