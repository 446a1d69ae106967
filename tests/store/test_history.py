"""History: tags, branches, going back and forth, and what the log and diffs say of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lakelog
from lakelog import history
from lakelog.disk import disk
from lakelog.errors import (
    AlreadyExists,
    Damaged,
    DamagedManifest,
    InvalidName,
    NothingToUndo,
    UnknownRef,
    WouldDropEvents,
)
from lakelog.paths import FileName, encode_name
from lakelog.values import from_micros

MakeLake = Callable[..., lakelog.Lake]


def put(lake: lakelog.Lake, *types: str) -> None:
    """Append one event per type."""
    lake.append([{"type": name} for name in types])


def types(lake: Any) -> str:
    """Return the types of all events, sorted, as one word."""
    return "".join(sorted(t for (t,) in lake.sql("SELECT type FROM events").fetchall()))


def ops(lake: lakelog.Lake) -> list[str]:
    """Return the operations of the log, oldest first, sealing and maintenance left out."""
    skipped = ("seal", "maintain", "init", "branch")
    return [e.move.op for e in reversed(lake.log()) if e.move.op not in skipped]


# --- names ----------------------------------------------------------------------------------------

NAMES = [
    "v1",
    "V1",
    "a b",
    "a/b",
    "x.y",
    ".hidden",
    "ünïcode",
    "user@host",
    "100%",
    "main2",
    "select",
    "'",
    "a" * 199,
    "日本",
    "hint",
    "..",
    "CON",
    "name.json",
]
BAD = [
    "",
    " ",
    " a",
    "a ",
    "-x",
    "@3",
    "a~1",
    'a"b',
    "a\nb",
    "\x00",
    "2024-01-01",
    "2024-01-01x",
    "deadbeef",
    "0123456789",
    "a" * 201,
    "é" * 40,
    "\ud800",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_its_file_s_name_and_back(make_lake: MakeLake, name: str) -> None:
    """Tags and branches may be named with spaces, dots, slashes, cases and any script."""
    lake = make_lake()
    put(lake, "a")
    lake.tag(name)
    assert [tag.name for tag in lake.store.refs.tags()] == [name]
    assert types(lake.at(name)) == "a"
    assert FileName(encode_name(name)).ref == name
    history.delete_tag(lake.store, name)
    with lake.branch(name, message="a branch of that name"):
        assert lake.store.refs.branches() == sorted(["main", name])


def test_a_name_means_one_thing(lake: lakelog.Lake) -> None:
    """A tag cannot have the name of a branch, nor a branch that of a tag, in any case."""
    put(lake, "a")
    for name in ("main", "Main"):
        with pytest.raises(AlreadyExists, match="main"):
            lake.tag(name)
    lake.tag("v1")
    for name in ("v1", "V1"):
        with pytest.raises(AlreadyExists, match="v1"):
            lake.branch(name)
    for name in ("omega", "Information_Schema"):
        for make in (lake.tag, lake.branch):
            with pytest.raises(InvalidName, match="SQL has a schema"):
                make(name)


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_cannot_be_told_from_something_else_is_refused(
    lake: lakelog.Lake, name: str
) -> None:
    """Names like times, ids, options or files elsewhere are refused, before anything is made."""
    for act in (lake.tag, lake.branch):
        with pytest.raises(InvalidName) as caught:
            act(name)
        assert "\n" not in str(caught.value)
    assert (lake.store.refs.tags(), lake.store.refs.branches()) == ([], ["main"])


@given(st.text(max_size=60))
def test_names_differ_where_their_files_do(name: str) -> None:
    """Whatever is accepted is encoded into plain lower-case characters, and decodes to itself."""
    try:
        text = encode_name(name)
    except InvalidName:
        return
    assert FileName(text).ref == name
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-%")
    assert not text.startswith(".")


# --- tags -----------------------------------------------------------------------------------------


def test_a_tag_holds_what_was_there_and_stays(lake: lakelog.Lake) -> None:
    """A tag takes what is pending with it, and answers the same whatever comes later."""
    put(lake, "a")
    tag = lake.tag("v1", message="the first")
    put(lake, "b")
    for change in (lake.settle, lake.compact, lambda: lake.retention("0s", apply=True)):
        change()
        assert types(lake.at("v1")) == "a"
    assert (tag.name, tag.message, tag.branch) == ("v1", "the first", "main")
    assert lake.at("v1").snapshot().id == tag.snapshot


def test_a_tag_cannot_be_made_twice(lake: lakelog.Lake) -> None:
    """A taken name is refused, and the tag that has it is left alone."""
    put(lake, "a")
    before = lake.tag("v1")
    put(lake, "b")
    with pytest.raises(AlreadyExists, match="'v1' exists"):
        lake.tag("v1")
    assert lake.store.refs.tag("v1") == before


def test_a_tag_may_name_any_kept_state(lake: lakelog.Lake) -> None:
    """With a ref the tag names that state; the branch's own name means it with all pending."""
    put(lake, "a")
    lake.tag("v1")
    put(lake, "b")
    lake.tag("old", "v1")
    lake.tag("new", "main")
    assert (types(lake.at("old")), types(lake.at("new"))) == ("a", "ab")
    with pytest.raises(UnknownRef, match="'nothing'"):
        lake.tag("bad", "nothing")


def test_a_deleted_tag_is_gone_and_its_name_free(lake: lakelog.Lake) -> None:
    """Deleting a tag frees its name; the state stays reachable by its id."""
    put(lake, "a")
    tag = lake.tag("v1")
    assert history.delete_tag(lake.store, "v1") == tag
    with pytest.raises(UnknownRef):
        lake.at("v1")
    with pytest.raises(UnknownRef):
        history.delete_tag(lake.store, "v1")
    assert types(lake.at(tag.snapshot[:12])) == "a"
    lake.tag("v1")


# --- time travel ----------------------------------------------------------------------------------


def test_a_state_has_many_names(lake: lakelog.Lake) -> None:
    """Tag, id, prefix, move number, ancestor and time lead to the same state."""
    states = []
    for name in "abc":
        put(lake, name)
        states.append(lake.settle().move)
    lake.tag("now")
    second = states[1]
    moment = from_micros(second.time).isoformat()
    for ref in (
        second.snapshot,
        second.snapshot[:8],
        f"@{second.number}",
        f"main@{second.number}",
        "main~1",
        "now~1",
        f"{states[2].snapshot}~1",
        "main~0~1",
        moment,
        f" {moment} ",
    ):
        assert types(lake.at(ref)) == "ab", ref
        assert lake.at(ref).count() == 2
    assert types(lake.at("main")) == types(lake.at("now")) == "abc"


def test_another_branch_is_reached_from_here(make_lake: MakeLake) -> None:
    """Moves and ancestors of other branches resolve too."""
    main = make_lake()
    with main.branch("dev") as dev:
        for name in "abc":
            put(dev, name)
            dev.settle()
    assert types(main.at("dev")) == "abc"
    assert types(main.at("dev~1")) == "ab"
    assert types(main.at("dev@2")) == "a"
    assert types(main.at("main")) == ""


@pytest.mark.parametrize(
    "ref",
    [
        "nothing",
        "",
        "~1",
        "main~99",
        "@99",
        "@",
        "@x",
        "@²",
        "main~²",
        "dev@1",
        "main@",
        "1999-01-01",
        "0" * 64,
        "ffffffff",
        "2024",
        "-1d",
        "v1~1",
        'a"b',
        "a\nb",
    ],
)
def test_what_names_no_state_is_refused(lake: lakelog.Lake, ref: str) -> None:
    """Unknown names, ids, moves, ancestors and times before the lake are UnknownRef, one line."""
    with pytest.raises(UnknownRef) as caught:
        lake.at(ref)
    assert "\n" not in str(caught.value)


def test_an_ambiguous_prefix_is_refused(lake: lakelog.Lake) -> None:
    """Fewer than eight digits are no id; the empty state of a new lake has one like any other."""
    digest = lake.store.refs.head("main").move.snapshot
    assert lake.at(digest[:8]).count() == 0
    with pytest.raises(UnknownRef):
        lake.at(digest[:7])


def test_looking_up_times_never_goes_back(lake: lakelog.Lake) -> None:
    """The later the time, the later the move; times of moves strictly increase."""
    for name in "abcdef":
        put(lake, name)
        lake.settle()
    moves = [entry.move for entry in reversed(lake.log())]
    assert sorted({m.time for m in moves}) == [m.time for m in moves]
    found = []
    for move in moves:
        for offset in (0, 1):
            found.append(lake.at(from_micros(move.time + offset).isoformat()).count())
    assert found == sorted(found)
    assert found[::2] == [0, 1, 2, 3, 4, 5, 6]


def test_a_state_has_its_own_counts_and_no_tail(lake: lakelog.Lake) -> None:
    """A view of a state counts, queries and describes it, whatever is pending since."""
    put(lake, "a", "b")
    lake.settle()
    put(lake, "c")
    view = lake.at("main")
    assert (view.count(), types(view), view.stats().events, view.stats().pending) == (2, "ab", 2, 0)
    assert view.snapshot().events == 2
    assert view.explain("FROM events") == (1, 1)
    assert types(lake) == "abc"


# --- rollback and undo ----------------------------------------------------------------------------


def test_rollback_goes_back_and_is_recorded(lake: lakelog.Lake) -> None:
    """Going back is one new move; what was there stays in the log and in its states."""
    put(lake, "a")
    lake.tag("v1")
    put(lake, "b")
    made = lake.rollback("v1")
    assert types(lake) == "a"
    assert made.id == lake.at("v1").id
    newest = lake.log()[0].move
    assert (newest.op, newest.message, newest.generation) == ("rollback", "to v1", 1)
    assert types(lake.at("@3")) == "ab"
    put(lake, "c")
    assert types(lake) == "ac"


def test_rollback_settles_what_was_pending_into_the_log(lake: lakelog.Lake) -> None:
    """Pending events leave the branch with the rollback and come back with undo."""
    lake.tag("empty")
    put(lake, "a")
    lake.rollback("empty")
    assert types(lake) == ""
    lake.undo()
    assert types(lake) == "a"


def test_the_hint_names_the_rollback_after_it(lake: lakelog.Lake) -> None:
    """Whoever opens the lake next finds its head at once, also where a rollback published what was
    pending."""
    put(lake, "a")
    lake.tag("v1")
    put(lake, "b")
    lake.rollback("v1")
    refs = lake.store.refs
    assert refs.hint_number("main") == refs.head("main").move.number
    assert [entry.move.op for entry in lake.log(2)] == ["rollback", "seal"]


def test_rollback_to_the_branch_itself_changes_nothing(lake: lakelog.Lake) -> None:
    """The branch's own name means all of it, what is pending too."""
    put(lake, "a")
    lake.rollback("main")
    assert types(lake) == "a"


def test_undo_twice_is_redo(lake: lakelog.Lake) -> None:
    """Undo undoes the last user move, an undo too; each step is in the log."""
    put(lake, "a")
    lake.tag("v1")
    put(lake, "b")
    lake.rollback("v1")
    for expected in ("ab", "a", "ab", "a"):
        lake.undo()
        assert types(lake) == expected
    assert ops(lake) == ["rollback", "undo", "undo", "undo", "undo"]


def test_undo_of_a_snapshot_changes_no_event(lake: lakelog.Lake) -> None:
    """A snapshot records a message; undoing it takes nothing away."""
    put(lake, "a")
    made = lake.snapshot("before the change")
    assert (made.op, made.message, made.events) == ("snapshot", "before the change", 1)
    lake.undo()
    assert types(lake) == "a"
    assert ops(lake) == ["snapshot", "undo"]


def test_undo_refuses_to_drop_later_events(lake: lakelog.Lake) -> None:
    """Events since the move are counted, pending ones too, and nothing moves."""
    put(lake, "a")
    lake.tag("v1")
    put(lake, "b")
    lake.rollback("v1")
    put(lake, "c")
    with pytest.raises(WouldDropEvents, match=r"^1 event came after the rollback"):
        lake.undo()
    lake.settle()
    put(lake, "d", "e")
    with pytest.raises(WouldDropEvents, match=r"^3 events came after the rollback") as caught:
        lake.undo()
    assert caught.value.events == 3
    assert types(lake) == "acde"
    assert ops(lake) == ["rollback"]


def test_undo_by_force_drops_them_into_the_log(lake: lakelog.Lake) -> None:
    """With force later events leave the branch; undoing that brings them back."""
    put(lake, "a")
    lake.tag("v1")
    put(lake, "b")
    lake.rollback("v1")
    put(lake, "c")
    lake.undo(force=True)
    assert types(lake) == "ab"
    lake.undo()
    assert types(lake) == "ac"


def test_undo_to_a_branch_keeps_them_there(make_lake: MakeLake) -> None:
    """Later events are kept on a new branch, and the undo goes on."""
    lake = make_lake()
    put(lake, "a")
    lake.tag("v1")
    put(lake, "b")
    lake.rollback("v1")
    put(lake, "c")
    lake.undo(to_branch="kept")
    assert types(lake) == "ab"
    kept = make_lake(branch="kept")
    assert types(kept) == "ac"
    assert kept.log()[0].move.message == "kept by undo of rollback"


@pytest.mark.parametrize("name", ["main", "dev", "a~b"])
def test_undo_to_a_name_it_cannot_have_moves_nothing(lake: lakelog.Lake, name: str) -> None:
    """A taken or impossible branch name stops the undo before it goes back."""
    lake.branch("dev").close()
    put(lake, "a")
    lake.snapshot()
    put(lake, "b")
    with pytest.raises((AlreadyExists, InvalidName)):
        lake.undo(to_branch=name)
    assert types(lake) == "ab"
    assert ops(lake) == ["snapshot"]


def test_undo_skips_sealing_and_compaction(lake: lakelog.Lake) -> None:
    """Maintenance is no user move: undo reaches past it to the rollback."""
    for name in "abc":
        put(lake, name)
        lake.settle()
    lake.tag("v1")
    put(lake, "d")
    lake.rollback("v1")
    lake.compact()
    lake.undo()
    assert types(lake) == "abcd"


def test_there_may_be_nothing_to_undo(make_lake: MakeLake) -> None:
    """Without a user move on this branch undo is refused, whatever other branches did."""
    lake = make_lake()
    put(lake, "a")
    lake.compact()
    with pytest.raises(NothingToUndo, match="'main'"):
        lake.undo()
    lake.snapshot()
    with lake.branch("dev") as dev, pytest.raises(NothingToUndo, match="'dev'"):
        dev.undo()


@pytest.mark.parametrize("to_branch", [None, "kept"])
def test_an_event_published_while_undoing_is_not_lost(
    make_lake: MakeLake, to_branch: str | None
) -> None:
    """What another process publishes after the count is counted again, or kept as well."""
    lake, other = make_lake(), make_lake()
    put(lake, "a")
    lake.snapshot("s")
    calls: list[int] = []

    def settle() -> Any:
        head = lake.settle()
        calls.append(1)
        if len(calls) == 1:
            put(other, "z")
            other.settle()
        return head

    if to_branch is None:
        with pytest.raises(WouldDropEvents, match=r"^1 event "):
            history.BranchHistory(lake.store, "main", settle).undo(False, None)
        assert types(lake) == "az"
    else:
        history.BranchHistory(lake.store, "main", settle).undo(False, to_branch)
        assert (types(lake), types(make_lake(branch="kept"))) == ("a", "az")


def test_events_acknowledged_while_going_back_stay(make_lake: MakeLake) -> None:
    """An event appended after the settle of a rollback is in the tail after it."""
    lake, other = make_lake(), make_lake()
    put(lake, "a")
    lake.tag("v1")
    put(lake, "b")

    def settle(**_: Any) -> Any:
        head = lake.settle()
        put(other, "z")
        return head

    history.BranchHistory(lake.store, "main", settle).rollback(settle, "v1", True, "")
    assert types(lake) == "az"


def test_a_rollback_that_loses_a_race_keeps_all_in_the_log(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may publish between the two moves of a rollback with pending events, which
    are prepared together: the rollback is made after that."""
    lake, other = make_lake(), make_lake()
    put(lake, "a")
    lake.tag("v1")
    put(lake, "b")
    real, moves = disk.link, list[str]()

    def link(source: str, target: str) -> None:
        if "/refs/heads/" in target:
            moves.append(target)
            if len(moves) == 2:
                put(other, "z")
                other.settle()
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "link", link)
        lake.rollback("v1")
    log = lake.log()
    assert [entry.move.op for entry in log][:3] == ["rollback", "seal", "seal"]
    assert types(lake) == "a"
    assert types(lake.at(log[1].move.snapshot)) == "abz"
    assert not lake.verify().problems
    assert not list(Path(lake.path).rglob(".tmp-*"))


def test_a_refused_rollback_leaves_no_files(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that cannot sync what a rollback publishes first leaves the branch as it was, with
    what is pending still pending, and nothing unfinished."""
    lake = make_lake()
    put(lake, "a")
    lake.tag("v1")
    put(lake, "b")
    before = lake.log()[0].move.number

    def sync(_: int) -> None:
        raise OSError(errno.EIO, "no sync")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "sync_file", sync)
        with pytest.raises(OSError, match="no sync"):
            lake.rollback("v1")
    assert lake.log()[0].move.number == before
    assert types(lake) == "ab"
    assert not list(Path(lake.path).rglob(".tmp-*"))
    lake.rollback("v1")
    assert types(lake) == "a"


@pytest.mark.parametrize("ref", ["nothing", "@99", "0123456789abcdef", "1999-01-01"])
def test_rollback_to_nowhere_is_refused(lake: lakelog.Lake, ref: str) -> None:
    """What resolves to no kept state is refused before anything is settled or moved."""
    put(lake, "a")
    with pytest.raises(UnknownRef):
        lake.rollback(ref)
    assert len(lake.log()) == 1
    assert types(lake) == "a"


def test_rollback_to_a_state_no_ref_reaches_is_refused(lake: lakelog.Lake) -> None:
    """A manifest that no move, tag or branch names may be collected, though its file is there."""
    state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
    orphan = lake.store.manifests.write(state.__class__(**{**vars(state), "commit": "0" * 32}))
    with pytest.raises(UnknownRef):
        lake.rollback(orphan.digest)


@pytest.mark.usefixtures("long_manifests")
@pytest.mark.damaged
@pytest.mark.parametrize("what", ["manifest missing", "manifest", "page missing", "page"])
def test_rollback_looks_at_its_target_first(make_lake: MakeLake, what: str) -> None:
    """A target whose manifest or page is missing or damaged is refused before anything moves."""
    lake = make_lake()
    for n in range(20):
        put(lake, chr(97 + n))
        lake.settle()
    lake.tag("v1")
    put(lake, "z")
    lake.settle()
    state = lake.store.manifests.load(lake.at("v1").id)
    assert state.pages
    digest = state.pages[0].digest if "page" in what else state.digest
    path = Path(lake.store.paths.object("manifests", digest))
    if "missing" in what:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    again = make_lake()
    before = again.store.refs.head("main")
    with pytest.raises(DamagedManifest, match=digest[:12]):
        again.rollback("v1")
    assert again.store.refs.head("main") == before


@pytest.mark.damaged
def test_rollback_with_verify_reads_every_byte_first(lake: lakelog.Lake) -> None:
    """With verify a damaged segment of the target is found before the move."""
    put(lake, "a")
    lake.tag("v1")
    [entry] = lake.store.manifests.segments(lake.store.manifests.load(lake.at("v1").id))
    path = Path(lake.store.paths.object("segments", entry.key))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    put(lake, "b")
    with pytest.raises(Damaged, match=os.path.basename(path)):
        lake.rollback("v1", verify=True)
    assert ops(lake) == []


# --- branches -------------------------------------------------------------------------------------


def test_the_log_tells_what_happened(lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each move has its number, time, author, operation, counts and tags, newest first."""
    monkeypatch.setenv("LAKELOG_AUTHOR", "ada")
    put(lake, "a", "b")
    lake.tag("v1")
    lake.snapshot("hello")
    lake.tag("v2")
    lake.tag("w2")
    log = lake.log()
    assert [(e.move.number, e.move.op, e.events, e.segments, e.tags) for e in log] == [
        (3, "snapshot", 2, 1, ("v2", "w2")),
        (2, "seal", 2, 1, ("v1",)),
        (1, "init", 0, 0, ()),
    ]
    assert (log[0].move.author, log[0].move.message) == ("ada", "hello")
    assert [e.move.number for e in lake.log(limit=2)] == [3, 2]
    assert lake.log(limit=0) == []


def test_a_diff_counts_what_separates_two_states(lake: lakelog.Lake) -> None:
    """Segments added and removed, events, and types that differ; a branch brings its tail."""
    put(lake, "a", "b")
    lake.tag("v1")
    put(lake, "b", "c", "c")
    forth, back = lake.diff("v1", "main"), lake.diff("main", "v1")
    assert (forth.events, forth.types) == (3, {"b": 1, "c": 2})
    assert (len(forth.added), len(forth.removed)) == (1, 0)
    assert (back.events, back.types) == (-3, {"b": -1, "c": -2})
    assert (back.added, back.removed) == (forth.removed, forth.added)
    lake.compact()
    merged = lake.diff("v1", "main")
    assert (merged.events, merged.types) == (3, {"b": 1, "c": 2})
    same = lake.diff("main", "main")
    assert (same.events, same.types, same.added) == (0, {}, ())


def test_a_diff_of_two_branches_settles_both(lake: lakelog.Lake) -> None:
    """Pending events of either branch are in the diff."""
    with lake.branch("dev") as dev:
        put(dev, "d", "d")
        put(lake, "m")
        made = lake.diff("main", "dev")
    assert (made.events, made.types) == (1, {"d": 2, "m": -1})
    assert made.a.time > 0
    assert datetime.fromtimestamp(made.b.time / 1e6, UTC).year > 2000


def test_many_types_are_not_counted_in_a_diff(lake: lakelog.Lake) -> None:
    """Where a segment holds too many types to list, the diff says so instead of lying."""
    lake.tag("v1")
    put(lake, *map(str, range(40)))
    assert lake.diff("v1", "main").types is None
    assert lake.diff("v1", "main").events == 40
