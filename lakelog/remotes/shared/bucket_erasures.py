"""What is erased from a shared lake: how it goes to the bucket, and from there to each machine.

    share   segments that were written again go to the bucket, then what they stand for (F22.14)
    learn   the same comes here, before a move `erase` is taken, and what it replaced goes
    sweep   what was replaced leaves the bucket: texts, offers, segments

So whoever publishes after the move knows what is refused, and what was sealed before it is sealed
again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass

from lakelog import document
from lakelog.bloom import Filters
from lakelog.disk import DOCUMENT_MAX, File, NotIntact
from lakelog.erased import records, sweep
from lakelog.erased.records import ErasedRows, Erasure
from lakelog.keys import SubjectKeys
from lakelog.maintain import RepairOutcome
from lakelog.paths import KEYS, FileName, FileNames, Paths, encode_name
from lakelog.remotes import remote as remotes
from lakelog.remotes.erasures import keys_in, read_record
from lakelog.remotes.remote_volume import RemoteVolume
from lakelog.remotes.shared import name_file
from lakelog.remotes.shared.machines import Machines
from lakelog.remotes.shared.mirrored_volume import MirroredVolume
from lakelog.remotes.shared.name_units import file_keys
from lakelog.remotes.shared.names import NameIndex, NeededNames
from lakelog.remotes.site import Site, requiring
from lakelog.store import LakeConfig, Store
from lakelog.volume import DirectoryVolume, ErasedStates, MovePack

_HEX = [f"{number:02x}" for number in range(256)]
_REQUIRED = "erasure"


@dataclass(frozen=True)
class _Copy:
    """One copy of the files of a lake, and what is read in it in the place of which states."""

    volume: RemoteVolume | DirectoryVolume
    erased: ErasedStates


class _BucketObjects(RemoteVolume):
    """The objects of a bucket, which has these segments; manifests that are here are read here."""

    def __init__(self, volume: MirroredVolume, segments: Set[str]) -> None:
        super().__init__(volume.remote)
        self._local, self._segments = DirectoryVolume(volume.location("")[:-1]), segments

    def exists(self, key: str) -> bool:
        """Whether a segment is there."""
        return FileName.of(key).digest in self._segments

    def read(self, key: str, longest: int = 0) -> bytes:
        """Return the bytes of a manifest. Raises FileNotFoundError."""
        with contextlib.suppress(FileNotFoundError):
            return self._local.read(key)
        return super().read(key)


def _is_whole(path: str) -> bool:
    try:
        document.check(File(path).read(DOCUMENT_MAX))
    except (FileNotFoundError, NotIntact):
        return False
    return True


class BucketErasures:
    """The erasures of one bucket, and of the directory that is attached to it. Methods raise
    Unreachable, TransferRefused, OSError."""

    def __init__(
        self, paths: Paths, volume: MirroredVolume, names: NameIndex, machines: Machines
    ) -> None:
        self._paths, self._volume, self._names = paths, volume, names
        self.machines = machines
        local = DirectoryVolume(paths.root)
        self.local = _Copy(local, ErasedStates(local))
        """The directory alone."""
        self._looked = (0, 0, 0, 0)

    # --- every machine ---

    def join(self, *, is_new: bool) -> None:
        """Say that this machine is there, which has nothing yet if it `is_new`; learn what was
        erased before."""
        self.machines.join(is_new=is_new)
        if _REQUIRED in document.decode(File(self._paths.config).read()).get("requires", ()):
            self.learn()

    def learn(self) -> None:
        """Bring the erasures of the bucket here, and drop what was replaced."""
        bucket, is_new = self._volume.bucket, False
        bucket_states = ErasedStates(bucket)
        bucket_states.refresh()
        # First of all: an older version must refuse what it would misread.
        if keys := keys_in(bucket) | bucket_states.keys():
            self._require(again=False)
        self.local.erased.adopt(bucket_states)
        by_key = {record.key: record for record in records.listing(self._paths)}
        for key in sorted(keys):
            if key not in by_key or not by_key[key].is_swept:
                record, rows = read_record(bucket, self._volume.url, key)
                if key not in by_key:
                    # An older copy of this directory may have been put in its place since.
                    self.machines.withdraw(key)
                    is_new = True
                record.with_places_of(by_key.get(key, record)).save(self._paths, rows)
        if is_new:
            self._require(again=True)  # writers go on in new files
            self.destroy_keys()
        # While one goes on, a state that was published meanwhile still names what is replaced.
        is_all = all(record.is_swept for record in records.listing(self._paths))
        self._clean(bucket_states, all_of_it=is_all)

    def mend(self, store: Store, outcome: RepairOutcome) -> None:
        """Replace what is damaged here of the notes of erasures by what the bucket has."""
        for key in sorted(keys_in(self._volume.bucket)):
            record, rows = read_record(self._volume.bucket, self._volume.url, key)
            endings = (".json", ".rows") if rows != ErasedRows() else (".json",)
            files = [f"{KEYS.erasures}/{key}{ending}" for ending in endings]
            if not all(_is_whole(self._volume.location(file)) for file in files):
                for file in files:
                    outcome.set_aside(store, self._volume.location(file))
                record.save(self._paths, rows)
                outcome.fetched += files
        self.learn()

    def destroy_keys(self) -> None:
        """Destroy the keys here that erasures destroyed. Raises InvalidKey where the file does not
        open."""
        protection = self._paths.protection
        if protection is None or not os.path.exists(protection.path):
            return
        places = [place for record in records.listing(self._paths) for place in record.places]
        status = os.stat(protection.path)
        looked = status.st_ino, status.st_mtime_ns, status.st_size, len(places)
        if places and looked != self._looked:
            SubjectKeys.destroy(protection.id, places)
            self._looked = looked

    def unconfirmed(self, is_due: Callable[[Erasure], bool]) -> list[str]:
        """Return the erasures that have left the bucket, and of which this machine has not said
        the same of itself, of those that are due; a request only where something was ever
        erased."""
        present = records.listing(self._paths)
        if not present:
            return []
        confirmed = self.machines.confirmed
        keys = {record.key for record in present if record.key not in confirmed and is_due(record)}
        if not keys:
            return []
        self.learn()
        if not all(record.is_swept for record in records.listing(self._paths)):
            return []  # what is left here may be of the one that goes on
        return sorted(keys)

    def replaces(self, digests: Set[str]) -> bool:
        """Whether segments are gone because rows of them were erased; then that is known here."""
        bucket_states = ErasedStates(self._volume.bucket)
        bucket_states.refresh()
        if digests.isdisjoint(bucket_states.segments()):
            return False
        self.learn()
        return True

    def _clean(self, bucket_states: ErasedStates, *, all_of_it: bool) -> None:
        """Drop texts that were replaced here, objects with `all_of_it`; and from the bucket what
        this machine may have put there since the one that erases has looked."""
        for key in sweep.unfinished(self.local):
            # What names an older state: a tag, or the first move of a branch. Others read its text
            # until the bucket says what stands in its place, which it does not before `share`.
            if key.startswith(f"{KEYS.tags}/") or FileName.of(key).move == 1:
                self._strip(key, bucket_states)
        sweep.sweep(self.local, refs_only=True)
        if all_of_it:
            objects = sweep.unfinished(self.local)
            list(remotes.in_parallel(self._volume.bucket.remove, objects))
            sweep.sweep(self.local)

    def _require(self, *, again: bool) -> None:
        config = LakeConfig(self._paths)
        if again or _REQUIRED not in config.read_to_change().get("requires", ()):
            config.change(lambda body: requiring(body, _REQUIRED))

    # --- the one that erases ---

    def share(self, record: records.Erasure) -> None:
        """Let all machines know what stands here in the place of which states and segments, and
        what is refused from now on."""
        volume, erased = self._volume, self.local.erased
        erased.refresh()
        bucket_states = ErasedStates(volume.bucket, volume.sealed)
        bucket_states.refresh()
        fresh = set(erased.segments().values()) - {*bucket_states.segments().values(), ""}
        volume.deliver([KEYS.object("segments", digest) for digest in sorted(fresh)])
        site = Site(volume.remote)
        if _REQUIRED not in (site.config().get("requires") or []):
            site.change_config(lambda body: requiring(body, _REQUIRED))
        name = f"{KEYS.erasures}/{record.key}"
        rows = record.rows(self._paths).encoded()
        volume.bucket.replace(f"{name}.rows", volume.sealed(rows))
        bucket_states.adopt(erased)
        # After all that it says is there.
        document_there = volume.sealed(record.without_places().encoded())
        volume.bucket.replace(f"{name}.json", document_there)
        bucket_states.adopt(erased, record.key)  # once it can be read

    def segments_there(self) -> set[str]:
        """Return the digests of all segments of the bucket."""
        bucket = self._volume.bucket
        listings = remotes.in_parallel(lambda name: bucket.names(f"segments/{name}"), _HEX)
        return {d for _, names in listings for d in FileNames(names).digests}

    def without(self, subject: str, digests: Set[str]) -> set[str]:
        """Return those of segments that certainly have no event of a subject, by names."""
        needs = [("subject", Filters.hashes_of([subject]))]
        return NeededNames(self._names, needs).lacking(digests)

    def sweep(self, store: Store) -> None:
        """Take out of the bucket what was replaced, and offers of before it."""
        bucket, erased = self._volume.bucket, self.local.erased
        erased.refresh()
        for branch in store.refs.branches():
            folder = f"offers/{encode_name(branch)}"
            number = store.refs.head_number(branch)
            offers = [f"{folder}/{n}" for n in bucket.names(folder) if _offered_at(n) < number]
            list(remotes.in_parallel(bucket.remove, offers))
        list(remotes.in_parallel(lambda key: self._strip(key, erased), erased.replaced_refs()))
        list(remotes.in_parallel(self._strip_span, self._spans()))
        segments = self.segments_there()
        keys = sweep.unfinished(_Copy(_BucketObjects(self._volume, segments), erased))
        # References first: no state may name a segment that is deleted.
        for folder in ("manifests/", "segments/"):
            list(remotes.in_parallel(bucket.remove, [k for k in keys if k.startswith(folder)]))
        list(remotes.in_parallel(bucket.remove, self._old_names(store, segments)))

    def _old_names(self, store: Store, segments: Set[str]) -> list[str]:
        """Return the keys of files of names that are about nothing that is there."""
        erased = self.local.erased.segments()
        segments = {key for key in segments if erased.get(key, key) == key}
        branches = store.refs.branches()
        live = {key for branch in branches for key in file_keys(store.state(branch))}
        live |= set(map(name_file.key_of, segments))
        present = map(name_file.key_of, self._volume.bucket.names(KEYS.names))
        return [key for key in present if key not in live]

    def _strip(self, key: str, erased: ErasedStates) -> None:
        """Take the text of a replaced state out of a move or tag of the bucket."""
        bucket = self._volume.bucket
        with contextlib.suppress(FileNotFoundError):
            data = bucket.read(key)
            if (line := erased.without_text(data)) != data:
                bucket.replace(key, line)

    def _spans(self) -> Iterator[str]:
        bucket = self._volume.bucket
        for branch in bucket.names("packs"):
            for name in bucket.names(f"packs/{branch}"):
                if FileName(name).packed:
                    yield f"packs/{branch}/{name}"

    def _strip_span(self, key: str) -> None:
        bucket = self._volume.bucket
        with contextlib.suppress(FileNotFoundError):
            moves = MovePack.readable(bucket.read(key))
            stripped = {n: self.local.erased.without_text(data) for n, data in moves.items()}
            if stripped != moves:
                _, branch, name = key.split("/")
                span = FileName(name).packed or (0, 0)
                bucket.replace(key, MovePack(FileName(branch).ref, *span).encode(stripped))


def _offered_at(name: str) -> int:
    """The number of the move on which an offer was made."""
    digits = name.partition("-")[0]
    return int(digits) if digits.isdecimal() else 0
