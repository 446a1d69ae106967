"""Push: objects first and durable, the ref last, by compare-and-swap.

A push makes one move on the remote's branch, whatever the number of moves since the last one: it
names the newest local state. It may do so if all that is there is contained in that state: nobody
moved the branch since what both sides had in common, or only compacted it; or a local move since
the last rewind names what is there. Else events would be dropped, and only `force` does that.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence

from lakelog.appends import StreamLock
from lakelog.disk import DOCUMENT_MAX, File
from lakelog.errors import Damaged, Diverged, LakelogError, TransferRefused, UnknownRef
from lakelog.lake import Lake
from lakelog.paths import KEYS
from lakelog.refs import Head, Move
from lakelog.remotes import carry, encryption, known, signature_files
from lakelog.remotes.ancestry import Exchange, command, is_contained, settled
from lakelog.remotes.carry import Transfer
from lakelog.remotes.directory import DirectoryRemote
from lakelog.remotes.known import place_of, track
from lakelog.remotes.objects import Sizes, objects_of
from lakelog.remotes.site import Site, key_of
from lakelog.runtime.progress import ProgressCallback
from lakelog.store import Policy, Store

_LOOKS = 10


def push(
    lake: Lake,
    name: str,
    *,
    branches: Sequence[str] = (),
    tags: Sequence[str] = (),
    force: bool = False,
    dry_run: bool = False,
    repair: bool = False,
    read_data: bool = False,
    progress: ProgressCallback = lambda *_: None,
) -> Transfer:
    """Bring branches and tags to a remote. With `repair` all that they need there is looked at, and
    with `read_data` read, and sent again where it is not whole. Raises Diverged, UnknownRef and
    Damaged once all others were sent; Unreachable, NotAllowed."""
    if force and not dry_run:
        Policy.require(lake.store.paths, "push-force")
    remote = known.load(lake.store, name)
    result = Transfer(name, remote.url, dry_run)
    with known.connected(remote.url) as connection:
        worker = _Push(lake.store, remote, Site(connection), result, progress)
        worker.is_forced, worker.is_repair, worker.reads_data = force, repair, read_data
        worker.prepare(lake)
        refusals: list[LakelogError] = []
        # One that is refused, or damaged here, keeps no other back.
        for send, ref in [(worker.branch, b) for b in branches] + [(worker.tag, t) for t in tags]:
            try:
                send(ref)
            except (TransferRefused, Damaged, UnknownRef) as error:
                refusals.append(error)
    if len(refusals) == 1:
        raise refusals[0]
    if refusals:
        error_class = Diverged if isinstance(refusals[0], Diverged) else TransferRefused
        raise error_class("; ".join(map(str, refusals))) from refusals[0]
    return result


class _Push(Exchange):
    """One push to one remote."""

    is_forced = is_repair = reads_data = False

    def prepare(self, lake: Lake) -> None:
        """Find or make the lake there, and forget what was known of another one."""
        if not self._result.dry_run:
            # Tried before the first push, not when the remote was named: then it may have been
            # offline.
            self._known = known.proven(self._store, self._known, self._site.remote)
        if self._result.dry_run:
            id = self._site.lake_id()
            if id:
                encryption.adopt_keys(self._store, self._site, only_looks=True)
        else:
            members = encryption.config_members(self._store)
            is_known = bool(self._known.lake) and not self.is_repair
            id = self._site.create(self._store.format_now(), members, is_known=is_known)
            encryption.share_with(self._store, self._site)
        self._lake = lake
        self._meet(id)
        # Before anything is sent: a push must not bring back what was erased there.
        self._erasures.refuse_unknown()
        if not self._result.dry_run:
            self._result.erased = self._erasures.push(
                lake, self._result.carried, is_repair=self.is_repair
            )

    def branch(self, branch: str) -> None:
        """Push one branch."""
        head = settled(self._lake, branch)
        last_seen, before = self._known.branch(branch).seen, self._result.carried.objects
        # Someone else may push at the same time: then it is judged again by what is there now.
        for _ in range(_LOOKS):
            remote_head = self._head(branch, last_seen.number if last_seen else 0)
            if remote_head and remote_head.move.op == "delete":
                raise TransferRefused(
                    # A branch that was deleted there must not come back by a push that knows
                    # nothing of it.
                    f"{self._site.url}: branch {branch!r} was deleted there: create it there again"
                )
            if remote_head is None and self._site.tag(branch):
                raise self._taken("tag", branch)
            is_listed = self.is_repair and self._site.remote.lists_objects
            is_there = remote_head and remote_head.move.snapshot == head.move.snapshot
            if remote_head and is_there and not is_listed:
                if self.is_repair:
                    self._send(objects_of(self._store, head.move.snapshot))
                self._result.refs[branch] = self._unmoved(before)
                self._signatures("", head.move.snapshot)
                self._note(branch, remote_head.move, head.move)
                return
            contained = remote_head is None or is_contained(
                self._store, self._site, self._known.branch(branch), head.move, remote_head.move
            )
            if not contained and not self.is_forced:
                common = self._known.branch(branch).common
                last = common.remote if common else None
                is_rewound = remote_head and last == place_of(remote_head.move)
                moved = "was rewound here" if is_rewound else "moved on there"
                raise Diverged(
                    f"{self._site.url}: branch {branch!r} {moved}: {command(branch, 'pull')} first,"
                    f" or {command(branch, 'push --force')} to drop what is only there"
                )
            # Events with new numbers are a rewind to those who read there by their numbers.
            word = "new" if remote_head is None else "updated" if contained else "forced"
            is_rewind = remote_head is not None and not self._keeps_numbers(
                branch, head, remote_head
            )
            move = self._advance(branch, head, remote_head, rewind=is_rewind)
            if move is not None or self._result.dry_run:
                self._result.refs[branch] = self._unmoved(before) if is_there else word
                if move is not None:
                    # After the ref: a gc there deletes signatures of what is not named.
                    self._signatures("", head.move.snapshot)
                    self._note(branch, move, head.move)
                return
        raise TransferRefused(f"{self._site.url}: branch {branch!r} moves all the time: try again")

    def tag(self, name: str) -> None:
        """Push one tag with the objects of its state."""
        tag, before = self._store.refs.tag(name), self._result.carried.objects
        self._offer(tag.snapshot)
        data = File(self._store.paths.tag(name)).read(DOCUMENT_MAX)
        remote_tag = self._site.tag(name)
        if remote_tag and remote_tag[1] == data:
            if self.is_repair:
                self._send(objects_of(self._store, tag.snapshot))
            self._result.refs[name] = self._unmoved(before)
            self._signatures(name, tag.snapshot)
            return
        if remote_tag and not self.is_forced:
            raise Diverged(
                f"{self._site.url}: tag {name!r} names another state there, and stays as it is;"
                f" `lakelog push --tag {shlex.quote(name)} --force` replaces it"
            )
        branch_head = None if remote_tag else self._site.head(name)
        if branch_head and branch_head.move.op != "delete":
            raise self._taken("branch", name)
        # Whoever pushed the branch has sent most of it.
        base = self._base(tag.branch, self._site.head(tag.branch))
        objects = self._send(objects_of(self._store, tag.snapshot, base))
        if not self._result.dry_run:
            with self._named(objects, tag.snapshot):
                if not self._site.put_tag(name, data, replace=remote_tag is not None):
                    raise Diverged(f"{self._site.url}: tag {name!r} was made there just now")
            self._signatures(name, tag.snapshot)
        self._result.refs[name] = "forced" if remote_tag else "new"

    def _taken(self, kind: str, name: str) -> TransferRefused:
        """The error for a name that would mean two things there."""
        return TransferRefused(
            f"{self._site.url}: {name!r} is the name of a {kind} there: choose another for this one"
        )

    def _unmoved(self, before: int) -> str:
        """What is said of a ref whose state is there, of which objects were sent again or not."""
        return "repaired" if self._result.carried.objects > before else "up to date"

    def _advance(
        self, branch: str, head: Head, remote_head: Head | None, *, rewind: bool
    ) -> Move | None:
        """Send what is missing and move the branch; None if somebody else moved it."""
        base = self._base(branch, remote_head)
        self._offer(head.move.snapshot)
        objects = self._send(objects_of(self._store, head.move.snapshot, base))
        if self._result.dry_run:
            return None
        carried = self._store.manifests.text_to_carry(head.move.snapshot)
        with self._streams_held(branch, remote_head) as is_free:
            if not is_free:
                return None
            with self._named(objects, head.move.snapshot):
                return self._site.advance(
                    branch, remote_head, head.move.snapshot, carried, rewind=rewind
                )

    @contextlib.contextmanager
    def _streams_held(self, branch: str, remote_head: Head | None) -> Iterator[bool]:
        """Hold the lock under which a lake in use in a directory gives versions; whether none waits
        there, else they are published: ours might take one, or leave out those before it."""
        is_directory = isinstance(self._site.remote, DirectoryRemote)
        if not (is_directory and remote_head and self._site.volume.names(KEYS.wal_dir(branch))):
            yield True
            return
        store = Store.load(self._site.url)
        lock = StreamLock(store, branch)
        with lock.held():
            is_free = not lock.has_pending()
            if not is_free:
                with Lake(store, branch) as remote_lake:
                    remote_lake.settle()
            yield is_free

    def _offer(self, snapshot: str) -> None:
        if not self._result.dry_run:
            self._erasures.offer(snapshot, self._result.carried)

    def _keeps_numbers(self, branch: str, head: Head, remote_head: Head) -> bool:
        """Whether all events there keep their numbers: a merge with another remote gives some of
        them others."""
        known_branch = self._known.branch(branch)
        return is_contained(
            self._store, self._site, known_branch, head.move, remote_head.move, over_merges=False
        )

    def _signatures(self, tag: str, snapshot: str) -> None:
        """Send the signatures of a tag, or of a state."""
        if not self._result.dry_run:
            count = signature_files.send(self._store, self._site, tag, snapshot)
            self._result.carried.signatures += count

    def _send(self, objects: Sizes) -> Sizes:
        """Send those of the objects that are missing there; return all."""
        carried = self._result.carried
        missing = carry.missing_at(self._site.remote, objects)
        # Lengths cannot show a flipped bit; only reading does.
        if self.reads_data:
            present = {name: size for name, size in objects.items() if name not in missing}
            damaged = carry.damaged_at(self._site.remote, present, self._progress)
            missing |= {name: objects[name] for name, _ in damaged}
        carried.kept += len(objects) - len(missing)
        if self._result.dry_run:
            carried.objects, carried.bytes = len(missing), sum(missing.values())
        else:
            carry.upload(
                self._store, self._site.remote, missing, self._result.carried, self._progress
            )
            # A registry that has other bytes under a digest takes new ones and keeps its own.
            cut = carry.missing_at(self._site.remote, missing) if self.is_repair else {}
            if cut:
                raise TransferRefused(
                    f"{self._site.url}: {key_of(next(iter(cut)))} is damaged there, and stays so"
                    " when it is sent again: restore it there, or push to another place"
                )
        return objects

    @contextlib.contextmanager
    def _named(self, objects: Sizes, snapshot: str) -> Iterator[None]:
        """Hold off gc there while a ref is made, once all that it names is there. Raises
        TransferRefused where something was erased there meanwhile."""
        far, carried = self._site.remote, self._result.carried
        needed, stored_as = objects, self._store.manifests.stored_as(snapshot)
        if far.lists_objects:
            if stored_as != snapshot:
                # There another one may be read than here: whoever erased first said which.
                stored_as = self._erasures.stored_as([snapshot])[snapshot]
            needed = carry.objects_there(self._store, far, stored_as, b"")
        keys = {key_of(name): size for name, size in needed.items()}
        with carry.gc_held_off(
            lambda: far.publishing(keys),
            lambda: carry.missing_at(far, objects) if far.collects else {},
            lambda missing: carry.upload(self._store, far, missing, carried, self._progress),
        ):
            self._erasures.refuse_unknown()
            yield
        # The lock of a directory holds an erasure off between that look and the ref.
        if not isinstance(far, DirectoryRemote):
            self._erasures.refuse_unknown()

    def _head(self, branch: str, start: int) -> Head | None:
        """Return the newest move there; a repair removes one whose file is damaged."""
        try:
            return self._site.head(branch, start)
        except TransferRefused:
            can_repair = self.is_repair and not self._result.dry_run
            if not (can_repair and self._site.remove_damaged_head(branch, start)):
                raise
            return self._site.head(branch)

    def _base(self, branch: str, remote_head: Head | None) -> str:
        """Return the state of the branch there if it is known here: what it names is there, and
        need not be looked for."""
        last_seen = self._known.branch(branch).seen
        if (
            # A repair believes nothing of what is there, so that it has no base.
            self.is_repair
            or remote_head is None
            or last_seen is None
            or last_seen.snapshot != remote_head.move.snapshot
            # What is read here under its name is not what is there.
            or self._store.manifests.stored_as(last_seen.snapshot) != last_seen.snapshot
        ):
            return ""
        return last_seen.snapshot if self._store.manifests.is_there(last_seen.snapshot) else ""

    def _note(self, branch: str, remote_move: Move, local_move: Move) -> None:
        if not self._result.dry_run:
            track(self._store, self._known.name, branch, remote_move.snapshot)
            self._agree(branch, remote_move, local_move)
