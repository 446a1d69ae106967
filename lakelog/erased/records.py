"""One document for each erasure of a lake.

    erasures/<key>.json       why, when, how many, and how far it is
    erasures/<key>.rows       what it refuses: fingerprints of the rows, and leaves of signed ones

An erasure knows its subject by a salted digest alone, so that nobody reads in it who was erased.
"""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace

from lakelog import document
from lakelog.disk import File, Folder, disk
from lakelog.erased import documents
from lakelog.erased.documents import PRINT, salted
from lakelog.errors import InvalidEvent
from lakelog.paths import Paths
from lakelog.refs import author
from lakelog.values import JsonObject

_PRINTS = "places", "keys", "contents", "origins"
NO_TIMES, _EVER = ((1 << 63) - 1, -(1 << 63)), (-(1 << 63), (1 << 63) - 1)
"""The least and the greatest time (us) of no row, and of rows of which that is not known."""
StateLeaves = dict[str, dict[str, list[tuple[int, str]]]]
"""By state and lake, the (seq, hash) of leaves of the tree over its events."""
_RECORDED = frozenset({"ids", "states"})
"""What tells places of what lakelog itself recorded of rows, which is in each copy of the lake."""
_WORD = re.compile(r"[0-9A-Za-z]+|[^0-9A-Za-z]+")
_HIDDEN = "(it names the subject)"
_BEGUN, _SWEPT = "begun", "swept"
"""How far an erasure is. Something of it may be in every file of the lake until it is swept; then
only in what `leftovers` names."""


@dataclass(frozen=True)
class Erasure:
    """One erasure, as its document says it. `subject` is the salted digest of the subject, "" for
    one by a condition; `time` (us) is when it began: what is older is refused. Erased is what had
    arrived by `arrived` (us), which is later where a clock was ahead."""

    key: str
    time: int
    author: str
    why: str
    salt: str
    subject: str = ""
    condition: str = ""
    """The salted digest of the condition."""
    subjects: tuple[str, ...] = ()
    """The salted digests of the subjects whose keys were destroyed, of which no row was touched."""
    places: tuple[str, ...] = ()
    """Where in the tree these keys were (F25.2)."""
    arrived: int = 0
    phase: str = _BEGUN
    events: int = 0
    lines: int = 0
    segments: int = 0
    branches: dict[str, int] = field(default_factory=dict)
    tags: dict[str, int] = field(default_factory=dict)
    leftovers: list[JsonObject] = field(default_factory=list)
    """What in the lake itself was found to name the subject still: `place`, `advice`."""
    outside: list[JsonObject] = field(default_factory=list)
    """Where else the rows had gone: `place`, `name`, `command`, `done`."""

    def encoded(self) -> bytes:
        """The bytes of its document."""
        return document.encode(asdict(self))

    @property
    def copies(self) -> list[JsonObject]:
        """The places outside the lake to which rows had gone."""
        return [place for place in self.outside if _RECORDED.isdisjoint(place)]

    @property
    def records(self) -> list[JsonObject]:
        """The places of what lakelog itself recorded of the rows."""
        return [place for place in self.outside if not _RECORDED.isdisjoint(place)]

    def without_places(self) -> Erasure:
        """The same one for another copy of the lake, where rows went to other places; what was
        recorded of them is there, too."""
        return replace(self, leftovers=[], outside=self.records)

    def with_places_of(self, local: Erasure) -> Erasure:
        """The same one, with the places that are known of this copy of the lake."""
        names = {(place["place"], place["name"]) for place in local.outside}
        news = (p for p in self.records if (p["place"], p["name"]) not in names)
        return replace(self, leftovers=local.leftovers, outside=[*local.outside, *news])

    @staticmethod
    def check_reason(why: str, subjects: Iterable[str]) -> None:
        """Refuse a reason that says nothing, or who was erased. Raises InvalidEvent."""
        if not why.strip():
            raise InvalidEvent("say why: the reason is kept with the erasure")
        if any(subject in why for subject in subjects):
            raise InvalidEvent(
                "the reason names the subject, and would be kept: choose other words"
            )

    @staticmethod
    def decoded(data: bytes) -> Erasure:
        """Return what a document says. Raises NotIntact, TypeError."""
        body = document.decode(data)
        texts = {name: tuple(body.get(name, ())) for name in ("subjects", "places")}
        return Erasure(**{**body, **texts})

    @staticmethod
    def begun(paths: Paths, subjects: Iterable[str], predicate: str, why: str) -> list[Erasure]:
        """Return those of subjects, or that of a condition, that a run which was killed left, or
        new ones. Raises DamagedRef."""
        earlier = listing(paths)
        # A run that was killed is ended by the same erasure: a second one would not know its rows,
        # which are gone.
        unfinished = [e for e in earlier if not (e.is_swept or e.subjects)]
        new = _new(earlier, why)
        if predicate:
            erasure = replace(new, condition=salted(new.salt, predicate))
            return [next((e for e in unfinished if e.is_of("", predicate)), erasure)]
        return [
            next((e for e in unfinished if e.is_of(subject)), new._of_subject(subject, number))
            for number, subject in enumerate(subjects)
        ]

    def _of_subject(self, subject: str, number: int) -> Erasure:
        """That of one of several subjects, which are listed in their order."""
        digest = salted(self.salt, subject)
        return replace(self, key=disk.random_hex(8), subject=digest, time=self.time + number)

    @staticmethod
    def begun_by_keys(paths: Paths, subjects: Iterable[str], why: str) -> Erasure:
        """Return the same of subjects whose keys are destroyed. Raises DamagedRef."""
        earlier = listing(paths)
        erasure = _new(earlier, why)
        digests = tuple(sorted({salted(erasure.salt, subject) for subject in subjects}))
        unfinished = (e for e in earlier if not e.is_swept and e.subjects == digests)
        return next(unfinished, replace(erasure, subjects=digests))

    @property
    def is_swept(self) -> bool:
        """Whether nothing of it is in the lake but what `leftovers` names."""
        return self.phase == _SWEPT

    @property
    def chosen_by(self) -> str:
        """By what rows were chosen, or that keys were destroyed."""
        return "keys" if self.subjects else "subject" if self.subject else "condition"

    @property
    def digest(self) -> str:
        """The salted digest of what was erased; of the keys of several subjects, that of theirs."""
        if len(self.subjects) > 1:
            return document.digest("".join(self.subjects).encode())
        return self.subject or self.condition or self.subjects[0]

    @property
    def is_new(self) -> bool:
        """Whether nothing was erased yet."""
        return self.phase == _BEGUN

    def swept(self) -> Erasure:
        """The same one, of which nothing is left but what `leftovers` names."""
        return replace(self, phase=_SWEPT)

    def is_of(self, subject: str, predicate: str = "") -> bool:
        """Whether it erased this subject, or what this condition chose."""
        value, digest = (subject, self.subject) if subject else (predicate, self.condition)
        own_digest = salted(self.salt, value)
        return own_digest == digest or (bool(subject) and own_digest in self.subjects)

    def public(self, content: str) -> str:
        """A name as it is, unless it names the subject, as that of a tag or a copy may."""
        bounds = sorted({b for match in _WORD.finditer(content) for b in match.span()})
        # A subject may be any stretch of words, with what stands between them.
        spans = itertools.combinations(bounds, 2)
        return _HIDDEN if any(self.is_of(content[a:b]) for a, b in spans) else content

    def fingerprint(self, *values: object) -> bytes:
        """Return the fingerprint of some values of a row, 16 bytes."""
        return documents.fingerprint(self.salt, *values)

    def rows(self, paths: Paths) -> ErasedRows:
        """Return what it remembers of its rows. Raises DamagedRef."""
        return ErasedRows.of_key(paths, self.key)

    def save(self, paths: Paths, rows: ErasedRows | None = None) -> None:
        """Write it durably, and what it remembers of its rows before."""
        Folder(paths.erasures).make_all()
        if rows is not None:
            File(f"{paths.erasures}/{self.key}.rows").replace(rows.encoded())
        File(f"{paths.erasures}/{self.key}.json").replace(self.encoded())


@dataclass(frozen=True)
class ErasedRows:
    """What is remembered of erased rows: fingerprints of their `places` (origin and position),
    identity `keys` and `contents`, 16 bytes each; `leaves`, by state and lake the (seq, hash) of
    those that a signature covers; fingerprints of the `origins` of the places, None if an earlier
    version wrote it; and `times`, the least and the greatest (us) of the rows of the contents."""

    places: frozenset[bytes] = frozenset()
    keys: frozenset[bytes] = frozenset()
    contents: frozenset[bytes] = frozenset()
    leaves: StateLeaves = field(default_factory=dict)
    origins: frozenset[bytes] | None = frozenset()
    times: tuple[int, int] = NO_TIMES

    @staticmethod
    def of_key(paths: Paths, key: str) -> ErasedRows:
        """Return that of the erasure with a key. Raises DamagedRef."""
        try:
            return documents.read(f"{paths.erasures}/{key}.rows", ErasedRows.decoded)
        except FileNotFoundError:
            return ErasedRows()

    def encoded(self) -> bytes:
        """The bytes of its document."""
        prints = {
            name: base64.b64encode(b"".join(sorted(prints))).decode()
            for name in _PRINTS
            if (prints := getattr(self, name)) is not None
        }
        return document.encode({**prints, "leaves": self.leaves, "times": self.times})

    @staticmethod
    def decoded(data: bytes) -> ErasedRows:
        """Return what a document says. Raises NotIntact, KeyError."""
        body = document.decode(data)
        # Earlier versions did not say these: of any origin, and of any time.
        is_unsaid = "origins" not in body
        if is_unsaid:
            body["origins"] = ""
        places, keys, contents, origins = (
            frozenset(raw[start : start + PRINT] for start in range(0, len(raw), PRINT))
            for raw in (base64.b64decode(body[name]) for name in _PRINTS)
        )
        leaves = {
            state: {lake: [(seq, leaf) for seq, leaf in pairs] for lake, pairs in lakes.items()}
            for state, lakes in body["leaves"].items()
        }
        if is_unsaid:
            times = _EVER if contents else NO_TIMES
            return ErasedRows(places, keys, contents, leaves, None if places else origins, times)
        earliest, latest = body["times"]
        return ErasedRows(places, keys, contents, leaves, origins, (earliest, latest))

    @staticmethod
    def kept_leaves(paths: Paths, state: str, lake: str) -> list[tuple[int, str]]:
        """Return (seq, hash) of the rows that were erased from a state that was signed before, as
        leaves of the tree of a lake. Raises DamagedRef."""
        if not Folder(paths.erasures).names():
            return []
        pairs: set[tuple[int, str]] = set()
        for erasure in listing(paths):
            pairs.update(erasure.rows(paths).leaves.get(state, {}).get(lake, ()))
        return sorted(pairs)

    def joined(self, further: ErasedRows) -> ErasedRows:
        """Both together; of a state that both have, the leaves of both."""
        leaves = {state: dict(lakes) for state, lakes in self.leaves.items()}
        for state, lakes in further.leaves.items():
            for lake, pairs in lakes.items():
                pairs_before = leaves.setdefault(state, {}).get(lake, [])
                leaves[state][lake] = sorted({*pairs_before, *pairs})
        origins = None
        if self.origins is not None and further.origins is not None:
            origins = self.origins | further.origins
        return ErasedRows(
            self.places | further.places,
            self.keys | further.keys,
            self.contents | further.contents,
            leaves,
            origins,
            (min(self.times[0], further.times[0]), max(self.times[1], further.times[1])),
        )


def _new(earlier: list[Erasure], why: str) -> Erasure:
    """Return an erasure of nothing yet. There is one salt for a lake: an entrance hashes a subject
    once, however many were erased."""
    salt = earlier[0].salt if earlier else disk.random_hex()
    return Erasure(disk.random_hex(8), disk.now_us(), author(), why, salt)


def listing(paths: Paths) -> list[Erasure]:
    """Return the erasures of a lake, oldest first. Raises DamagedRef."""
    erasures = documents.of(paths, documents.keys(paths), Erasure.decoded)
    return sorted(erasures, key=lambda erasure: (erasure.time, erasure.key))
