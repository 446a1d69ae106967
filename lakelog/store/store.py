"""One open lake directory; creating and opening it, and what the storage must support."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from lakelog import document
from lakelog.disk import (
    DOCUMENT_MAX,
    File,
    FileSystem,
    Folder,
    LockFile,
    NotIntact,
    NotRegular,
    disk,
)
from lakelog.errors import (
    AlreadyExists,
    DamagedLake,
    FormatTooNew,
    InvalidKey,
    InvalidName,
    InvalidSetting,
    LakeNotFound,
    LakeReplaced,
    Unreachable,
    UnsupportedStore,
)
from lakelog.keys import VAULT
from lakelog.manifest import Manifest, Manifests, empty
from lakelog.paths import FORMAT, KEYS, PLAIN_FORMAT, FileNames, Paths
from lakelog.protect import PROTECTIONS, Protection
from lakelog.refs import Head, Move, Refs, author, escape_text
from lakelog.settings import DEFAULTS, Settings, parse
from lakelog.store.attachment import AttachmentRegistry
from lakelog.store.lake_config import LakeConfig
from lakelog.store.new_directory import make_directories, not_found, require_unicode
from lakelog.store.received_segments import ReceivedSegments
from lakelog.store.verified_files import VerifiedFiles
from lakelog.volume import DirectoryVolume, ErasedStates, Volume

if TYPE_CHECKING:
    from lakelog.entries import Entry, SegmentEntry
    from lakelog.event import EncodedBatch
    from lakelog.keys import KeyRing
    from lakelog.keys.master import Master
    from lakelog.manifest import Page
    from lakelog.refs import Head
    from lakelog.values import JsonObject


class NameLookup(Protocol):
    """Where ids and subjects are that a query needs, by what the bucket has of that."""

    def entries_of(
        self, manifests: Manifests, state: Manifest, low: int, high: int
    ) -> Callable[[Page], Iterable[Entry]]:
        """Return what gives the entries of a page of a state that may have one of them between two
        times (us): all of those pages of which that is not known."""

    def lacking(self, digests: Set[str], tolerable: int = ...) -> set[str]:
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

    def index(self, store: Store, branch: str) -> int:
        """Put down in the bucket where names are, of pages of the manifest of which it has that
        not; return of how many."""

    def fetch(self, files: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Bring objects of the bucket here, by digest and path, which are about to be read; return
        those that came, each with the bytes of its digest."""

    def allow(self, op: str) -> None:
        """Refuse what makes moves whose files would stay in this directory. Raises
        UnsupportedStore."""

    def relay(self, ask: Callable[[JsonObject], bytes]) -> None:
        """Have another process read the bucket, whose `answer` the function gives."""

    def answer(self, request: JsonObject) -> bytes:
        """Do what `relay` asks for: bring objects here, by their `keys`, or return `length` bytes
        of the file of names `key` from `start` on."""

    def by_ranges(self, entries: Iterable[SegmentEntry]) -> set[str]:
        """Have segments that are not here read by ranges where that can be; return their
        digests."""

    def mend(self, store: Store, outcome: Any) -> None:
        """Replace what is damaged here by what the bucket has, and the other way round."""

    def refresh(self, store: Store) -> int:
        """Bring here what other machines have published; return how many moves."""

    def exchange(self, store: Store, settle: Callable[[], object]) -> tuple[int, int]:
        """Publish what is pending, and bring here what other machines have published; return how
        many moves came, and how many went."""

    def join(self, store: Store, head: Head, state: Manifest, change: Any) -> Any:
        """Return a change of a branch with what other machines offer to be published with it; None
        where the branch has moved on. Raises UnsupportedStore for a move that a bucket cannot have
        yet."""

    def append_versions(
        self, store: Store, branch: str, encoded: EncodedBatch, expect: Mapping[str, int]
    ) -> Any:
        """Publish events as the next versions of the streams in `expect`, all or nothing; return
        the Receipt. Raises WrongVersion, Unreachable, OutcomeUnknown."""

    def offered_keys(self, store: Store) -> list[str]:
        """Return the keys of objects that no move names yet."""

    def alone(self, op: str) -> AbstractContextManager[bool]:
        """Be the only machine that makes moves with `op` in the lake, if it yields True."""

    def turn(self, work: str) -> AbstractContextManager[Callable[[], bool] | None]:
        """Be the only machine that does some work that makes no moves of its own, in the only
        process here that may; yields what tells whether it still is, None if another one is."""

    def is_taken(self, work: str) -> bool:
        """Whether some machine has the turn."""

    def gone_writers(
        self, store: Store, move: Move, absent: Set[str], present: Set[str]
    ) -> set[str]:
        """Return those of the writers without files whose watermarks the move after `move` may
        leave out: what other machines write to is not seen here."""


class Store:
    """One open lake directory: its paths, settings and the readers of its files."""

    def __init__(
        self,
        root: str,
        lake_id: str,
        settings: Settings,
        format: int = 0,
        volume: Volume | None = None,
        attachment: Attachment | None = None,
    ) -> None:
        self.paths = Paths(root)
        # What is noted of this directory alone, whatever else a bucket has of the lake.
        directory = DirectoryVolume(self.paths.root)
        self.config = LakeConfig(self.paths)
        self.attachment = attachment
        """What publishes to a bucket that machines share; None in a lake of this directory."""
        if attachment is not None:
            volume = attachment.volume
        self.volume: Volume = volume or directory
        """Where its states are."""
        self.lake_id = lake_id
        self.settings = settings
        self.format = format
        """The format in lakelog.json when it was last read; 0 where that is not known."""
        self.refs = Refs(self.volume, keys=lambda: self.paths.keys)
        self.erased = ErasedStates(directory, on_change=self._notice_protection)
        self.manifests = Manifests(self.volume, self.refs, self.erased, lambda: self.paths.keys)
        self.verified = VerifiedFiles(self.paths, attachment.fetch if attachment else None)
        self.received = ReceivedSegments(directory, self.erased)

    def for_task(self) -> Store:
        """Return this, for a process that does tasks beside others: its engine has one thread."""
        self.settings = dataclasses.replace(self.settings, threads=1)
        return self

    def bounded(self, memory_bytes: int, threads: int = 0) -> Store:
        """Return this with less memory for its engine, if the settings allow more, and with that
        many threads if any are given."""
        memory = min(self.settings.memory_bytes or memory_bytes, memory_bytes)
        threads = threads or self.settings.threads
        less = dataclasses.replace(self.settings, memory_bytes=memory, threads=threads)
        place = self.paths.root, self.lake_id
        return Store(*place, less, self.format, self.volume, self.attachment)

    def format_now(self) -> int:
        """The format that the lake has now, whichever process raised it."""
        return int(self.config.read().get("format", 0)) or self.format

    def require(self, name: str) -> None:
        """Let the lake require something of its readers (F15.8), by a lakelog.json that is new in
        any case: then each writer that is at work goes on in a new file."""
        self._raise_config(lambda body: {"requires": sorted({*body.get("requires", ()), name})})

    def _raise_config(self, members: Callable[[JsonObject], JsonObject]) -> None:
        """Replace lakelog.json by one of the newest format, with what `members` makes of it.
        Raises DamagedLake."""
        self.config.change(lambda body: {"format": FORMAT, **members(body)})
        self.format = FORMAT

    def change_keys(self, ring: KeyRing, master: Master | None = None) -> None:
        """Encrypt the lake, or wrap its data keys anew, by a master key if that is not the one of
        the environment. Raises InvalidKey, and NotAllowed where others changed them just now."""
        if self.attachment is not None:
            # First: nothing may be encrypted with a key that other machines cannot find.
            self.attachment.change_config(ring.config_members(self.config.read_to_change()))
            VAULT.unlock(self.paths.root, ring, master)
            return
        before = self.paths.keys.ring if self.paths.keys else None

        def members(body: JsonObject) -> JsonObject:
            # Of two at once both have made a key, and may have encrypted with it.
            joined = ring.rebased(before, body.get("encryption"))
            VAULT.unlock(self.paths.root, joined, master)
            return joined.config_members(body)

        self._raise_config(members)

    @contextlib.contextmanager
    def alone(self, op: str) -> Iterator[bool]:
        """Be the only process that makes moves with `op` in the lake, on any machine that shares
        it; yields whether that is so. Raises Unreachable."""
        with LockFile(f"{self.paths.cache}/{op}.lock").claim() as is_alone:
            if not is_alone or self.attachment is None:
                yield bool(is_alone)
                return
            with self.attachment.alone(op) as is_alone_of_all:
                yield is_alone_of_all

    def change_protection(self, protection: Protection) -> None:
        """Protect fields from now on, by a lakelog.json that is new in any case: each writer that
        is at work goes on in a new file. Raises InvalidSetting, NotAllowed."""
        protection.check()
        if self.attachment is None:
            self._raise_config(lambda body: protection.joined_to(body).config_members(body))
        else:
            members = protection.config_members(self.config.read_to_change())
            self.attachment.change_config(members)

    def refresh_protection(self) -> None:
        """Look which fields are protected now, whichever process said so. Raises InvalidKey."""
        self.config.protect(self.config.read() or {"protect": None})

    def destroyed_keys(self) -> int:
        """How many keys of subjects were destroyed, by any process. Raises InvalidKey."""
        self.refresh_protection()
        return self.paths.protection.destroyed if self.paths.protection else 0

    def _notice_protection(self) -> None:
        # The kernel keeps a process that answers others from a new lakelog.json: it opens no field.
        with contextlib.suppress(PermissionError):
            self.refresh_protection()

    def state(self, branch: str) -> Manifest:
        """Return the newest published state of a branch. Raises UnknownRef, Damaged."""
        return self.manifests.of(self.refs.head(branch).move)

    def head_since(self, branch: str, number: int) -> Head:
        """Return the newest move of a branch, of which somebody has seen this one: where it is not
        here, another machine has made it. Raises UnknownRef, Unreachable, TransferRefused."""
        head = self.refs.head(branch)
        if head.move.number < number and self.attachment is not None:
            self.attachment.refresh(self)
            head = self.refs.head(branch)
        return head

    def remote_names(self) -> list[str]:
        """Return the names of the remotes that the lake knows."""
        return sorted(FileNames(Folder(self.paths.remotes).names()).tags)

    def is_tracking(self, tag: str) -> bool:
        """Tell whether a tag follows the branch of a remote."""
        return tag.split("/")[0] in self.remote_names() if "/" in tag else False

    def change_settings(self, settings: Settings) -> None:
        """Change what differs from the settings as opened. Raises DamagedLake, InvalidSetting."""
        settings.require_memory()
        # All else stays: a setting must not lock out a reader of an earlier format.
        self.config.change(lambda b: {"settings": settings.over(b["settings"], self.settings)})
        self.settings = settings

    def raise_format(self, number: int = PLAIN_FORMAT) -> None:
        """Raise a lake of an earlier format, before anything of the format `number` is written to
        it, so that a version that knows only the earlier one refuses it by name (F15.3)."""
        if self.format >= number:
            return
        present = int(self.config.read().get("format", 0))
        if 0 < present < number:
            self.config.change(lambda _: {"format": number})
        self.format = max(number, present)

    def require_same_lake(self, path: str, fds: Iterable[int]) -> None:
        """Refuse a lake that took the place of the open one: another, or a copy, in which the
        newest file of its writer, at `path` and one of the open ones, is another file. Raises
        LakeReplaced."""
        try:
            body = document.decode(File(self.paths.config).read(DOCUMENT_MAX))
            lake = body.get("lake")
        except (OSError, NotIntact):
            return  # it was removed, moved or damaged, and nothing else is in its place
        open_fds = [fd for fd in fds if fd >= 0]
        # Of a copy nobody knows which frames it lacks: later ones of this writer would not follow.
        is_copy = bool(open_fds) and not any(File(path).is_open_as(fd) for fd in open_fds)
        if lake != self.lake_id or is_copy:
            raise LakeReplaced(
                f"{self.paths.root} is not the lake that was opened, but another one or a copy of"
                " it: nothing was written to it; open it again"
            )
        if "encryption" in body and self.paths.keys is None:
            self.config.open_keys(body)  # it was encrypted while it was open
        self.config.protect(body)

    def start_branch(self, branch: str, snapshot: str = "", message: str = "") -> None:
        """Link the first move of a branch, on an empty manifest or on `snapshot`.

        Raises FileExistsError if the branch has one.
        """
        self.raise_format()
        self.make_branch_dirs(branch)
        commit, now_us, creator = disk.random_hex(), disk.now_us(), author()
        op = "branch" if snapshot else "init"
        if snapshot:
            # A state without a file of its own is in each of the moves that name it.
            carried = self.manifests.text_to_carry(snapshot)
        else:
            state, carried = self.manifests.settle(empty(commit, now_us, creator), [])
            snapshot = state.digest
        move = Move(
            1,
            branch,
            "",
            commit,
            now_us,
            creator,
            op,
            escape_text(message),
            snapshot,
            0,
            carried=carried,
        )
        if head := self.refs.link(move):
            self.refs.sync(branch, head.digest)

    def make_branch_dirs(self, branch: str) -> None:
        """Create the directories of a branch durably. Raises LakeNotFound, OSError."""
        try:
            self.volume.make_folder(KEYS.head_dir(branch))
        except FileNotFoundError:
            if File(self.paths.root).exists():
                raise
            raise LakeNotFound(f"{self.paths.root} was removed: nothing was stored") from None
        Folder(self.paths.wal_dir(branch)).make_durably()

    @staticmethod
    def is_lake(root: str) -> bool:
        """Whether there is a lakelog.json at `root`."""
        return LakeConfig(Paths(root)).exists()

    @classmethod
    def create(
        cls,
        root: str,
        settings: Settings = DEFAULTS,
        branch: str = "main",
        config: JsonObject | None = None,
        ring: KeyRing | None = None,
    ) -> Store:
        """Create a lake, encrypted with the keys of a ring if there is one; with a `config`, as the
        lakelog.json of an attached one, without its moves. Raises AlreadyExists, InvalidName,
        UnsupportedStore, InvalidKey, OSError."""
        paths = Paths(root)
        if not root:
            raise InvalidName("the path of a lake is empty: for the current directory write .")
        settings.require_memory()
        make_directories(paths)
        if config is not None:
            File(paths.config).create(document.encode(config))
            Folder(paths.root).sync()
            return cls.load(root)
        lake_id = disk.random_hex()
        if ring is None:
            VAULT.forget_lake(paths.root)
        else:
            VAULT.unlock(paths.root, ring)
        PROTECTIONS.pop(paths.root, None)
        store = cls(root, lake_id, settings, FORMAT if ring else PLAIN_FORMAT)
        # The first move before lakelog.json: whoever sees a lake finds a branch in it.
        with contextlib.suppress(FileExistsError):
            store.start_branch(branch)
        # Of two processes that create the lake at once, the link of lakelog.json decides.
        try:
            store.config.create(lake_id, settings, PLAIN_FORMAT, ring)
        except FileExistsError:
            return cls.load(root)
        return store

    @classmethod
    def load(cls, root: str) -> Store:
        """Open a lake. Raises LakeNotFound, DamagedLake, FormatTooNew, UnsupportedStore,
        InvalidName."""
        paths = Paths(root)
        config = LakeConfig(paths)
        try:
            data = File(paths.config).read(DOCUMENT_MAX)
        except NotRegular as error:
            raise DamagedLake(paths.config, str(error)) from None
        except (FileNotFoundError, NotADirectoryError) as error:
            raise not_found(paths, error) from None
        require_unicode(paths.root)
        try:
            body = document.decode(data)
            if not body.keys() >= {"format", "lake", "settings"}:
                raise NotIntact("it is another document")
        except NotIntact as error:
            raise DamagedLake(paths.config, str(error)) from None
        if body["format"] > FORMAT:
            raise FormatTooNew(
                f"the lake at {paths.root} has format {body['format']}, this lakelog reads up to"
                f" {FORMAT}: upgrade lakelog"
            )
        requires = body.get("requires") or []
        member = AttachmentRegistry.MEMBER
        document.require_known([n for n in requires if n != member], f"the lake at {paths.root}")
        if member in requires and member not in body:
            raise UnsupportedStore(
                f"{paths.root} is shared by several machines: attach a directory of your own to it"
                f" with `lakelog attach file://{paths.root} DIR`"
            )
        FileSystem(paths.root).refuse_remote()
        try:
            settings = parse(body["settings"])
        except InvalidSetting as error:
            raise DamagedLake(paths.config, str(error)) from None
        try:
            config.open_keys(body)
        except InvalidKey:
            if member not in body:
                raise
            # What the bucket has of the keys may open with the master key that there is.
            with contextlib.suppress(Unreachable):
                AttachmentRegistry.OPENERS[0].renew_config(paths, body["lake"], body[member])
            config.open_keys(body := document.decode(File(paths.config).read()))
        config.protect(body)
        with contextlib.suppress(OSError):  # a copy may have left out what was empty
            for directory in (paths.wals, paths.tags, paths.gc, paths.cache):
                Folder(directory).make_all()
        attachment = None
        if member in body:
            opener = AttachmentRegistry.OPENERS[0]
            attachment = opener.open_attachment(paths, body["lake"], body[member])
        return cls(root, body["lake"], settings, body["format"], attachment=attachment)

    @classmethod
    def create_or_load(cls, root: str, settings: Settings) -> Store:
        """Create a lake, or open the one that another process created meanwhile. Raises as both
        do."""
        try:
            return cls.create(root, settings)
        except AlreadyExists:
            if cls.is_lake(root):
                return cls.load(root)
            raise
