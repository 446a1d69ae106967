"""Rows and bad lines since the last publish, and the publish that commits them with the cursors.

A publish holds the segments, the quarantined lines, the identity keys and the cursors
`from -> to`. It is made only if every cursor is where it was when reading began, the branch was
not rewound, and no other writer added one of the ids; else everything is discarded, and CursorMoved
tells the caller to look up the cursors again. A dry run does the same work and publishes nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import ClassVar

from lakelog import arrays, typed_columns
from lakelog.database import Connect
from lakelog.disk import OpenFile, disk
from lakelog.entries import IdRun, SegmentEntry
from lakelog.erased import Refusal
from lakelog.errors import DamagedSegment, StaleFiles
from lakelog.files import CursorIndex, FileCursor, Resolver, Start
from lakelog.formats import Format, FormatDefinition, TypedPayloads
from lakelog.identities import IdentityKeys, unique_rows
from lakelog.ingest.chunk_result import ChunkResult, RejectedLine, bad_table
from lakelog.ingest.conformance import Conformance
from lakelog.ingest.definitions import Formats, LakeFormat
from lakelog.ingest.event_segments import EventSegments
from lakelog.ingest.tail_keys import TailKeys
from lakelog.ingest.transform import Transformer
from lakelog.libraries import np, pa
from lakelog.lines import Source, Split
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.refs import Head
from lakelog.segments import rows_target, write_segment
from lakelog.store import Store
from lakelog.typed_columns import Schema
from lakelog.views import Contract

# A publish costs about the same whatever it holds; what is not published is read again after a
# crash or a lost race.
ROWS_MAX = 1_000_000
SECONDS_MAX = 60.0
BYTES_MAX = 512 << 20
"""Bytes of a file in one publish at most, so that long rows do not fill the memory."""
BAD_MAX = 64 << 20
"""Characters of bad lines that are kept in memory before a publish."""
_SCHEMAS = 4
"""So many schemas of typed segments are tried before one is inferred."""


class CursorMoved(Exception):
    """Another writer moved the cursor: start again from where it is now."""


class IndexCache:
    """The cursors of the newest state by one process, so that they are not read at every publish.

    Whoever takes an index changes it, and stores it again once the changes are published.
    """

    def __init__(self) -> None:
        self._digest, self._index = "", CursorIndex(())

    def take(self, store: Store, state: Manifest) -> CursorIndex:
        """The cursors of a state, for the caller to change."""
        # The index is handed out once: a caller that fails halfway must not leave its changes
        # behind.
        digest, self._digest = self._digest, ""
        if digest and digest == state.digest:
            return self._index
        return CursorIndex(FileCursor.of_state(store, state))

    def keep(self, digest: str, index: CursorIndex) -> None:
        """Store the cursors of a state."""
        self._digest, self._index = digest, index

    def give_back(self, digest: str, index: CursorIndex) -> None:
        """Store the cursors of a state that were taken and not changed, unless others came."""
        if not self._digest:
            self.keep(digest, index)


@dataclass
class Job:
    """The settings that all files of one ingest share. A dry run remembers what it would have
    stored.

    `form` is a format that was asked for, or what says how files are read; `formats` are those of
    the lake as the state has them that was read last. Raises InvalidSetting for no such format.

    `mode` says what happens to a last line without newline: "once" ingests it if it is complete,
    "ended" if it is an event, "follow" leaves it for next time, "last" ingests it as it is.
    "follow" also leaves a record that later lines may continue; "settled" does not. `follows` and
    `inodes` are those of a watcher: see identity.Resolver.
    """

    GRACE: ClassVar = 5.0
    """Seconds after which a file counts as finished where nobody knows who has it open."""
    store: Store
    branch: str
    connect: Connect
    form: str | FormatDefinition | None = None
    label: str | None = None
    dry_run: bool = False
    mode: str = "once"
    follows: bool = False
    inodes: Mapping[tuple[int, int], str] | None = None
    cache: IndexCache = field(default_factory=lambda: IndexCache())
    runs: list[IdentityKeys] = field(default_factory=list)
    formats: Formats = field(default_factory=dict)
    conformance: Conformance = field(default_factory=lambda: Conformance({}))
    tail_keys: TailKeys = field(default_factory=lambda: TailKeys())

    def __post_init__(self) -> None:
        if isinstance(self.form, str):
            self.form = LakeFormat.resolve(self.form, LakeFormat.present(self.store, self.branch))

    def batch(self) -> Batch:
        """Return a batch of its own, to be closed."""
        return Batch(self)

    def head(self) -> Head:
        """The branch's newest move."""
        return self.store.refs.head(self.branch)

    def state(self, head: Head) -> Manifest:
        """The state of the branch after a move; its formats and contracts apply to what is read
        next."""
        state = self.store.manifests.of(head.move)
        self.formats = LakeFormat.of_state(self.store, state)
        contracts = Contract.of_state(self.store, state)
        if contracts != self.conformance.contracts:
            self.conformance = Conformance(contracts, self.store.paths.protection)
        return state

    def present(self) -> tuple[Manifest, CursorIndex]:
        """The branch's state of now and its cursors, to be looked at and not changed."""
        state = self.state(self.head())
        index = self.cache.take(self.store, state)
        self.cache.keep(state.digest, index)
        return state, index

    def definition(self, path: str) -> FormatDefinition | None:
        """The definition of the format for a file of this name, if there is one."""
        if isinstance(self.form, FormatDefinition):
            return self.form
        match = LakeFormat.find(self.formats, path, self.label)
        return match.definition if match else None

    def keys_of_tail(self) -> list[IdentityKeys]:
        """The identity keys of events that are acknowledged and not sealed yet."""
        return self.tail_keys.look(self.store, self.branch, self.connect)

    def resolver(self, state: Manifest) -> Resolver:
        """The resolver of paths to files, over the cursors of a state; in a dry run also over those
        that it would have published."""
        index = self.cache.take(self.store, state)
        # No publish of a dry run brings the index back, so it is stored at once.
        if self.dry_run:
            self.cache.keep(state.digest, index)
        return Resolver(index, self.label, self.inodes, follows=self.follows)

    def transformer(
        self,
        form: Format,
        origin: str,
        before: bytes = b"",
        files: dict[int, bytes] | None = None,
        schemas: Callable[[], list[Schema]] | None = None,
        heads: dict[int, bytes] | None = None,
    ) -> Transformer:
        """The transformer of lines of a file that follow the bytes `before`; or of several `files`,
        whose first bytes are `heads`. With `schemas`, of payloads that the lake has already, some
        become structs."""
        # What is sealed has to be text first; compaction types what stays.
        schemas = None if self.store.paths.protection else schemas
        return Transformer(
            self.connect,
            form,
            origin,
            source=self.label,
            mode=self.mode,
            before=before,
            files=files,
            conformance=self.conformance,
            payloads=TypedPayloads(self.connect, schemas) if schemas else None,
            heads=heads,
        )


def finishing(job: Job, source: Source) -> Job:
    """The job for a file whose last line may lack its newline: one that nobody has open for
    writing ends there, so that every byte is accounted for. Compressed files never grow."""
    # Checked in this order: asking the kernel for a lease is a system call for each file.
    if source.is_packed or (job.mode == "once" and (source.piped or is_finished(source))):
        return replace(job, mode="ended")
    return job


def is_finished(source: Source) -> bool:
    """Whether nobody has a file open for writing; where the system does not say, whether it was
    not modified for GRACE."""
    if source.is_packed:
        return True
    is_open = OpenFile(source.descriptor).is_open_for_writing()
    return abs(time.time() - source.mtime / 1e9) > Job.GRACE if is_open is None else not is_open


class Batch:
    """Rows and bad lines since the last publish, encoded in parallel with reading."""

    def __init__(self, job: Job, base: Head | None = None) -> None:
        """`base` is the move after which the cursors were looked up; now, if none is given."""
        self._job = job
        # Taken before anything is read: a publish compares the cursors of now with those of this
        # move.
        self.base = base or job.head()
        self.state = job.state(self.base)
        self.commit = disk.random_hex()
        self.target = rows_target(job.store.settings, self.state.totals.events)
        """Rows of a segment."""
        self._segments = EventSegments(job.store.paths, self.commit, self.target)
        self.runs = list(job.runs)
        self.bad: list[RejectedLine] = []
        self.unfinished: list[RejectedLine] = []
        self.unfinished_keys: dict[str, str] = {}
        self.rows = self.skipped = self.lines = self.bytes = self._bad_chars = self._most = 0
        self._refusal = Refusal(job.store.paths)
        self.erased = Counter[str]()
        """Rows that were refused as they had been erased, by their origin."""
        self.arrivals = 0
        """Rows without a time of their own."""
        self._since = time.monotonic()
        self._pending: Future[None] | None = None
        self._splits: list[Split] = []

    def begin(self, start: Start) -> None:
        """Take rows of a file from now on."""
        self.note_earlier(start.cursor.origin, start.cursor.earlier_origins(start.head))

    def note_earlier(self, origin: str, earlier: Iterable[str]) -> None:
        """Know rows of an origin that were erased by their places under `earlier` ones, too."""
        self._refusal.note_earlier(origin, earlier)

    @property
    def full(self) -> bool:
        """Whether it is time to publish."""
        # `_most` counts lines, of which blank and known ones give no row: only near the limit is it
        # worth waiting for the true count.
        if self._most >= ROWS_MAX:
            self.wait()
        large = self.bytes >= BYTES_MAX or self._bad_chars >= BAD_MAX
        return self._most >= ROWS_MAX or large or time.monotonic() - self._since > SECONDS_MAX

    def schemas(self) -> list[Schema]:
        """Return the schemas of the newest typed segments, the newest first, with texts whole."""
        live = self._job.store.manifests.segments(self.state)
        newest = sorted((e for e in live if e.fields), key=lambda e: -e.seq[1])
        by_key = {entry.fields: entry for entry in reversed(newest)}
        typed_entries = [by_key[key] for key in dict.fromkeys(e.fields for e in newest)][:_SCHEMAS]
        schemas = []
        for entry in typed_entries:
            # What is damaged is found, and said, where it is read.
            with contextlib.suppress(DamagedSegment):
                schemas.append(typed_columns.Schema.of_entry(self._job.store.paths, entry).plain())
        return list(dict.fromkeys(schemas))

    def accepted(self, bad: list[RejectedLine]) -> list[RejectedLine]:
        """Return those of lines that are no events but the ones that were erased, which are
        counted."""
        if not bad:
            return bad
        origins = [line.origin for line in bad]
        positions = arrays.integers(np.array([line.position for line in bad], np.int64))
        places = pa.table({"origin": arrays.texts(origins), "position": positions})
        refused = self._refusal.mask(places).tolist()
        self.erased.update(itertools.compress(origins, refused))
        return [line for line, is_refused in zip(bad, refused, strict=True) if not is_refused]

    def add_bad(self, bad: list[RejectedLine]) -> None:
        """Add lines that are no events and were accepted."""
        self.bad += bad
        self._bad_chars += sum(len(b.line) for b in bad)

    def add(self, result: ChunkResult, pool: ThreadPoolExecutor) -> None:
        """Add the result of a chunk, in parallel with work on the next one."""
        self.wait()
        self.bytes += result.length
        self._most += result.lines
        self._pending = pool.submit(self.take, result)

    def insert(self, split: Split, pool: ThreadPoolExecutor) -> None:
        """Add a split, which another process loads."""
        self.wait()
        self.bytes += split.length
        self._splits.append(split)
        self._most += self.target
        self._pending = pool.submit(self._segments.insert, split.answer)

    def wait(self) -> None:
        """Wait until all chunks are added. Raises what went wrong there."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
        # A split is cut for a segment, and has about as many rows.
        split_rows = len(self._splits) * self.target
        self._most = self.rows + self.skipped + len(self.bad) + split_rows

    def wait_for_splits(self) -> int:
        """Wait until other processes have loaded their splits; return 0, or the end of the first
        that was refused."""
        splits, self._splits = self._splits, []
        for split in splits:
            try:
                split_result = split.answer.result()
            # It refused the split, has ended, or could not write: then this process loads it.
            except Exception:
                return split.base + split.length
            self.rows += split_result.events
            self.arrivals += split_result.arrivals
            self.lines += split_result.events
        return 0

    def take(self, result: ChunkResult) -> pa.Table | None:
        """Finish a chunk, drop events whose id is known, encode the rest; return the new rows."""
        # The exact rule runs here, in the pool, while the main thread lets the engine decide the
        # next chunk.
        result.finish()
        table = result.table
        count = table.num_rows if table is not None else 0
        self.lines += max(result.lines, count + len(result.bad))
        result.bad = self.accepted(result.bad)
        self.add_bad(result.bad)
        if table is None:
            return None
        # First, as sealing does: the id of an event that is refused is not known by that.
        accepted = self._refusal.without(table, self._job.store.paths.protection)
        if accepted is not table:
            self.erased.update(table["origin"].to_pylist())
            self.erased.subtract(accepted["origin"].to_pylist())
        table, count = accepted, accepted.num_rows
        # Most files have no ids, and asking all identity runs costs time.
        if table["key"].null_count < count:
            table = self._new_only(table)
        self.skipped += count - table.num_rows
        self.rows += table.num_rows
        self.arrivals += int(arrays.arrived(table).sum())
        if not table.num_rows or self._job.dry_run:
            return table
        self._segments.add(table, result.fields)
        return table

    def write(self) -> list[SegmentEntry]:
        """Write the rest durably; return the entries of all segments."""
        self.wait()
        entries = self._segments.write()
        entries += [self._write_unfinished(bad) for bad in self.unfinished]
        if not self.bad:
            return entries
        table, paths = bad_table(self.bad), self._job.store.paths
        bad = write_segment(paths, table, kind="quarantine", layout="arrival", commit=self.commit)
        return [*entries, bad]

    def _write_unfinished(self, bad: RejectedLine) -> SegmentEntry:
        """Write an unfinished last line as a segment of its own, removed once it is finished."""
        paths = self._job.store.paths
        entry = write_segment(
            paths, bad_table([bad]), kind="quarantine", layout="arrival", commit=self.commit
        )
        self.unfinished_keys[bad.origin] = entry.key
        return entry

    def publish(
        self, change: Callable[[Manifest], Change], stand: Callable[[Manifest], bool]
    ) -> Head:
        """Publish what is written by the change that it is to a state, if the cursors `stand` there
        as they did when reading began; return the move. Raises CursorMoved."""
        ids = tuple(self.id_run())

        def plan(head: Head, state: Manifest) -> Change | None:
            # Another writer published: harmless unless it moved one of our cursors or added one of
            # our ids. publish() calls the plan again for every new head, so each attempt is
            # checked.
            if head.digest != self.base.digest:
                # After a rewind the cursors may have gone back and forth to equal values, though
                # the rows that they counted are gone.
                is_rewound = head.move.generation != self.base.move.generation
                if is_rewound or not stand(state) or self.clashes(state):
                    return None
            planned = change(state)
            planned = replace(planned, message=self.move_message(planned.message))
            return replace(planned, ids_add=ids, is_right=self.is_first)

        head_now = None
        # Garbage collection removed segments that waited too long for their publish: they have to
        # be written again.
        with contextlib.suppress(StaleFiles):
            head_now = publish(self._job.store, self._job.branch, plan)
        if head_now is None:
            raise CursorMoved
        return head_now

    def move_message(self, message: str) -> str:
        """The message of a move, which says how many rows were refused."""
        refused = self.erased.total()
        return f"{message}; {refused} erased events refused" if refused else message

    def close(self) -> None:
        """End the thread that writes."""
        self._segments.close()

    def id_run(self) -> list[IdRun]:
        """Write the identity keys, if there are any; return their run."""
        keys = IdentityKeys.merged(self.runs)
        return list(keys.write(self._job.store.paths, self.commit))

    def clashes(self, state: Manifest) -> bool:
        """Whether an identity run published since holds one of our keys."""
        had = {run.digest for run in self.state.ids}
        fresh = [run for run in state.ids if run.digest not in had]
        if not self.runs or not fresh:
            return False
        # Our own runs were checked against the base; only runs published since can hold the same
        # key.
        return any(IdentityKeys.read(self._job.store, run).overlaps(self.runs) for run in fresh)

    def is_first(self) -> bool:
        """Whether the tail has none of our keys: an event that was acknowledged before stays."""
        if not self.runs:
            return True
        return not any(keys.overlaps(self.runs) for keys in self._job.keys_of_tail())

    def _new_only(self, table: pa.Table) -> pa.Table:
        # `runs` holds the keys of this batch, too, so that an id that is twice in it is stored
        # once.
        run_keys = [*self.runs, *self._job.keys_of_tail()]
        table, keys = unique_rows(self._job.store, table, self.state.ids, run_keys)
        if len(keys):
            self.runs.append(keys)
        return table
