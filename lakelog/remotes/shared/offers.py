"""Offers: what a machine has sealed, put down in the bucket for whoever wins the next move (F22.8).

    offers/<branch>/<number>-<digest>.json   a document with the members of `Offer`

An offer is right on each head of its generation where its writers' watermarks are those that it
was made on (`base`), so that of a seal and its offer one is published, and once. A head that lacks
a watermark may have left it out: so an offer counts for HEADS moves, and a machine leaves none out
that was not there so many moves before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import re
import time
from dataclasses import dataclass
from typing import Any

from lakelog import document
from lakelog.entries import Entry, IdRun, Record, SegmentEntry
from lakelog.errors import LakelogError, UnknownRef
from lakelog.identities import IdentityKeys
from lakelog.keys import VAULT
from lakelog.manifest import Manifest
from lakelog.moves import Change
from lakelog.paths import FileName, encode_name
from lakelog.refs import Head, Move
from lakelog.remotes import remote as remotes
from lakelog.remotes import untrusted
from lakelog.remotes.shared.mirrored_volume import MirroredVolume
from lakelog.store import Store

HEADS = 32
"""Moves after its own for which an offer counts."""
ENTRIES_MAX = 512
"""Entries of one move at most: it is one document."""
READ_MAX, READERS = 64, 32
"""Offers that are read before one attempt at most, and at once: benchmarks/shared_scale.py."""
_WAIT_MAX = 5.0
_NAME = re.compile(r"(\d{12})-([0-9a-f]{64})\.json")


@dataclass(frozen=True)
class Offer:
    """The sealed frames of one machine, made on the move `number`: watermarks before (`base`) and
    after (`sealed`), the entries and id runs that they give, and the runs that were `checked` for
    their ids."""

    number: int
    generation: int
    base: dict[str, int]
    sealed: dict[str, int]
    entries: tuple[Entry, ...]
    ids: tuple[IdRun, ...]
    checked: frozenset[str]

    @classmethod
    def of(cls, head: Head, state: Manifest, change: Change) -> Offer:
        """Return what offers a seal that was planned on a head."""
        base = {writer: head.move.wal.get(writer, -1) for writer in change.sealed}
        runs = frozenset(run.digest for run in state.ids if change.ids_add)
        number, generation = head.move.number, head.move.generation
        return cls(number, generation, base, change.sealed, change.entries, change.ids_add, runs)

    def encode(self) -> bytes:
        """Return the bytes of its file."""
        body = dict(vars(self), entries=[entry.to_json() for entry in self.entries])
        body["ids"] = [dataclasses.astuple(run) for run in self.ids]
        return document.encode({**body, "checked": sorted(self.checked)})

    @classmethod
    def decode(cls, data: bytes) -> Offer:
        """Return the offer in a file. Raises NotIntact for what no machine would have put there."""
        offer = untrusted.offer(data)
        entries = tuple(untrusted.entries(offer.pop("entries")))
        runs = tuple(IdRun(*run) for run in offer.pop("ids"))
        if not all(map(_is_fresh, entries)) or offer["base"].keys() != offer["sealed"].keys():
            raise untrusted.NotBelieved("an offer is malformed")
        return cls(**{**offer, "checked": frozenset(offer["checked"])}, entries=entries, ids=runs)

    def object_keys(self) -> list[str]:
        """Return the keys of the objects that it names."""
        return Change("seal", entries=self.entries, ids_add=self.ids).added_keys()

    def is_right(self, move: Move, sealed: dict[str, int]) -> bool:
        """Whether it can be published after a move, with what else is `sealed` then."""
        return (
            move.generation == self.generation
            and self.number <= move.number < self.number + HEADS
            and not self.sealed.keys() & sealed.keys()
            and all(move.wal.get(writer, -1) == mark for writer, mark in self.base.items())
        )


def _is_fresh(entry: Entry) -> bool:
    """Whether an entry is one that a seal adds: others could take rows away."""
    if isinstance(entry, Record):
        return entry.entry_type == "host"
    return isinstance(entry, SegmentEntry) and entry.seq[1] < entry.seq[0] and not entry.made_from


class OfferBook:
    """The offers in one bucket, as one process knows them."""

    def __init__(self, volume: MirroredVolume) -> None:
        self._volume = volume
        self._own_offers: dict[str, Offer] = {}
        self._foreign_offers: dict[str, Offer | None] = {}
        self._tried: tuple[str, Any] = ("", None)
        self._won = 0
        self._has_waited = False
        self._latency = 0.0
        self._erased_at: dict[str, tuple[int, int]] = {}

    def join(self, store: Store, head: Head, state: Manifest, change: Change) -> Change | None:
        """Return a seal with the offers of others, and put down its own where others are likely to
        be first; None where the branch has moved on."""
        branch = head.move.branch
        attempt = branch, tuple(sorted(change.sealed.items()))
        is_again = attempt == self._tried
        # The last one was not won: so many publish here that it is better to be taken along.
        is_contested = is_again or (bool(self._tried[0]) and self._won == self._volume.published)
        self._tried, self._won = attempt, self._volume.published
        if is_contested:
            self._put(store, head, state, change)
        if is_again and not self._has_waited:
            # The more machines lost, the fewer of them try at once: all but one would lose again.
            self._has_waited = True
            wait = random.uniform(0, self._latency * len(self._foreign_offers) / 4)
            time.sleep(min(wait, _WAIT_MAX))
            if self._volume.take_moves(branch, head.move.number):
                return None
        self._has_waited = False
        entries, sealed, runs = change.entries, dict(change.sealed), change.ids_add
        for offer in self._listed(branch, head.move.number, READ_MAX):
            is_short = len(entries) + len(offer.entries) <= ENTRIES_MAX
            is_right = is_short and self._is_right(store, offer, head.move, sealed)
            if is_right and not self._repeats(store, offer, (*state.ids, *runs)):
                entries, runs = (*entries, *offer.entries), (*runs, *offer.ids)
                sealed |= offer.sealed
        return dataclasses.replace(change, entries=entries, sealed=sealed, ids_add=runs)

    def _put(self, store: Store, head: Head, state: Manifest, change: Change) -> None:
        """Put an offer down, unless one of the same frames is there and will still count."""
        number = head.move.number
        for offer in self._own_offers.values():
            is_same = offer.sealed == change.sealed and offer.entries == change.entries
            is_right = is_same and self._is_right(store, offer, head.move, {})
            if is_right and number < offer.number + HEADS // 2:
                return
        store.volume.finish(change.pending_files)
        store.volume.deliver(change.added_keys())
        offer = Offer.of(head, state, change)
        data = self._volume.sealed(offer.encode())
        key = f"{_folder(head.move.branch)}/{number:012d}-{document.digest(data)}.json"
        remotes.put(self._volume.remote, key, data)
        remotes.retrying(self._volume.remote.flush)
        self._own_offers[key] = offer

    def _listed(self, branch: str, number: int, most: int | None) -> list[Offer]:
        """Return the offers of other processes that may count after move `number`, oldest first,
        of those not known yet `most`; removes those that never will."""
        folder = _folder(branch)
        started = time.monotonic()
        matches = filter(None, map(_NAME.fullmatch, self._volume.bucket.names(folder)))
        self._latency = time.monotonic() - started
        numbers = {f"{folder}/{match[0]}": int(match[1]) for match in matches}
        foreign = sorted(numbers.keys() - self._own_offers.keys())
        outdated = [key for key in foreign if numbers[key] + HEADS < number]
        list(remotes.in_parallel(self._volume.bucket.remove, outdated))
        due = [key for key in foreign if numbers[key] + HEADS >= number]
        fresh = [key for key in due if key not in self._foreign_offers][:most]
        self._foreign_offers = {
            key: offer for key, offer in self._foreign_offers.items() if key in numbers
        }
        self._foreign_offers |= dict(remotes.in_parallel(self._read, fresh, READERS))
        return [offer for key in due if (offer := self._foreign_offers.get(key))]

    def keys(self, branch: str) -> list[str]:
        """Return the keys of the objects of all offers of a branch."""
        # One that is not read would be taken for none, and its objects deleted.
        offers = [*self._own_offers.values(), *self._listed(branch, 0, None)]
        return [key for offer in offers for key in offer.object_keys()]

    def _read(self, key: str) -> Offer | None:
        """Return an offer whose objects are there; None for any other file."""
        try:
            data = self._volume.bucket.read(key)
            match = _NAME.fullmatch(key.rpartition("/")[2])
            if match is None or document.digest(data) != match[2]:
                return None
            offer = Offer.decode(VAULT.decrypt(data))
            is_whole = all(map(self._volume.exists, offer.object_keys()))
        except (FileNotFoundError, ValueError):
            return None
        return offer if is_whole and offer.number == int(match[1]) else None

    def _repeats(self, store: Store, offer: Offer, runs: tuple[IdRun, ...]) -> bool:
        """Whether an id of an offer is in a run that it was not checked against: then the machine
        has to make its segment again."""
        new_runs = [run for run in runs if run.digest not in offer.checked]
        if not offer.ids or not new_runs:
            return False
        try:
            offered_keys = [IdentityKeys.read(store, run) for run in offer.ids]
            return any(IdentityKeys.read(store, run).overlaps(offered_keys) for run in new_runs)
        except LakelogError:
            return True

    def _is_right(self, store: Store, offer: Offer, move: Move, sealed: dict[str, int]) -> bool:
        """Whether an offer can be published after a move: what was made before an erasure may have
        rows of it."""
        return offer.is_right(move, sealed) and offer.number >= self._last_erasure(store, move)

    def _last_erasure(self, store: Store, move: Move) -> int:
        """The number of the last move `erase` among those for which an offer counts, 0 for none."""
        upto, erasure_number = self._erased_at.get(move.branch, (0, 0))
        numbers = range(move.number, max(upto, move.number - HEADS), -1)
        for number in numbers if upto < move.number else ():
            # What gc dropped here made no row anew.
            with contextlib.suppress(UnknownRef):
                if store.refs.read(move.branch, number).op == "erase":
                    erasure_number = number
                    break
        self._erased_at[move.branch] = move.number, erasure_number
        return erasure_number

    def settle(self, store: Store) -> None:
        """Remove those of this process that were published, or never will be, from the bucket."""
        for key, offer in list(self._own_offers.items()):
            move = store.refs.head(FileName(key.split("/")[1]).ref).move
            if not self._is_right(store, offer, move, {}):
                del self._own_offers[key]
                self._volume.bucket.remove(key)


def _folder(branch: str) -> str:
    return f"offers/{encode_name(branch)}"


def old_writers(store: Store, move: Move) -> set[str]:
    """Return the writers that had a watermark HEADS moves before the one after `move`: an offer
    that was made before their first one does not count any more."""
    branch, number = move.branch, move.number + 1 - HEADS
    if number < 1:
        return set()
    try:
        return set(store.refs.read(branch, number).wal)
    except UnknownRef:  # dropped by gc: of those before it the last one
        earlier = [n for n in store.refs.numbers(branch) if n < number]
        return set(store.refs.read(branch, earlier[-1]).wal) if earlier else set()
