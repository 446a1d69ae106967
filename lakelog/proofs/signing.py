"""Signing tags and states, and finding what is wrong with the signatures of one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from lakelog.disk import File, disk
from lakelog.errors import Damaged, NotProven, UnknownRef
from lakelog.history import resolve
from lakelog.paths import encode_name
from lakelog.proofs import envelope, snapshot_tree
from lakelog.proofs.envelope import Signed, Statement
from lakelog.proofs.keys import PrivateKey, PublicKey
from lakelog.runtime.progress import ProgressCallback
from lakelog.store import SignatureFile, Signatures, Store
from lakelog.values import from_micros
from lakelog.wal import Tail

_AUTOMATIC = re.compile(r"(train|model)-[0-9a-f]+|(state-|before-rollback-|)\d{8}-\d{6}(-\d+)?")
"""Names of tags that exports, models, saves of states and containers, and rollbacks make by
themselves."""


@dataclass(frozen=True)
class Target:
    """What signatures are of: a tag and the state that it names, or with "" a state."""

    tag: str
    snapshot: str

    def __str__(self) -> str:
        return f"tag {self.tag}" if self.tag else f"snapshot {self.snapshot[:12]}"

    @staticmethod
    def of(store: Store, branch: str, ref: str) -> Target:
        """Return what a ref names. Raises UnknownRef, InvalidName, Damaged."""
        digest = resolve(store, branch, ref)
        try:
            encode_name(ref)
        except ValueError:  # an id, a time or a move: no tag can have such a name
            return Target("", digest)
        # By its exact name: a branch may be called the same.
        return Target(ref if File(store.paths.tag(ref)).exists() else "", digest)

    @staticmethod
    def last_signed(store: Store) -> Target:
        """Return what was signed last. Raises UnknownRef where nothing is, Damaged, NotProven."""
        candidates = []
        for file in Signatures(store.paths).listing():
            statement = envelope.Statement.unverified(SignatureFile.read(file.path))
            candidates.append((statement.time, file.path, Target(file.tag, statement.snapshot)))
        if not candidates:
            raise UnknownRef("nothing in this lake is signed: see `lakelog sign --help`")
        # By time, and of equal times by path, so that the answer is the same each time.
        return max(candidates, key=lambda each: each[:2])[2]


def sign(
    store: Store,
    branch: str,
    subject: Target,
    key: PrivateKey,
    expires_in: int | None = None,
    progress: ProgressCallback | None = None,
) -> Statement:
    """Sign a tag or a state, for a time in us or for ever; replaces an older signature of the same
    key. Raises Damaged, OSError."""
    # Hashed now: nobody signs what was not read.
    root, events = snapshot_tree.root(store, subject.snapshot, progress)
    seq = snapshot_tree.seq_range(store, subject.snapshot)
    now_us = disk.now_us()
    expires = None if expires_in is None else now_us + expires_in
    # A tag knows which branch it was made on.
    branch = store.refs.tag(subject.tag).branch if subject.tag else branch
    statement = Statement(
        store.lake_id, branch, subject.tag, subject.snapshot, seq, events, root, now_us, expires
    )
    signed = envelope.sign(statement, key)
    Signatures(store.paths).write(subject.tag, subject.snapshot, key.public.id, signed)
    return statement


def files(store: Store, subject: Target) -> list[SignatureFile]:
    """Return the signatures of a target; of a state also those of tags that name it."""
    signatures = Signatures(store.paths)
    if subject.tag:
        return signatures.of_tag(subject.tag)
    tags = {tag.name for tag in store.refs.tags() if tag.snapshot == subject.snapshot}
    tagged = [file for file in signatures.listing() if file.tag in tags]
    return signatures.of_state(subject.snapshot) + tagged


class SignatureCheck:
    """Finds what keeps targets from being signed by one of some keys: nothing if one signature is
    valid. It has to be made in this lake, or in one of `lakes` (ids), as those that came with a
    clone. Events are hashed again, those of each segment once."""

    def __init__(
        self,
        store: Store,
        keys: Sequence[PublicKey],
        progress: ProgressCallback | None = None,
        lakes: Collection[str] = (),
    ) -> None:
        self._store, self._keys, self._progress, self._lakes = store, keys, progress, lakes
        self._trusted: set[str] = set()

    def ref(self, branch: str, ref: str) -> list[tuple[str, str]]:
        """Return (path, reason) of what is wrong with that which a ref names, and what no signature
        covers of the WALs of a branch. Raises UnknownRef, InvalidName, Damaged."""
        subject = Target.of(self._store, branch, ref)
        # A tag counts before a branch of its name.
        faults = self.target(subject)
        if ref in self._store.refs.branches() and not subject.tag:
            faults += self._pending(ref)
        return faults

    def lake(self) -> list[tuple[str, str]]:
        """Return the same of all tags and branches. Raises Damaged."""
        return self.tags() + self._branches()

    def target(self, subject: Target) -> list[tuple[str, str]]:
        """Return the same of a target. Raises Damaged."""
        faults, store = [], self._store
        for file in files(store, subject):
            # One valid signature is enough; the faults of others are told only without one.
            try:
                signed = open_file(store, file, subject, self._keys, self._lakes)
            except (Damaged, NotProven) as error:
                reason = error.reason if isinstance(error, Damaged) else str(error)
                faults.append((file.path, f"{subject}: {reason}"))
                continue
            statement = signed.statement
            # Of the lake that signed, since a leaf has the lake's id in it.
            if self._root(subject.snapshot, statement.lake) == (statement.root, statement.events):
                return []
            reason = "its events are not those of the signed Merkle root"
            faults.append((file.path, f"{subject}: {reason}"))
        if faults:
            return faults
        path = (
            store.paths.tag(subject.tag)
            if subject.tag
            else store.paths.object("manifests", subject.snapshot)
        )
        return [(path, _unsigned(subject))]

    def tags(self) -> list[tuple[str, str]]:
        """Return the same of every tag but those of remotes' branches and unsigned ones that were
        made by themselves, and that there is none. A tag that cannot be read is left to verify."""
        faults, store = list[tuple[str, str]](), self._store
        # Damaged tags are named by verify.
        names = [name for name in store.refs.tag_names() if _wants_signature(store, name)]
        for name in names:
            try:
                faults += self.target(Target(name, store.refs.tag(name).snapshot))
            except Damaged as error:
                faults.append((error.path, f"tag {name}: {error.reason}"))
        return faults if names else [(store.paths.tags, "the lake has no tag that could be signed")]

    def _branches(self) -> list[tuple[str, str]]:
        """Return the same of each branch that shows events which are in no signed state: of a
        newest state whose events nobody signed, and of a WAL. What cannot be read is left to
        verify."""
        faults, store = list[tuple[str, str]](), self._store
        for branch in store.refs.branches():
            try:
                if not self._has_signed_events(store.refs.head(branch).move.snapshot):
                    faults.append(
                        (
                            store.paths.head_dir(branch),
                            f"branch {branch}: its newest state has events that are in no signed"
                            f" one: `{_sign_command(branch)}` signs it, a TAG is verified alone",
                        )
                    )
                faults += self._pending(branch)
            except Damaged as error:
                faults.append((error.path, f"branch {branch}: {error.reason}"))
        return faults

    def _pending(self, branch: str) -> list[tuple[str, str]]:
        """What a branch shows of its WALs, which no signature covers."""
        store = self._store
        events = Tail(store.paths, store.refs, branch).collect().events
        # The tail's events are in no state, so that nobody can have signed them.
        if not events:
            return []
        return [
            (
                store.paths.wal_dir(branch),
                f"branch {branch}: {events:,} of the events that it shows are in its write-ahead"
                f" log, and so not signed: `{_sign_command(branch)}` signs them, too",
            )
        ]

    def _has_signed_events(self, snapshot: str) -> bool:
        """Whether a signed state has exactly the events of a state, in whatever segments."""
        store = self._store
        if not store.manifests.load(snapshot).totals.events:
            return True
        roots: dict[str, tuple[str, int]] = {}
        for file in Signatures(store.paths).listing():
            try:
                state_digest = store.refs.tag(file.tag).snapshot if file.tag else file.state
                subject = Target(file.tag, state_digest)
                statement = open_file(store, file, subject, self._keys, self._lakes).statement
            except (Damaged, NotProven, UnknownRef):
                continue
            # Once for each lake that signed: hashing is what takes long.
            if statement.lake not in roots:
                roots[statement.lake] = self._root(snapshot, statement.lake)
            if roots[statement.lake] == (statement.root, statement.events):
                return True
        return False

    def _root(self, snapshot: str, lake: str) -> tuple[str, int]:
        return snapshot_tree.root(self._store, snapshot, self._progress, self._trusted, lake)


def _wants_signature(store: Store, tag: str) -> bool:
    if store.is_tracking(tag):
        return False
    # Nobody vouched for what an export, a save or a rollback tagged; if somebody does, it counts.
    return not _AUTOMATIC.fullmatch(tag) or bool(Signatures(store.paths).of_tag(tag))


def open_file(
    store: Store,
    file: SignatureFile,
    subject: Target,
    keys: Sequence[PublicKey],
    lakes: Collection[str] = (),
) -> Signed:
    """Return what a signature says of a target. Raises DamagedRef, NotProven."""
    signed = envelope.open_signed(SignatureFile.read(file.path), keys)
    lake = signed.statement.lake
    # Any lake's key could sign its own state of the same number.
    if lake != store.lake_id and lake not in lakes:
        raise NotProven(f"it was signed in another lake: `--signed-in {lake}` accepts that one")
    reason = next(_faults(file, subject, signed.statement), None)
    if reason:
        raise NotProven(reason)
    return signed


def _faults(file: SignatureFile, subject: Target, statement: Statement) -> Iterator[str]:
    # A file that was renamed still says what it signs.
    if statement.tag != file.tag:
        signed = Target(statement.tag, statement.snapshot)
        yield f"it is the signature of the {signed}, under another name"
    if statement.snapshot != subject.snapshot:
        difference = f"{statement.snapshot[:12]} was signed, {subject.snapshot[:12]} is there now"
        yield (
            f"the tag was moved: {difference}"
            if file.tag
            else f"another state was signed: {difference}"
        )
    if statement.expires is not None and statement.expires <= disk.now_us():
        yield f"the signature expired on {from_micros(statement.expires):%Y-%m-%d %H:%M} UTC"


def _unsigned(subject: Target) -> str:
    name = subject.tag or subject.snapshot[:12]
    return f"{subject} has no signature: `{_sign_command(name)}` makes one"


def _sign_command(ref: str) -> str:
    return f"lakelog sign {shlex.quote(ref)} --key KEY"


def newest(
    store: Store, subject: Target, keys: Sequence[PublicKey] = ()
) -> tuple[dict[str, object], Statement]:
    """Return the envelope and statement of the newest signature of a target, of one of the keys if
    any are given. Raises UnknownRef where there is none, Damaged, NotProven."""
    candidates = []
    for file in files(store, subject):
        body = SignatureFile.read(file.path)
        # Names of files have the beginning of a key's id.
        ids = {key.id[: len(file.key)] for key in keys}
        if not keys or file.key in ids:
            statement = envelope.Statement.unverified(body)
            if reason := next(_faults(file, subject, statement), None):
                raise NotProven(f"{file.path}: {reason}")
            candidates.append((statement.time, file.path, body, statement))
    if not candidates:
        raise UnknownRef(_unsigned(subject))
    return max(candidates, key=lambda each: each[:2])[2:]
