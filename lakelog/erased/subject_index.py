"""The subjects that were erased from a lake, by their salted digests.

    cache/erasures.json    of which folder they are and when that had changed last, and the subjects

An entrance asks for them with the first event of each process, and must not read the documents of
all erasures that ever were: `cache/` keeps what it needs of them in one file (F23.8).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from lakelog import document
from lakelog.disk import DOCUMENT_MAX, File, Folder, NotIntact
from lakelog.erased import documents
from lakelog.erased.documents import salted
from lakelog.errors import InvalidEvent
from lakelog.paths import Paths
from lakelog.values import parse_time, to_micros
from lakelog.volume import TICK_NS

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
        self._keys: list[str] = []

    @staticmethod
    def of_lake(paths: Paths) -> SubjectIndex:
        """Return that of all erasures of a lake, as `cache/` has it and from the documents that are
        new since. Raises DamagedRef."""
        try:
            status, looked_at = os.stat(paths.erasures), time.time_ns()
        except FileNotFoundError:
            return SubjectIndex()
        version, index = [status.st_ino, status.st_mtime_ns], SubjectIndex()
        with contextlib.suppress(OSError, NotIntact, KeyError, TypeError, ValueError):
            body = document.decode(File(paths.erased_subjects).read(DOCUMENT_MAX))
            if body["version"][0] == status.st_ino:  # and not that of a copy
                index._by_salt, index._keys = body["subjects"], body["keys"]
                if body["version"] == version:
                    return index  # as it is: a first append waits for it
        has_new = index._read_new(paths)
        # A folder that changes again within a tick may keep its time: then its names have to tell.
        is_settled = looked_at > status.st_mtime_ns + TICK_NS
        if has_new or is_settled:
            index._keep(paths, version if is_settled else [status.st_ino, 0])
        return index

    def _read_new(self, paths: Paths) -> bool:
        """Read the documents that are there and not known; return whether there were any. What a
        document says of subjects never changes. Raises DamagedRef."""
        keys = documents.keys(paths)
        if not keys.issuperset(self._keys):  # an erasure is never taken back: begin anew
            self._by_salt, self._keys = {}, []
        fresh = keys.difference(self._keys)
        for time_us, key, *digests in sorted(documents.of(paths, fresh, _decoded)):
            self.add(key, time_us, *digests)
        return bool(fresh)

    def _keep(self, paths: Paths, version: list[int]) -> None:
        """Write it to `cache/`, of which nothing depends."""
        body = {"version": version, "keys": self._keys, "subjects": self._by_salt}
        encoded = document.encode(body)
        if len(encoded) <= DOCUMENT_MAX:
            with contextlib.suppress(OSError):
                Folder(paths.cache).make_all()
                File(paths.erased_subjects).replace(encoded, sync=False)

    def add(self, key: str, time_us: int, salt: str, subject: str, *subjects: str) -> None:
        """Add those of an erasure: the digests of its subject (or "") and of the subjects whose
        keys it destroyed."""
        self._keys.append(key)
        by_digest = self._by_salt.setdefault(salt, {})
        for digest in filter(None, (subject, *subjects)):
            by_digest.setdefault(digest, []).append((key, time_us, not subject))

    def of(self, subject: str) -> list[ErasedSubject]:
        """Return the erasures of a subject, or of its key."""
        return [
            ErasedSubject(*noted)
            for salt, by_digest in self._by_salt.items()
            for noted in by_digest.get(salted(salt, subject), ())
        ]

    def in_lines(self, encoded: bytes) -> Iterator[tuple[int, ErasedSubject]]:
        """Yield the number of each line of an event (F3.13) that was erased, with its erasure: of
        its subject, and later than the event."""
        for number, line in enumerate(encoded.splitlines() if self._by_salt else ()):
            event = orjson.loads(line)
            subject = event.get("subject") or event.get("item_id")
            for erased in self.of(subject) if subject else ():
                if _moment(event) <= erased.time:
                    yield number, erased
                    break

    def check_lines(self, encoded: bytes) -> None:
        """Refuse lines of events of which one was erased: nothing of them is stored. Raises
        InvalidEvent."""
        for _, erased in self.in_lines(encoded):
            raise InvalidEvent(
                f"an event is of a subject that was erased (erasure {erased.key}), and"
                " from before: it is refused"
            )


def _moment(event: dict[str, str]) -> int:
    return to_micros(parse_time(next(event[n] for n in ("time", "ts", "timestamp") if n in event)))


def _decoded(data: bytes) -> tuple[Any, ...]:
    """Return the time, key, salt and digests of an erasure. Raises NotIntact, KeyError."""
    body = document.decode(data)
    members = (body[name] for name in ("time", "key", "salt", "subject"))
    return (*members, *body.get("subjects", ()))
