"""The five OOS views: their old shapes, right while a log grows, is rotated, or lives in a lake."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

import lakelog
from lakelog.cli import cli
from lakelog.errors import DamagedSegment, InvalidSetting, LakeNotFound
from lakelog.oos import log_state, oos_feed
from lakelog.oos.oos_views import OOSViews
from lakelog.segments import segment
from tests.golden import make
from tests.support.effort import share
from tests.support.processes import environment

MakeLake = Callable[..., lakelog.Lake]
GOLDEN = make.HERE / "oos.log"
NOW = "2026-05-01T12:00:00Z"
STATES = {"DISCOVER": "discovered", "PROCESS": "processing", "COMPLETE": "completed"}
STATES["FAIL"] = "failed"
NUMBERS = itertools.count()
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 200),
        st.sampled_from([*STATES, "FAIL", "COMPLETE", "OTHER"]),
        st.sampled_from(["a", "b", ""]),
        st.sampled_from(["i1", "i2", "i3", "i4", ""]),
        st.sampled_from(["{}", '{"error":"x|y"}', '{"error":null}', '{"error":{"c":5}}', "[1]"]),
    ),
    max_size=25,
)
Event = tuple[int, str, str, str, str]


def golden() -> dict[str, Any]:
    """The right answers of the golden log, worked out by hand."""
    found: dict[str, Any] = json.loads((make.HERE / "oos.json").read_text("utf-8"))
    return found


def answers(views: OOSViews) -> dict[str, Any]:
    """Everything that the golden file answers."""
    return {
        "status": views.podcast_status_view(),
        **{f"throughput {w}": views.throughput_view(w) for w in ("1h", "30m", "1d")},
        "errors": views.error_analysis_view(),
        "sources": views.source_reliability_view(),
        "health": views.system_health_view(),
    }


def line(event: Event) -> str:
    """An event as an OOS line; its time is minutes before NOW."""
    minutes, name, source, item, data = event
    hour, minute = divmod(12 * 60 - minutes, 60)
    return f"2026-05-01T{hour:02d}:{minute:02d}:00Z|{name}|podcast|{source}|{item}|{data}\n"


def reference(events: list[Event]) -> dict[str, Any]:
    """The views, worked out by going through the events one by one."""
    ordered = sorted(events, key=lambda e: -e[0])  # stable: of equal times the later line wins
    state: dict[str, str] = {e[3]: STATES[e[1]] for e in ordered if e[1] in STATES and e[3]}
    status = dict.fromkeys(STATES.values(), 0)
    for name in state.values():
        status[name] += 1
    failed = [e for e in ordered if e[1] == "FAIL"]
    errors: dict[str, int] = {}
    for e in failed:
        errors[error_of(e)] = errors.get(error_of(e), 0) + 1
    sources: dict[str, list[int]] = {}
    for e in ordered:
        if e[1] in ("COMPLETE", "FAIL"):
            sources.setdefault(e[2], []).append(e[1] == "COMPLETE")
    oldest = max((e[0] for e in events), default=0)
    return {
        "status": status,
        "completed": sum(e[1] == "COMPLETE" and e[0] < 60 for e in events),
        "errors": errors,
        "failures": [(e[3], e[2], error_of(e)) for e in reversed(failed)][:10],
        "sources": {s: (sum(d) / len(d), len(d)) for s, d in sources.items()},
        "recent": sum(e[0] < 60 for e in events),
        "uptime": f"0d {oldest // 60}h {oldest % 60}m",
    }


def error_of(event: Event) -> str:
    """What the data of an event calls the error."""
    data = json.loads(event[4])
    error = data.get("error") if isinstance(data, dict) else None
    if error in (None, ""):
        return "unknown"
    return error if isinstance(error, str) else json.dumps(error, separators=(",", ":"))


def told(views: OOSViews) -> dict[str, Any]:
    """The views in the form of `reference`."""
    errors, health = views.error_analysis_view(), views.system_health_view()
    assert errors["total_failures"] == sum(errors["error_types"].values())
    assert health["podcast_status"] == views.podcast_status_view()
    made = views.throughput_view("1h")
    assert sum(made["hourly_breakdown"].values()) == made["total_completed"]
    return {
        "status": views.podcast_status_view(),
        "completed": made["total_completed"],
        "errors": errors["error_types"],
        "failures": [(f["item_id"], f["source"], f["error"]) for f in errors["recent_failures"]],
        "sources": {
            s: (n["success_rate"], n["total_processed"])
            for s, n in views.source_reliability_view().items()
        },
        "recent": health["recent_activity_1h"],
        "uptime": health["system_uptime"],
    }


def run(*words: str, code: int = 0) -> Result:
    """Run a command line; its exit code must be `code`."""
    result = CliRunner().invoke(cli, list(words), env={"COLUMNS": "80"})
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(params=["small", "large"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events of files are kept as those of a small one, or as those of a large one."""
    monkeypatch.setattr(log_state, "RECENT", 1 << 20 if request.param == "small" else 0)


@pytest.mark.usefixtures("size")
def test_the_golden_log_gives_its_answers(lake: lakelog.Lake, tmp_path: Path) -> None:
    """The golden log gives the answers worked out by hand, as a file and taken into a lake."""
    right = golden()
    now, skipped = right.pop("now"), right.pop("skipped")
    views = lakelog.get_views(GOLDEN, now=now)
    assert answers(views) == right
    assert views.skipped == skipped
    lake.ingest(str(GOLDEN), format="oos")
    assert answers(lakelog.get_views(lake, now=now)) == right
    lake.compact()
    assert answers(lakelog.get_views(lake.path, now=now)) == right


@given(
    events=EVENTS,
    cuts=st.lists(st.integers(1, 60), max_size=6),
    chunk=st.integers(40, 300),
    recent=st.sampled_from([0, 5, 1 << 20]),
)
@settings(max_examples=share(60))
def test_a_growing_log(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    events: list[Event],
    cuts: list[int],
    chunk: int,
    recent: int,
) -> None:
    """However a log is written piece by piece, asked in between or not, in whatever order of
    times: each answer is that of going through the whole lines one by one."""
    monkeypatch.setattr(oos_feed, "CHUNK", chunk)
    monkeypatch.setattr(log_state, "RECENT", recent)
    path = tmp_path / f"oos{next(NUMBERS)}.log"
    text = "".join(map(line, events)).encode()
    path.write_bytes(b"")
    views = lakelog.get_views(path, now=NOW)
    for cut in [*itertools.accumulate(cuts), len(text)]:
        path.write_bytes(text[:cut])
        whole = text[:cut].count(b"\n")
        rest = text[:cut].rpartition(b"\n")[2]
        whole += rest.count(b"|") >= 5 and complete(rest.split(b"|", 5)[5])
        assert told(views) == reference(events[:whole])
    assert told(lakelog.get_views(path, now=NOW)) == reference(events)


def complete(text: bytes) -> bool:
    """Whether text is whole JSON."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@given(batches=st.lists(EVENTS, min_size=1, max_size=4), steps=st.lists(st.integers(0, 5)))
@settings(max_examples=share(40))
def test_a_lake_that_goes_on(
    make_lake: MakeLake, batches: list[list[Event]], steps: list[int]
) -> None:
    """Through appends, seals, compactions, rollbacks and undos, the views of one object are those
    of the events that are there."""
    lake = make_lake(f"lake{next(NUMBERS)}")
    views = lakelog.get_views(lake, now=NOW)
    present: list[Event] = []
    lake.tag("start")
    for batch, step in zip(batches, [*steps, 0, 1, 2, 3], strict=False):
        lake.append([as_event(e) for e in batch])
        before, present = present, present + batch
        if step >= 1:
            lake.settle()
        if step == 2:
            lake.compact()
        if step == 3 and before:
            lake.rollback("start")
            present = []
        if step == 4:
            lake.rollback("start")
            lake.undo()
        assert told(views) == reference(present)


def test_a_window_of_a_lake_ends_between_two_events(make_lake: MakeLake, tmp_path: Path) -> None:
    """Wherever in an hour a window begins and ends, a lake counts what a file does: the events
    after its begin, up to its end, before 1970 too."""
    micros = [*range(5), 3_599_999_999, 1_800_000_000]
    log = "".join(
        f"{day}T{hour}:{at // 60_000_000:02d}:{at % 60_000_000 / 10**6:09.6f}Z|{name}|p|s|i|{{}}\n"
        for day in ("2026-05-01", "1969-12-31")
        for hour, at in itertools.product((10, 11, 12), micros)
        for name in ("COMPLETE", "FAIL")
    )
    path = tmp_path / "oos.log"
    path.write_text(log)
    lake = make_lake("windows")
    lake.ingest(str(path), format="oos")
    for end in ("12:00:00.000002", "12:00:00", "11:30:00", "12:59:59.999999", "11:00:00.000003"):
        for now, window in itertools.product(
            (f"2026-05-01T{end}", f"1969-12-31T{end}"), ("1h", "2h")
        ):
            views, right = lakelog.get_views(lake, now=now), lakelog.get_views(path, now=now)
            assert views.throughput_view(window) == right.throughput_view(window)
            assert views.system_health_view() == right.system_health_view()


@pytest.mark.parametrize(
    "odd", ['{"error":{"c":5}}', '{"error":7}', "[1]", '{"error":""}', '{"n":3,"error":"w"}']
)
def test_a_lake_of_typed_segments(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    """In compacted segments of several row groups errors are those of the payloads, whether they
    are a column, a member of another kind, or text beside the column."""
    monkeypatch.setattr(segment.SegmentEncoder, "ROW_GROUP", 70)
    data = ['{"error":"x|y"}', '{"error":"z","n":1}', '{"n":2}', '{"error":"\\u00e9 \\"q\\""}']
    data.append(odd)
    names = [*STATES, "FAIL", "OTHER"]
    events = [
        (200 - i // 3, names[i % 6], "ab"[i % 2], f"i{i % 17}", data[i % len(data)])
        for i in range(300)
    ]
    lake = make_lake("typed")
    for start in (0, 100):
        lake.append([as_event(e) for e in events[start : start + 100]])
        lake.settle()
    views = lakelog.get_views(lake, now=NOW)
    assert told(views) == reference(events[:200])
    lake.compact()
    lake.append([as_event(e) for e in events[200:]])
    assert told(views) == reference(events)
    assert told(lakelog.get_views(lake, now=NOW)) == reference(events)


def test_a_damaged_segment_is_an_error_each_time(make_lake: MakeLake) -> None:
    """Views of a lake with a damaged segment fail as often as they are asked, and count each event
    once when it is whole again."""
    lake = make_lake("damaged")
    events: list[Event] = [(5, "FAIL", "a", f"i{i}", "{}") for i in range(4)]
    paths = []
    for event in events:
        lake.append(as_event(event))
        lake.settle()
        state = lake.store.state("main")
        newest = lake.store.manifests.segments(state, "events")[-1]
        paths.append(Path(lake.store.paths.object("segments", newest.key)))
    whole = paths[2].read_bytes()
    paths[2].write_bytes(whole[:-1])
    views = lakelog.get_views(lake, now=NOW)
    for _ in range(2):
        with pytest.raises(DamagedSegment):
            views.error_analysis_view()
    paths[2].write_bytes(whole)
    assert told(views) == reference(events)


@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(-4, 4), st.sampled_from("abcdef"), st.integers(0, 3))),
        min_size=1,
        max_size=4,
    ),
    recent=st.sampled_from([0, 1, 3, 1 << 16]),
)
@settings(max_examples=share(100))
def test_items_of_many_batches(batches: list[list[tuple[int, str, int]]], recent: int) -> None:
    """Of one item the newest time wins, and of equal times what arrived later, however events are
    divided, and wherever they are kept."""
    names, newest, state = list(STATES), dict[str, tuple[int, int]](), log_state.LogState()
    with mock.patch.object(log_state, "RECENT", recent):
        for events in batches:
            for time, item, code in events:
                if time >= newest.get(item, (-5, 0))[0]:
                    newest[item] = time, code
            state.add(
                [log_state.LogEvent(time, names[code], "", item, "") for time, item, code in events]
            )
            counts = Counter(STATES[names[code]] for _, code in newest.values())
            assert state.copy().standing() == {name: counts[name] for name in STATES.values()}
    archive = log_state.Archive.empty().extend(state.latest, [], []) if recent > 99 else None
    items = archive or state.archive
    assert items is None or (items.items[1:] > items.items[:-1]).all()


def as_event(event: Event) -> dict[str, Any]:
    """An event as lake.append takes it."""
    time, name, _, source, item, data = line(event).rstrip().split("|", 5)
    named = {"source": source, "subject": item}
    kept = {k: v for k, v in named.items() if v}
    return {"time": time, "type": name, **kept, "data": json.loads(data)}


@pytest.mark.usefixtures("size")
def test_a_rotated_log_is_read_from_its_start(tmp_path: Path) -> None:
    """Another file of the name, a truncated one, and one rewritten in place begin anew."""
    path = tmp_path / "oos.log"
    shutil.copy(GOLDEN, path)
    views = lakelog.get_views(path, now=NOW)
    assert sum(views.podcast_status_view().values()) == 5
    os.rename(path, tmp_path / "oos.log.1")
    path.write_text(line((5, "DISCOVER", "a", "new", "{}")))
    assert views.podcast_status_view()["discovered"] == 1
    path.write_text("")
    assert sum(views.podcast_status_view().values()) == 0
    path.write_text(line((5, "DISCOVER", "a", "x", "{}")) + line((4, "FAIL", "a", "y", "{}")))
    assert views.podcast_status_view()["failed"] == 1
    path.write_text(line((5, "COMPLETE", "a", "x", "{}")) * 3)
    assert views.podcast_status_view() == {
        "discovered": 0,
        "processing": 0,
        "completed": 1,
        "failed": 0,
    }


@pytest.mark.usefixtures("size")
def test_a_last_line_counts_once(tmp_path: Path) -> None:
    """A whole event without its newline counts as long as it stands so, and once when it has it."""
    path = tmp_path / "oos.log"
    text = line((5, "COMPLETE", "a", "x", "{}")) + line((4, "FAIL", "a", "y", '{"error":"e"}'))
    path.write_text(text[:-1])
    views = lakelog.get_views(path, now=NOW)
    first = told(views)
    assert first["recent"] == 2
    path.write_text(text)
    assert told(views) == first
    path.write_text(text + text[:40])
    assert told(views) == first


@pytest.mark.usefixtures("size")
def test_odd_lines(tmp_path: Path) -> None:
    """Broken text, bad times and lines of other forms are left out and counted."""
    path = tmp_path / "oos.log"
    good = line((5, "DISCOVER", "a", "x", "{}")).encode()
    path.write_bytes(
        good + b"\n  \n" + b'{"timestamp":"2026"}\n' + b"yesterday|FAIL|c|s|i|{}\n"
        b"2026-05-01T11:00:00Z|FAIL|podcast|s\xff|i|{broken\n" + good[:-1]
    )
    views = lakelog.get_views(path, now=NOW)
    assert views.podcast_status_view()["failed"] == 1
    assert views.error_analysis_view()["error_types"] == {"unknown": 1}
    assert views.skipped == 2
    assert views.system_health_view()["recent_activity_1h"] == 2


def test_without_an_argument_it_reads_oos_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """get_views() is that of oos.log in the current directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(GOLDEN, "oos.log")
    assert lakelog.get_views().podcast_status_view()["completed"] == 3
    assert json.loads(run("oos", "views", "--json").stdout)["status"]["completed"] == 3


def test_the_command_line(lake: lakelog.Lake) -> None:
    """The views as one object, one alone, or in words, over a log or a lake."""
    right = golden()
    now = right["now"]
    record = json.loads(run("oos", "views", str(GOLDEN), "--now", now, "--json").stdout)
    assert record["health"] == right["health"]
    assert record["throughput"] == right["throughput 1d"]
    lake.ingest(str(GOLDEN))
    words = ("oos", "views", "--now", now, "--view", "errors", "--json")
    assert json.loads(run("--lake", lake.path, *words).stdout) == right["errors"]
    assert json.loads(run(*words, "--db", lake.path).stdout) == right["errors"]
    shown = run("oos", "views", str(GOLDEN), "--format", "table", "--now", now)
    assert "1 discovered, 0 processing, 3 completed, 1 failed" in shown.stdout
    assert "66.7% of       3  TechPodcast" in shown.stdout
    assert "1 line of other forms left out" in shown.stderr
    assert max(map(len, shown.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nope.log",), "nope.log: no such"),
        (("/",), "/ is a directory, but not a lake"),
        ((str(GOLDEN), "--window", "5x"), "'5x' is not a duration"),
        ((str(GOLDEN), "--window", "0h"), "'0h' is not a window"),
        ((str(GOLDEN), "--now", "yesterday"), "'yesterday' is not a date"),
        ((str(GOLDEN), "--db", "other"), "give one of them"),
        ((str(GOLDEN), "--view", "all"), "'all' is not one of"),
    ],
)
def test_bad_input(words: tuple[str, ...], said: str) -> None:
    """A mistake is one line that says what is wrong."""
    result = CliRunner().invoke(cli, ["oos", "views", *words])
    assert result.exit_code in (1, 2)
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_bad_calls(tmp_path: Path) -> None:
    """What cannot be read raises at once."""
    with pytest.raises(FileNotFoundError):
        lakelog.get_views(tmp_path / "no.log")
    with pytest.raises(LakeNotFound):
        lakelog.get_views(tmp_path)
    with pytest.raises(InvalidSetting):
        lakelog.get_views(GOLDEN).throughput_view("soon")


def test_a_lake_is_answered_without_pandas(make_lake: MakeLake) -> None:
    """The five views of a lake do not load pandas, which takes longer than they do."""
    with make_lake("plain") as lake:
        lake.append([as_event((5, "FAIL", "a", f"i{i}", '{"error":"e"}')) for i in range(50)])
        lake.append({"time": "2026-05-01T11:00:00Z", "type": "COMPLETE"})
        lake.settle()
        lake.compact()
    program = f"""
import sys
import lakelog
views = lakelog.get_views({lake.path!r})
views.podcast_status_view(), views.throughput_view("1d"), views.error_analysis_view()
views.source_reliability_view(), views.system_health_view()
print({{"pandas"}} & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True
    )
    assert done.stdout == "set()\n", done.stderr


def test_a_small_log_is_answered_without_heavy_packages(tmp_path: Path) -> None:
    """The five views of a small log load neither numpy nor Arrow nor pandas, which take longer
    to load than the log takes to read."""
    program = f"""
import sys
import lakelog
views = lakelog.get_views({str(GOLDEN)!r})
views.podcast_status_view(), views.throughput_view("1d"), views.error_analysis_view()
views.source_reliability_view(), views.system_health_view()
print({{"numpy", "pyarrow", "pandas", "duckdb"}} & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True
    )
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize("place", ["file", "lake"])
def test_views_right_after_the_logger(tmp_path: Path, place: str) -> None:
    """A log can be asked before its first line, and each answer has what was logged before."""
    where = tmp_path / place
    file, lake = (where, None) if place == "file" else (None, where)
    logger = lakelog.get_logger(file, lake=lake)
    views = lakelog.get_views(where)
    for n in range(50):
        assert views.podcast_status_view()["completed"] == n
        logger.complete("podcast", "P", f"P_{n}")
    assert views.podcast_status_view()["completed"] == 50
