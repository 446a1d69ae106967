"""Erasing: chosen rows leave every state of a lake, and their bytes leave the disk.

    1 note the erasures, and seal what is pending     4 one move `erase` on each branch
    2 write the segments again without the rows       5 delete the old segments and texts
    3 name what stands in the place of which states   6 look whether anything is left

Steps 2 to 4 are repeated until no state names a row, as others may publish meanwhile. Before step 3
every state reads as it did, after it none has the rows. A run that is killed leaves a note that is
not *swept*: the same command, run again, goes on.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

from lakelog import proofs
from lakelog.database import Connect
from lakelog.disk import LockFile
from lakelog.entries import Entry, SegmentEntry
from lakelog.erased import Refusal, records
from lakelog.erased.records import ErasedRows, Erasure
from lakelog.erasure import chosen_rows, derived, leftovers, outside, recorded, rewriting
from lakelog.erasure.chosen_rows import ChosenRows
from lakelog.erasure.recorded import OwnEvent
from lakelog.erasure.rewriting import History, Redactor, Rewritten
from lakelog.erasure.selection import EVER, Chooser, Selector
from lakelog.errors import GcRefused, InvalidEvent, OutcomeUnknown
from lakelog.libraries import pa, pc
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.protect import sealed_blocks
from lakelog.refs import Head
from lakelog.runtime.progress import ProgressCallback
from lakelog.store import Policy, Store
from lakelog.values import JsonObject

TOGETHER = 100
"""Subjects that are erased in one run at most: each word of theirs is looked for in all lines."""
_ROUNDS = 20
"""How often states are read again because others published meanwhile."""
SettleAll = Callable[[], object]
check_reason = Erasure.check_reason


def erase(
    store: Store,
    connect: Connect,
    settle: SettleAll,
    *,
    subjects: Sequence[str] = (),
    predicate: str = "",
    why: str,
    progress: ProgressCallback | None = None,
) -> list[Erasure]:
    """Erase the rows of subjects, or of a condition, in every state; return the note of each.

    `settle` seals the tails of the branches. Raises InvalidEvent where the reason names a subject,
    NotAllowed, GcRefused while gc or another erasure runs, QueryFailed, Damaged, OSError.
    """
    Policy.require(store.paths, "erase")
    if not all(subjects) or bool(subjects) == bool(predicate):
        raise InvalidEvent("say what to erase: a subject, or a condition")
    Erasure.check_reason(why, subjects)
    chosen_by = [Selector((subject,)) for subject in subjects] or [Selector((), predicate)]
    Chooser(store, connect, chosen_by).check()
    with alone(store):
        if store.attachment is not None:
            store.attachment.erasures.learn()  # another machine may have begun it, and died
        erasures = Erasure.begun(store.paths, subjects, predicate, why)
        # What is there when it begins is erased, whatever a clock that was ahead said of it.
        times = [EVER if e.is_new else max(e.time, e.arrived) for e in erasures]
        selectors = [replace(s, until=t) for s, t in zip(chosen_by, times, strict=True)]
        return ErasureRun(store, connect, settle, erasures, selectors).run(progress)


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
    """One run of erasures; it may be the second after one that was killed."""

    def __init__(
        self,
        store: Store,
        connect: Connect,
        settle: SettleAll,
        erasures: Sequence[Erasure],
        selectors: Sequence[Selector],
        replaced_elsewhere: Collection[str] = (),
    ) -> None:
        """Each erasure has the selector of its rows. Of the segments `replaced_elsewhere` rows were
        erased in another copy of the lake."""
        self._store, self._connect, self._settle = store, connect, settle
        self._replaced_elsewhere = replaced_elsewhere
        self._erasures, self._selectors = list(erasures), list(selectors)
        self._rewritten: Rewritten = {}
        self._fresh, self._told = Rewritten(), set[str]()
        self._rows = [erasure.rows(store.paths) for erasure in erasures]

    def run(self, progress: ProgressCallback | None) -> list[Erasure]:
        """Erase; return the notes, which say that it is done in the lake's own files."""
        store = self._store
        self._settle()  # before rows are refused, so that all are counted
        # Before anything that an older version would misread; and living writers see it, and go on
        # in new files.
        store.require("erasure")
        for erasure in self._erasures:
            erasure.save(store.paths)
        if not all(erasure.is_new for erasure in self._erasures):
            # A run that was killed may have left old files, and branches without their move.
            self._rewritten = rewriting.stand_ins(store, rewriting.history_of(store), {})
            self._publish()
        for _ in range(_ROUNDS):
            self._settle()
            chooser = Chooser(store, self._connect, self._selectors)
            findings = chosen_rows.find(store, chooser, progress)
            shares = findings.shares(chooser)
            self._end_arrivals(shares)
            has_work = self._has_work(findings)
            # Other machines may have rows that no state had yet when it was looked at.
            if not has_work and (store.attachment is None or self._told):
                break
            if has_work:
                self._replace(findings, shares)
            self._publish()
        else:
            raise OutcomeUnknown("the lake changed too often meanwhile: run the same command again")
        derived.clean(store)
        remnants = self._remnants(findings.history)
        if store.attachment is not None:
            derived.drop_strays(store, store.attachment.erasures.segments_there())
            store.attachment.erasures.sweep(store)
        for number, erasure in enumerate(self._erasures):
            # Also where the lake has no row of it any more: copies may.
            erasure = replace(
                erasure,
                leftovers=remnants[number],
                outside=outside.places_of(store, erasure, erasure.tags),
            )
            if store.attachment is not None:
                erasure.save(store.paths)
                # Before: nobody goes on with what is swept here, and others wait for its end.
                store.attachment.erasures.share(erasure.swept())
            self._erasures[number] = erasure.swept()
            self._erasures[number].save(store.paths)
            leftovers.renew_earlier(store, self._selectors[number].subjects, remnants[number])
        return self._erasures

    def _end_arrivals(self, shares: list[ChosenRows]) -> None:
        """End the arrivals of each erasure that has no end yet with its last row that is there."""
        for number, (erasure, selector) in enumerate(
            zip(self._erasures, self._selectors, strict=True)
        ):
            if selector.until == EVER:
                arrived = shares[number].newest_arrival(erasure.time)
                self._erasures[number] = replace(erasure, arrived=arrived)
                self._selectors[number] = replace(selector, until=arrived)

    def _remnants(self, history: History) -> list[list[JsonObject]]:
        """What is left of each of the erasures."""
        store = self._store
        chooser = Chooser(store, self._connect, self._selectors)
        joint = leftovers.named(leftovers.leftovers(store, chooser, history))
        if not joint or len(self._selectors) == 1:
            return [joint] * len(self._selectors)
        choosers = (Chooser(store, self._connect, [selector]) for selector in self._selectors)
        return [leftovers.named(leftovers.leftovers(store, c, history)) for c in choosers]

    def _publish(self) -> None:
        """Let everybody go on from states without the rows, and drop those with them."""
        store = self._store
        if store.attachment is not None:
            for erasure in self._erasures:
                store.attachment.erasures.share(erasure)
            # Of a branch that was made meanwhile nobody knows it yet.
            store.attachment.refresh(store)
        for branch in store.refs.branches():
            self._move(branch)
        # A state that others published meanwhile is read once more in the next round: until another
        # stands in its place nothing may go that it names.
        if store.attachment is None and not self._is_named():
            derived.clean(store)

    def _is_named(self) -> bool:
        """Whether a state names what was replaced."""
        return self._redactor(rewriting.history_of(self._store), ()).is_needed()

    def _subjects(self) -> set[str]:
        return {subject for selector in self._selectors for subject in selector.subjects}

    def _has_work(self, findings: ChosenRows) -> bool:
        if findings.rows:
            return True
        return self._redactor(findings.history, self._subjects()).is_needed()

    def _redactor(
        self, history: History, subjects: Collection[str], telling_words: Collection[str] = ()
    ) -> Redactor:
        return Redactor(
            self._store,
            history,
            self._rewritten,
            subjects,
            replaced_elsewhere=self._replaced_elsewhere,
            telling_words=telling_words,
        )

    def _replace(self, findings: ChosenRows, shares: list[ChosenRows]) -> None:
        """Write the new segments and states, then say durably what they stand for."""
        store, subjects = self._store, self._subjects()
        in_states, fresh = findings.history.segments(), self._fresh
        for key, (entry, rows) in findings.rows.items():
            if entry.kind == "events":
                subjects.update(filter(None, rows["subject"].to_pylist()))
            if fresh.get(key) or (store.attachment is not None and key in self._rewritten):
                continue
            # One that no state names was left by a publish that lost its race.
            fresh[key] = (
                rewriting.without_rows(store, self._connect, entry, rows)
                if key in in_states
                else None
            )
        self._rewritten |= fresh
        own_events = recorded.own_events(store, self._connect, findings.history)
        for number, share in enumerate(shares):
            self._note(number, share, own_events)
        redactor = self._redactor(findings.history, subjects, self._telling_words(findings))
        states = redactor.states()
        segments = {key: new.key if new else "" for key, new in fresh.items()}
        segments |= {key: key for key in redactor.scrubbed}
        store.erased.add(states, segments)

    def _telling_words(self, findings: ChosenRows) -> set[str]:
        """The types and sources of chosen rows that no segment on the disk has any more."""
        words = set[str]()
        for entry, rows in findings.rows.values():
            if entry.kind == "events":
                for name in ("type", "source"):
                    words.update(filter(None, pc.unique(rows[name]).to_pylist()))
        remaining = findings.history.segments() | self._rewritten
        for key, kept in remaining.items() if words else ():
            if kept and (key in self._rewritten or key in findings.present):
                words.difference_update(rewriting.words_of(kept))
        return words

    def _note(self, number: int, share: ChosenRows, own_events: list[OwnEvent]) -> None:
        """Remember what one erasure refuses from now on, and count what goes, before it goes."""
        store, erasure, selector = self._store, self._erasures[number], self._selectors[number]
        # What was noted is counted once its document has a number, as that of another lake does.
        is_counted = erasure.events or erasure.lines
        before = self._rows[number].places if is_counted else frozenset[bytes]()
        new = remembered(store, erasure, share, by_content=not selector.subjects)
        signed = ErasedRows(leaves=signed_leaves(store, share))
        self._rows[number] = self._rows[number].joined(new).joined(signed)
        counted = Counter[str]()
        for row_kind in ("events", "quarantine"):
            # A run that was killed noted some of them already: none is counted twice.
            counted[row_kind] = sum(
                erasure.fingerprint(*place) not in before for place in share.places(row_kind)
            )
        tags = chosen_rows.tags_with(store, share)
        places = outside.places_of(store, erasure, tags)
        self._erasures[number] = replace(
            erasure,
            phase="rewritten",
            events=erasure.events + counted["events"],
            lines=erasure.lines + counted["quarantine"],
            segments=erasure.segments + len(share.rows),
            branches=self._public(chosen_rows.branches_with(store, share)) | erasure.branches,
            tags=self._public(tags) | erasure.tags,
            outside=recorded.union(places, self._recorded(selector, share, own_events)),
        )
        self._erasures[number].save(store.paths, self._rows[number])

    def _public(self, counts: dict[str, int]) -> dict[str, int]:
        """Counts by names, of which none is kept that names a subject."""
        public_counts = Counter[str]()
        for name, count in counts.items():
            for erasure in self._erasures:
                name = erasure.public(name)
            public_counts[name] += count
        return dict(public_counts)

    def _recorded(
        self, selector: Selector, share: ChosenRows, own_events: list[OwnEvent]
    ) -> list[JsonObject]:
        """Places of what lakelog recorded of the rows."""
        store, history = self._store, share.history
        tokens = recorded.telling_words(
            store, self._connect, own_events, history, share.rows.values(), selector.events_sql()
        )
        learnt_from = {snapshot for _, snapshot in history.models()}
        states = {digest for digest in learnt_from if share.events_in(store, digest)}
        return recorded.places(own_events, tokens, history, states)

    def _move(self, branch: str) -> None:
        """Make a move `erase` on a branch, so that whoever is about to publish on the state before
        plans again."""
        message = f"{sum(e.events for e in self._erasures)} events: {self._erasures[0].why}"

        def plan(head: Head, state: Manifest) -> Change | None:
            entries = tuple(self._exchange(self._store.manifests.segments(state)))
            is_told = self._store.attachment is None or branch in self._told
            if is_told and not entries and not self._store.erased.holds(head.move.snapshot):
                return None  # it never had the rows
            # A state of its own, which needs no record to be read.
            if self._store.attachment is not None or not entries:
                return Change("erase", message, entries=entries)
            # On pages without what was replaced: what is published from now on names none of it.
            redactor = self._redactor(rewriting.history_of_state(self._store, state), ())
            return Change("erase", message, onto=redactor.redacted(state))

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
