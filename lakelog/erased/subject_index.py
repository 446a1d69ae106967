"""The subjects that were erased from a lake, by their salted digests.

    cache/erasures.json    of which folder they are and when that had changed last, and the subjects

An entrance asks for them with the first event of each process, and must not read the documents of
all erasures that ever were: `cache/` keeps what it needs of them in one file (F23.8).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lakelog import document
from lakelog.erased import documents
from lakelog.erased.documents import salted
from lakelog.paths import Paths

_Noted = list[tuple[str, int, bool]]
"""What is kept of the erasures of one subject: as ErasedSubject."""


class ErasedSubject(NamedTuple):
    """A subject that was erased: the `key` of the erasure, when it began (us), and whether only the
    subject's key was destroyed."""

    key: str
    time: int
    is_of_key: bool


class SubjectIndex:
    """The subjects of erasures. One is hashed once for each salt, and a lake has one salt but for
    erasures that came from others."""

    def __init__(self) -> None:
        self._by_salt: dict[str, dict[str, _Noted]] = {}
        self.keys: list[str] = []
        """The keys of the erasures."""

    @staticmethod
    def of_lake(paths: Paths) -> SubjectIndex:
        """Return that of all erasures of a lake, as `cache/` has it and from the documents that are
        new since. Raises DamagedRef."""
        index = SubjectIndex()
        try:
            cache = documents.ErasuresCache(paths, paths.erased_subjects)
        except FileNotFoundError:
            return index
        index._by_salt, index.keys = cache.body.get("subjects", {}), cache.body.get("keys", [])
        if not cache.is_current:  # else as it is: a first append waits for it
            has_new = index._read_new(paths, documents.keys(paths))
            cache.keep({"keys": index.keys, "subjects": index._by_salt}, is_new=has_new)
        return index

    @staticmethod
    def of_key(paths: Paths, key: str) -> SubjectIndex:
        """Return that of one erasure. Raises DamagedRef."""
        index = SubjectIndex()
        index._read_new(paths, {key})
        return index

    def _read_new(self, paths: Paths, keys: set[str]) -> bool:
        """Read the documents with some keys that are not known; return whether there were any. What
        a document says of subjects never changes. Raises DamagedRef."""
        if not keys.issuperset(self.keys):  # an erasure is never taken back: begin anew
            self._by_salt, self.keys = {}, []
        fresh = keys.difference(self.keys)
        for time_us, key, *digests in sorted(documents.of(paths, fresh, _decoded)):
            self.add(key, time_us, *digests)
        return bool(fresh)

    def add(self, key: str, time_us: int, salt: str, subject: str, *subjects: str) -> None:
        """Add those of an erasure: the digests of its subject (or "") and of the subjects whose
        keys it destroyed."""
        self.keys.append(key)
        by_digest = self._by_salt.setdefault(salt, {})
        for digest in filter(None, (subject, *subjects)):
            by_digest.setdefault(digest, []).append((key, time_us, not subject))

    def __bool__(self) -> bool:
        """Whether any subject was erased."""
        return bool(self._by_salt)

    @property
    def subject_keys(self) -> set[str]:
        """The keys of the erasures that have a subject."""
        noted = (note for by_digest in self._by_salt.values() for note in by_digest.values())
        return {key for notes in noted for key, *_ in notes}

    def of(self, subject: str) -> list[ErasedSubject]:
        """Return the erasures of a subject, or of its key."""
        return [
            ErasedSubject(*noted)
            for salt, by_digest in self._by_salt.items()
            for noted in by_digest.get(salted(salt, subject), ())
        ]

    @property
    def newest(self) -> int:
        """When the newest erasure of a subject began (us)."""
        noted = (note for by_digest in self._by_salt.values() for note in by_digest.values())
        return max((t for notes in noted for _, t, is_of_key in notes if not is_of_key), default=0)


def _decoded(data: bytes) -> tuple[Any, ...]:
    """Return the time, key, salt and digests of an erasure. Raises NotIntact, KeyError."""
    body = document.decode(data)
    members = (body[name] for name in ("time", "key", "salt", "subject"))
    return (*members, *body.get("subjects", ()))
