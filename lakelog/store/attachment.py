"""What makes the lake in a directory part of one that several machines share in a bucket.

lakelog.json then names the bucket, and `requires` keeps away versions that know of none (F22.1).
The package that talks to buckets stands above this one, and is loaded for such a lake alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from lakelog.values import JsonObject

if TYPE_CHECKING:
    from lakelog.entries import Entry, SegmentEntry
    from lakelog.event import EncodedBatch
    from lakelog.manifest import Manifest, Manifests, Page
    from lakelog.paths import Paths
    from lakelog.refs import Head, Move


class NameLookup(Protocol):
    """Where ids and subjects are that a query needs, by what the bucket has of that."""

    def entries_of(
        self, manifests: Manifests, state: Manifest, low: int, high: int
    ) -> Callable[[Page], Iterable[Entry]]:
        """Return what gives the entries of a page of a state that may have one of them between two
        times (us): all of those pages of which that is not known."""

    def lacking(self, digests: Set[str], opened: int = ...) -> set[str]:
        """Return those of segments that certainly have none of them; none of so few that they may
        be opened as well."""


class Attachment(Protocol):
    """The side of a directory that is turned to a bucket."""

    @property
    def volume(self) -> Any:
        """A Volume that publishes to the bucket, and reads from the directory."""

    def change_config(self, members: JsonObject) -> None:
        """Change what all machines know of keys and protected fields, here as well. Raises
        NotAllowed where another machine has done so since, InvalidKey, Unreachable."""

    @property
    def erasures(self) -> Any:
        """What is erased from the lake: how it goes to the bucket, and from there to each
        machine."""

    def names(self, needs: list[Any]) -> NameLookup | None:
        """Return where the names are that predicates of a query need, None where not all need
        some."""

    def index(self, store: Any, branch: str) -> int:
        """Put down in the bucket where names are, of pages of the manifest of which it has that
        not; return of how many."""

    def fetch(self, files: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Bring objects of the bucket here, by digest and path, which are about to be read; return
        those that came, each with the bytes of its digest."""

    def relay(self, ask: Callable[[JsonObject], bytes]) -> None:
        """Have another process read the bucket, whose `answer` the function gives."""

    def answer(self, request: JsonObject) -> bytes:
        """Do what `relay` asks for: bring objects here, by their `keys`, or return `length` bytes
        of the file of names `key` from `start` on, or a `data_key`."""

    def by_ranges(self, entries: Iterable[SegmentEntry]) -> set[str]:
        """Have segments that are not here read by ranges where that can be; return their
        digests."""

    def mend(self, store: Any, outcome: Any) -> None:
        """Replace what is damaged here by what the bucket has, and the other way round."""

    def refresh(self, store: Any) -> int:
        """Bring here what other machines have published; return how many moves."""

    def exchange(self, store: Any, settle: Callable[[], object]) -> tuple[int, int]:
        """Publish what is pending, and bring here what other machines have published; return how
        many moves came, and how many went."""

    def join(self, store: Any, head: Head, state: Manifest, change: Any) -> Any:
        """Return a change of a branch with what other machines offer to be published with it; None
        where the branch has moved on. Raises UnsupportedStore for a move that a bucket cannot have
        yet."""

    def append_versions(
        self, store: Any, branch: str, encoded: EncodedBatch, expect: Mapping[str, int]
    ) -> Any:
        """Publish events as the next versions of the streams in `expect`, all or nothing; return
        the Receipt. Raises WrongVersion, Unreachable, OutcomeUnknown."""

    def offered_keys(self, store: Any) -> list[str]:
        """Return the keys of objects that no move names yet."""

    def alone(self, op: str) -> AbstractContextManager[bool]:
        """Be the only machine that makes moves with `op` in the lake, if it yields True."""

    def gone_writers(self, store: Any, move: Move, absent: Set[str], present: Set[str]) -> set[str]:
        """Return those of the writers without files whose watermarks the move after `move` may
        leave out: what other machines write to is not seen here."""


class AttachmentOpener(Protocol):
    """A module that gives the attachment of a directory."""

    def open_attachment(self, paths: Paths, lake_id: str, body: JsonObject) -> Attachment:
        """Return it from the member of lakelog.json; no request is made. Raises DamagedLake."""

    def renew_config(self, paths: Paths, lake_id: str, body: JsonObject) -> None:
        """Bring keys here that other machines have wrapped anew. Raises InvalidKey, Unreachable."""


class AttachmentRegistry:
    """How lakelog.json says that a lake is attached, and what opens it then."""

    MEMBER = "bucket"
    """The member that names the bucket, and what such a lake requires of a reader."""
    OPENERS: ClassVar[list[AttachmentOpener]] = []
    """The module that opens attachments."""
