"""What was erased goes to remotes with a push, and comes from them with a pull.

A remote gets what the erasures refuse, and for each state there that had erased rows the one that
is read in its place; then it is swept as the lake was, and gets the records last. A state that is
only there may have such rows, too: it is brought here and erased from first. Who pushes
without an erasure that is there is refused, and who pulls erases the same here.
"""

from __future__ import annotations

import contextlib
import functools
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from lakelog import erasure as erasures
from lakelog.disk import File
from lakelog.erased import records, sweep
from lakelog.erased.records import ErasedRows, Erasure
from lakelog.errors import Damaged, TransferRefused
from lakelog.history import remove_tag
from lakelog.keys import VAULT
from lakelog.lake import Lake
from lakelog.paths import FORMAT, KEYS, FileNames
from lakelog.remotes import carry
from lakelog.remotes import remote as remotes
from lakelog.remotes.carry import Carried
from lakelog.remotes.directory import DirectoryRemote
from lakelog.remotes.known import track
from lakelog.remotes.objects import Sizes, objects_of
from lakelog.remotes.remote_volume import RemoteVolume
from lakelog.remotes.site import Site, key_of, requiring
from lakelog.store import AttachmentRegistry, Store
from lakelog.values import JsonObject
from lakelog.volume import ErasedStates

_FILE = re.compile(r"([0-9a-f]{16})\.(?:json|rows)")
_HEX, _DIGEST = re.compile(r"[0-9a-f]*"), re.compile(r"[0-9a-f]{64}")

_LOOKS = 10
"""How often states there are looked at again because others pushed meanwhile."""
_BROUGHT = "erasing-"
"""What names of tags begin with, below that of the remote, of states that are here to be erased
from."""
_SAVED = "a saved directory names it there, too: delete {file} there, then say --cleaned {name}"
_COLLECT = "run the garbage collection of the registry, then say --cleaned {name}"
_REFUSED = (
    "the registry deletes nothing: allow it there, then `lakelog push --repair {name}`; or push to"
    " a new repository, delete this one, then say --cleaned {name}"
)


_VERSIONS = (
    "the bucket keeps older versions of its objects: delete those there, then say --cleaned {name}"
)


class RemoteErasures:
    """The erasures of a lake, and those of a remote."""

    def __init__(self, store: Store, site: Site, name: str) -> None:
        self._store, self._site, self._name = store, site, name
        self._command = f"lakelog push {shlex.quote(name)}"
        self.volume = site.volume
        keys = store.paths.keys
        self.erased = ErasedStates(site.volume, keys.encrypt if keys else None)
        """What is read there in the place of which states."""

    def keys_there(self) -> set[str]:
        """The keys of the erasures that the remote has, or is about to have."""
        # Either file counts: one that is half written means that an erasure is about to be there.
        return {match[1] for match in map(_FILE.fullmatch, self._names()) if match}

    def _names(self) -> list[str]:
        return self.volume.names(KEYS.erasures)

    def refuse_unknown(self) -> None:
        """Refuse to push from a lake that lacks an erasure of the remote: it may have the rows.
        Raises TransferRefused."""
        if unknown := self.keys_there() - self._records().keys():
            raise TransferRefused(
                f"{self._site.url}: erasure {min(unknown)} is not known here, and what it erased"
                " may be: `lakelog pull` first, which erases it here, too"
            )

    def adopt(self, lake: Lake) -> list[str]:
        """Erase here what was erased there; return the keys of the erasures that are new here.
        Raises TransferRefused, NotAllowed, GcRefused, Damaged."""
        known_here = {k: record for k, record in self._records().items() if record.is_swept}
        # Of one that is not ended here, or not confirmed, a pull was killed.
        open_keys = {key for key, record in known_here.items() if self._is_open(record)}
        waiting = self.keys_there() - (known_here.keys() - open_keys)
        news = (read_record(self.volume, self._site.url, key) for key in waiting)
        # An erasure that is not finished there is finished by whoever began it, and then adopted.
        swept = [pair for pair in news if pair[0].is_swept]
        # As they came: what the first of two of a subject took is counted and named by it.
        swept.sort(key=lambda pair: (pair[0].time, pair[0].key))
        adopted = [pair for pair in swept if pair[0].key not in known_here]
        if adopted:
            self.erased.refresh()
            erasures.adopt(lake, adopted, self.erased.segments().keys())
        if swept and self._is_clean():
            for record, _ in swept:
                self._confirm(record.key)
        self.finish(lake)
        return [record.key for record, _ in adopted]

    def _is_clean(self) -> bool:
        """Whether nothing is there that was replaced here, as a push that began before an erasure
        brings it."""
        erased = self._store.erased
        erased.refresh()
        states = [state for state in self._states() if erased.holds(state)]
        if any(digest == state for state, digest in self.stored_as(states).items()):
            return False
        segments = {key for key, new in erased.segments().items() if key != new}
        return segments.isdisjoint(self._segments())

    def stored_as(self, snapshots: Iterable[str]) -> dict[str, str]:
        """Return the digests of the manifests that are read there as some states, by one look.
        Raises TransferRefused."""
        self.erased.refresh()
        digests = {snapshot: self.erased.of(snapshot) for snapshot in snapshots}
        if not all(map(_DIGEST.fullmatch, digests.values())):
            raise TransferRefused(f"{self._site.url}: erasures/states.json is malformed: refused")
        return digests

    def stand_in(self, snapshot: str) -> str:
        """Receive what is read there in the place of a state, which is not here, and let it be read
        so here; return its digest, or that of the state itself. Raises TransferRefused."""
        if self._store.manifests.is_there(snapshot):
            return snapshot  # as it was before: a pull erases from it
        digest = self.stored_as([snapshot])[snapshot]
        if digest == snapshot:
            return snapshot
        # An erasure here may have put another in its place since, which gc has deleted.
        if not self.is_readable(digest):
            carry.receive_manifest(self._store, self._site.remote, digest)
        # The format comes first: an older lakelog must refuse the lake before it reads a wrong
        # manifest.
        self._store.require("erasure")
        self._store.erased.add({snapshot: digest}, {})
        return digest

    def offer(self, snapshot: str, carried: Carried) -> None:
        """Let the remote know what is read in the place of a state that is about to be named there.
        Raises TransferRefused."""
        if self._store.manifests.stored_as(snapshot) == snapshot:
            return
        if self.stored_as([snapshot])[snapshot] == snapshot:
            self._replace([snapshot], carried)

    def push(self, lake: Lake, carried: Carried, *, is_repair: bool = False) -> list[str]:
        """Erase at the remote what was erased here; return the keys of erasures that are new there.
        A repair does it again in a registry, which may delete now. Raises TransferRefused,
        Unreachable, Damaged."""
        self.finish(lake)
        self._store.erased.refresh()
        records_here = self._records()
        # Rows refused, manifests replaced, bytes swept, record written: a kill leaves the remote
        # refusing.
        names = self._names() if records_here else []
        # Without its record an erasure is not complete there, and is done again.
        is_repair = is_repair and self._site.remote.lists_objects
        fresh = [
            key
            for key, record in records_here.items()
            if is_repair or f"{key}.json" not in names or self._is_open(record)
        ]
        if not fresh:
            return []
        if AttachmentRegistry.MEMBER in (self._site.config().get("requires") or ()):
            raise TransferRefused(
                f"{self._site.url}: erase there from a machine that is attached to the shared lake,"
                " then `lakelog pull`"
            )
        if unfinished := next((key for key in records_here if not records_here[key].is_swept), ""):
            raise TransferRefused(f"erasure {unfinished} is not finished here: erase once more")
        self._replace_all(lake, fresh, carried)
        advice = ""
        if isinstance(self._site.remote, DirectoryRemote):
            # It may be a lake in use, which derived something from what goes.
            erasures.clean(Store.load(self._site.remote.url))
        elif self._site.remote.lists_objects:
            advice = _COLLECT if self._purge() else _REFUSED
        else:
            sweep.sweep(self)
            advice = _VERSIONS if self._site.remote.keeps_versions else ""
        for key in fresh:
            # Where else rows of this lake went is of no use there.
            self._write(f"{key}.json", records_here[key].without_places().encoded())
            self._confirm(key, advice)
        return fresh

    def _replace_all(self, lake: Lake, fresh: Sequence[str], carried: Carried) -> None:
        """Refuse there what the erasures refuse, and let each state that moves and tags there name
        be read without the rows, also of those that others push meanwhile. Raises
        TransferRefused."""
        erased, moved, before = self._store.erased, set[str](), set[str]()
        is_still = False
        for _ in range(_LOOKS):
            states = self._states()
            if is_still and states.keys() <= before:
                return
            self._bring(lake, states)
            erased.refresh()
            replacements = {d: erased.of(d) for d in states if erased.holds(d)}
            stored_as = self.stored_as(replacements)
            # What is read there already in the place of a state is there.
            news = [state for state, digest in replacements.items() if stored_as[state] != digest]
            for key, record in self._records().items():
                if key in fresh:
                    self._write(f"{key}.rows", record.rows(self._store.paths).encoded())
            self._replace(news, carried)
            # Who looked before the rows were refused finds each branch moved, and looks again.
            before, is_still = set(states), self._move_branches(moved)
        raise TransferRefused(f"{self._site.url}: it changes all the time: try again")

    def _move_branches(self, moved: set[str]) -> bool:
        """Make a move `erase` on each branch there that was not `moved` yet, which names the same
        state; whether nobody else made one."""
        store, site, is_still = self._store, self._site, True
        for branch in filter(lambda name: name not in moved, site.branches()):
            head = site.head(branch)
            if head is None or head.move.op == "delete":
                continue
            snapshot, objects = head.move.snapshot, Sizes()
            if site.remote.lists_objects:
                if not self.is_readable(snapshot):
                    continue  # nobody can say what its move would list
                objects = objects_of(store, store.manifests.stored_as(snapshot))
            with site.remote.publishing({key_of(name): size for name, size in objects.items()}):
                carried_text = b"" if store.erased.holds(snapshot) else head.move.carried
                if site.advance(branch, head, snapshot, carried_text, rewind=False, op="erase"):
                    moved.add(branch)
                else:
                    is_still = False
        return is_still

    def _purge(self) -> bool:
        """Let each move and tag of a registry list what is read in the place of its state, and
        delete what was listed before; return whether the registry deleted all."""
        store, far = self._store, self._site.remote
        self.erased.refresh()
        pairs = (
            (key, snapshot) for key in self.erased.refs() for snapshot, _ in self.erased.named(key)
        )
        stand_ins = {key: store.erased.of(s) for key, s in pairs if self.erased.holds(s)}
        needed = {key: KEYS.object("manifests", digest) for key, digest in stand_ins.items()}
        for key in remotes.retrying(lambda: far.without(needed)):
            document_alone = self.erased.without_text(self.volume.read(key))
            objects = objects_of(store, stand_ins[key])
            with far.publishing({key_of(name): size for name, size in objects.items()}):
                remotes.retrying(functools.partial(far.rewrite, key, document_alone))
        for file in self._site.signatures():
            if signature := self._site.signature(file):
                # Of what it signs another manifest is the subject now.
                self._site.put_signature(file, signature, replace=True)
        segments = (k for k, new in self.erased.segments().items() if new != k)
        obsolete = {*sweep.unfinished(self), *(KEYS.object("segments", key) for key in segments)}

        def is_old(document: bytes) -> bool:
            return self.erased.without_text(document) != document

        return remotes.retrying(lambda: far.purge(obsolete, is_old))

    def _records(self) -> dict[str, Erasure]:
        return {record.key: record for record in records.listing(self._store.paths)}

    def _states(self) -> dict[str, bytes]:
        """The states that moves and tags there name, with the text that they carry."""
        states: dict[str, bytes] = {}
        # The last byte of a carried text is the line's end.
        for key in self.erased.refs():
            for snapshot, carried_text in self.erased.named(key):
                states[snapshot] = carried_text[:-1] or states.get(snapshot, b"")
        return states

    def _bring(self, lake: Lake, states: dict[str, bytes]) -> None:
        """Erase from the states there that are not known here, by having them here for a while."""
        store = self._store
        store.manifests.forget()  # gc may have deleted what was read before
        for snapshot, carried_text in states.items():
            if self.is_readable(snapshot):
                continue
            self._mark(lake)
            # One that was given up there can be read by nobody.
            with contextlib.suppress(Damaged, TransferRefused):
                digest = self.stand_in(snapshot)
                carried = carried_text if digest == snapshot else b""
                self._receive(carry.objects_there(store, self._site.remote, snapshot, carried))
                # A tag, or gc here would take what was just brought, before it is erased from.
                track(store, self._name, f"{_BROUGHT}{snapshot[:16]}", snapshot, carried)
        if unknown := self._unknown_segments():
            self._mark(lake)
            self._receive(unknown)
        self.finish(lake)

    def _mark(self, lake: Lake) -> None:
        """Note that rows of erasures may be here from now on, which no branch may go on from."""
        head = self._store.refs.head(lake.branch_name).move
        track(self._store, self._name, f"{_BROUGHT}begun", head.snapshot)

    def finish(self, lake: Lake) -> None:
        """Erase from what was brought here, also by a push that was killed before it did so; and
        end what else was begun."""
        store, prefix = self._store, f"{self._name}/{_BROUGHT}"
        tags = [name for name in store.refs.tag_names() if name.startswith(prefix)]
        if not tags and all(record.is_swept for record in self._records().values()):
            return
        # What came back is no longer replaced: each of the erasures sweeps, and the first would
        # take the states from those behind it.
        replaced = store.erased.segments()
        store.erased.forget(
            key for key in replaced if File(store.paths.object("segments", key)).exists()
        )
        erasures.erase_again(lake)
        # They named what must not be anywhere any more.
        for tag in tags:
            remove_tag(store, tag)

    def is_readable(self, snapshot: str) -> bool:
        """Whether a state is here, as it was or as it is read since an erasure. Where gc deleted
        what was read in its place, that is forgotten."""
        store = self._store
        with contextlib.suppress(Damaged):
            pages = store.manifests.load(snapshot).pages
            files = (File(store.paths.object("manifests", page.digest)) for page in pages)
            if all(file.exists() for file in files):
                return True
        if store.erased.holds(snapshot):
            store.erased.forget([snapshot])
        return False

    def _unknown_segments(self) -> Sizes:
        """The segments there that are not here, and were not erased from: what gc deletes some
        day, or what was compacted there."""
        erased = self._store.erased.segments()
        names = [("segments", digest) for digest in self._segments() if digest not in erased]
        absent = carry.missing_here(self._store, dict.fromkeys(names, 0))
        lengths = carry.lengths_at(self._site.remote, absent)
        return {name: length or 0 for name, length in lengths.items()}

    def _segments(self) -> Iterator[str]:
        """Yield the digests of the segments there."""
        for folder in FileNames(self.volume.names("segments")).hex_dirs:
            yield from FileNames(self.volume.names(f"segments/{folder}")).digests

    def _receive(self, objects: Sizes) -> None:
        carry.download(self._store, self._site.remote, objects, Carried())

    def _replace(self, states: Iterable[str], carried: Carried) -> None:
        """Send what is read in the place of states, then say so there."""
        store, far = self._store, self._site.remote
        names = {snapshot: store.erased.of(snapshot) for snapshot in states}
        objects: Sizes = {}
        for digest in dict.fromkeys(names.values()):
            objects |= objects_of(store, digest)
        # gc there must not take the manifests before the states are replaced.
        with far.publishing({key_of(name): size for name, size in objects.items()}):
            carry.upload(store, far, carry.missing_at(far, objects), carried)
            self._site.change_config(lambda body: {"format": FORMAT, **requiring(body, "erasure")})
            self.erased.add(names, store.erased.segments())

    def _write(self, name: str, data: bytes) -> None:
        keys = self._store.paths.keys
        path = f"{KEYS.erasures}/{name}"
        self.volume.replace(path, keys.encrypt(data) if keys else data)

    def _is_open(self, record: Erasure) -> bool:
        """Whether nothing is known yet of the rows of an erasure at this remote."""
        return any(
            not place["done"]
            # It may have been removed, and added again since.
            and (place["name"] == self._site.url or self._is_waiting(place))
            for place in record.outside
        )

    def _is_waiting(self, place: JsonObject) -> bool:
        return (place["name"], place["command"]) == (self._name, self._command)

    def reopen(self) -> None:
        """Let the next push erase there again, as rows are there that were erased here."""
        open_place = {
            "place": "remote",
            "name": self._name,
            "command": self._command,
            "done": False,
        }
        for record in self._records().values():
            others = [place for place in record.outside if place["name"] != self._name]
            replace(record, outside=[*others, open_place]).save(self._store.paths)

    def _confirm(self, key: str, advice: str = "") -> None:
        """Note here that the remote is clean, or by which advice it will be."""
        record = self._records()[key]
        places = (str(leftover["place"]) for leftover in record.leftovers)
        saved_files = [
            p for p in places if p.startswith(f"{KEYS.states}/") and self.volume.exists(p)
        ]
        if saved_files:
            advice = _SAVED.format(file=saved_files[0], name="{name}") + (advice and f"; {advice}")
        for name in {self._name, self._site.url} & {place["name"] for place in record.outside}:
            erasures.confirm(self._store, key, name, advice)


def keys_in(volume: RemoteVolume) -> set[str]:
    """Return the keys of the erasures that have documents."""
    matches = (match for match in map(_FILE.fullmatch, volume.names(KEYS.erasures)) if match)
    return {match[1] for match in matches if match[0].endswith(".json")}


def read_record(volume: RemoteVolume, url: str, key: str) -> tuple[Erasure, ErasedRows]:
    """Return the erasure of a key, and what it remembers of its rows. Raises TransferRefused for
    one that a lake would not have written."""
    path = f"{KEYS.erasures}/{key}"
    try:
        record = Erasure.decoded(VAULT.decrypt(volume.read(f"{path}.json")))
        try:
            rows = ErasedRows.decoded(VAULT.decrypt(volume.read(f"{path}.rows")))
        except FileNotFoundError:
            # A lake writes none where an erasure found no rows.
            if not record.is_swept or record.events or record.lines:
                raise
            rows = ErasedRows()
        digests = (record.salt, record.subject, record.condition, *record.subjects, *record.places)
        if record.key != key or not all(_HEX.fullmatch(digest) for digest in digests):
            # A name out of a file becomes a path and a pattern: it has to be hex.
            raise ValueError("a name in it is none")
        return record, rows
    except FileNotFoundError:
        raise TransferRefused(
            f"{url}: erasure {key} is under way there: wait, or push it once more"
        ) from None
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise TransferRefused(
            f"{url}: erasures/{key}.json is malformed ({error}): refused"
        ) from None
