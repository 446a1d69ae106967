"""Making a branch usable again without the segments, id runs and WAL frames that are lost."""

from __future__ import annotations

import os
from collections.abc import Container

from lakelog.database import Connect
from lakelog.disk import File, LockFile, disk
from lakelog.entries import Counts, Entry, IdRun, SegmentEntry
from lakelog.identities import IdentityKeys
from lakelog.libraries import np
from lakelog.maintain.repair import lost_ids, lost_moves, lost_rows, orphans, recover, refs
from lakelog.maintain.repair.outcome import RepairOutcome
from lakelog.maintain.seal import Sealer
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.refs import Head
from lakelog.segments import Segment
from lakelog.store import Hosts, Store
from lakelog.values import from_micros
from lakelog.wal import Header, Tail, WalFile, resume, trim

_SHOWN = 5


def drop_segments(
    store: Store, branch: str, connect: Connect, outcome: RepairOutcome, copy: Store | None
) -> None:
    """Remove damaged segments from the head, take back what inputs and WALs have of them, here or
    in a copy, and list the loss."""
    state = store.state(branch)
    entries = store.manifests.segments(state)
    bad = [e for e in entries if not recover.is_intact(store, "segments", e.key)]
    if not bad:
        return
    remains_by_key = {e.key: recover.remains(store, branch, state, e) for e in bad}
    all_remains = [e for remains in remains_by_key.values() for e in remains]
    restored = {e.key: e for e in all_remains if recover.is_intact(store, "segments", e.key)}
    removed_entries = [e for e in all_remains if e.key not in restored]
    copied = lost_rows.take_from_copy(store, branch, removed_entries, copy, connect) if copy else {}
    sources = [store, *([copy] if copy else [])]
    not_copied = [e for e in removed_entries if e.key not in copied]
    sealed = lost_rows.seal_again(store, state, not_copied, sources, connect)
    resealed = copied | sealed
    counts = {key: entry.events for key, entry in resealed.items()}
    lost_entries = [e for e in removed_entries if counts.get(e.key, 0) < e.events]
    intact = [e for e in entries if e not in bad]
    present = [*intact, *restored.values(), *resealed.values()]
    present_keys = [e.key for e in present if e.kind == "events"]
    freed = lost_ids.free(store, state, lost_entries, present_keys, connect)
    outcome.give_up(store, [f"segments/{entry.key}" for entry in bad])
    # By the names of the inputs only where some of them are left.
    saved_keys = restored.keys() | resealed.keys()
    lost_entries = [
        p
        for e in bad
        for p in (remains_by_key[e.key] if _any(remains_by_key[e.key], saved_keys) else [e])
    ]
    lost_entries = [
        e for e in lost_entries if e.key not in restored and counts.get(e.key, 0) < e.events
    ]
    outcome.lost.extend(_loss(branch, entry, counts.get(entry.key, 0)) for entry in lost_entries)
    _tell_recovered(branch, outcome, sealed, copied, len(restored))
    events = sum(e.events - counts.get(e.key, 0) for e in lost_entries)
    message = f"{len(bad)} damaged segment(s) set aside, {events} events lost"
    keys, recovered = {e.key for e in bad}, restored | resealed

    def plan(_: Head, present_state: Manifest) -> Change | None:
        # A writer may be at work: the newest head decides what is left to do.
        present = [e for e in store.manifests.segments(present_state) if e.key in keys]
        back = [remain.key for e in present for remain in remains_by_key[e.key]]
        fresh = [recovered[key] for key in back if key in recovered]
        entries: tuple[Entry, ...] = (*(entry.tombstone() for entry in present), *fresh)
        change = Change(
            "repair", message, entries=entries, ids_add=freed.added, ids_drop=freed.dropped
        )
        return change if present else None

    publish(store, branch, plan)


def _tell_recovered(
    branch: str,
    outcome: RepairOutcome,
    sealed: dict[str, SegmentEntry],
    copied: dict[str, SegmentEntry],
    inputs: int,
) -> None:
    """List what came back, by where it came from."""
    for entries, origin in (
        (sealed, "back from WALs"),
        (copied, "from other segments of the copy"),
    ):
        if entries:
            events = sum(entry.events for entry in entries.values())
            outcome.done.append(
                f"branch {branch}: {events} events of damaged segments taken {origin}"
            )
    if inputs:
        outcome.done.append(f"branch {branch}: {inputs} segments taken back, before compaction")


def _any(entries: list[SegmentEntry], keys: Container[str]) -> bool:
    return any(entry.key in keys for entry in entries)


def _loss(branch: str, entry: SegmentEntry, taken_back: int) -> str:
    low, high = (f"{from_micros(t):%Y-%m-%dT%H:%M:%SZ}" for t in entry.time)
    rows_kind = "events" if entry.kind == "events" else "quarantined lines"
    count = f"{entry.events - taken_back} of {entry.events}" if taken_back else f"{entry.events}"
    description = (
        f"branch {branch}: {count} {rows_kind} of segment {entry.key[:12]}, {low} to {high}"
    )
    if entry.kind != "events":
        return description
    types, sources = _top_values(entry.types), _top_values(entry.sources)
    return f"{description}, seq {entry.seq[0]} to {entry.seq[1]} (types {types}; sources {sources})"


def _top_values(counts: Counts) -> str:
    """The most frequent values of a column, with the rows of each."""
    if isinstance(counts, str):
        return counts
    ordered = sorted(counts.items(), key=lambda pair: -pair[1])
    listing = ", ".join(f"{name or '(none)'} {count}" for name, count in ordered[:_SHOWN])
    return listing + (f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else "")


def renew_ids(store: Store, branch: str, connect: Connect, outcome: RepairOutcome) -> None:
    """Replace damaged id runs by one made of the ids of all events and the keys that are left."""
    state = store.state(branch)
    bad = [r for r in state.ids if not recover.is_intact(store, "ids", r.digest)]
    if not bad:
        return
    # Both: rows that dedupe or retention removed have keys in a run alone, and keys that a flipped
    # bit has changed are made again from the rows.
    key_tables = [_keys_left(store, run) for run in bad]
    entries = store.manifests.segments(state, "events")
    key_tables.append(orphans.keys_of(store, connect, [e.key for e in entries]))
    rebuilt = IdentityKeys.merged(key_tables).write(store.paths, disk.random_hex())
    names = tuple(r.digest for r in bad)
    outcome.give_up(store, [f"ids/{name}" for name in names])
    publish(
        store,
        branch,
        lambda *_: Change("repair", "id runs rebuilt", ids_add=rebuilt, ids_drop=names),
    )
    outcome.done.append(f"branch {branch}: {len(bad)} id run(s) rebuilt from the events")
    if any(len(key_table) < run.count for key_table, run in zip(key_tables, bad, strict=False)):
        outcome.lost.append(f"branch {branch}: keys of content dedupe, if there were any")


def _keys_left(store: Store, run: IdRun) -> IdentityKeys:
    """The keys of a damaged run, in no order; one with a flipped bit matches no id."""
    try:
        data = File(store.paths.object("ids", run.digest)).read()
    except FileNotFoundError:
        data = b""
    count = run.count if len(data) == run.bytes else 0
    high = np.frombuffer(data, "<u8", count, 64 if count else 0)
    low = np.frombuffer(data, "<u4", count, 64 + 8 * count if count else 0)
    return IdentityKeys(high, low)


def take_back(
    store: Store, branch: str, connect: Connect, outcome: RepairOutcome, *, is_doubtful: bool
) -> None:
    """Publish again what lost moves had sealed, and pass over what of it is there already.

    Where it `is_doubtful` whether a lost move had removed some of it, writers without a watermark
    are left out.
    """
    tail = Tail(store.paths, store.refs, branch)
    sealer = Sealer(store, branch, tail, connect)
    while traces := _traces(store, branch):
        head, keys = store.refs.head(branch), {trace.key for trace in traces}
        intact_segments = set(store.paths.digests("segments")) - keys
        marks_known = refs.watermarks_of_all(store, branch)
        batches, raised = orphans.adopt(
            store, connect, head.move, intact_segments, marks_known, is_doubtful
        )
        if batches:
            entries = [Segment(store.paths, k).describe() for b in batches for k in b.segments]
            runs = orphans.identity_runs(store, connect, batches)
            host_records = orphans.host_records(store, store.state(branch), batches)
            publish_past(store, branch, raised, (*entries, *host_records), tuple(runs))
            events = sum(e.events for e in entries)
            outcome.done.append(
                f"branch {branch}: its newest moves are lost; {events} events taken back from"
                " segments"
            )
        # Else there may be frames in WALs that come before them.
        elif sealer.seal() is None:
            for trace in traces:
                for writer, (low, high) in trace.ranges.items():
                    marks_known[writer] = max(high, marks_known.get(writer, -1))
                    outcome.lost.append(
                        f"branch {branch}: group commits {low} to {high} of writer {writer[:12]},"
                        f" which segment {trace.key[:12]} has, unless all of them were duplicates"
                    )
            publish_past(store, branch, marks_known, (), ())


def _traces(store: Store, branch: str) -> list[lost_moves.Trace]:
    traces = lost_moves.find(store, store.paths.digests("segments"))
    return [trace for trace in traces if trace.ranges and trace.branch == branch]


def publish_past(
    store: Store,
    branch: str,
    watermarks: dict[str, int],
    entries: tuple[Entry, ...],
    runs: tuple[IdRun, ...],
) -> None:
    """Add segments of lost moves and the hosts of their writers, with watermarks that are never
    lowered."""

    def plan(head: Head, _: Manifest) -> Change:
        marks = recover.highest([head.move.wal, watermarks])
        # As a rewind: consumers may have read other events under the numbers that these get.
        return Change(
            "repair",
            "past moves that are lost",
            entries=entries,
            ids_add=runs,
            rewind=True,
            watermarks=marks,
        )

    publish(store, branch, plan)


def mend_wals(store: Store, branch: str, connect: Connect, outcome: RepairOutcome) -> None:
    """Seal what is readable, raise watermarks past what is not, and set the damaged files aside."""
    tail = Tail(store.paths, store.refs, branch)
    damaged = [f for group in tail.scan().values() for f in group if _is_bad(f)]
    for file in damaged:
        if file.header is None:
            _mend_header(store, file, outcome)
    tail.forget()
    # Frames before the oldest file that no move says were sealed: their file is gone.
    head = store.refs.head(branch)
    for writer, group in tail.scan().items():
        if not tail.start_is_known(group, head):
            _pass_over(store, branch, writer, 0, WalFile.required_watermark(group), outcome)
            damaged.append(group[0])
    sealer = Sealer(store, branch, tail, connect)
    gap = _gap(store, branch, tail)
    # Sealing stops at a gap. With the watermark behind it, what follows the gap can be sealed too.
    while damaged or gap:
        while sealer.seal():
            pass
        gap = _gap(store, branch, tail)
        if gap is None:
            break
        _pass_over(store, branch, *gap, outcome)
        damaged += [file for group in tail.scan().values() for file in group]
    if damaged:
        _clear(store, branch, tail, outcome)


def _is_bad(file: WalFile) -> bool:
    return file.header is None or file.damage is not None or bool(file.torn)


def _mend_header(store: Store, file: WalFile, outcome: RepairOutcome) -> None:
    """Write a new header for a file whose header is damaged, if a frame in it can be read."""
    if LockFile(file.path).is_held():
        return
    data = File(file.path).read()
    frames = resume(data, 0, 0, file.writer)
    if not frames or Header.decode(data) is not None:  # nothing there, or another file's
        outcome.set_aside(store, file.path)
        outcome.lost.append(f"{os.path.basename(file.path)}: no frame of it can be read")
        return
    # It says nothing of doubtful frames; one that is missing is passed over as a gap.
    header = Header(
        store.lake_id,
        _branch_of(store, file.path),
        file.writer,
        file.n,
        frames[0].sequence,
        (),
        Hosts.own_name(),
        0,
        frames[0].ingested_at,
    )
    encoded = header.encode(
        is_versioned=any(f.is_versioned for f in frames), is_encrypted=store.paths.keys is not None
    )
    outcome.replace(store, file.path, encoded + data[frames[0].offset :])
    outcome.done.append(f"{os.path.basename(file.path)}: a new header for its frames")


def _branch_of(store: Store, path: str) -> str:
    folder = os.path.dirname(path)
    return next(b for b in store.refs.all_branches() if store.paths.wal_dir(b) == folder)


def _gap(store: Store, branch: str, tail: Tail) -> tuple[str, int, int] | None:
    """Return (writer, first, last) of group commits that are in no file though later ones are, or
    None."""
    watermarks = store.refs.head(branch).move.wal
    for writer, group in tail.scan().items():
        mark = watermarks.get(writer, WalFile.required_watermark(group))
        frames, is_complete = WalFile.pick(group, watermarks.get(writer, -1))
        if is_complete or any(f.header is None for f in group):
            continue
        reached = frames[-1].sequence if frames else mark
        # Everything that proves later frames: frames after the damage, starts of later files, END.
        later = [f.sequence for g in group for f in (*g.frames, *g.resumed)]
        later += [g.header.first for g in group if g.header]
        later += [g.final + 1 for g in group if g.final is not None]
        later_gaps = [s for s in later if s > reached + 1]
        if later_gaps:
            return writer, reached + 1, min(later_gaps) - 1
    return None


def _pass_over(
    store: Store, branch: str, writer: str, low: int, high: int, outcome: RepairOutcome
) -> None:
    """Raise a writer's watermark past group commits that cannot be read."""
    outcome.lost.append(f"branch {branch}: group commits {low} to {high} of writer {writer[:12]}")
    change = Change("repair", "WAL frames that cannot be read", sealed={writer: high})
    publish(store, branch, lambda *_: change)


def _clear(store: Store, branch: str, tail: Tail, outcome: RepairOutcome) -> None:
    """Set aside damaged files of which all that can be read is sealed; trim the rest."""
    tail.forget()
    watermarks, torn = store.refs.head(branch).move.wal, list[WalFile]()
    for file in (file for group in tail.scan().values() for file in group):
        mark = watermarks.get(file.writer, -1)
        if not _is_bad(file):
            continue
        # A writer that lives goes on in the file that it holds, so it stays as it is.
        unsealed = file.header is None or any(f.sequence > mark for f in file.frames)
        if unsealed or LockFile(file.path).is_held():
            _leave(file, outcome)
        elif file.damage is not None:
            if not file.resumed and file.final is None:
                name = os.path.basename(file.path)
                outcome.lost.append(f"{name}: what stood from byte {file.damage} on")
            outcome.set_aside(store, file.path)
        else:
            torn.append(file)
    trim(store, branch, tail)
    for file in torn:
        if File(file.path).exists():  # of another machine, whose lock nobody here sees
            _leave(file, outcome)
        else:
            outcome.lost.append(
                f"{os.path.basename(file.path)}: {file.torn} bytes from byte {file.end} on, an"
                " append never acknowledged, or damage; kept in cache/cut"
            )


def _leave(file: WalFile, outcome: RepairOutcome) -> None:
    name = os.path.basename(file.path)
    outcome.done.append(f"{name} is still written to: close its writer and repair again")
