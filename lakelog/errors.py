"""Every way lakelog can fail, on one page.

    LakelogError
    ├── InvalidEvent          an event that cannot be stored as given
    ├── WrongVersion          a stream has another version than the append expects
    ├── InvalidName           a branch or tag name that cannot be used
    ├── InvalidSetting        a setting that does not exist or does not parse
    ├── LakeNotFound          no lake at that path
    ├── FormatTooNew          a lake written by a later lakelog
    ├── UnsupportedStore      a file system without what durability needs
    ├── UnknownRef            no tag, branch, snapshot or time of that name
    ├── AlreadyExists         a tag or branch of that name is there
    ├── InUse                 something else still needs what was to be removed
    ├── WouldDropEvents       an undo that would take later events off the branch
    ├── NothingToUndo         no user move is left to undo
    ├── StalePlan             a plan made on a state that the branch has left
    ├── QueryFailed           the SQL is wrong, or failed while running
    ├── InvalidSearch         a search that cannot be read
    ├── InvalidView           a wrong definition of a view, or wrong parameters
    ├── SnapshotGone          a segment was collected while a reader still wanted it
    ├── OutcomeUnknown        a publish whose result could not be read back
    ├── StaleFiles            files of a publish that are gone, or so old that gc may take them
    ├── LakeClosed            a query after close
    │   └── WriterClosed      an append after close
    ├── LakeReplaced          a write where another lake or a copy took the place of the open one
    ├── ReentrantAppend       an append by a signal handler in the middle of another
    ├── ReentrantQuery        a query by a signal handler in the middle of another
    ├── InvalidRecipe         a training recipe with a wrong key or value
    ├── ExportRefused         an export that cannot be made as asked; nothing was written
    ├── ItemRejected          an item of a queue that is not worth another attempt
    ├── DownloadFailed        an address that cannot be fetched within the limits
    ├── SyncRefused           a sync that cannot be done as asked; its batch was not written
    ├── SubscriptionGone      a subscription that the state of the branch does not have
    ├── SubscriptionRewound   a position in events that a rollback took away
    ├── StateRefused          a state directory that cannot be saved or restored as asked
    ├── TransferRefused       a push, pull or clone that cannot be done as asked
    │   └── Diverged          either side has what the other one lacks
    ├── Unreachable           a server that does not answer, or refuses us
    ├── InvalidKey            a key that is missing, wrong, damaged, or not kept private
    ├── NotProven             a signature or proof that does not show what it claims
    ├── NotAllowed            what the policy of the lake, or its encryption, does not allow
    │   └── InvalidPolicy     a policy that cannot be read, so that it allows nothing
    ├── RollbackRefused       a rollback of which a part is missing; nothing was changed
    ├── MissingPackage        something that needs a package which is not installed
    ├── GcRefused             gc saw something unreadable or empty and deleted nothing
    └── Damaged               bytes on disk are not what was written
        ├── DamagedLake       lakelog.json
        ├── DamagedWal        a write-ahead log
        ├── DamagedRef        a move or a tag
        ├── DamagedManifest   a manifest or one of its pages
        ├── DamagedSegment    a Parquet segment
        ├── DamagedIds        a run of identity keys
        └── DamagedState      a chunk or index of a state directory

Failures of the disk itself (full, read-only, permission) stay `OSError`.
Messages are one line: what is wrong, where, and what to do next.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


class LakelogError(Exception):
    """Anything lakelog raises on purpose; its text is meant for people."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Made again of what it says: most are made of other arguments.
        return _made_again, (type(self), self.args, self.__dict__)


def _made_again(
    error_class: type[LakelogError], arguments: tuple[Any, ...], members: dict[str, Any]
) -> LakelogError:
    error = error_class.__new__(error_class, *arguments)
    error.args = arguments
    error.__dict__.update(members)
    return error


class InvalidEvent(LakelogError, ValueError):
    """Raised by append for an event that is not a dict, has no type, or a time outside year 1-9999.

    `index` is the event's place in the batch; nothing of the batch was stored.
    """

    def __init__(self, reason: str, index: int | None = None) -> None:
        self.reason, self.index = reason, index
        super().__init__(reason if index is None else f"event {index}: {reason}")


class WrongVersion(LakelogError):
    """Raised by append where a stream has another version than was expected: nothing was stored;
    read the stream again and decide once more. `subject`, `expected` and `actual` say which."""

    def __init__(self, subject: str, expected: int, actual: int) -> None:
        self.subject, self.expected, self.actual = subject, expected, actual
        name = repr(subject[:60]) if subject.isprintable() else ascii(subject)[:60]
        super().__init__(
            f"the stream {name} is at version {actual}, not {expected}: read it again, then append"
        )


class InvalidName(LakelogError, ValueError):
    """Raised for a branch or tag name that is empty, too long, or like an option or a time."""


class InvalidSetting(LakelogError, ValueError):
    """Raised for an unknown setting or a value of the wrong kind."""


class LakeNotFound(LakelogError, FileNotFoundError):
    """Raised by open(create=False) where there is no lake: create one with `lakelog init`."""

    def __str__(self) -> str:
        return str(self.args[0])


class FormatTooNew(LakelogError):
    """Raised by open for a lake of a later format: upgrade lakelog."""


class UnsupportedStore(LakelogError):
    """Raised at init or open where link or flock do not work: use a local directory."""


class UnknownRef(LakelogError, LookupError):
    """Raised where a tag, branch, snapshot id, move or time does not resolve: see `lakelog log`."""


class AlreadyExists(LakelogError):
    """Raised when a tag or branch of that name exists: choose another, or delete it first."""


class InUse(LakelogError):
    """Raised when a branch to be deleted still has a living writer: close it first."""


class WouldDropEvents(LakelogError):
    """Raised by undo when events came after the move to undo: force, or keep them on a branch."""

    def __init__(self, message: str, events: int) -> None:
        self.events = events
        super().__init__(message)


class NothingToUndo(LakelogError):
    """Raised by undo on a branch without a rollback, snapshot or other user move."""


class StalePlan(LakelogError):
    """Raised when a removal was planned on a state that the branch has left: plan it again."""


class QueryFailed(LakelogError):
    """Raised when SQL does not parse, bind or run, or when a fold cannot take an event.

    Of SQL it carries the engine's own words; `details` are those words whole, with the line of the
    query and a caret below the place.
    """

    def __init__(self, message: str, details: str = "") -> None:
        self.details = details or message
        super().__init__(message)


class InvalidSearch(LakelogError, ValueError):
    """Raised for a search that cannot be read, with the place and what is wrong there."""


class InvalidView(LakelogError, ValueError):
    """Raised for a view's definition or parameters; names the section and line that are wrong."""


class SnapshotGone(LakelogError):
    """Raised when a segment of the pinned snapshot was collected: run the query again."""


class OutcomeUnknown(LakelogError):
    """Raised when a publish may or may not have happened; every file is kept, look at the log."""


class StaleFiles(LakelogError):
    """Raised when files written for a publish are gone, or so old that gc may take them."""


class LakeClosed(LakelogError):
    """Raised by whatever needs a lake that was closed: open it again."""


class WriterClosed(LakeClosed):
    """Raised by append on a closed lake: open it again."""


class LakeReplaced(LakelogError):
    """Raised by append where the directory holds another lake, or another copy of the lake, than
    when it was opened, and by what publishes where it holds another lake: open it again, and append
    again what was not acknowledged."""


class ReentrantAppend(LakelogError):
    """Raised by append in a signal handler that interrupts an append of its own thread, which it
    would wait for: nothing was stored, append after the handler has returned."""


class ReentrantQuery(LakelogError):
    """Raised by a query in a signal handler that interrupts one of its own thread, which it would
    wait for: ask after the handler has returned."""


class InvalidRecipe(LakelogError, ValueError):
    """Raised for a recipe whose keys or values cannot be; names the file and the key."""


class ExportRefused(LakelogError):
    """Raised when an export, check or rebuild cannot be done as asked; nothing was written."""


class ItemRejected(LakelogError):
    """Raised by a processor of a work queue for an item that is not worth another attempt."""


class DownloadFailed(LakelogError):
    """Raised where a server answers with an error, too slowly, too much or not completely."""


class SyncRefused(LakelogError):
    """Raised by sync where a database or the state of the lake does not allow what was asked: of
    the batch nothing was written, earlier ones stay."""


class SubscriptionGone(LakelogError, LookupError):
    """Raised where the state of the branch has no such subscription: it was removed or rolled back;
    subscribe again to create it."""


class SubscriptionRewound(LakelogError):
    """Raised where a branch was rewound behind events that were handed out: undo what was made of
    them, and go on from `position`, up to which they are the same."""

    def __init__(self, message: str, position: str = "") -> None:
        self.position = position
        super().__init__(message)


class StateRefused(LakelogError):
    """Raised when a state directory cannot be saved or restored as asked; nothing was changed."""


class TransferRefused(LakelogError):
    """Raised by push, fetch, pull and clone where a remote or the lake does not allow what was
    asked, or a remote gives what cannot be believed: no branch and no tag was changed."""


class Diverged(TransferRefused):
    """Raised where a push or pull would drop events: pull first, or say which side counts."""


class Unreachable(LakelogError, ConnectionError):
    """Raised where a server does not answer, or refuses our certificate, user or password."""


class InvalidKey(LakelogError, ValueError):
    """Raised for a key that is missing, cannot be read, is another one, or that others may read."""


class NotProven(LakelogError):
    """Raised where a signature or proof does not show what it claims: says which part is wrong."""


class NotAllowed(LakelogError):
    """Raised for an operation that `policy.toml` of the lake does not allow this user."""


class InvalidPolicy(NotAllowed):
    """Raised where `policy.toml` of the lake cannot be read or is wrong: nothing is allowed."""


class RollbackRefused(LakelogError):
    """Raised where something is missing that a rollback needs; says what. Nothing was changed."""


class MissingPackage(LakelogError):
    """Raised where an extra is needed that is not installed; names it."""

    @classmethod
    @contextlib.contextmanager
    def unless(cls, extra: str, reason: str) -> Iterator[None]:
        """Raise it where something cannot be imported: why it is needed, and what installs it."""
        try:
            yield
        except ImportError:
            raise cls(f"{reason}: pip install 'lakelog[{extra}]'") from None


class DeploymentFailed(LakelogError):
    """A cluster did not do what it was asked to, or has no such deployment or revision."""


class ContainerFailed(LakelogError):
    """A container engine is not there, or did not do what it was asked to."""


class GcRefused(LakelogError):
    """Raised by gc when a ref or manifest cannot be read; nothing was deleted: `lakelog verify`."""


class Damaged(LakelogError):
    """Bytes on disk are not what was written. `path` names the file: run `lakelog verify`."""

    def __init__(self, path: object, reason: str, offset: int | None = None) -> None:
        self.path, self.reason, self.offset = str(path), reason, offset
        location = f"{path}" if offset is None else f"{path} at byte {offset}"
        super().__init__(f"{location}: {reason}; see `lakelog verify`, then `lakelog repair`")


class DamagedLake(Damaged):
    """lakelog.json does not parse or fails its checksum."""


class DamagedWal(Damaged):
    """A WAL has a bad frame with something after it, or misses a sequence number."""


class DamagedRef(Damaged):
    """A move or tag does not parse or fails its checksum."""


class DamagedManifest(Damaged):
    """A manifest or page is missing or does not have the bytes its name promises."""


class DamagedSegment(Damaged):
    """A segment does not have the length or SHA-256 its manifest promises."""


class DamagedIds(Damaged):
    """An id run does not have the bytes its name promises."""


class DamagedState(Damaged):
    """A chunk or index of a state directory is missing, or not what was saved."""
