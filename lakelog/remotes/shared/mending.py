"""Repairing a directory that is attached to a bucket, and the bucket by what is here.

here damaged    the file is set aside, and comes from the bucket again
there damaged   what is here, and has the bytes of its name, is stored there again
both            it is named as lost; another machine may have it: repair there
"""

from __future__ import annotations

import contextlib
import hashlib
import os

from lakelog.disk import File, Folder, NotIntact
from lakelog.errors import DamagedRef, TransferRefused
from lakelog.maintain import RepairOutcome
from lakelog.paths import KEYS
from lakelog.remotes import remote as remotes
from lakelog.remotes import untrusted
from lakelog.remotes.objects import Sizes, objects_of
from lakelog.remotes.shared.mirrored_volume import MirroredVolume
from lakelog.remotes.site import key_of
from lakelog.store import Store, VerifiedFiles


class BucketMending:
    """One repair. Methods raise Unreachable, OSError."""

    def __init__(self, store: Store, volume: MirroredVolume, outcome: RepairOutcome) -> None:
        self._store, self._volume, self._outcome = store, volume, outcome

    def run(self) -> None:
        """Mend moves, then what their states need."""
        for branch in self._store.refs.all_branches():
            self._mend_moves(branch)
        self._store.refs.forget()
        self._store.manifests.forget()
        # Pages first: without them nobody knows which segments there are.
        for object_type in ("manifests", "segments", "ids"):
            names = [name for name in self._needed() if name[0] == object_type]
            list(remotes.in_parallel(self._mend_object, names))
            self._store.manifests.forget()

    def _mend_moves(self, branch: str) -> None:
        """Replace damaged and missing moves of a branch by those of the bucket."""
        store, outcome = self._store, self._outcome
        names = set(
            Folder(f"{store.paths.heads}/{os.path.basename(KEYS.head_dir(branch))}").names()
        )
        numbers = store.refs.numbers(branch)
        for number in range(1, max(numbers, default=0) + 1):
            key = KEYS.move(branch, number)
            path, is_packed = self._volume.location(key), number in numbers
            if key.rpartition("/")[2] not in names and is_packed:
                continue
            with contextlib.suppress(FileNotFoundError, NotIntact):
                untrusted.move(File(path).read(), branch, number)
                continue
            try:
                data = self._volume.bucket.read(key)
                untrusted.move(data, branch, number)
            except (FileNotFoundError, NotIntact):
                outcome.lost.append(
                    f"move {number} of {branch}: the bucket does not have it either"
                )
                continue
            outcome.replace(store, path, data)
            outcome.fetched.append(key)

    def _needed(self) -> Sizes:
        """The objects of the newest state of each branch, and of each tag, as far as they can be
        read."""
        store, needed = self._store, Sizes()
        heads = [store.refs.head(branch).move.snapshot for branch in store.refs.branches()]
        for snapshot in dict.fromkeys([*heads, *(tag.snapshot for tag in store.refs.tags())]):
            # What cannot be read yet is known once its pages are mended.
            with contextlib.suppress(DamagedRef):
                needed |= self._pages(snapshot) | objects_of(store, snapshot)
        return needed

    def _pages(self, snapshot: str) -> Sizes:
        pages = {
            ("manifests", page.digest): page.bytes
            for page in self._store.manifests.load(snapshot).pages
        }
        for name in pages:
            self._mend_object(name)
        return pages

    def _mend_object(self, name: tuple[str, str]) -> None:
        """Have an object in the bucket and, if it was here, here."""
        key, digest = key_of(name), name[1]
        path, outcome = self._volume.location(key), self._outcome
        is_here = File(path).exists()
        if is_here and VerifiedFiles.hash_file(path) != digest:
            outcome.set_aside(self._store, path)
            is_here = False
            with contextlib.suppress(FileNotFoundError, TransferRefused):
                self._volume.fetch(key)
                outcome.fetched.append(key)
                return
        if self._digest_there(key) == digest:
            return
        if is_here:
            self._volume.restore(key)
            outcome.done.append(f"{key} was damaged in the bucket, and is restored from here")
        else:
            outcome.lost.append(
                f"{key}: damaged or missing in the bucket, and not here: run `lakelog repair` on"
                " the other machines, one of them may have it"
            )

    def _digest_there(self, key: str) -> str:
        """The digest of the bytes that the bucket has of an object, "" for none."""
        sha = hashlib.sha256()
        try:
            for chunk in remotes.pieces(self._volume.remote, key):
                sha.update(chunk)
            return sha.hexdigest()
        except FileNotFoundError:
            return ""
