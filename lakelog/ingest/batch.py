"""Rows and bad lines since the last publish, and the publish that commits them with the cursors.

A publish holds the segments, the quarantined lines, the identity keys and the cursors
`from -> to`. It is made only if every cursor stands where it was found, no rewind came between,
and nobody brought one of the ids; else all is thrown away and Moved tells the caller to look
where the cursors are now. A dry run does the same work and keeps what it learned to itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lakelog.errors import Outlived
from lakelog.ingest import cursors
from lakelog.ingest.cursors import Cursor, Start
from lakelog.ingest.transform import Bad, Made, Transformer
from lakelog.store import disk, idrun, rows, segment
from lakelog.store.manifest import Entry, Manifest
from lakelog.store.opening import Store
from lakelog.store.publish import Change, publish
from lakelog.store.refs import Head
from lakelog.store.seal import drop_known, open_run

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_MAX = 1_000_000
SECONDS_MAX = 60.0
LEVEL = 1
"""Of zstd: files come in fast, and compaction packs tighter."""
BYTES_MAX = 512 << 20
"""Bytes of a file that one publish takes at most, so that long rows do not fill the memory."""
BAD_MAX = 64 << 20
"""Characters of bad lines that are gathered at most."""
_COUNTED = ("time", "type", "source", "level", "subject", "id")
"""Columns that the statistics of a segment need; the others are let go once encoded."""


class Moved(Exception):
    """The cursor is not where it was found: start again from where it is."""


@dataclass
class FileReport:
    """What became of one file: new events, quarantined lines, known ones skipped."""

    path: str
    format: str = ""
    events: int = 0
    quarantined: int = 0
    skipped: int = 0
    lines: int = 0
    """Lines taken in, blank ones and those that are no events included."""
    left: int = 0
    """Bytes of an unfinished last line, left for next time."""
    error: str = ""
    reason: str = ""
    """Why the first quarantined line is no event, and where it is."""


@dataclass
class Job:
    """What all files of one ingest share. A dry run remembers what it would have stored.

    `mode` says what becomes of a last line without newline: "once" takes it if it is whole,
    "follow" leaves it for next time, "last" takes it as it is. What may still be continued by
    lines to come is left, too, by "follow", and by "settled" no longer.
    """

    store: Store
    branch: str
    connect: Callable[[], Any]
    form: str | None = None
    label: str | None = None
    dry_run: bool = False
    mode: str = "once"
    pretended: dict[str, Entry] = field(default_factory=dict)
    runs: list[Any] = field(default_factory=list)

    def head(self) -> Head:
        """The branch's newest move."""
        return self.store.refs.head(self.branch)

    def state(self, head: Head) -> Manifest:
        """What the branch holds after a move."""
        return self.store.manifests.load(head.move.snapshot)

    def cursors(self, state: Manifest) -> list[Entry]:
        """The cursors of a state, and in a dry run those it would have made."""
        found = {e["key"]: e for e in self.store.manifests.entries(state, "cursor")}
        return list((found | self.pretended).values())

    def transformer(self, form: Any, origin: str) -> Transformer:
        """What turns lines of a file into rows."""
        return Transformer(self.connect(), form, origin, self.label, self.mode)


class Batch:
    """Rows and bad lines since the last publish, encoded beside the reading."""

    def __init__(self, job: Job, base: Head | None = None) -> None:
        """`base` is the move after which the cursors were looked up; now, if none is given."""
        self._job = job
        self.base = base or job.head()
        self.state = job.state(self.base)
        self.commit = disk.random_hex()
        self._target = segment.rows_target(job.store.settings, self.state.totals.events)
        self._gathered: list[pa.Table] = []
        self._counted: list[pa.Table] = []
        self._disk = ThreadPoolExecutor(1)
        self._puts: list[Future[Entry]] = []
        self._waiting = 0
        self.runs: list[Any] = list(job.runs)
        self.bad: list[Bad] = []
        self.rows = self.known = self.lines = self.bytes = self._kept = self._most = 0
        self._since = time.monotonic()
        self._builder: segment.Builder | None = None
        self._pending: Future[None] | None = None

    @property
    def full(self) -> bool:
        """Whether it is time to publish."""
        if self._most >= ROWS_MAX:
            self.wait()
        large = self.bytes >= BYTES_MAX or self._kept >= BAD_MAX
        return self._most >= ROWS_MAX or large or time.monotonic() - self._since > SECONDS_MAX

    def add_bad(self, bad: list[Bad]) -> None:
        """Add lines that are no events."""
        self.bad += bad
        self._kept += sum(len(b.line) for b in bad)

    def add(self, made: Made, pool: ThreadPoolExecutor) -> None:
        """Take in what a chunk holds, beside the work on the next one."""
        self.wait()
        self.bytes += made.taken
        self._most += made.lines
        self._pending = pool.submit(self.take, made)

    def wait(self) -> None:
        """Wait until all is taken in. Raises what went wrong there."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
        self._most = self.rows + self.known + len(self.bad)

    def take(self, made: Made) -> pa.Table | None:
        """Finish a chunk, drop events whose id is known, encode the rest; return the new rows."""
        made.finish()
        self.add_bad(made.bad)
        table = made.table
        count = table.num_rows if table is not None else 0
        self.lines += max(made.lines, count + len(made.bad))
        if table is None:
            return None
        if table["key"].null_count < count:
            table = self._new_only(table)
        self.known += count - table.num_rows
        self.rows += table.num_rows
        if not table.num_rows or self._job.dry_run:
            return table
        self._gathered.append(table)
        self._waiting += table.num_rows
        step = min(segment.ROW_GROUP, self._target)
        while self._waiting >= step:
            self._encode(step)
        return table

    def _encode(self, count: int) -> None:
        """Encode rows as a row group; write the segment once it is large enough."""
        import pyarrow as pa

        gathered = pa.concat_tables(self._gathered)
        table = gathered.slice(0, count)
        self._waiting = gathered.num_rows - table.num_rows
        self._gathered = [gathered.slice(count)] if self._waiting else []
        if self._builder is None:
            self._builder = segment.Builder("events", "arrival", self.commit, LEVEL)
        self._builder.add(table)
        self._counted.append(table.select(_COUNTED))
        if sum(t.num_rows for t in self._counted) >= self._target:
            self._put()

    def _put(self) -> None:
        """Write the segment that is being encoded."""
        import pyarrow as pa

        builder, self._builder = self._builder, None
        counted, self._counted = self._counted, []
        if builder is not None:
            table = pa.concat_tables(counted)
            layout = self._job.store.layout
            data = builder.finish()
            put = self._disk.submit(segment.put, layout, data, table, "events", "arrival")
            self._puts.append(put)

    def write(self) -> list[Entry]:
        """Write what is left durably; return the entries of all segments."""
        self.wait()
        if self._waiting:
            self._encode(self._waiting)
        self._put()
        entries = [put.result() for put in self._puts]
        if not self.bad:
            return entries
        table, layout = bad_table(self.bad), self._job.store.layout
        bad = segment.write(layout, table, kind="quarantine", order="arrival", commit=self.commit)
        return [*entries, bad]

    def close(self) -> None:
        """Let go of the thread that writes."""
        self._disk.shutdown(wait=True, cancel_futures=True)

    def id_run(self) -> list[Entry]:
        """Write the identity keys, if there are any; return their entry."""
        if not self.runs:
            return []
        high, low = idrun.merge(self.runs)
        return [idrun.write(self._job.store.layout, high, low, self.commit)]

    def clashes(self, state: Manifest) -> bool:
        """Whether an id run that came since holds one of our keys."""
        had = {run["digest"] for run in self.state.ids}
        fresh = [run for run in state.ids if run["digest"] not in had]
        if not self.runs or not fresh:
            return False
        high, low = idrun.merge(self.runs)
        store = self._job.store
        return any(idrun.found(open_run(store, run), high, low).any() for run in fresh)

    def _new_only(self, table: pa.Table) -> pa.Table:
        table = drop_known(self._job.store, table, self.state.ids, self.runs)
        keys = rows.key_arrays(table["key"].drop_null())
        if len(keys[0]):
            self.runs.append(idrun.ordered(*keys))
        return table


def commit(
    job: Job, batch: Batch, moves: Sequence[tuple[Start, Cursor]], then: list[Entry]
) -> Head:
    """Publish a batch with the cursors of its files, each from where `find` saw it among the
    entries `then` of the batch's base to where it is now; return the move. Raises Moved."""
    store = job.store
    entries = batch.write()
    steps: list[Entry] = []
    for start, at in moves:
        old = start.replaced
        if old is not None and old.key != at.key:
            steps.append(cursors.removal(old))
        steps.append(at.entry())
    ids = tuple(batch.id_run())

    def plan(head: Head, state: Manifest) -> Change | None:
        if head.digest != batch.base.digest:
            now = job.cursors(state)
            stand = all(cursors.holds(start, then, now, job.label) for start, _ in moves)
            rewound = head.move.generation != batch.base.move.generation
            if rewound or not stand or batch.clashes(state):
                return None
        name = os.path.basename(moves[0][1].name)
        name = name if len(moves) == 1 else f"{name} and {len(moves) - 1} more"
        return Change("ingest", name, (*entries, *steps), ids_add=ids)

    try:
        done = publish(store, job.branch, plan)
    except Outlived:
        done = None
    if done is None:
        raise Moved
    paths = [(e["key"], store.layout.object("segments", e["key"])) for e in entries]
    store.marks.add_all(paths)
    return done


def bad_table(bad: list[Bad]) -> pa.Table:
    """Return quarantined lines as rows of a quarantine segment, in the order of their files."""
    import pyarrow as pa

    now = disk.now_us()
    ordered = sorted(bad, key=lambda b: (b.origin, b.position))
    columns = {
        "ingested_at": pa.array([now] * len(bad), pa.timestamp("us", "UTC")),
        "origin": [b.origin for b in ordered],
        "position": [b.position for b in ordered],
        "reason": [b.reason for b in ordered],
        "line": [b.line for b in ordered],
    }
    return pa.table(columns, schema=segment.schema("quarantine"))
