"""Fetch, pull and clone: objects first, each checked; then the tags and the branch.

A fetch changes no branch: the newest state of a remote's branch becomes the tag `remote/branch`.
A pull is a fetch and one move that names that state, made only if the remote has all that the
branch has; what is pending is published before. Where both have events of their own, a merge is a
fetch and one move that adds what is only there (merge.py). A clone is a new lake with an id of its
own.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from lakelog import database, document
from lakelog.appends import StreamLock
from lakelog.disk import File
from lakelog.erased import Refusal, sweep
from lakelog.errors import AlreadyExists, TransferRefused, UnknownRef
from lakelog.keys import KeyRing
from lakelog.lake import Lake
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.refs import Head, Move, Tag
from lakelog.remotes import carry, encryption, known
from lakelog.remotes.ancestry import (
    Exchange,
    both_changed,
    is_ahead,
    is_contained,
    refusal,
    settled,
    shared_place,
)
from lakelog.remotes.carry import Carried, Transfer
from lakelog.remotes.directory import DirectoryRemote
from lakelog.remotes.known import Common, KnownBranch, MovePosition, place_of, track
from lakelog.remotes.merge_rows import has_erasures
from lakelog.remotes.objects import Sizes, objects_of
from lakelog.remotes.signature_files import SignedThere
from lakelog.remotes.site import WITHOUT_MOVE, Site
from lakelog.runtime.lazy import Lazy
from lakelog.runtime.progress import ProgressCallback
from lakelog.segments import Segment
from lakelog.store import Policy, Store

if TYPE_CHECKING:
    from lakelog.remotes import merge as merging
else:
    # It reads and writes rows, which a pull does not.
    merging = Lazy("lakelog.remotes.merge")

_LOOKS = 10


def fetch(
    lake: Lake,
    name: str,
    *,
    branches: Sequence[str] | None = None,
    tags: bool = True,
    dry_run: bool = False,
    progress: ProgressCallback = lambda *_: None,
) -> Transfer:
    """Bring the states of a remote's branches here, and the tags that are not here.

    Raises TransferRefused, UnknownRef for a branch that is not there, Unreachable, OSError.
    """
    remote = known.load(lake.store, name)
    result = Transfer(name, remote.url, dry_run)
    with known.connected(remote.url) as connection:
        worker = _Fetch(lake.store, remote, Site(connection), result, progress)
        worker.prepare(lake)
        worker.branches(branches)
        if tags:
            worker.tags()
    return result


def pull(
    lake: Lake,
    name: str,
    *,
    force: bool = False,
    merge: bool = False,
    tags: bool = True,
    dry_run: bool = False,
    progress: ProgressCallback = lambda *_: None,
) -> Transfer:
    """Fetch the branch and make its state the newest here. Raises Diverged if the branch has events
    that the remote lacks, unless `force` drops them, or `merge` adds those of the remote to them;
    and as `fetch`. A dry run that would merge receives what is there, to count it."""
    if force and not dry_run:
        Policy.require(lake.store.paths, "pull-force")
    remote = known.load(lake.store, name)
    result = Transfer(name, remote.url, dry_run)
    with known.connected(remote.url) as connection:
        worker = _Fetch(lake.store, remote, Site(connection), result, progress)
        worker.prepare(lake, is_received=merge)
        # Before the states: those from which rows were erased are read in the place of others.
        worker.erase(lake)
        worker.pull(lake, "forced" if force else "merged" if merge else "")
        if tags:
            worker.tags()
    return result


def clone(
    url: str, path: str, *, if_missing: bool = False, progress: ProgressCallback = lambda *_: None
) -> Transfer:
    """Make a lake at `path` with all branches and tags of a remote; one that was interrupted goes
    on. Raises AlreadyExists where something else is there; and as `fetch`.

    With `if_missing` a lake that is there stays as it is, though the remote does not answer, and
    gets the remote as its origin; and one that the remote does not have begins empty.
    """
    url = known.checked_url(url)
    if if_missing and _is_begun(url, path):
        return Transfer(known.ORIGIN, url)
    with known.connected(url) as connection:
        site = Site(connection)
        if if_missing and not site.lake_id():
            _new_lake(url, path)
            return Transfer(known.ORIGIN, url)
        site.require_lake(", or push to it")
        store = _new_lake(url, path, encryption.ring_of(site))
        result = Transfer(known.ORIGIN, url)
        worker = _Fetch(store, known.load(store, known.ORIGIN), site, result, progress)
        worker.prepare()
        worker.branches(None)
        worker.tags()
        # The main one is the last: a lake that has its events is taken for a whole clone.
        for branch, label in sorted(result.refs.items(), key=lambda ref: ref[0] == "origin/main"):
            if label not in ("kept", WITHOUT_MOVE) and branch.startswith(f"{known.ORIGIN}/"):
                # Branches begin after all objects are there: one that is interrupted is no half
                # clone.
                worker.start(branch.removeprefix(f"{known.ORIGIN}/"))
        if worker.knows_erasures():
            with Lake(store, "main") as lake:
                worker.erase(lake)
    return result


def _is_begun(url: str, path: str) -> bool:
    """Whether there is a lake that has events, or is a complete clone of an address."""
    if not Store.is_lake(path):
        return False
    store = Store.load(path)
    # An empty lake that is there may become the clone, as an interrupted one has begun.
    if known.ORIGIN not in store.remote_names():
        if not store.state("main").next_seq:
            return False
        known.add(store, known.ORIGIN, url)
    origin = known.load(store, known.ORIGIN)
    if origin.url != url:
        raise AlreadyExists(f"the origin of the lake at {path} is {origin.url}: see lakelog remote")
    if store.state("main").next_seq:
        return True
    return bool(origin.branches) and all(branch.common for branch in origin.branches.values())


def _new_lake(url: str, path: str, ring: KeyRing | None = None) -> Store:
    if not Store.is_lake(path):
        store = Store.create(path, ring=ring)
        known.add(store, known.ORIGIN, url)
        return store
    store = Store.load(path)
    if known.ORIGIN not in store.remote_names() and not store.state("main").next_seq:
        known.add(store, known.ORIGIN, url)
    if known.ORIGIN not in store.remote_names() or known.load(store, known.ORIGIN).url != url:
        raise AlreadyExists(f"a lake already exists at {path}: choose another directory")
    return store


class _Fetch(Exchange):
    """One fetch from one remote."""

    def knows_erasures(self) -> bool:
        """Whether something was erased there."""
        return bool(self._erasures.keys_there())

    def erase(self, lake: Lake) -> None:
        """Erase here what was erased there."""
        if not self._result.dry_run:
            self._result.erased = self._erasures.adopt(lake)

    def prepare(self, lake: Lake | None = None, *, is_received: bool = False) -> None:
        """Find the lake there; of a dry run say whether what it looks at `is_received`. What a
        killed push brought to a `lake` is erased from before it gets a name."""
        self._signed = SignedThere(self._site)
        self._only_looks = self._result.dry_run and not is_received
        id = self._site.require_lake(", or push to it")
        encryption.adopt_protection(self._store, self._site, dry_run=self._result.dry_run)
        encryption.adopt_keys(self._store, self._site, only_looks=self._only_looks)
        self._meet(id)
        if lake is not None and not self._only_looks:
            self._erasures.finish(lake)

    def branches(self, names: Sequence[str] | None) -> None:
        """Fetch branches, by default all that are not deleted. Raises TransferRefused,
        UnknownRef."""
        branches = self._site.branches() if names is None else names
        without_move = []
        for name in branches:
            head = self._head(name)
            if head is not None and head.move.op != "delete":
                self._branch(name, head)
            elif names is not None:
                raise self._no_branch(name)
            elif head is None:
                without_move.append(name)
                self._result.refs[f"{self._known.name}/{name}"] = WITHOUT_MOVE
        # Where no other branch is, a clone would be a lake without events.
        if without_move and without_move == branches:
            raise TransferRefused(
                f"{self._site.url}: branch {without_move[0]!r} has no move there, as its first push"
                " was interrupted, or it is lost: `lakelog push` from a lake that has the branch"
            )

    def tags(self) -> None:
        """Fetch the tags that are not here; none is replaced."""
        for name in self._site.tags():
            remote_tag = self._site.tag(name)
            # What is known there of other remotes is theirs, and a name that is a branch here
            # would mean two things.
            if remote_tag is None or "/" in name or name in self._store.refs.all_branches():
                continue
            tag, data = remote_tag
            label = self._result.refs[name] = self._tag(name, tag, data)
            if label != "kept":
                self._signatures(name, tag.snapshot)

    def _tag(self, name: str, tag: Tag, data: bytes) -> str:
        """Receive a tag with its objects unless its name is taken here; what is said of it."""
        if not File(self._store.paths.tag(name)).exists():
            objects = self._receive(tag.snapshot, tag.carried)
            # The text that the tag carries is of the state before the erasure, and must not come
            # back.
            if self._store.erased.holds(tag.snapshot):
                data = document.split(data)[0]  # here another manifest is read in its place
            if self._result.dry_run:
                return "new"
            # The tag and its objects in one hold of gc: else it might name what is gone.
            with self._held(objects):
                if known.take_tag(self._store, name, data):
                    return "new"
        return "up to date" if self._store.refs.tag(name).snapshot == tag.snapshot else "kept"

    def pull(self, lake: Lake, otherwise: str) -> None:
        """Fetch the lake's branch and go to its state; where both have events of their own, what is
        to be done `otherwise`."""
        branch = lake.branch_name
        remote_head = self._head(branch)
        if remote_head is None or remote_head.move.op == "delete":
            raise self._no_branch(branch)
        remote, base = remote_head.move, None
        if otherwise == "merged":
            local = settled(lake, branch).move
            if self._label(branch, local, remote, otherwise) == "merged":
                # Before the tag of the remote's branch leaves the state that both had.
                base = self._shared_state(branch, local, remote)
        # To count what a merge would bring, a dry run needs what is there.
        self._only_looks = self._result.dry_run and base is None
        self._branch(branch, remote_head)
        self._only_looks = self._result.dry_run
        # Our branch may move while objects come: each turn judges it anew.
        for _ in range(_LOOKS):
            head = settled(lake, branch)
            local = head.move
            label = self._label(branch, local, remote, otherwise)
            self._result.refs[branch] = label
            if label == "merged":
                base = self._shared_state(branch, local, remote, base)
                if self._merge(lake, head, base, remote):
                    return
                continue
            if self._result.dry_run or label == "up to date":
                if local.snapshot == remote.snapshot:
                    self._note(branch, remote, local)
                return
            # Only a forced pull rewinds; another one has all events, which keep their numbers.
            moved = self._move(branch, local, remote.snapshot, rewind=label == "forced")
            if moved is not None:
                self._note(branch, remote, moved.move)
                return
        raise TransferRefused(f"branch {branch!r} is written to all the time: try again")

    def _merge(self, lake: Lake, head: Head, base: Manifest, remote: Move) -> bool:
        """Merge a fetched state; False if the branch changed meanwhile so that it is to be judged
        again."""
        name = f"{lake.branch_name} of {self._known.name}"
        remote_state = self._store.manifests.of(remote)
        merge = merging.Merge(lake, self._site.url, name, base, place_of(remote), remote_state)
        if self._result.dry_run:
            self._result.merged = merge.preview(head)
        else:
            self._result.merged = merge.publish(head)
        return self._result.merged is not None

    def _shared_state(
        self, branch: str, local: Move, remote: Move, loaded_state: Manifest | None = None
    ) -> Manifest:
        """Return the newest state whose events both branches have, from here or from there; it may
        be the `loaded_state`. Raises Diverged."""
        place = shared_place(self._store, self._site, self._known.branch(branch), local, remote)
        if isinstance(place, str):
            raise refusal(self._site.url, branch, place)
        if loaded_state is not None and loaded_state.digest == place.snapshot:
            return loaded_state
        state = self._state_at(branch, place)
        pages = {("manifests", page.digest): page.bytes for page in state.pages}
        carry.download(self._store, self._site.remote, pages, Carried())
        return state

    def _state_at(self, branch: str, place: MovePosition) -> Manifest:
        """Return the manifest of a move of the remote's branch. Raises Diverged if it is gone."""
        manifests, snapshot = self._store.manifests, place.snapshot
        if manifests.is_there(snapshot):
            return manifests.load(snapshot)
        move = self._site.move(branch, place.number)
        if move and move.carried and move.snapshot == snapshot:
            return manifests.decode_text(move.carried, snapshot)
        try:
            # Where something was erased from it, another one is read there in its place.
            if self._erasures.stand_in(snapshot) == snapshot:
                carry.receive_manifest(self._store, self._site.remote, snapshot)
        except TransferRefused:
            reason = "the state that both had is kept neither here nor there"
            raise refusal(self._site.url, branch, reason) from None
        return manifests.load(snapshot)

    def start(self, branch: str) -> None:
        """Begin a branch of a clone with the state that was fetched."""
        last_seen = self._known.branch(branch).seen
        assert last_seen is not None
        if not self._store.refs.is_alive(branch):
            self._store.start_branch(branch, last_seen.snapshot, f"clone of {self._site.url}")
        local = self._store.refs.head(branch).move
        if local.snapshot != last_seen.snapshot:
            if self._store.manifests.of(local).next_seq:
                # A later run of an interrupted clone must not take away what was appended
                # meanwhile.
                return  # it was continued since an earlier run cloned it
            head = self._move(branch, local, last_seen.snapshot, rewind=False)
            local = head.move if head else local
        if local.snapshot == last_seen.snapshot:
            self._remember(branch, KnownBranch(last_seen, Common(last_seen, place_of(local))))

    def _label(self, branch: str, local: Move, remote: Move, otherwise: str) -> str:
        """What a pull has to do. Raises Diverged."""
        known_branch = self._known.branch(branch)
        if local.snapshot == remote.snapshot:
            return "up to date"
        if is_ahead(self._store, self._site, known_branch, local, remote):
            return "updated"
        if is_contained(self._store, self._site, known_branch, local, remote):
            return "forced" if otherwise == "forced" else "up to date"
        if otherwise:
            return otherwise
        place = shared_place(self._store, self._site, known_branch, local, remote)
        if isinstance(place, str):
            # What this branch has may be there, and --merge would be refused for the same reason.
            raise refusal(self._site.url, branch, place)
        raise both_changed(self._site.url, branch)

    def _move(self, branch: str, local: Move, snapshot: str, *, rewind: bool) -> Head | None:
        """Make a fetched state the newest of a branch, unless it moved since `local`."""
        message = f"{branch} of {self._known.name}"

        def plan(head: Head, _: Manifest) -> Change | None:
            # Settled and judged for this head only: another move may have events that theirs lacks.
            if head.move.number != local.number:
                return None
            return Change("pull", message, snapshot=snapshot, rewind=rewind)

        with StreamLock(self._store, branch).held():
            if StreamLock(self._store, branch).has_pending():
                return None  # versions were given since it was settled: it is settled again
            return publish(self._store, branch, plan)

    def _branch(self, name: str, head: Head) -> None:
        """Receive the state of a branch and make its tag name it."""
        label, before = f"{self._known.name}/{name}", self._known.branch(name)
        place = place_of(head.move)
        # The tag of the remote's branch keeps its state from gc, even if nothing else names it.
        is_here = label in self._store.refs.tag_names()
        if is_here and self._store.refs.tag(label).snapshot == place.snapshot:
            self._result.refs[label] = "up to date"
        else:
            self._result.refs[label] = "updated" if is_here else "new"
            objects = self._receive(place.snapshot, head.move.carried)
            if not self._only_looks:
                # Before the ref: an older lakelog must refuse the lake before it meets what it does
                # not know.
                self._store.raise_format(self._site.lake_format())
                with self._held(objects):
                    is_erased = self._store.erased.holds(place.snapshot)
                    carried = b"" if is_erased else head.move.carried
                    track(self._store, self._known.name, name, place.snapshot, carried)
        self._signatures("", place.snapshot)
        if not self._only_looks and before.seen != place:
            self._remember(name, KnownBranch(place, before.common))

    def _receive(self, snapshot: str, text_there: bytes) -> Sizes:
        """Receive the objects of a state that are not here; return all."""
        far, carried = self._site.remote, self._result.carried
        objects = self._objects(snapshot, text_there)
        if self._only_looks:
            missing = carry.missing_here(self._store, objects)
            carried.objects, carried.bytes = len(missing), sum(missing.values())
        else:
            # Segments that come may have rows that an erasure did not find here, or before.
            self._store.erased.refresh()
            is_suspect = has_erasures(self._store)
            fresh = carry.missing_here(self._store, objects) if is_suspect else {}
            carry.download(self._store, far, objects, carried, self._progress)
            self._refuse_erased(fresh)
        return objects

    def _objects(self, snapshot: str, text_there: bytes) -> Sizes:
        """Return the objects of a state as it is read here, or there."""
        if self._store.manifests.stored_as(snapshot) != snapshot:
            self._store.manifests.forget()  # gc may have deleted what was read in its place
            if self._erasures.is_readable(snapshot):
                return objects_of(self._store, snapshot)
        if self._erasures.stand_in(snapshot) != snapshot:
            text_there = b""
        return carry.objects_there(self._store, self._site.remote, snapshot, text_there)

    def _refuse_erased(self, objects: Sizes) -> None:
        """Refuse segments with rows or lines that were erased here, and delete them with the pages
        that name them, which have subjects, too. Raises TransferRefused."""
        # By arrival, as an erasure chooses: also lines that name a subject, and times to come.
        refusal = Refusal(self._store.paths, by_arrival=True)
        keys = [digest for object_type, digest in objects if object_type == "segments"]
        paths = self._store.paths
        with database.shared_database(paths) as open_engine:
            tables = ((key, Segment(paths, key).read(open_engine=open_engine)) for key in keys)
            refused = [key for key, table in tables if refusal.mask(table).any()]
        for key in refused:
            File(self._store.paths.object("segments", key)).remove()
        if refused:
            sweep.sweep(self._store, refused=refused)
            self._erasures.reopen()
            raise TransferRefused(
                f"{self._site.url}: {len(refused)} segments there have rows that were erased"
                " here: `lakelog push` erases them there, too; nothing was taken over"
            )

    def _held(self, objects: Sizes) -> AbstractContextManager[None]:
        """Hold off gc here while a ref is made, once all that it names is here."""
        own_remote, far = DirectoryRemote(self._store.paths.root), self._site.remote
        carried = self._result.carried
        return carry.gc_held_off(
            lambda: own_remote.publishing({}),
            lambda: carry.missing_here(self._store, objects),
            lambda missing: carry.download(self._store, far, missing, carried, self._progress),
        )

    def _signatures(self, tag: str, snapshot: str) -> None:
        """Receive the signatures of a tag, or of a state."""
        if not self._only_looks:
            received = self._signed.receive(self._store, tag, snapshot)
            self._result.carried.signatures += received

    def _head(self, branch: str) -> Head | None:
        last_seen = self._known.branch(branch).seen
        # From the number seen last: logs are long, and each look is a request.
        return self._site.head(branch, last_seen.number if last_seen else 0)

    def _note(self, branch: str, remote_move: Move, local_move: Move) -> None:
        if not self._result.dry_run:
            self._agree(branch, remote_move, local_move)

    def _no_branch(self, branch: str) -> UnknownRef:
        return UnknownRef(
            f"{self._site.url}: no branch {branch!r} there: see `lakelog pull --fetch`"
        )
