"""The file of what is read in the place of states and segments of which rows were erased.

    erasures/states.json       of each state and segment that was rewritten, what is read instead;
                               or, if it is long, the names of its shards
    erasures/<64 hex>.shard    those that begin with the same hex digits, named by its own digest

Who looks for one state reads the index and one shard, however old the lake is. Parts are durable
before the index that names them, and are removed after the one that no longer does, under a lock
on the folder. Only a directory has shards: elsewhere few look, and each file costs a request.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lakelog import document
from lakelog.disk import Begun, File, NotIntact, OpenFile
from lakelog.errors import DamagedRef
from lakelog.keys import VAULT
from lakelog.values import JsonObject
from lakelog.volume.volume import DirectoryVolume, Volume

FOLDER = "erasures"
INDEX = f"{FOLDER}/states.json"
DIGEST = re.compile(r"[0-9a-f]{64}")
_ENDING = ".shard"
_SHARD_MAX = 128
"""States and segments of a shard, on average."""
_WIDTHS = {16: 1, 256: 2}
"""How many hex digits number so many shards."""
_SEARCHES_MAX = 4
_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Replacements:
    """What is read in the place of states, and of segments ("" for one of which nothing stayed), by
    digest."""

    states: dict[str, str] = field(default_factory=dict)
    segments: dict[str, str] = field(default_factory=dict)
    keys: frozenset[str] = frozenset()
    """The erasures that did so, as far as a bucket has them: a listing there may lack new names."""

    def update(self, mapping: Replacements) -> None:
        """Add what another one says."""
        self.states.update(mapping.states)
        self.segments.update(mapping.segments)

    def encoded(self) -> bytes:
        """The text of a file that has all of it."""
        body: JsonObject = {"states": self.states, "segments": self.segments}
        if self.keys:
            body["erasures"] = sorted(self.keys)
        return document.encode(body)

    def divide(self) -> tuple[bytes, dict[str, bytes]]:
        """The text of the index and those of the shards, by name."""
        size = len(self.states) + len(self.segments)
        width = next((w for count, w in _WIDTHS.items() if size <= count * _SHARD_MAX), 2)
        if size <= _SHARD_MAX:
            return self.encoded(), {}
        shards = {f"{number:0{width}x}": Replacements() for number in range(16**width)}
        for digest, replacement in self.states.items():
            shards[digest[:width]].states[digest] = replacement
        for digest, replacement in self.segments.items():
            shards[digest[:width]].segments[digest] = replacement
        encoded_shards = [shard.encoded() for shard in shards.values()]
        names = list(map(document.digest, encoded_shards))
        return document.encode({"shards": names}), dict(zip(names, encoded_shards, strict=True))


class ReplacementFile:
    """The file and its shards on one volume. What reads raises DamagedRef."""

    def __init__(self, volume: Volume, encrypt: Callable[[bytes], bytes] | None = None) -> None:
        """`encrypt` is for a volume that does not encrypt by itself."""
        self._volume, self._encrypt = volume, encrypt or (lambda data: data)

    def content(self) -> bytes:
        """The file as it was written, b"" where there is none."""
        with self._refusing_damaged(INDEX):
            try:
                data = VAULT.decrypt(self._volume.read(INDEX))
            except FileNotFoundError:
                return b""
            document.check(data)
            return data

    def shard(self, name: str) -> bytes:
        """The text of a shard. Raises FileNotFoundError: another file names others by now."""
        with self._refusing_damaged(key := f"{FOLDER}/{name}{_ENDING}"):
            if not DIGEST.fullmatch(name):
                raise NotIntact("a name in it is none")
            data = VAULT.decrypt(self._volume.read(key))
            if document.digest(data) != name:
                raise NotIntact("its digest is not its name")
            return data

    def shards(self, content: bytes) -> list[str]:
        """The names of the shards, by number; none of a file that has all of it."""
        if b'"shards"' not in content:
            return []
        with self._refusing_damaged(INDEX):
            names: list[str] = document.decode(content)["shards"]
            if len(names) not in _WIDTHS or not isinstance(names, list):
                raise NotIntact("it has another number of shards")
            return names

    def decode(self, content: bytes, name: str = "") -> Replacements:
        """What the text of the file says, or that of a shard with a name."""
        if not content:
            return Replacements()
        with self._refusing_damaged(f"{FOLDER}/{name}{_ENDING}" if name else INDEX):
            body = document.decode(content)
            states, segments = dict(body["states"]), dict(body["segments"])
            keys = frozenset(filter(_KEY.fullmatch, body.get("erasures", ())))
            return Replacements(states, segments, keys)

    def legible(self) -> tuple[Replacements, dict[str, DamagedRef]]:
        """What can be read of it from the disk now, and what is wrong with the rest, by the digits
        that the digests there begin with: "" where the index is damaged."""
        mapping, damage = Replacements(), dict[str, DamagedRef]()
        try:
            content = self.content()
            if not (names := self.shards(content)):
                return self.decode(content), {}
        except DamagedRef as error:
            return mapping, {"": error}
        for number, name in enumerate(names):
            prefix = f"{number:0{_WIDTHS[len(names)]}x}"
            try:
                mapping.update(self.decode(self.shard(name), name))
            except DamagedRef as error:
                damage[prefix] = error
            except FileNotFoundError:
                path = self._volume.location(f"{FOLDER}/{name}{_ENDING}")
                damage[prefix] = DamagedRef(path, "it is missing")
        # Shards that are missing were replaced, if the index was.
        return (mapping, damage) if not damage or self.content() == content else self.legible()

    def strewn(self) -> Replacements:
        """What the shards in the folder say, whichever the index names."""
        mapping = Replacements()
        for name in self._volume.names(FOLDER):
            if name.endswith(_ENDING):
                digest = name.removesuffix(_ENDING)
                with contextlib.suppress(DamagedRef, FileNotFoundError):
                    mapping.update(self.decode(self.shard(digest), digest))
        return mapping

    def write(self, replacements: Replacements) -> None:
        """Write all of it, durably."""
        if not isinstance(self._volume, DirectoryVolume):
            self._volume.replace(INDEX, self._encrypt(replacements.encoded()))
            return
        index, shards = replacements.divide()
        files: list[Begun] = []
        try:
            for name, content in shards.items():
                path = self._volume.location(f"{FOLDER}/{name}{_ENDING}")
                if not File(path).exists():
                    files.append(File(path).begin(content))
            self._volume.finish(files)
        except BaseException:
            self._volume.abandon(files)
            raise
        self._volume.replace(INDEX, index)
        # Also those of who was killed before the index: no other writes meanwhile.
        for name in self._volume.names(FOLDER):
            if name.endswith(_ENDING) and name.removesuffix(_ENDING) not in shards:
                self._volume.remove(f"{FOLDER}/{name}")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let no other of this machine write it meanwhile; it is read and written again."""
        self._volume.make_folder(FOLDER)
        if not isinstance(self._volume, DirectoryVolume):
            yield
            return
        path = self._volume.location(FOLDER)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            OpenFile(fd).lock(wait=True)
            yield
        finally:
            # Closing it would not, where a child of fork has it open as well.
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    @contextlib.contextmanager
    def _refusing_damaged(self, key: str) -> Iterator[None]:
        try:
            yield
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedRef(self._volume.location(key), f"it is damaged: {error}") from None


class ReplacementIndex:
    """What was read of the file: all of it, or the index and the shards that were asked for. Raises
    FileNotFoundError when another file was written since, and DamagedRef."""

    def __init__(self, file: ReplacementFile, content: bytes) -> None:
        self.content, self._file, self._names = content, file, file.shards(content)
        self._width = _WIDTHS.get(len(self._names), 0)
        self._shards = {"": Shard(file, b"" if self._names else content)}
        self._whole: Replacements | None = None

    def shard(self, digest: str) -> Shard:
        """The shard that has a digest if there is one."""
        name = ""
        if self._names:
            with contextlib.suppress(ValueError):  # what no lake would have named has no shard
                name = self._names[int(digest[: self._width], 16)]
        return self._shard(name)

    def whole(self) -> Replacements:
        """All that the file says."""
        if self._whole is None:
            shards = [self._shard(name).replacements() for name in ("", *self._names)]
            self._whole = Replacements(
                {d: n for shard in shards for d, n in shard.states.items()},
                {d: n for shard in shards for d, n in shard.segments.items()},
                shards[0].keys,
            )
        return self._whole

    def _shard(self, name: str) -> Shard:
        if name not in self._shards:
            self._shards[name] = Shard(self._file, self._file.shard(name), name)
        return self._shards[name]


class Shard:
    """The text of a shard, or of a file that has all."""

    def __init__(self, file: ReplacementFile, content: bytes, name: str = "") -> None:
        self._file, self._content, self._name, self._searches = file, content, name, 0
        self._replacements: Replacements | None = None

    def of(self, digest: str) -> str | None:
        """What is read in the place of a state."""
        # Who asks for the newest state alone, as most do, has the text searched in less than half
        # of the time that it takes to parse.
        if self._replacements is None and self._searches < _SEARCHES_MAX:
            self._searches += 1
            if digest.encode() not in self._content:
                return None
        return self.replacements().states.get(digest)

    def replacements(self) -> Replacements:
        """What it says."""
        if self._replacements is None:
            self._replacements = self._file.decode(self._content, self._name)
        return self._replacements
