"""Comparison with a copy: what it has that the lake lacks, though nothing here shows it (F14.7).

The newest moves may be gone with their hint, or a WAL as a whole, a tag, a branch. An older copy
has them too, and much that was removed here on purpose. So a move is taken from a copy only if the
moves here lead to it, a group commit if no move says that it was sealed, and a tag if no move says
that it was deleted. Where a branch went on after its newest moves were lost, the copy's moves
cannot be linked any more: then the rows that the copy got since both were the same are added.
Objects come before the moves that name them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lakelog import database, document
from lakelog.database import Connect
from lakelog.disk import File, Folder, LockFile, NotIntact, disk
from lakelog.entries import Entry, SegmentEntry
from lakelog.errors import Damaged, FormatTooNew, LakeNotFound
from lakelog.event import EVENT_COLUMNS
from lakelog.libraries import pa
from lakelog.maintain.repair import data, lost_moves, orphans, recover, refs
from lakelog.maintain.repair.checker import Problem, Report
from lakelog.maintain.repair.outcome import RepairOutcome
from lakelog.maintain.repair.refs import Moves
from lakelog.maintain.repair.verify import open_for_check
from lakelog.paths import FileName
from lakelog.refs import Move, Ref
from lakelog.segments import Segment, write_segment
from lakelog.store import Hosts, LakeConfig, Store
from lakelog.volume import MovePack
from lakelog.wal import Frame, Header, Tail, scan

_MISSING = "missing"


@dataclass
class _Ahead:
    """How a copy's branch goes on after what both have: by files that can be linked here (`names`,
    in order, with their `moves`), or another way, since the move `fork` up to `newest`."""

    names: list[str] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    before: Move | None = None
    fork: Move | None = None
    newest: Move | None = None
    is_older: bool = False


class Comparison:
    """A lake beside a copy of it."""

    def __init__(self, store: Store, other_store: Store, connect: Connect) -> None:
        self._store, self.there, self._connect = store, other_store, connect

    @classmethod
    def with_copy(cls, store: Store, copy: str, connect: Connect) -> Comparison | None:
        """Return the comparison with a copy; None where that is no lake, another one, or damaged
        so that nobody knows which."""
        with contextlib.suppress(LakeNotFound, FormatTooNew):
            copy_store, problem = open_for_check(os.path.abspath(copy))
            if problem is None and copy_store.lake_id == store.lake_id:
                return cls(store, copy_store, connect)
        return None

    def added_to(self, report: Report) -> Report:
        """Return a report with what the copy has and the lake lacks."""
        problems = (*report.problems, *self.problems())
        return dataclasses.replace(report, problems=tuple(dict.fromkeys(problems)))

    def problems(self) -> list[Problem]:
        """Return what the copy has and the lake lacks, by the paths that it has here."""
        problems: list[Problem] = []
        for branch in self._branches():
            lead = self._ahead(branch)
            problems += self._move_problems(branch, lead)
            for name, _, frames in self._wals(branch, lead.moves):
                span = f"group commits {frames[0].sequence} to {frames[-1].sequence}"
                reason = f"the copy has {span} of its writer, which are nowhere here"
                problems.append(
                    self._problem(f"{self._store.paths.wal_dir(branch)}/{name}", reason)
                )
        return problems + [self._problem(path, "the copy has it") for path, _ in self._documents()]

    def fetch(self, outcome: RepairOutcome) -> bool:
        """Fetch the moves, WALs, tags and rules that lead on from what is here; return whether any
        was fetched."""
        count = len(outcome.fetched)
        for branch in self._branches():
            lead = self._ahead(branch)
            for move in lead.moves:
                self._fetch_objects(move.snapshot, outcome)
            if lead.names:
                self._link_moves(branch, lead, outcome)
            for name, whole, _ in list(self._wals(branch, [])):
                path = f"{self._store.paths.wal_dir(branch)}/{name}"
                # A living writer appends to the file that it holds.
                if not LockFile(path).is_held():
                    if not File(path).exists():
                        self._make_writers_look()
                    outcome.replace(self._store, path, whole)
                    outcome.fetched.append(path)
        for path, content in list(self._documents()):
            with contextlib.suppress(NotIntact):
                snapshot = (
                    Ref.document_of(content)[0].get("snapshot") if path.endswith(".json") else None
                )
                if snapshot:
                    self._fetch_objects(str(snapshot), outcome)
            outcome.replace(self._store, path, content)
            outcome.fetched.append(path)
        return len(outcome.fetched) > count

    def add_rows(self, branch: str, outcome: RepairOutcome) -> None:
        """Where the branch went another way than the copy, add the rows that the copy alone has."""
        lead = self._ahead(branch)
        tables = self._rows_there(branch, lead)
        if not tables or lead.newest is None:
            return
        commit = disk.random_hex()
        entries = [
            write_segment(self._store.paths, t, kind="events", layout="arrival", commit=commit)
            for t in tables
        ]
        keys = orphans.keys_of(self._store, self._connect, [e.key for e in entries])
        runs = keys.write(self._store.paths, commit)
        copy_state = self.there.manifests.of(lead.newest)
        hosts_there = Hosts.of_state(self.there.manifests, copy_state)
        hosts_here = Hosts.of_state(self._store.manifests, self._store.state(branch))
        added: tuple[Entry, ...] = (*entries, *hosts_there.records(hosts_here))
        data.publish_past(self._store, branch, self._marks(branch), added, runs)
        events = sum(e.events for e in entries)
        outcome.done.append(
            f"branch {branch}: {events} events of the copy added; it went another way since"
            f" {_move_name(lead.fork)}"
        )

    # --- moves ---

    def _branches(self) -> list[str]:
        return lost_moves.branches(self.there)

    def _ahead(self, branch: str) -> _Ahead:
        """Compare the moves of a branch."""
        own_moves, damaged, _ = recover.moves(self._store, branch)
        copy_moves = recover.moves(self.there, branch)[0]
        top, copy_top = max(own_moves, default=0), max(copy_moves, default=0)
        both = sorted(own_moves.keys() & copy_moves.keys())
        differing = [
            n for n in both if Ref.digest_of(own_moves[n][1]) != Ref.digest_of(copy_moves[n][1])
        ]
        before = own_moves[top][0] if own_moves else None
        if differing:
            common = [n for n in both if n < differing[0]]
            fork = copy_moves[common[-1]][0] if common else None
            return _Ahead(before=before, fork=fork, newest=copy_moves[copy_top][0], is_older=True)
        # Of one that is damaged here nobody knows yet whether it is the copy's.
        if copy_top <= top or damaged:
            return _Ahead(before=before, is_older=copy_top < top)
        names, numbers = self._following(branch, copy_moves, top)
        return _Ahead(names, [copy_moves[n][0] for n in numbers], before)

    def _following(self, branch: str, copy_moves: Moves, top: int) -> tuple[list[str], list[int]]:
        """Return the copy's files of the moves after a number, as far as none is missing, and the
        numbers of the moves in them."""
        names, end = [], top
        for low, high, path in self.there.refs.packs(branch):
            with contextlib.suppress(Damaged, FileNotFoundError):
                if high > top and low <= end + 1:
                    MovePack.read(path)
                    names.append(os.path.basename(path))
                    end = max(end, high)
        folder = self.there.paths.head_dir(branch)
        names_by_number = {
            n: name for name in Folder(folder).names() if (n := FileName(name).move) is not None
        }
        while end + 1 in copy_moves and end + 1 in names_by_number:
            end += 1
            names.append(names_by_number[end])
        return names, [n for n in sorted(copy_moves) if top < n <= end]

    def _move_problems(self, branch: str, lead: _Ahead) -> Iterator[Problem]:
        paths = self._store.paths
        if lead.moves:
            oldest, newest = lead.moves[0], lead.moves[-1]
            span = (
                _move_name(oldest)
                if oldest is newest
                else f"moves {oldest.number} to {newest.number}"
            )
            additional = self._events_of(self.there, newest) - self._events_of(
                self._store, lead.before
            )
            events = f", with {additional} events more" if additional > 0 else ""
            reason = f"the copy has {span} of {branch!r}, which are gone here{events}"
            yield self._problem(paths.move(branch, oldest.number), reason)
        elif tables := self._rows_there(branch, lead):
            number = (lead.fork.number if lead.fork else 0) + 1
            events = sum(table.num_rows for table in tables)
            reason = f"the copy went another way from here on: {events} events in it are not here"
            yield self._problem(paths.move(branch, number), reason)

    def _events_of(self, store: Store, move: Move | None) -> int:
        with contextlib.suppress(Damaged):
            return store.manifests.of(move).totals.events if move else 0
        return 0

    def _link_moves(self, branch: str, lead: _Ahead, outcome: RepairOutcome) -> None:
        store = self._store
        own_folder, copy_folder = store.paths.head_dir(branch), self.there.paths.head_dir(branch)
        store.make_branch_dirs(branch)
        for name in lead.names:
            if not File(f"{own_folder}/{name}").exists():
                File(f"{own_folder}/{name}").create(File(f"{copy_folder}/{name}").read())
                outcome.fetched.append(f"{own_folder}/{name}")
        Folder(own_folder).sync()
        store.refs.forget()
        store.refs.note(store.refs.read_head(branch, store.refs.head_number(branch)))

    def _fetch_objects(self, digest: str, outcome: RepairOutcome) -> None:
        """Fetch what a state needs and the copy has; what it lacks too is found by verify."""
        copy_store = self.there
        names = [("manifests", digest)]
        with contextlib.suppress(Damaged):
            state = copy_store.manifests.load(digest)
            names += [("manifests", page.digest) for page in state.pages]
            names += [("ids", run.digest) for run in state.ids]
            names += [("segments", entry.key) for entry in copy_store.manifests.segments(state)]
        for object_type, key in names:
            path = self._store.paths.object(object_type, key)
            if File(path).exists():
                continue
            with contextlib.suppress(FileNotFoundError):
                content = File(copy_store.paths.object(object_type, key)).read()
                if document.digest(content) == key:
                    File(path).put(content)
                    outcome.fetched.append(path)

    # --- rows of a copy that went another way ---

    def _rows_there(self, branch: str, lead: _Ahead) -> list[pa.Table]:
        """The rows that the copy got since the fork, and that are neither here nor waiting in a
        WAL; what was there before and is not here any more was removed."""
        if lead.newest is None or lead.before is None:
            return []
        old = self._entries(self.there, lead.fork) | self._entries(self._store, lead.fork)
        new = self._entries(self.there, lead.newest)
        own_entries = old | self._entries(self._store, lead.before)
        fresh = [key for key in new if key not in own_entries]
        fresh = [key for key in fresh if recover.is_intact(self.there, "segments", key)]
        if not fresh:
            return []
        known_files = [*self._files(self.there, old), *self._files(self._store, own_entries)]
        waiting = self._waiting(branch)
        tables = []
        with contextlib.closing(self._connect().cursor()) as engine:
            for key in fresh:
                table = Segment(self.there.paths, key).read(open_engine=engine.cursor)
                missing = _unknown(engine.cursor(), self._files(self.there, [key]), known_files)
                origins, positions = (table[n].to_pylist() for n in ("origin", "position"))
                missing = [n for n in missing if not _holds(waiting, origins[n], positions[n])]
                if missing:
                    columns = list(EVENT_COLUMNS)
                    tables.append(table.select(columns).take(pa.array(missing)))
        return tables

    def _entries(self, store: Store, move: Move | None) -> dict[str, SegmentEntry]:
        with contextlib.suppress(Damaged):
            if move is not None:
                state = store.manifests.of(move)
                return {e.key: e for e in store.manifests.segments(state, "events")}
        return {}

    def _files(self, store: Store, keys: Any) -> list[str]:
        paths = (store.paths.object("segments", key) for key in keys)
        return [path for path in paths if File(path).exists()]

    def _waiting(self, branch: str) -> dict[str, list[tuple[int, int]]]:
        """By writer the positions of the lines in WALs."""
        files = Tail(self._store.paths, self._store.refs, branch).scan()
        return {
            writer: [
                (f.position, f.position + f.events)
                for file in group
                for f in (*file.frames, *file.resumed)
            ]
            for writer, group in files.items()
        }

    def _marks(self, branch: str) -> dict[str, int]:
        """Return the copy's watermarks, but those of writers whose WALs have frames below."""
        own_marks = refs.watermarks_of_all(self._store, branch)
        sequences = recover.wal_sequences(self._store, branch)
        copy_marks = refs.watermarks_of_all(self.there, branch)
        return {
            writer: mark
            for writer, mark in copy_marks.items()
            if sequences.get(writer, set()).isdisjoint(
                range(own_marks.get(writer, -1) + 1, mark + 1)
            )
        }

    # --- WALs and documents ---

    def _wals(self, branch: str, moves: list[Move]) -> Iterator[tuple[str, bytes, list[Frame]]]:
        """Yield the copy's WALs that have frames which no move here, nor one of these, says were
        sealed, and which no WAL here has: the name, the bytes that the file has to have here, and
        the frames."""
        store, folder = self._store, self.there.paths.wal_dir(branch)
        all_moves = [*moves, *(move for move, _ in recover.moves(store, branch)[0].values())]
        if all_moves and max(all_moves, key=lambda move: move.number).op == "delete":
            return
        own_marks = refs.watermarks_of_all(store, branch)
        marks = recover.highest([own_marks, *(move.wal for move in moves)])
        # Above these a watermark may have been lost with its move, whose rows are here.
        published = functools.cache(lambda: self._published_marks(branch))
        sequences = recover.wal_sequences(store, branch)
        for name in sorted(n for n in Folder(folder).names() if FileName(n).wal):
            content = File(f"{folder}/{name}").read()
            decoded = Header.decode(content)
            path = f"{store.paths.wal_dir(branch)}/{name}"
            if decoded is None or not decoded[0].is_of(path):
                continue
            writer = decoded[0].writer
            stretch = scan(content[decoded[1] :], decoded[1], writer)
            frames = [
                f
                for f in stretch.frames
                if f.sequence > marks.get(writer, -1)
                and f.sequence not in sequences.get(writer, set())
            ]
            if frames:
                last_sequence = self._last_position(branch, writer)
                frames = [
                    f
                    for f in frames
                    if f.sequence > published().get(writer, -1) and f.position > last_sequence
                ]
            content_here = File(path).read() if File(path).exists() else b""
            whole = continue_copy(content, content_here, path) if frames else None
            if whole is not None:
                yield name, whole, frames

    def _published_marks(self, branch: str) -> dict[str, int]:
        moves = [move for move, _ in recover.moves(self._store, branch)[0].values()]
        keys = recover.segments_of(self._store, moves)
        return recover.marks_of(self._store, branch, keys)

    def _last_position(self, branch: str, writer: str) -> int:
        """Return the last line of a writer that the newest state has a row of, or -1. Compacted
        segments tell no group commits."""
        moves = recover.moves(self._store, branch)[0]
        entries = self._entries(self._store, moves[max(moves)][0] if moves else None)
        keys = [key for key in entries if recover.is_intact(self._store, "segments", key)]
        if not keys:
            return -1
        rows = database.parquet_sql(self._files(self._store, keys))
        query = f"SELECT max(position) FROM {rows} WHERE origin = ?"
        with contextlib.closing(self._connect().cursor()) as engine:
            ((position,),) = engine.cursor().execute(query, [writer]).fetchall()
        return -1 if position is None else int(position)

    def _make_writers_look(self) -> None:
        """Replace lakelog.json by the same, so that a writer whose WAL has no name any more, and
        who may be alive, notices that another file gets the name (F9.2)."""
        path = self._store.paths.config
        with contextlib.suppress(FileNotFoundError):
            LakeConfig(self._store.paths).renew(File(path).read())

    def _documents(self) -> Iterator[tuple[str, bytes]]:
        """Yield the tags and rules that the copy has and the lake lacks: its path here,
        and the content. A lake that went on may have dropped tags by itself."""
        store, copy_store = self._store, self.there
        is_behind = not any(self._ahead(branch).is_older for branch in store.refs.all_branches())
        untagged = {
            move.message.split()[2]
            for branch in store.refs.all_branches()
            for move, _ in recover.moves(store, branch)[0].values()
            if move.op == "untag" and len(move.message.split()) > 2
        }
        for name in sorted(Folder(copy_store.paths.tags).names()) if is_behind else ():
            if name.endswith(".json") and not name.startswith("."):
                path = f"{store.paths.tags}/{name}"
                if not File(path).exists() and FileName(name[:-5]).ref not in untagged:
                    with contextlib.suppress(NotIntact, FileNotFoundError):
                        content = File(f"{copy_store.paths.tags}/{name}").read()
                        if Ref.document_of(content)[0].get("name") == FileName(name[:-5]).ref:
                            yield path, content
        for name in ("policy.toml",):
            path = f"{store.paths.root}/{name}"
            if File(f"{copy_store.paths.root}/{name}").exists() and not File(path).exists():
                yield path, File(f"{copy_store.paths.root}/{name}").read()

    def _problem(self, path: str, reason: str) -> Problem:
        return Problem(path, reason, _MISSING)


def continue_copy(data: bytes, damaged: bytes, path: str) -> bytes | None:
    """Return a copy of a WAL, if it is intact, with what was written here since it was made."""
    decoded = Header.decode(data)
    if decoded is None or not decoded[0].is_of(path):
        return None
    stretch = scan(data[decoded[1] :], decoded[1], "")
    header = Header.decode(damaged)
    # Another file under this name has nothing to add, and neither has one that was ended.
    foreign = header is not None and not header[0].is_of(path)
    ending = b"" if foreign or stretch.ended else damaged[stretch.end :]
    data = data if stretch.ended else data[: stretch.end]  # frames take the place of its space
    # The same bytes as here would be "fetched" for ever.
    return None if stretch.torn or data + ending == damaged else data + ending


def _move_name(move: Move | None) -> str:
    return f"move {move.number}" if move else "the first move"


def _unknown(cursor: Any, files: list[str], known_files: list[str]) -> list[int]:
    """Return the numbers of the rows of a segment whose place is in none of the known files, nor an
    event with their id."""
    rows = database.parquet_sql(files, "file_row_number = true")
    columns = "origin, position, id, source"
    union = database.parquet_sql(known_files) if known_files else f"(SELECT * FROM {rows} LIMIT 0)"
    query = f"""WITH k AS (SELECT {columns} FROM {union})
        SELECT file_row_number FROM {rows} AS r
        WHERE NOT EXISTS (FROM k WHERE k.origin = r.origin AND k.position = r.position)
        AND NOT EXISTS (FROM k WHERE r.id <> '' AND k.id = r.id
            AND coalesce(k.source, '') = coalesce(r.source, '')) ORDER BY ALL"""
    return [n for (n,) in cursor.execute(query).fetchall()]


def _holds(waiting: dict[str, list[tuple[int, int]]], origin: Any, position: Any) -> bool:
    spans = waiting.get(origin, [])
    return position is not None and any(low <= position < high for low, high in spans)
