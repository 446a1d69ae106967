"""Every path in a lake, and how to read a name back from one.

    lakelog.json                                  {format, lake, settings}
    wal/<branch>/<writer>-<n>.jsonl.zst           writer: 32 hex digits; n: 6 digits
    segments/<2 hex>/<digest>.parquet
    ids/<2 hex>/<digest>.ids
    manifests/<2 hex>/<digest>.json.zst           manifests and pages
    refs/heads/<branch>/<12 digits>.json          one move
    refs/heads/<branch>/hint                      a recent number; advisory
    refs/heads/<branch>/packed-<a>-<b>.jsonl.zst  old moves
    refs/tags/<name>.json
    refs/signatures/<tag>.<16 hex>.json           or @<digest>.<16 hex>.json
    gc/condemned.json
    gc/let_go.json
    gc/lost.json                                  objects that a repair gave up
    gc/deleting                                   there while gc deletes
    gc/push-<hex>                                 the lease of a push over SFTP
    gc/config-<digest>.json                       the lakelog.json that follows the one of a digest
    gc/received/<32 hex>.json                     segments that came from another lake
    states/<2 hex>/<digest>.chunk.zst             a piece of the files of state directories
    states/<2 hex>/<digest>.json.zst              what one state directory holds
    refs/rollback.json                            a rollback that is being carried out
    refs/rollbacks/<tag>.json                     those that were, by their safety tags
    policy.toml                                   who may do what; written by people
    machine.json                                  whose saved states are its own
    server/tokens.json                            who may use its server
    server/requests/TIME-RANDOM                   which requests its server stored
    erasures/<16 hex>.json                        an erasure; erasures/states.json what stands in
    erasures/<64 hex>.shard                       the place of what, a shard of it where it is long
    erasures/<16 hex>.rows                        what one refuses
    copies/<16 hex>.json                          a place that got rows of the lake
    cache/                                        derived, may be deleted

A digest is the SHA-256 of the file's bytes in hex; below states/ of its content. Branch
and tag names are percent-encoded to [a-z0-9._-] (upper case too, so that case-blind disks keep
them apart).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from lakelog.disk import Folder
from lakelog.keys import VAULT, LakeKeys
from lakelog.paths.file_names import FileNames, encode_name
from lakelog.protect import PROTECTIONS, Protection

FORMAT = 4
"""The newest format of a lake that this version reads and writes: that of a lake with streams."""
PLAIN_FORMAT = 3
"""The format of a lake without event streams, so that earlier versions go on reading it."""
OBJECTS = {"segments": ".parquet", "ids": ".ids", "manifests": ".json.zst"}
LEASE = "push-"
CHUNK, INDEX = ".chunk.zst", ".json.zst"
"""The endings of files below states/."""


class Keys:
    """Every file of a lake by its key, which is its path below the lake; pure, touches no disk."""

    def __init__(self, prefix: str = "") -> None:
        # Names of files stand here once: without a prefix they are keys of a bucket.
        self.config = f"{prefix}lakelog.json"
        self.wals = f"{prefix}wal"
        self.heads = f"{prefix}refs/heads"
        self.tags = f"{prefix}refs/tags"
        self.signatures = f"{prefix}refs/signatures"
        self.rollback = f"{prefix}refs/rollback.json"
        self.rollbacks = f"{prefix}refs/rollbacks"
        self.policy = f"{prefix}policy.toml"
        self.machine = f"{prefix}machine.json"
        self.remotes = f"{prefix}remotes"
        self.cache = f"{prefix}cache"
        self.cut = f"{self.cache}/cut"
        self.damaged = f"{self.cache}/damaged"
        self.verified = f"{self.cache}/verified.jsonl"
        self.blooms = f"{self.cache}/bloom"
        self.names = f"{self.cache}/names"
        self.ranges = f"{self.cache}/ranges"
        self.word_indexes = f"{self.cache}/words"
        self.rank_indexes = f"{self.cache}/ranks"
        self.peaks = f"{self.cache}/merkle"
        self.buffers = f"{self.cache}/buffer"
        self.clock = f"{self.cache}/clock"
        self.stream_marks = f"{self.cache}/streams"
        self.erased_subjects = f"{self.cache}/erasures.json"
        self.erased_rows = f"{self.cache}/erased_rows.json"
        self.config_lock = f"{self.cache}/config.lock"
        self.restore_lock = f"{self.cache}/restore.lock"
        self.states_lock = f"{self.cache}/states.lock"
        self.states = f"{prefix}states"
        self.erasures = f"{prefix}erasures"
        self.copies = f"{prefix}copies"
        self.gc = f"{prefix}gc"
        self.condemned = f"{self.gc}/condemned.json"
        self.let_go = f"{self.gc}/let_go.json"
        self.lost = f"{self.gc}/lost.json"
        self.deleting = f"{self.gc}/deleting"
        self.received = f"{self.gc}/received"
        self._prefix = prefix

    def next_config(self, digest: str) -> str:
        """What follows a lakelog.json, by the digest of its bytes."""
        return f"{self.gc}/config-{digest}.json"

    def wal_dir(self, branch: str) -> str:
        """The folder of a branch's WAL files."""
        return f"{self.wals}/{encode_name(branch)}"

    def wal(self, branch: str, writer: str, n: int) -> str:
        """File `n` of a writer."""
        return f"{self.wal_dir(branch)}/{writer}-{n:06d}.jsonl.zst"

    def object(self, object_type: str, digest: str) -> str:
        """The path of a segment, id run, manifest or page."""
        return f"{self._prefix}{object_type}/{digest[:2]}/{digest}{OBJECTS[object_type]}"

    def state_file(self, digest: str, ending: str) -> str:
        """The path of a chunk or an index of state directories."""
        return f"{self._prefix}states/{digest[:2]}/{digest}{ending}"

    def bloom(self, digest: str) -> str:
        """The file of a segment's Bloom filter."""
        return f"{self.blooms}/{digest}"

    def words(self, digest: str) -> str:
        """The file of a segment's word index."""
        return f"{self.word_indexes}/{digest}"

    def ranks(self, name: str) -> str:
        """The folder of a rank index, by its name."""
        return f"{self.rank_indexes}/{name}"

    def head_dir(self, branch: str) -> str:
        """The folder of a branch's moves."""
        return f"{self.heads}/{encode_name(branch)}"

    def move(self, branch: str, number: int) -> str:
        """One move of a branch."""
        return f"{self.head_dir(branch)}/{number:012d}.json"

    def packed(self, branch: str, low: int, high: int) -> str:
        """A file of packed moves."""
        return f"{self.head_dir(branch)}/packed-{low:012d}-{high:012d}.jsonl.zst"

    def hint(self, branch: str) -> str:
        """The hint of a branch."""
        return f"{self.head_dir(branch)}/hint"

    def tag(self, name: str) -> str:
        """The file of a tag."""
        return f"{self.tags}/{encode_name(name)}.json"

    def remote(self, name: str) -> str:
        """What the lake knows of a remote."""
        return f"{self.remotes}/{encode_name(name)}.json"


class Paths(Keys):
    """The paths of the files below one lake directory."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        super().__init__(f"{self.root}/")

    @property
    def keys(self) -> LakeKeys | None:
        """What encrypts for this lake, None for a plain one."""
        return VAULT.lakes.get(f"{self.root}/") if VAULT.lakes else None

    @property
    def is_sealed(self) -> bool:
        """Whether what must not be plain on a disk is in this lake: all of it, or some fields."""
        return bool(self.keys or self.protection)

    @property
    def protection(self) -> Protection | None:
        """Which fields of this lake are sealed under keys of subjects, None if none are."""
        return PROTECTIONS.get(self.root) if PROTECTIONS else None

    def digests(self, object_type: str) -> Iterator[str]:
        """Yield the digests of the objects of a type that are on disk, in ascending order."""
        root = f"{self.root}/{object_type}"
        for folder in FileNames(Folder(root).names()).hex_dirs:
            yield from sorted(FileNames(Folder(f"{root}/{folder}").names()).digests)

    def directories(self) -> list[str]:
        """Every directory that `init` creates, parents first."""
        top = [
            self.wals,
            f"{self.root}/refs",
            self.heads,
            self.tags,
            self.gc,
            self.cache,
            self.states,
        ]
        return [*top, *(f"{self.root}/{object_type}" for object_type in OBJECTS)]


KEYS = Keys()
