"""Repair: what is damaged is fetched from a copy or set aside; what is lost is listed.

Files set aside go to cache/damaged, never to nothing. Every loss is a line of the outcome. Moves
made here have op `repair`; on a lake without damage it changes nothing.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from lakelog.errors import Damaged, DamagedRef, UnknownRef
from lakelog.event import from_micros
from lakelog.store import disk, document, idrun, manifest, rows, segment
from lakelog.store.layout import OBJECTS, parse_object
from lakelog.store.manifest import Entry, Manifest
from lakelog.store.opening import Store, write_config
from lakelog.store.publish import Change, publish, try_move
from lakelog.store.refs import Head, Move
from lakelog.store.seal import Sealer
from lakelog.store.tail import Tail, WalFile
from lakelog.store.verify import Problem, Report, verify

Connect = Callable[[], Any]


@dataclass
class Repaired:
    """What a repair did: files fetched from the copy, set aside, and what is lost, in words."""

    fetched: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    after: Report | None = None


def repair(
    store: Store, connect: Connect, copy: str | None = None, first: Problem | None = None
) -> Repaired:
    """Make a damaged lake work again. Raises OSError, and Damaged where nothing is left."""
    outcome = Repaired()
    before = verify(store, first=first)
    if first:
        _renew_config(store, outcome, copy)
    for problem in before.problems:
        if copy and problem.kind == "damage" and _fetch(store, problem.path, copy):
            outcome.fetched.append(problem.path)
        elif problem.kind == "derived":
            _set_aside(store, problem.path, outcome)
    _fresh(store)
    for branch in store.refs.all_branches():
        try:
            _repair_branch(store, branch, connect, outcome)
        except UnknownRef:
            continue  # a deleted branch has nothing to repair
    _repair_rest(store, outcome)
    _fresh(store)
    outcome.after = verify(store)
    return outcome


def _repair_branch(store: Store, branch: str, connect: Connect, outcome: Repaired) -> None:
    _pass_damaged_head(store, branch, outcome)
    _restore_state(store, branch, outcome)
    _drop_segments(store, branch, outcome)
    _rebuild_ids(store, branch, connect, outcome)
    _skip_wal_damage(store, branch, connect, outcome)


def _pass_damaged_head(store: Store, branch: str, outcome: Repaired) -> None:
    """Step past a newest move that cannot be read, onto the last one that can."""
    number = max(store.refs.numbers(branch), default=0)
    good: Head | None = None
    bad: list[int] = []
    for candidate in range(number, 0, -1):
        try:
            good = store.refs.read_head(branch, candidate)
            break
        except DamagedRef:
            bad.append(candidate)
        except FileNotFoundError:
            break
    if not bad:
        return
    if good is None:
        raise DamagedRef(store.layout.move(branch, number), "no readable move is left below it")
    data = disk.read(store.layout.move(branch, number))
    state, extra = _adopt(store, good.move.snapshot, good.move.wal, None)
    change = Change("repair", f"past damaged move {min(bad)}", entries=tuple(extra))
    base = Head(_renumbered(good.move, number), document.digest(data))
    marks = _raised(store, good.move.wal, extra)
    done = try_move(store, base, state, _with_marks(change, marks), disk.random_hex())
    if done is None:
        raise DamagedRef(store.layout.move(branch, number), "another process is repairing it")
    store.refs.forget()
    store.refs.note(done)
    outcome.done.append(
        f"branch {branch}: moved past {len(bad)} damaged move(s) to move {done.move.number};"
        f" {sum(e['events'] for e in extra)} events taken back from segments"
    )


def _restore_state(store: Store, branch: str, outcome: Repaired) -> None:
    """Go to the newest state that opens, if the head's manifest or a page does not."""
    head = store.refs.head(branch)
    if _opens(store, head.move.snapshot):
        return
    for number in reversed(store.refs.numbers(branch)):
        try:
            move = store.refs.read(branch, number)
        except Damaged:
            continue
        if _opens(store, move.snapshot):
            break
    else:
        raise DamagedRef(store.layout.head_dir(branch), "no state of this branch can be opened")
    state, extra = _adopt(store, move.snapshot, move.wal, head.move.wal)
    change = Change(
        "repair", f"manifest of move {head.move.number} is damaged; on move {move.number}",
        entries=tuple(extra), rewind=True,
    )  # fmt: skip
    done = try_move(store, head, state, change, disk.random_hex())
    if done is None:
        raise DamagedRef(store.layout.head_dir(branch), "the branch moved meanwhile: repair again")
    store.refs.note(done)
    outcome.done.append(
        f"branch {branch}: state of move {number} taken, with"
        f" {sum(e['events'] for e in extra)} later events taken back from segments"
    )


def _adopt(
    store: Store, digest: str, low: dict[str, int], high: dict[str, int] | None
) -> tuple[Manifest, list[Entry]]:
    """Find segments sealed after a state: those whose WAL ranges follow its watermarks."""
    state = store.manifests.load(digest)
    known = {e["key"] for e in store.manifests.entries(state)}
    marks = dict(low)
    found: list[Entry] = []
    candidates = [c for c in _loose_segments(store, known) if c[0]]
    for ranges, key in sorted(candidates, key=lambda c: sorted(c[0].items())):
        follows = all(first == marks.get(w, -1) + 1 for w, (first, _) in ranges.items())
        within = high is None or all(last <= high.get(w, last) for w, (_, last) in ranges.items())
        if follows and within:
            marks.update({w: last for w, (_, last) in ranges.items()})
            found.append(_entry(store, key))
    return state, found


def _loose_segments(store: Store, known: set[str]) -> list[tuple[dict[str, list[int]], str]]:
    loose = []
    root = f"{store.layout.root}/segments"
    for folder in disk.listing(root):
        for digest in filter(None, map(parse_object, disk.listing(f"{root}/{folder}"))):
            path = store.layout.object("segments", digest)
            if digest not in known and document.digest(disk.read(path)) == digest:
                notes = segment.metadata(store.layout, digest)
                loose.append((orjson.loads(notes["wal"]), digest))
    return loose


def _entry(store: Store, digest: str) -> Entry:
    notes = segment.metadata(store.layout, digest)
    table = segment.read(store.layout, digest)
    size = os.stat(store.layout.object("segments", digest)).st_size
    return {
        "add": "segment", "key": digest, "bytes": size, "kind": notes["kind"],
        "events": table.num_rows, "layout": notes["layout"],
        **segment.statistics(table, notes["kind"]),
    }  # fmt: skip


def _drop_segments(store: Store, branch: str, outcome: Repaired) -> None:
    """Take damaged segments out of the head, and list what went with them."""
    state = store.manifests.load(store.refs.head(branch).move.snapshot)
    bad = [e for e in store.manifests.entries(state) if not _intact(store, "segments", e["key"])]
    if not bad:
        return
    for entry in bad:
        _set_aside(store, store.layout.object("segments", entry["key"]), outcome)
        outcome.lost.append(_loss(branch, entry))
    keys = {e["key"] for e in bad}

    def plan(_: Head, now: Manifest) -> Change | None:
        here = [e for e in store.manifests.entries(now) if e["key"] in keys]
        lost = sum(e["events"] for e in here)
        message = f"{len(here)} damaged segment(s) set aside, {lost} events lost"
        return (
            Change("repair", message, entries=tuple(map(manifest.removal, here))) if here else None
        )

    publish(store, branch, plan)


def _loss(branch: str, entry: Entry) -> str:
    low, high = (f"{from_micros(t):%Y-%m-%dT%H:%M:%S.%fZ}" for t in entry["time"])
    types = entry.get("types", "many")
    names = (
        "many types" if isinstance(types, str) else ", ".join(f"{k} {n}" for k, n in types.items())
    )
    seq = entry.get("seq", ["?", "?"])
    return (
        f"branch {branch}: {entry['events']} events of segment {entry['key'][:12]},"
        f" seq {seq[0]} to {seq[1]}, {low} to {high} ({names})"
    )


def _rebuild_ids(store: Store, branch: str, connect: Connect, outcome: Repaired) -> None:
    """Replace damaged id runs by one made from the events with ids that the branch holds."""
    state = store.manifests.load(store.refs.head(branch).move.snapshot)
    bad = [r for r in state.ids if not _intact(store, "ids", r["digest"])]
    if not bad:
        return
    entries = [e for e in store.manifests.entries(state) if e["kind"] == "events"]
    paths = [store.layout.object("segments", e["key"]) for e in entries]
    made: tuple[Entry, ...] = ()
    if paths:
        query = (
            "SELECT DISTINCT sha256(coalesce(source, '') || chr(0) || id)[1:24] AS key"
            " FROM read_parquet($paths) WHERE id IS NOT NULL"
        )
        keys = connect().cursor().execute(query, {"paths": paths}).to_arrow_table()["key"]
        if len(keys):
            high, low = rows.key_arrays(keys)
            made = (idrun.write(store.layout, high, low, disk.random_hex()),)
    for run in bad:
        _set_aside(store, store.layout.object("ids", run["digest"]), outcome)
    names = tuple(r["digest"] for r in bad)
    publish(
        store, branch,
        lambda *_: Change("repair", "id runs made anew", ids_add=made, ids_drop=names),
    )  # fmt: skip
    outcome.done.append(f"branch {branch}: {len(bad)} id run(s) made anew from the events")


def _skip_wal_damage(store: Store, branch: str, connect: Connect, outcome: Repaired) -> None:
    """Seal what is readable of damaged WALs, past the gap, and set the files aside."""
    tail = Tail(store.layout, store.refs, branch)
    damaged = [
        (group, file)
        for group in tail.scan().values()
        for file in group
        if file.header is None or file.damage is not None
    ]
    sealer = Sealer(store, branch, tail, connect)
    for group, file in damaged:
        while sealer.seal():
            pass
        _skip(store, branch, group, file, outcome)
        tail.forget()
    if damaged:
        while sealer.seal():
            pass


def _skip(
    store: Store, branch: str, group: list[WalFile], file: WalFile, outcome: Repaired
) -> None:
    """Raise one writer's watermark over the damaged frames, then put the file aside."""
    head = store.refs.head(branch)
    mark = head.move.wal.get(file.writer, -1)
    later = sorted(
        f.sequence for g in group for f in (*g.frames, *g.resumed) if f.sequence > mark
    )  # fmt: skip
    after = [g.header.first for g in group if g.header and g.n > file.n]
    upto = min([*later, *after], default=mark + 2) - 1
    if upto > mark:
        outcome.lost.append(
            f"branch {branch}: group commits {mark + 1} to {upto} of writer {file.writer[:12]}"
            f" in {os.path.basename(file.path)}"
        )
        publish(
            store, branch,
            lambda *_: Change("repair", "damaged WAL frames skipped", sealed={file.writer: upto}),
        )  # fmt: skip
    if file.header is None or not later:
        _set_aside(store, file.path, outcome)


def _repair_rest(store: Store, outcome: Repaired) -> None:
    """Damaged tags and leftovers nobody can make anew are set aside."""
    for problem in verify(store).problems:
        if problem.path.startswith(store.layout.tags) and problem.kind == "damage":
            _set_aside(store, problem.path, outcome)
            outcome.lost.append(f"tag {os.path.basename(problem.path)[:-5]}: name it anew")
        elif problem.path == store.layout.condemned or problem.kind == "derived":
            _set_aside(store, problem.path, outcome)


def _fetch(store: Store, path: str, copy: str) -> bool:
    """Replace a damaged file by the copy's, if that one is intact."""
    relative = os.path.relpath(path, store.layout.root)
    other = os.path.join(os.path.abspath(copy), relative)
    try:
        data = disk.read(other)
    except OSError:
        return False
    kind = relative.split(os.sep)[0]
    if kind in OBJECTS:
        if document.digest(data) != parse_object(os.path.basename(path)):
            return False
    elif kind == "refs" and path.endswith(".json"):
        try:
            document.decode(data)
        except document.NotIntact:
            return False
    else:
        return False
    _set_aside(store, path, Repaired())
    disk.put_object(path, data)
    return True


def _set_aside(store: Store, path: str, outcome: Repaired) -> None:
    """Move a damaged file out of the way, keeping its bytes."""
    if not os.path.isfile(path):
        return
    disk.make_dir(store.layout.aside)
    name = f"{store.layout.aside}/{os.path.basename(path)}-{disk.now_us()}"
    disk.rename(path, name)
    disk.sync_dir(os.path.dirname(path))
    outcome.aside.append(os.path.relpath(name, store.layout.root))


def _renew_config(store: Store, outcome: Repaired, copy: str | None) -> None:
    """Write lakelog.json anew: the settings are lost, the lake is not."""
    _set_aside(store, store.layout.config, outcome)
    if copy:
        try:
            body = document.decode(disk.read(f"{os.path.abspath(copy)}/lakelog.json"))
            disk.replace_whole(store.layout.config, document.encode(body))
            outcome.fetched.append(store.layout.config)
            return
        except (OSError, document.NotIntact):
            pass
    store.lake_id = disk.random_hex()
    write_config(store.layout, store.lake_id, store.settings)
    outcome.lost.append("settings in lakelog.json: they are the defaults now")


def _intact(store: Store, kind: str, digest: str) -> bool:
    try:
        return document.digest(disk.read(store.layout.object(kind, digest))) == digest
    except FileNotFoundError:
        return False


def _opens(store: Store, digest: str) -> bool:
    store.manifests.forget()
    try:
        store.manifests.entries(store.manifests.load(digest))
    except Damaged:
        return False
    return True


def _fresh(store: Store) -> None:
    store.manifests.forget()
    store.refs.forget()


def _renumbered(move: Move, number: int) -> Move:
    return dataclasses.replace(move, number=number)


def _raised(store: Store, marks: dict[str, int], entries: list[Entry]) -> dict[str, int]:
    raised = dict(marks)
    for entry in entries:
        notes = orjson.loads(segment.metadata(store.layout, entry["key"])["wal"])
        for writer, (_, last) in notes.items():
            raised[writer] = max(last, raised.get(writer, -1))
    return raised


def _with_marks(change: Change, marks: dict[str, int]) -> Change:
    return dataclasses.replace(change, watermarks=marks)
