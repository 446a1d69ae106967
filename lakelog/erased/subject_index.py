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
"""What is kept of the erasures of one subject, oldest first: as ErasedSubject."""


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

    @staticmethod
    def of_lake(paths: Paths) -> SubjectIndex:
        """Return that of all erasures of a lake, as `cache/` has it or from their documents. Raises
        DamagedRef."""
        index, version, looked_at = SubjectIndex(), _version(paths), time.time_ns()
        if version is None:
            return index
        cache = File(paths.erased_subjects)
        with contextlib.suppress(OSError, NotIntact, KeyError, TypeError, ValueError):
            body = document.decode(cache.read(DOCUMENT_MAX))
            if body["version"] == version:
                # As it is: a first append waits for it.
                index._by_salt = body["subjects"]
                return index
        for time_us, key, *digests in sorted(documents.of_all(paths, _decoded)):
            index.add(key, time_us, *digests)
        # A folder that changes again within a tick may keep its time.
        if looked_at > version[1] + TICK_NS:
            encoded = document.encode({"version": version, "subjects": index._by_salt})
            if len(encoded) <= DOCUMENT_MAX:
                with contextlib.suppress(OSError):
                    Folder(paths.cache).make_all()
                    cache.replace(encoded, sync=False)
        return index

    def add(self, key: str, time_us: int, salt: str, subject: str, *subjects: str) -> None:
        """Add those of an erasure that is no older than those before: the digests of its subject
        (or "") and of the subjects whose keys it destroyed."""
        by_digest = self._by_salt.setdefault(salt, {})
        for digest in filter(None, (subject, *subjects)):
            by_digest.setdefault(digest, []).append((key, time_us, not subject))

    def of(self, subject: str) -> list[ErasedSubject]:
        """Return the erasures of a subject, or of its key, those of a salt oldest first."""
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


def _version(paths: Paths) -> list[int] | None:
    """Return the inode of the folder of erasures and when it changed last (ns); None if there is
    none. A copy of the folder is another one."""
    try:
        status = os.stat(paths.erasures)
    except FileNotFoundError:
        return None
    return [status.st_ino, status.st_mtime_ns]
