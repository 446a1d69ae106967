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
    gc/lost.json                                  objects that a repair gave up
    gc/deleting                                   there while gc deletes
    gc/push-<hex>                                 the lease of a push over SFTP
    states/<2 hex>/<digest>.chunk.zst             a piece of the files of state directories
    states/<2 hex>/<digest>.json.zst              what one state directory holds
    refs/rollback.json                            a rollback that is being carried out
    refs/rollbacks/<tag>.json                     those that were, by their safety tags
    policy.toml                                   who may do what; written by people
    machine.json                                  whose saved states are its own
    server/tokens.json                            who may use its server
    server/requests/TIME-RANDOM                   which requests its server stored
    erasures/<16 hex>.json                        an erasure; erasures/states.json what stands in
    erasures/<16 hex>.rows                        the place of what; what one refuses
    copies/<16 hex>.json                          a place that got rows of the lake
    cache/                                        derived, may be deleted

A digest is the SHA-256 of the file's bytes in hex; below states/ of its content. Branch
and tag names are percent-encoded to [a-z0-9._-] (upper case too, so that case-blind disks keep
them apart).
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable

from lakelog.errors import InvalidName
from lakelog.keys import VAULT, LakeKeys
from lakelog.protect import PROTECTIONS, Protection

FORMAT = 4
"""The newest format of a lake that this version reads and writes: that of a lake with streams."""
PLAIN_FORMAT = 3
"""The format of a lake without event streams, so that earlier versions go on reading it."""
FILE_FORMAT = 1
"""That of segments, manifests and pages: their bytes are still those of format 1."""
OBJECTS = {"segments": ".parquet", "ids": ".ids", "manifests": ".json.zst"}
# Directories of 1/256 of the objects each, made when the first object comes.
HEX_DIRS = tuple(f"{i:02x}" for i in range(256))
_HEX_DIRS = frozenset(HEX_DIRS)
_WAL = re.compile(r"([0-9a-f]{32})-(\d{6})\.jsonl\.zst")
_MOVE = re.compile(r"(\d{12})\.json")
_PACKED = re.compile(r"packed-(\d{12})-(\d{12})\.jsonl\.zst")
LEASE = "push-"
CHUNK, INDEX = ".chunk.zst", ".json.zst"
"""The endings of files below states/."""
_STATE = re.compile(r"([0-9a-f]{64})(\.chunk\.zst|\.json\.zst)")
_DIGEST = re.compile(r"([0-9a-f]{64})\.(parquet|ids|json\.zst)")


@functools.lru_cache(1024)
def encode_name(name: str) -> str:
    """Return the file name of a branch or tag. Raises InvalidName for one that cannot be used."""
    if not name or name != name.strip() or name.startswith(("-", "@")):
        raise InvalidName(
            f"{name!r} cannot be a name: it is empty, or starts with - or @, or a space"
        )
    if re.search(r"[\x00-\x1f\x7f\"]", name) or "~" in name:
        raise InvalidName(f"{name!r} cannot be a name: no quotes, tildes or control characters")
    # `resolve` tries names first, so such a name would hide a time or a snapshot id for ever.
    if re.match(r"\d{4}-\d{2}-\d{2}", name) or re.fullmatch(r"[0-9a-f]{8,64}", name):
        raise InvalidName(f"{name!r} cannot be a name: it reads like a time or a snapshot id")
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        raise InvalidName(f"{name!r} cannot be a name: not valid Unicode") from None
    encoded = _escaped(raw)
    # File names may have 255 bytes, and a suffix has to fit.
    if len(encoded) > 200:
        raise InvalidName(f"{name[:30]!r}... cannot be a name: too long")
    return encoded


def _escaped(raw: bytes) -> str:
    # Upper case is escaped too: on a file system that ignores case `Main` and `main` stay apart.
    safe = b"abcdefghijklmnopqrstuvwxyz0123456789._-"
    escaped = "".join(chr(c) if c in safe else f"%{c:02x}" for c in raw)
    # A leading dot would look like a temporary file, or be `..`.
    return "%2e" + escaped[1:] if escaped.startswith(".") else escaped


def is_encoded(name: str) -> bool:
    """Whether a file name can be that of a branch or tag; `lost+found` cannot, nor `.DS_Store`."""
    try:
        return encode_name(decode_name(name)) == name
    except InvalidName:
        return False


def decode_name(encoded: str) -> str:
    """Return the name of a branch or tag from its file name."""
    # Latin-1 maps each byte to the character of its number, so the UTF-8 can be put together again.
    raw = re.sub(r"%([0-9a-f]{2})", lambda m: chr(int(m[1], 16)), encoded)
    return raw.encode("latin-1", "replace").decode("utf-8", "replace")


class Keys:
    """Every file of a lake by its key, which is its path below the lake; pure, touches no disk."""

    def __init__(self, prefix: str = "") -> None:
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
        self.restore_lock = f"{self.cache}/restore.lock"
        self.states_lock = f"{self.cache}/states.lock"
        self.states = f"{prefix}states"
        self.erasures = f"{prefix}erasures"
        self.copies = f"{prefix}copies"
        self.gc = f"{prefix}gc"
        self.condemned = f"{self.gc}/condemned.json"
        self.lost = f"{self.gc}/lost.json"
        self.deleting = f"{self.gc}/deleting"
        self._prefix = prefix

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
        return f"{self._prefix}{state_name(digest, ending)}"

    def bloom(self, digest: str) -> str:
        """The file of a segment's Bloom filter."""
        return f"{self.blooms}/{digest}"

    def words(self, digest: str) -> str:
        """The file of a segment's word index."""
        return f"{self.word_indexes}/{digest}"

    def ranks(self, digest: str) -> str:
        """The folder of a segment's rank index."""
        return f"{self.rank_indexes}/{digest}"

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
    def protection(self) -> Protection | None:
        """Which fields of this lake are sealed under keys of subjects, None if none are."""
        return PROTECTIONS.get(self.root) if PROTECTIONS else None

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


def hex_dirs(names: Iterable[str]) -> list[str]:
    """Return those of the names that directories of objects have, sorted."""
    return sorted(_HEX_DIRS.intersection(names))


def state_name(digest: str, ending: str) -> str:
    """Return the path in the lake of a chunk or an index of state directories."""
    return f"states/{digest[:2]}/{digest}{ending}"


def parse_wal(name: str) -> tuple[str, int] | None:
    """Return (writer, n) of a WAL file name."""
    match = _WAL.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def parse_move(name: str) -> int | None:
    """Return the number of a move's file name."""
    match = _MOVE.fullmatch(name)
    return int(match[1]) if match else None


def parse_packed(name: str) -> tuple[int, int] | None:
    """Return (first, last) of a packed file's name."""
    match = _PACKED.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


def parse_object(name: str) -> str | None:
    """Return the digest of an object's file name."""
    match = _DIGEST.fullmatch(name)
    return match[1] if match else None


def parse_state(name: str) -> tuple[str, str] | None:
    """Return (digest, ending) of the name of a chunk or index of state directories."""
    match = _STATE.fullmatch(name)
    return (match[1], match[2]) if match else None
