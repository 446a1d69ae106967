"""Erasing: chosen rows leave every state of a lake, and their bytes leave the disk.

    1 note the erasure, and seal what is pending      4 one move `erase` on each branch
    2 write the segments again without the rows       5 delete the old segments and texts
    3 name what stands in the place of which states   6 look whether anything is left

Steps 2 to 4 are repeated until no state names a row, as others may publish meanwhile. Before step 3
every state reads as it did, after it none has the rows. A run that is killed leaves a note that is
not *swept*: the same command, run again, goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from lakelog import proofs
from lakelog.database import Connect
from lakelog.disk import LockFile
from lakelog.entries import Entry, SegmentEntry
from lakelog.erased import Refusal, records
from lakelog.erased.records import ErasedRows, Erasure
from lakelog.erasure import derived, leftovers, outside, recorded, rewriting
from lakelog.erasure.rewriting import History, Redactor, Rewritten
from lakelog.erasure.selection import EVER, Chooser, Selector, entry_of_file
from lakelog.errors import GcRefused, InvalidEvent, OutcomeUnknown
from lakelog.libraries import pa, pc
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.protect import sealed_blocks
from lakelog.refs import Head
from lakelog.runtime.progress import ProgressCallback
from lakelog.store import Policy, Store
from lakelog.values import JsonObject

_ROUNDS = 20
"""How often states are read again because others published meanwhile."""
SettleAll = Callable[[], object]
check_reason = Erasure.check_reason


@dataclass
class ChosenRows:
    """The chosen rows of each segment that has some, and the states that name it."""

    history: History
    rows: dict[str, tuple[SegmentEntry, pa.Table]] = field(default_factory=dict)

    @property
    def events(self) -> int:
        """How many different events are chosen: one may be in several segments, as rows are
        compacted and older states keep the segments of before."""
        return len(self.places("events"))

    @property
    def lines(self) -> int:
        """How many different quarantined lines are chosen."""
        return len(self.places("quarantine"))

    def places(self, row_kind: str) -> set[tuple[object, object]]:
        """The places of the chosen rows of a kind: their origin and position."""
        findings: set[tuple[object, object]] = set()
        for entry, rows in self.rows.values():
            if entry.kind == row_kind:
                columns = (rows["origin"].to_pylist(), rows["position"].to_pylist())
                findings.update(zip(*columns, strict=True))
        return findings

    def add(self, entry: SegmentEntry, rows: pa.Table) -> None:
        """Add chosen rows of a segment, of which others may have been chosen before."""
        before = [self.rows[entry.key][1]] if entry.key in self.rows else []
        self.rows[entry.key] = entry, pa.concat_tables([*before, rows])

    def newest_arrival(self, least: int) -> int:
        """When the last chosen row arrived (us), or `least` if that is later."""
        arrivals = (pc.max(rows["ingested_at"]).cast(pa.int64()) for _, rows in self.rows.values())
        return max([least, *(arrival.as_py() or least for arrival in arrivals)])

    def events_in(self, store: Store, digest: str) -> int:
        """How many chosen events a state has."""
        state = self.history.states.get(digest)
        if state is None:
            return 0
        live = store.manifests.segments(state, "events")
        return sum(len(self.rows[e.key][1]) for e in live if e.key in self.rows)


def find(
    store: Store, choosers: Sequence[Chooser], progress: ProgressCallback | None = None
) -> ChosenRows:
    """Return what is chosen of the rows of every segment on disk, whether a state names it or not.
    Raises QueryFailed, DamagedSegment."""
    for chooser in choosers:
        chooser.check()
    findings = ChosenRows(rewriting.history_of(store))
    entries = findings.history.segments()
    on_disk = set(store.paths.digests("segments"))
    # Of a shared lake the bucket has them. What no state names there each machine drops itself:
    # one of them may be about to publish it.
    present = on_disk
    if store.attachment is not None:
        present = entries.keys() & (on_disk | store.attachment.erasures.segments_there())
    in_states = [entry for key, entry in entries.items() if key in present]
    unnamed = present - entries.keys()
    possible = set[str]().union(*(chooser.possible(unnamed) for chooser in choosers))
    strays = [entry for key in possible if (entry := entry_of_file(store, key)) is not None]
    candidates = [
        (chooser, entry)
        for chooser in choosers
        for entry in chooser.candidates([*in_states, *strays])
    ]
    for number, (chooser, entry) in enumerate(candidates):
        rows = chooser.rows_of(entry)
        if len(rows):
            findings.add(entry, rows)
        if progress:
            progress(number + 1, len(candidates))
    return findings


def branches_with(store: Store, findings: ChosenRows) -> dict[str, int]:
    """How many chosen events the newest state of each branch has, if any."""
    heads = {branch: store.refs.head(branch).move.snapshot for branch in _branches(store)}
    counts = {branch: findings.events_in(store, digest) for branch, digest in heads.items()}
    return {branch: count for branch, count in counts.items() if count}


def tags_with(store: Store, findings: ChosenRows) -> dict[str, int]:
    """How many chosen events the state of each tag has, if any."""
    counts = {tag.name: findings.events_in(store, tag.snapshot) for tag in store.refs.tags()}
    return {name: count for name, count in counts.items() if count}


def _branches(store: Store) -> list[str]:
    return store.refs.branches()


def erase(
    store: Store,
    connect: Connect,
    settle: SettleAll,
    *,
    subject: str = "",
    predicate: str = "",
    why: str,
    progress: ProgressCallback | None = None,
) -> Erasure:
    """Erase the rows of a subject, or of a condition, in every state; return the note of it.

    `settle` seals the tails of the branches. Raises InvalidEvent where a reason names the subject,
    NotAllowed, GcRefused while gc or another erasure runs, QueryFailed, Damaged, OSError.
    """
    Policy.require(store.paths, "erase")
    if bool(subject) == bool(predicate):
        raise InvalidEvent("say what to erase: a subject, or a condition")
    Erasure.check_reason(why, [subject] if subject else [])
    Chooser(store, connect, Selector(subject, predicate)).check()
    with alone(store):
        if store.attachment is not None:
            store.attachment.erasures.learn()  # another machine may have begun it, and died
        erasure = Erasure.begun(store.paths, subject, predicate, why)
        # What is there when it begins is erased, whatever a clock that was ahead said of it.
        until = EVER if erasure.is_new else max(erasure.time, erasure.arrived)
        selector = Selector(subject, predicate, until)
        return ErasureRun(store, connect, settle, erasure, selector).run(progress)


@contextlib.contextmanager
def alone(store: Store) -> Iterator[None]:
    """Hold off gc, compaction and other erasures. Raises GcRefused while one runs."""
    locks: list[contextlib.AbstractContextManager[object]] = [
        LockFile(f"{store.paths.cache}/{name}.lock").claim() for name in ("gc", "compact")
    ]
    if store.attachment is not None:
        locks.append(store.attachment.alone("erase"))
    with contextlib.ExitStack() as stack:
        if not all(stack.enter_context(lock) for lock in locks):
            raise GcRefused("another process collects, compacts or erases in this lake: wait")
        yield


class ErasureRun:
    """One run of an erasure; it may be the second after one that was killed."""

    def __init__(
        self,
        store: Store,
        connect: Connect,
        settle: SettleAll,
        erasure: Erasure,
        selector: Selector,
    ) -> None:
        self._store, self._connect, self._settle = store, connect, settle
        self._erasure, self._selector = erasure, selector
        self._rewritten: Rewritten = {}
        self._told = set[str]()
        self._rows = erasure.rows(store.paths)

    def run(self, progress: ProgressCallback | None) -> Erasure:
        """Erase; return the note, which says that it is done in the lake's own files."""
        store = self._store
        self._settle()  # before rows are refused, so that all are counted
        # Before anything that an older version would misread; and living writers see it, and go on
        # in new files.
        store.require("erasure")
        self._erasure.save(store.paths)
        if not self._erasure.is_new:
            # A run that was killed may have left old files, and branches without their move.
            self._rewritten = rewriting.stand_ins(store, rewriting.history_of(store), {})
            self._publish()
        for _ in range(_ROUNDS):
            self._settle()
            chooser = Chooser(store, self._connect, self._selector)
            findings = find(store, [chooser], progress)
            if self._selector.until == EVER:
                self._erasure = dataclasses.replace(
                    self._erasure, arrived=findings.newest_arrival(self._erasure.time)
                )
                self._selector = dataclasses.replace(self._selector, until=self._erasure.arrived)
            if not self._has_work(findings):
                break
            self._replace(findings)
            self._publish()
        else:
            raise OutcomeUnknown("the lake changed too often meanwhile: run the same command again")
        if store.attachment is not None and not self._told:
            self._publish()  # other machines may have rows that no state has yet
        derived.clean(store)
        chooser = Chooser(store, self._connect, self._selector)
        remnants = leftovers.leftovers(store, [chooser], findings.history)
        # Also where the lake has no row of it any more: copies may.
        self._erasure = dataclasses.replace(
            self._erasure,
            leftovers=leftovers.named(remnants),
            outside=self._erasure.outside or outside.places(store, self._erasure.tags),
        )
        if store.attachment is not None:
            derived.drop_strays(store, store.attachment.erasures.segments_there())
            store.attachment.erasures.sweep(store)
            self._erasure.save(store.paths)
            # Before: nobody goes on with what is swept here, and others wait for its end.
            store.attachment.erasures.share(self._erasure.swept())
        self._erasure = self._erasure.swept()
        self._erasure.save(store.paths)
        return self._erasure

    def _publish(self) -> None:
        """Let everybody go on from states without the rows, and drop those with them."""
        store = self._store
        if store.attachment is not None:
            store.attachment.erasures.share(self._erasure)
            # Of a branch that was made meanwhile nobody knows it yet.
            store.attachment.refresh(store)
        for branch in _branches(store):
            self._move(branch)
        # A state that another machine published meanwhile is read once more in the next round.
        if store.attachment is None:
            derived.clean(store)

    def _has_work(self, findings: ChosenRows) -> bool:
        if findings.rows:
            return True
        subjects = {self._selector.subject} - {""}
        return Redactor(self._store, findings.history, self._rewritten, subjects).is_needed()

    def _replace(self, findings: ChosenRows) -> None:
        """Write the new segments and states, then say durably what they stand for."""
        store, subjects = self._store, {self._selector.subject} - {""}
        in_states, fresh = findings.history.segments(), Rewritten()
        for key, (entry, rows) in findings.rows.items():
            if store.attachment is not None and key in self._rewritten:
                continue
            # One that no state names was left by a publish that lost its race.
            fresh[key] = (
                rewriting.without_rows(store, self._connect, entry, rows)
                if key in in_states
                else None
            )
            if entry.kind == "events":
                subjects.update(filter(None, rows["subject"].to_pylist()))
        self._rewritten |= fresh
        self._note(findings)
        redactor = Redactor(store, findings.history, self._rewritten, subjects)
        states = redactor.states()
        segments = {key: new.key if new else "" for key, new in fresh.items()}
        segments |= {key: key for key in redactor.scrubbed}
        store.erased.add(states, segments)

    def _note(self, findings: ChosenRows) -> None:
        """Remember what is refused from now on, and count what goes, before it goes."""
        store, before = self._store, self._rows.places
        self._rows = self._rows.joined(
            remembered(store, self._erasure, findings, by_content=not self._selector.subject)
        )
        self._rows = self._rows.joined(ErasedRows(leaves=signed_leaves(store, findings)))
        counted = Counter[str]()
        for row_kind in ("events", "quarantine"):
            # A run that was killed noted some of them already: none is counted twice.
            counted[row_kind] = sum(
                self._erasure.fingerprint(*place) not in before
                for place in findings.places(row_kind)
            )
        erasure, tags = self._erasure, tags_with(store, findings)
        # As it was when the rows were last there: later looks no longer find who has them.
        outside_places = erasure.outside or outside.places(store, tags)
        outside_places += self._recorded(findings, {place["name"] for place in outside_places})
        self._erasure = dataclasses.replace(
            erasure,
            phase="rewritten",
            events=erasure.events + counted["events"],
            lines=erasure.lines + counted["quarantine"],
            segments=erasure.segments + len(findings.rows),
            branches=branches_with(store, findings) | erasure.branches,
            tags=tags | erasure.tags,
            outside=outside_places,
        )
        self._erasure.save(store.paths, self._rows)

    def _recorded(self, findings: ChosenRows, names: set[str]) -> list[JsonObject]:
        """Places of what lakelog recorded of the rows, but those that are known by their names."""
        store, history = self._store, findings.history
        own_events = recorded.own_events(store, self._connect, history)
        tokens = recorded.telling_words(
            store,
            self._connect,
            own_events,
            history,
            findings.rows.values(),
            self._selector.events_sql(),
        )
        states = {digest for digest in history.states if findings.events_in(store, digest)}
        places = recorded.places(own_events, tokens, history, states)
        return [place for place in places if place["name"] not in names]

    def _move(self, branch: str) -> None:
        """Make a move `erase` on a branch, so that whoever is about to publish on the state before
        plans again."""
        message = f"{self._erasure.events} events: {self._erasure.why}"

        def plan(head: Head, state: Manifest) -> Change | None:
            entries = tuple(self._exchange(self._store.manifests.segments(state)))
            is_told = self._store.attachment is None or branch in self._told
            if is_told and not entries and not self._store.erased.holds(head.move.snapshot):
                return None  # it never had the rows
            # A state of its own, which needs no record to be read.
            return Change("erase", message, entries=entries)

        publish(self._store, branch, plan)
        self._told.add(branch)

    def _exchange(self, live: list[SegmentEntry]) -> Iterator[Entry]:
        """Entries that put the new segments in the place of old ones, where a state has these."""
        for entry in live:
            if entry.key in self._rewritten:
                yield entry.tombstone()
                if new := self._rewritten[entry.key]:
                    yield new


def signed_leaves(store: Store, findings: ChosenRows) -> records.StateLeaves:
    """Return the leaves of the found events of each signed state: with them its root can be
    computed for ever, and the proofs of its other events hold."""
    rows = {key: rows for key, (entry, rows) in findings.rows.items() if entry.kind == "events"}
    return proofs.erased_leaves(store, rows)


def remembered(
    store: Store, erasure: Erasure, findings: ChosenRows, *, by_content: bool
) -> ErasedRows:
    """Return the fingerprints of found rows, of protected fields as they came. Raises
    InvalidKey."""
    protected_fields = sealed_blocks.of_lake(store.paths)
    places: set[bytes] = set()
    keys: set[bytes] = set()
    contents: set[bytes] = set()
    all_origins: set[str] = set()
    earliest, latest = ErasedRows().times
    for entry, rows in findings.rows.values():
        origins, positions = rows["origin"].to_pylist(), rows["position"].to_pylist()
        all_origins.update(origins)
        places.update(erasure.fingerprint(*p) for p in zip(origins, positions, strict=True))
        if entry.kind != "events":
            continue
        pairs = zip(rows["source"].to_pylist(), rows["id"].to_pylist(), strict=True)
        keys.update(erasure.fingerprint(source, id) for source, id in pairs if id)
        # The subject's time does not tell those with a time to come from what it does later.
        is_later = pc.greater(rows["time"].cast(pa.int64()), erasure.time)
        known_by_content = rows if by_content else rows.filter(is_later)
        if protected_fields:
            protected_fields.expect([entry.key])
            known_by_content = protected_fields.events(known_by_content)
        contents.update(Refusal.contents(erasure.salt, known_by_content))
        times = known_by_content["time"].cast(pa.int64()).to_pylist()
        earliest, latest = min([earliest, *times]), max([latest, *times])
    return ErasedRows(
        frozenset(places),
        frozenset(keys),
        frozenset(contents),
        origins=frozenset(erasure.fingerprint(origin) for origin in all_origins),
        times=(earliest, latest),
    )
