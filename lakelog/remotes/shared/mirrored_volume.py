"""The files of a lake in a bucket, with a directory that mirrors its refs (F22.3).

    read      the directory; an object that is not there comes from the bucket, checked
    publish   objects to the bucket first, then the move by a conditional write, then the directory
    take      moves of other machines, in their order, each checked to follow the one before

A move stands in the directory only once it stands in the bucket. So readers ask nobody, and what
they read is a state that every machine has or will have.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator

from lakelog.disk import DOCUMENT_MAX, Begun, File, Folder, NotIntact, disk
from lakelog.errors import OutcomeUnknown, TransferRefused, Unreachable
from lakelog.keys import VAULT
from lakelog.paths import KEYS, OBJECTS, FileName
from lakelog.refs import Move, Ref, Tag
from lakelog.remotes import carry, untrusted
from lakelog.remotes import remote as remotes
from lakelog.remotes.objects import Sizes
from lakelog.remotes.remote_volume import RemoteVolume
from lakelog.remotes.shared import move_spans, name_file
from lakelog.remotes.shared.bucket import Bucket, open_bucket
from lakelog.remotes.site import key_of
from lakelog.runtime.lazy import LazyProperty
from lakelog.values import JsonObject
from lakelog.volume import DirectoryVolume, ErasedStates, MovePack

_PIECE = 1 << 20
RelayedRequest = Callable[[JsonObject], bytes]
_WINDOW = 16
"""Moves that are asked for at once at most, while there are more."""
_DELIVERED_MAX = 1 << 16
"""Objects of which a process remembers that the bucket has them, at most."""


class MirroredVolume(DirectoryVolume):
    """The files of one lake. Methods raise Unreachable, TransferRefused, OSError."""

    def __init__(self, root: str, url: str, lake_id: str) -> None:
        super().__init__(root)
        self.url, self._lake_id = url, lake_id
        self._root = root
        self._delivered: set[str] = set()
        self._confirmed: dict[str, int] = {}
        self.learn: Callable[[], object] = lambda: None
        """Brings here what was erased, before a move says so."""
        self.ask: RelayedRequest | None = None
        """Has another process read the bucket, where this one reaches none."""
        self.erased = ErasedStates(DirectoryVolume(root))
        self.required: Sizes = {}
        """Objects of an older state, to which the next move goes back."""
        self.arrived = self.published = 0
        """Moves that this process has taken, and made."""

    @LazyProperty
    def remote(self) -> Bucket:
        """The bucket, to which the first request connects. Raises Unreachable, MissingPackage."""
        return open_bucket(self.url)

    @property
    def bucket(self) -> RemoteVolume:
        """The bucket as a volume."""
        return RemoteVolume(self.remote)

    def sealed(self, data: bytes) -> bytes:
        """Return bytes as they stand in the bucket: an envelope, in an encrypted lake."""
        keys = VAULT.keys_of(f"{self._root}/")
        return keys.encrypt(data) if keys else data

    def require_lake(self) -> None:
        """Refuse a bucket that is away, or holds another lake. Raises Unreachable,
        TransferRefused."""
        try:
            id = untrusted.lake_id(self.bucket.read(KEYS.config))[0]
        except (FileNotFoundError, NotIntact):
            # A directory that is not mounted is an empty one: nothing may be written there.
            raise Unreachable(f"{self.url}: the shared lake is not there now") from None
        if id != self._lake_id:
            raise TransferRefused(
                f"{self.url}: another lake is there now: restore the bucket, or attach a new"
                " directory to it"
            )

    def read(self, key: str, longest: int = DOCUMENT_MAX) -> bytes:
        """Return the bytes of a file; those of an object that is not here from the bucket."""
        try:
            return super().read(key, longest)
        except FileNotFoundError:
            if key.split("/")[0] not in OBJECTS:
                raise
            try:
                self.fetch(key)
            except FileNotFoundError:
                self.learn()  # rows of the state may have been erased: then another is read
                raise
            return super().read(key, longest)

    def exists(self, key: str) -> bool:
        """Whether a file is there: a segment or id run in the bucket, all else in the directory,
        which has every ref and the manifests of the newest."""
        if super().exists(key):
            return True
        if not key.startswith(("segments/", "ids/")):
            return False
        is_there = key in self._delivered or self.bucket.exists(key)
        if is_there:
            self._remember(key)  # a state names it: it stays
        return is_there

    def _remember(self, key: str) -> None:
        if len(self._delivered) >= _DELIVERED_MAX:
            self._delivered.clear()  # each costs one more request
        self._delivered.add(key)

    def stamp(self, key: str) -> int:
        """When a file was written here; now, for an object that only the bucket has."""
        try:
            return super().stamp(key)
        except FileNotFoundError:
            if not self.exists(key):
                raise
            return disk.now_us() * 1000

    def create(self, key: str, data: bytes) -> None:
        """Create a file in the bucket and here; FileExistsError if the name is taken there."""
        with self.remote.publishing({}):
            try:
                self.bucket.create(key, data)
            except FileExistsError:
                self._mirror(key, self.bucket.read(key))
                raise
        self._mirror(key, data)

    def put(self, key: str, data: bytes) -> None:
        """Create an object here and in the bucket."""
        super().put(key, data)
        self.deliver([key])

    def remove(self, key: str) -> None:
        """Remove a file from the bucket, then here."""
        self.bucket.remove(key)
        super().remove(key)

    def deliver(self, keys: Iterable[str]) -> None:
        """Store objects in the bucket that the next move names, if they are here."""
        fresh = [
            key for key in keys if key not in self._delivered and DirectoryVolume.exists(self, key)
        ]
        for key, _ in remotes.in_parallel(self._upload, fresh):
            self._remember(key)
        if fresh:
            remotes.retrying(self.remote.flush)

    def restore(self, key: str) -> None:
        """Store an object that is here in the bucket, in the place of a damaged one."""
        self._upload(key)
        remotes.retrying(self.remote.flush)

    def _upload(self, key: str) -> None:
        path = self.location(key)
        size = os.path.getsize(path)
        remotes.retrying(lambda: self.remote.put(key, lambda: _pieces(path), size))
        digest = FileName.of(key).digest
        if digest and key.startswith("segments/") and size >= name_file.FILE_LEAST:
            self._upload_names(path, digest)

    def _upload_names(self, path: str, digest: str) -> None:
        """Put down which ids and subjects a segment has, so that others need not fetch it."""
        if data := name_file.of_segment(path, digest):
            remotes.put(self.remote, name_file.key_of(digest), self.sealed(data))

    def link(self, file: Begun, key: str) -> None:
        """Publish a move: the bucket decides, and the directory follows. FileExistsError if another
        machine was first; then its move is here. Raises OutcomeUnknown."""
        data = File(file.temporary).read()
        try:
            with self._holding_off_prunes():
                self.bucket.create(key, data)
        except FileExistsError:
            self.take_move(key)
            raise
        except Unreachable as error:
            raise OutcomeUnknown(
                f"{error}; {key} may have been published: it is looked at before the next one"
            ) from None
        branch, number = _place(key)
        if number == 1 and Move.decode(data, branch, number).op != "init":
            self.learn()  # whoever erased meanwhile did not know of the branch
        self._require_previous(key)
        with contextlib.suppress(FileExistsError):  # another process here has taken it in
            super().link(file, key)
        self.published += 1
        self._confirm(key)
        self._store_spans(branch, number, 1)

    @contextlib.contextmanager
    def _holding_off_prunes(self) -> Iterator[None]:
        """Keep what the next move goes back to from being deleted. Raises TransferRefused where it
        is gone already."""
        objects, self.required = self.required, {}
        if not objects:
            yield
            return
        with self.remote.publishing({}):
            lengths = carry.lengths_at(self.remote, objects)
            absent = [key_of(name) for name in objects if lengths.get(name) is None]
            for key in absent:
                if not DirectoryVolume.exists(self, key):
                    raise TransferRefused(
                        f"{self.url}: {key} is not there any more, and the state needs it: nothing"
                        " was changed; go back to a later state"
                    )
            self._delivered.difference_update(absent)
            self.deliver(absent)
            yield

    def _require_previous(self, key: str) -> None:
        """Take a move back that does not follow the one before it here. Raises TransferRefused."""
        branch, number = _place(key)
        if number == 1 or self._confirmed.get(branch) == number - 1:
            return
        previous = KEYS.move(branch, number - 1)
        try:
            self._require_same(previous, self._bytes_or_none(previous))
        except TransferRefused:
            self.bucket.remove(key)
            raise

    def _confirm(self, key: str) -> None:
        branch, number = _place(key)
        self._confirmed[branch] = number

    def fetch(self, key: str) -> bool:
        """Bring an object of the bucket here, checked against its name; return whether it is this
        process that did so. Raises FileNotFoundError, TransferRefused where it is damaged there."""
        path = self.location(key)
        if self.ask is not None:
            self.ask({"keys": [key]})
            return False
        folder = os.path.dirname(path)
        Folder(folder).make_for_objects()

        sha = hashlib.sha256()

        def hashed() -> Iterator[bytes]:
            for chunk in remotes.pieces(self.remote, key):
                sha.update(chunk)
                yield chunk

        try:
            # Unsynced: what a power cut takes of it does not match its name, and comes again.
            temporary = Folder(folder).write_pieces(hashed(), sync=False)
        except FileNotFoundError:
            self.require_lake()
            raise
        try:
            if sha.hexdigest() != os.path.basename(path).split(".")[0]:
                raise TransferRefused(
                    f"{self.url}: {key} does not have the bytes of its name: it is damaged there;"
                    " run `lakelog repair` on a machine that has it"
                )
            is_ours = True
            try:
                File(temporary).link(path)
            except FileExistsError:
                is_ours = False
        finally:
            File(temporary).remove()
        self._remember(key)
        return is_ours

    def piece(self, key: str, start: int, length: int) -> bytes:
        """Return bytes of a file of the bucket. Raises FileNotFoundError, Interrupted."""
        if self.ask is not None:
            return self.ask({"key": key, "start": start, "length": length})
        return self.remote.piece(key, start, length)

    def take_move(self, key: str) -> bool:
        """Bring one move here, with its manifest; False if the bucket has none of that number."""
        try:
            data = self.bucket.read(key)
        except FileNotFoundError:
            return False
        self._accept(key, data, is_newest=True)
        return True

    def take_moves(self, branch: str, newest: int) -> int:
        """Bring the moves of a branch after `newest` here, in their order; return how many. Raises
        TransferRefused where the bucket does not have the newest one as it is here."""
        # The newest one here is asked for with the first: a machine that has no news makes two
        # requests at once.
        spanned = self._take_spans(branch, newest)
        # What is newer than a span are fewer moves than it grows by.
        newest, count, window = newest + spanned, 0, move_spans.GROWTH if spanned else 1
        newest_key = KEYS.move(branch, newest)
        while True:
            keys = [KEYS.move(branch, newest + n) for n in range(1, window + 1)]
            checked = [newest_key] if newest and not count else []
            answers = dict(remotes.in_parallel(self._bytes_or_none, [*checked, *keys]))
            if checked:
                self._require_same(newest_key, answers[newest_key])
            for key, following in itertools.zip_longest(keys, keys[1:]):
                data = answers[key]
                if data is None:
                    if spanned and not count:
                        newest_move = super().read(newest_key)
                        self._obtain_state(untrusted.move(newest_move, branch, newest))
                    if count > 2 * move_spans.GROWTH:
                        self._store_spans(branch, newest, count)
                    return spanned + count
                is_newest = following is None or answers[following] is None
                self._accept(key, data, is_newest=is_newest)
                count, newest = count + 1, newest + 1
            window = min(2 * window, _WINDOW)

    def _take_spans(self, branch: str, newest: int) -> int:
        """Bring what spans of moves there are after `newest` here; return how many moves."""
        if newest % move_spans.SPAN:
            return 0
        head = super().read(KEYS.move(branch, newest)) if newest else b""
        spans = move_spans.spans_after(self.bucket, branch, newest, head)
        if any(span.has_erasure for span in spans):
            self.learn()
        for span in spans[:-1]:
            low, high = min(span.moves), max(span.moves)
            data = MovePack(branch, low, high).encode(span.moves)
            self._mirror(KEYS.packed(branch, low, high), data)
        # The newest ones are files of their own in any lake.
        for number, data in (spans[-1].moves if spans else {}).items():
            self._mirror(KEYS.move(branch, number), data)
            self._confirm(KEYS.move(branch, number))
        count = sum(len(span.moves) for span in spans)
        self.arrived += count
        return count

    def _store_spans(self, branch: str, newest: int, count: int) -> None:
        """Store the spans of a branch that grew by its newest `count` moves."""
        growth, span = move_spans.GROWTH, move_spans.SPAN
        ends = {newest - newest % growth, *range(newest - newest % span, newest - count, -span)}
        for end in sorted(end for end in ends if end > max(newest - count, 0)):
            numbers = range((end - 1) // span * span + 1, end + 1)
            with contextlib.suppress(FileNotFoundError):  # packed here by gc
                moves = {n: DirectoryVolume.read(self, KEYS.move(branch, n)) for n in numbers}
                generation = -1
                # Once more if something was erased meanwhile: what it took out must not stay.
                while generation != self.erased.refresh():
                    generation = self.erased.generation
                    moves = {n: self.erased.without_text(data) for n, data in moves.items()}
                    move_spans.put_span(self.bucket, branch, moves)

    def _require_same(self, key: str, data: bytes | None) -> None:
        """Refuse a bucket that has another move than this machine has, or lost it: an older copy
        was put in its place. Raises TransferRefused."""
        if data is None:
            self.require_lake()
        if data is None or Ref.digest_of(data) != Ref.digest_of(super().read(key)):
            raise TransferRefused(
                f"{self.url}: {key} is not there as this machine has it: was an older copy of the"
                " bucket restored? Nothing is published, and all is here still;"
                " docs/shared-lakes.md says how to bring it to another bucket"
            )
        self._confirm(key)

    def _bytes_or_none(self, key: str) -> bytes | None:
        try:
            return self.bucket.read(key)
        except FileNotFoundError:
            return None

    def _accept(self, key: str, data: bytes, *, is_newest: bool) -> None:
        """Give a move of the bucket its name here, if it follows the one before."""
        branch, number = _place(key)
        try:
            move = untrusted.move(data, branch, number)
            if number > 1:
                previous = super().read(KEYS.move(branch, number - 1))
                if Ref.digest_of(previous) != move.prev:
                    raise untrusted.NotBelieved(
                        "it does not follow the move before it that this machine has"
                    )
        except NotIntact as error:
            raise TransferRefused(
                f"{self.url}: {key}: {error}: refused; was the bucket replaced? Attach a new"
                " directory to it"
            ) from None
        if move.op == "erase":
            self.learn()
        if is_newest:
            self._obtain_state(move)
        self._mirror(key, data)
        self.arrived += 1
        self._confirm(key)

    def take_tag(self, key: str) -> None:
        """Bring a tag here, in the place of one of its name."""
        try:
            data = self.bucket.read(key)
        except FileNotFoundError:
            return  # deleted since it was listed
        with contextlib.suppress(FileNotFoundError):
            if super().read(key) == data:
                return
        try:
            tag = untrusted.tag(data, FileName(key.rpartition("/")[2].removesuffix(".json")).ref)
        except NotIntact as error:
            raise TransferRefused(f"{self.url}: {key}: {error}: refused") from None
        self._obtain_manifest(tag)
        super().replace(key, data)

    def _obtain_state(self, move: Move) -> None:
        """Bring the manifest of a move here that may be the newest one; those of older ones come
        when they are read."""
        # Gone where a prune was sooner: then later moves follow, or whoever reads it says so.
        with contextlib.suppress(FileNotFoundError):
            self._obtain_manifest(move)

    def _obtain_manifest(self, ref: Move | Tag) -> None:
        """Bring the manifest of a state here, or what is read in its place."""
        self.erased.refresh()
        if not ref.carried:
            try:
                self.read(KEYS.object("manifests", self.erased.of(ref.snapshot)))
            except FileNotFoundError:
                self.learn()  # it may have been replaced since
                self.erased.refresh()
                self.read(KEYS.object("manifests", self.erased.of(ref.snapshot)))

    def drop_tag(self, key: str) -> None:
        """Remove a tag here that is gone from the bucket: a listing alone may lack it."""
        if not self.bucket.exists(key):
            super().remove(key)

    def _mirror(self, key: str, data: bytes) -> None:
        with contextlib.suppress(FileExistsError):
            super().create(key, data)


def _place(key: str) -> tuple[str, int]:
    """Return the branch of a move and its number."""
    folder, _, name = key.rpartition("/")
    return FileName.of(folder).ref, FileName(name).move or 0


def _pieces(path: str) -> Iterator[bytes]:
    with open(File(path).open(), "rb") as file:
        while chunk := file.read(_PIECE):
            yield chunk
