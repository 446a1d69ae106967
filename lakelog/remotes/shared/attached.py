"""A directory that is attached to a lake in a bucket: what opens it, and its exchange.

    lakelog.json   "bucket": {"url", "proven", "cache", "machine"}, "requires": ["bucket"]
    cache/own-writers   writers that had files in wal/ here, one a line

An exchange takes what other machines have published, and publishes what is acknowledged here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import replace
from typing import Any

from lakelog.appends import Receipt, VersionedBatch
from lakelog.disk import File, disk
from lakelog.entries import SegmentEntry
from lakelog.errors import (
    AlreadyExists,
    DamagedLake,
    TransferRefused,
    UnknownRef,
    Unreachable,
    UnsupportedStore,
)
from lakelog.event import EncodedBatch
from lakelog.keys import VAULT, KeyRing
from lakelog.maintain import RepairOutcome
from lakelog.manifest import Manifest
from lakelog.moves import Change
from lakelog.paths import KEYS, OBJECTS, FileName, FileNames, Paths
from lakelog.refs import Head, Move, Refs
from lakelog.remotes import remote as remotes
from lakelog.remotes.objects import objects_of
from lakelog.remotes.shared import bucket, lease
from lakelog.remotes.shared.bucket import NewRing
from lakelog.remotes.shared.bucket_erasures import BucketErasures
from lakelog.remotes.shared.lease import Lease
from lakelog.remotes.shared.machines import Machines
from lakelog.remotes.shared.mending import BucketMending
from lakelog.remotes.shared.mirrored_volume import MirroredVolume, RelayedRequest
from lakelog.remotes.shared.name_units import file_keys
from lakelog.remotes.shared.names import NameIndex, NeededNames
from lakelog.remotes.shared.offers import OfferBook, old_writers
from lakelog.remotes.shared.segment_cache import BYTES, SegmentCache
from lakelog.remotes.shared.segment_ranges import SegmentRanges
from lakelog.remotes.shared.shared_config import SharedConfig
from lakelog.remotes.shared.versions import VersionedAppend
from lakelog.runtime.lazy import LazyProperty
from lakelog.store import AttachmentRegistry, Store
from lakelog.values import JsonObject

_ELSEWHERE = "save them in a lake of their own (`lakelog init DIR`)"
_FROM_BUCKET = (
    "`lakelog exchange` brings what its other machines have; of another lake export the events, and"
    " ingest them here"
)
_PIECE_MAX = 16 << 20
_NOT_SHARED = {
    "state": ("saved directories", _ELSEWHERE),
    "container": ("saved directories", _ELSEWHERE),
    "pull": ("states of another remote", _FROM_BUCKET),
    "merge": ("states of another remote", _FROM_BUCKET),
    "repair": ("what a repair gives back", "restore the bucket from a copy"),
}
"""What moves would name that only this directory has, by their op, and what to do instead."""


class BucketAttachment:
    """The side of one directory that is turned to its bucket."""

    def __init__(
        self, paths: Paths, lake_id: str, url: str, limit: int, machine: str, number: int
    ) -> None:
        self.url, self._paths = url, paths
        self.volume = MirroredVolume(paths.root, url, lake_id)
        self.config = SharedConfig(paths, self.volume, number)
        self._cache = SegmentCache(paths, self.volume, limit)
        self._names = NameIndex(paths, self.volume)
        self._ranges = SegmentRanges(paths, self.volume, self._names)
        self._offers = OfferBook(self.volume)
        self._machines = Machines(paths.root, self.volume, machine)
        self.erasures = BucketErasures(paths, self.volume, self._names, self._machines)
        self.volume.learn = self.config.learn = self.erasures.learn
        self._lease: Lease | None = None

    def fetch(self, files: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Bring objects of the bucket here that are about to be read; return those that came, each
        with the bytes of its digest. Raises Unreachable, TransferRefused."""
        fetched, lacking = self._cache.fetch(files)
        if lacking:
            self.erasures.replaces(lacking)  # else the states here go on naming them
        return fetched

    def change_config(self, members: JsonObject) -> None:
        """Change what all machines know of keys and protected fields. Raises NotAllowed,
        Unreachable."""
        self.config.change(members)

    def relay(self, ask: RelayedRequest) -> None:
        """Have another process read the bucket: this one reaches no network, and writes nothing."""
        self.volume.ask = ask

    def answer(self, request: JsonObject) -> bytes:
        """Do what such a process asks for, which may be in the hands of others: bring objects here,
        or return bytes of a file of names. Raises TransferRefused, Unreachable, OSError."""
        if "keys" in request:
            self.fetch([self._file(key) for key in request["keys"]])
            return b""
        key, start, length = (request[name] for name in ("key", "start", "length"))
        if key.rpartition("/")[0] != KEYS.names:
            self._file(key)
        if not 0 <= length <= _PIECE_MAX:
            raise TransferRefused(f"{self.url}: so many bytes of {key} are not for queries")
        return remotes.retrying(lambda: self.volume.piece(key, start, length))

    def _file(self, key: str) -> tuple[str, str]:
        """Return the digest of an object and its path. Raises TransferRefused."""
        object_type, digest = key.partition("/")[0], FileName.of(key).digest or ""
        if object_type not in OBJECTS or KEYS.object(object_type, digest) != key:
            raise TransferRefused(f"{self.url}: {key} is not for queries")
        return digest, self._paths.object(object_type, digest)

    def by_ranges(self, entries: Iterable[SegmentEntry]) -> set[str]:
        """Have segments that are not here read by ranges where that can be; return their digests.
        Raises Unreachable, TransferRefused."""
        return self._ranges.open(entries)

    def allow(self, op: str) -> None:
        """Refuse what makes moves whose files would stay in this directory. Raises
        UnsupportedStore."""
        if op in _NOT_SHARED:
            files, advice = _NOT_SHARED[op]
            raise UnsupportedStore(
                f"{self._paths.root}: the lake is shared in a bucket, which cannot have {files}:"
                f" {advice}"
            )

    def join(self, store: Store, head: Head, state: Manifest, change: Change) -> Change | None:
        """Return a seal with the offers of other machines, any other change as it is; None where
        the branch has moved on. Raises UnsupportedStore as `allow`."""
        self.allow(change.op)
        if change.snapshot not in (None, head.move.snapshot):
            self.volume.required = objects_of(store, str(change.snapshot), head.move.snapshot)
        # Without watermarks nothing would tell that an offer was published: one is made at once.
        if change.op == "seal" and change.sealed:
            return self._offers.join(store, head, state, change)
        if self._lease is None or change.op != self._lease.work:
            return change
        self._lease.require(head.move)
        return replace(change, sealed={**change.sealed, **self._lease.mark})

    @contextlib.contextmanager
    def alone(self, op: str) -> Iterator[bool]:
        """Be the only machine that makes moves with `op`, in the only process here that may; False
        if another is. Raises Unreachable."""
        self.volume.require_lake()  # a directory that is not mounted would take it
        try:
            with lease.hold(self.volume.remote, op, self._machines.id) as self._lease:
                yield self._lease is not None
        finally:
            self._lease = None

    @contextlib.contextmanager
    def turn(self, work: str) -> Iterator[Callable[[], bool] | None]:
        """Be the only machine that does some work that makes no moves of its own, in the only
        process here that may; yield what tells whether it still is, None if another one is. Raises
        Unreachable."""
        self.volume.require_lake()
        with lease.hold(self.volume.remote, work, self._machines.id) as own_lease:
            yield own_lease.is_kept if own_lease else None

    def is_taken(self, work: str) -> bool:
        """Whether some machine has the turn. Raises Unreachable, also in a process that has another
        one read the bucket."""
        if self.volume.ask is not None:
            raise Unreachable(f"{self.url}: this process reaches no network")
        return lease.is_held(self.volume.remote, work)

    def names(self, needs: list[Any]) -> NeededNames | None:
        """Return where the names are that predicates of a query need."""
        return NeededNames.of(self._names, needs)

    def index(self, store: Store, branch: str) -> int:
        """Put down in the bucket where names are, of pages of which it does not have that; return
        of how many. Raises Unreachable, TransferRefused, Damaged, OSError."""
        if not (lacking := self._names.without_file(store.state(branch))):
            return 0
        # Two machines would make the same files.
        with store.alone("names") as is_alone:
            return self._names.build(store, lacking) if is_alone else 0

    @LazyProperty
    def _own_writers(self) -> set[str]:
        try:
            return set(File(f"{self._paths.cache}/own-writers").read().decode().split())
        except FileNotFoundError:
            return set()

    def gone_writers(
        self, store: Store, move: Move, absent: Set[str], present: Set[str]
    ) -> set[str]:
        """Return those of the writers without files that had some here, and of whose frames no
        offer counts that was made before their first watermark."""
        # Noted before the move that seals them is made: after it their files may go.
        if fresh := present - self._own_writers:
            lines = "".join(f"{writer}\n" for writer in sorted(fresh))
            File(f"{self._paths.cache}/own-writers").append(lines.encode())
            self._own_writers.update(fresh)
        ended = set(absent & self._own_writers)
        return ended & old_writers(store, move) if ended else ended

    def append_versions(
        self, store: Store, branch: str, encoded: EncodedBatch, expect: Mapping[str, int]
    ) -> Receipt:
        """Publish events as the next versions of the streams in `expect`, all or nothing. Raises
        InvalidEvent, WrongVersion, Unreachable, TransferRefused, Damaged, OutcomeUnknown,
        OSError."""
        batch = VersionedBatch(encoded, expect)
        try:
            self._refresh_branch(store, branch)
        except Unreachable as error:
            raise Unreachable(
                f"versions of streams are decided in the bucket, and nothing was stored: {error}"
            ) from None
        versioned = VersionedAppend(store, branch, batch)
        versioned.publish()
        places = [range(batch.events)]
        return Receipt(batch.ids_with(encoded.ids), versioned.origin, places, batch.upto)

    def offered_keys(self, store: Store) -> list[str]:
        """Return the keys of objects that machines offer to be published, and of files of names of
        the newest states."""
        branches = store.refs.all_branches()
        units = (key for name in store.refs.branches() for key in file_keys(store.state(name)))
        offered = (key for branch in branches for key in self._offers.keys(branch))
        return [*offered, *units]

    def mend(self, store: Store, outcome: RepairOutcome) -> None:
        """Replace what is damaged here by what the bucket has, and the other way round. Raises
        Unreachable, OSError."""
        self.volume.require_lake()
        self.erasures.mend(store, outcome)  # before what is read by them
        self._refresh_tags(store.refs)  # which replaces those that differ
        BucketMending(store, self.volume, outcome).run()

    def refresh(self, store: Store) -> int:
        """Take the moves and tags that other machines have published; return how many moves.
        Raises Unreachable, TransferRefused, OSError."""
        names = list[str]()

        def look() -> bool:
            # Not by `names`: of a store of objects these are all moves, a page of 1,000 at least.
            names.extend(remotes.retrying(lambda: list(self.volume.remote.folders(KEYS.heads))))
            return True

        # Before any move: what comes may be encrypted with a key that another machine has made.
        asked = (self.config.take, look)
        list(remotes.in_parallel(lambda ask: ask(), asked, only_reads=True))
        self.erasures.destroy_keys()  # also those of an older file that was put here
        branches = {*FileNames(names).refs, *store.refs.all_branches()}
        count = sum(self._refresh_branch(store, branch) for branch in sorted(branches))
        self._refresh_tags(store.refs)
        return count

    def _refresh_branch(self, store: Store, branch: str) -> int:
        try:
            newest = store.refs.head_number(branch)
        except UnknownRef:
            newest = 0
            store.make_branch_dirs(branch)
        return self.volume.take_moves(branch, newest)

    def _refresh_tags(self, refs: Refs) -> None:
        # Those here first: a tag that is made meanwhile is in the bucket before it is here.
        mirrored = {name for name in refs.tag_names() if "/" not in name}
        names = set(FileNames(self.volume.bucket.names(KEYS.tags)).tags)
        for name in sorted(names):
            self.volume.take_tag(KEYS.tag(name))
        for name in mirrored - names:
            self.volume.drop_tag(KEYS.tag(name))

    def exchange(self, store: Store, settle: Callable[[], object]) -> tuple[int, int]:
        """Take what is new, and publish what is pending on a branch. Raises Unreachable,
        TransferRefused, Damaged, OSError; what is pending stays so then."""
        arrived, published = self.volume.arrived, self.volume.published
        settle()
        self._offers.settle(store)
        self._cache.shrink_if_due()
        return self.volume.arrived - arrived, self.volume.published - published


def open_attachment(paths: Paths, lake_id: str, body: dict[str, Any]) -> BucketAttachment:
    """Return the attachment that lakelog.json describes; makes no request. Raises DamagedLake."""
    url, proven, limit = body.get("url"), body.get("proven"), body.get("cache", BYTES)
    number = body.get("config", 0)
    if [type(m) for m in (url, proven, limit, number)] != [str, str, int, int]:
        raise DamagedLake(paths.config, "what it says of the bucket is malformed")
    return BucketAttachment(paths, lake_id, str(url), limit, str(body.get("machine", "")), number)


def attach(url: str, root: str, *, cache: int | None = None, new_ring: NewRing = None) -> Store:
    """Make a directory part of the lake in a bucket, which is created where there is none.

    `cache` bounds the bytes of segments that stay here. With `new_ring` a new lake is encrypted
    with these keys. An attachment that was interrupted goes on. Raises AlreadyExists where
    something else is there, InvalidKey, TransferRefused, Unreachable, OSError.
    """
    url = bucket.checked_address(url)
    is_new = not Store.is_lake(root)
    is_first = is_new and _join(url, root, BYTES if cache is None else cache, new_ring)
    store = Store.load(root)
    attachment = store.attachment
    if not isinstance(attachment, BucketAttachment) or attachment.url != url:
        raise AlreadyExists(
            f"a lake already exists at {store.paths.root}: choose another directory; `lakelog push`"
            f" brings its states to {url}"
        )
    # Before anything is read: an erasure waits for all machines that are there.
    attachment.erasures.join(is_new=is_new)
    if not is_first:  # else nothing is there, or `main` is
        attachment.refresh(store)
    if "main" not in store.refs.all_branches():
        try:
            store.start_branch("main")
        except FileExistsError:  # another machine was first, and its move is here
            attachment.refresh(store)
    return store


def _join(url: str, root: str, cache: int, new_ring: NewRing) -> bool:
    """Write the lakelog.json of an attached directory, after the one in the bucket; return whether
    there was none."""
    with contextlib.closing(bucket.open_bucket(url)) as remote:
        config, is_first = bucket.join(remote, new_ring)
    if "encryption" in config:
        VAULT.unlock(Paths(root).root, KeyRing.of_json(config["encryption"]))
    elif new_ring is not None:
        raise TransferRefused(
            f"{url}: the lake there is not encrypted, and stays so: choose an empty place"
        )
    # Known by a random name: two machines may have directories of one path.
    address = {"url": url, "proven": remote.deciding, "cache": cache, "machine": disk.random_hex(8)}
    Store.create(root, config={**config, AttachmentRegistry.MEMBER: address})
    return is_first


def renew_config(paths: Paths, lake_id: str, body: dict[str, Any]) -> None:
    """Bring keys here that other machines have wrapped anew, for a lake that does not open. Raises
    InvalidKey, DamagedLake, Unreachable, TransferRefused."""
    open_attachment(paths, lake_id, body).config.take()
