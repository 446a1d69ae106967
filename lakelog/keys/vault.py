"""The vault: which lakes of this process are encrypted, and what encrypts and decrypts their bytes.

Whoever opens a lake puts its data keys in here, once. An envelope names its key, so it is decrypted
without knowing of which lake it is. Writing goes by the path: in an encrypted lake a file may be
written only if it is an envelope, is one that `disk` makes an envelope, as everything below cache/
is, or is known to hold no word of an event. Anything else is refused, never written in plain.

A process without encrypted lakes loads nothing of this but `VAULT`, and asks it one question.
"""

from __future__ import annotations

import binascii
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from lakelog.errors import InvalidKey, LakelogError, NotAllowed
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    from lakelog.keys import envelope, plain_file
    from lakelog.keys.keyring import KeyRing
    from lakelog.keys.master import Master
    from lakelog.keys.plain_file import PlainRanges
else:
    envelope, plain_file = Lazy("lakelog.keys.envelope"), Lazy("lakelog.keys.plain_file")

_MAGIC, _LINE = b"LKN1", b"lkn1:"
"""How an envelope begins, and one in base64 that stands in a line of text."""
_KEY_ID = slice(8, 16)
_PLAIN = ("wal", "ids", "refs", "gc", "server")
"""Folders whose files hold no word of an event, or whose writers encrypt what does."""
_PLAIN_FILES = ("", "lakelog.json", "policy.toml", "machine.json")
_DERIVED = ("cache", "copies", "erasures", "remotes")
"""Folders whose files `disk` encrypts as it writes them, and decrypts as it reads them."""
_PLAIN_CACHES = (
    *("verified.jsonl", "clock", "merkle", "cut", "damaged", "aside", "safety.jsonl"),
    *("own-writers", "fetched.jsonl", "ranges"),
)
"""Of cache/: digests, times, ids, and what was encrypted before it came there."""
_REFUSED = "{} was not written: the lake is encrypted, and lakelog does not encrypt such a file yet"
_PATHS_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class LakeKeys:
    """What encrypts for one lake: its ring, and the newest data key."""

    ring: KeyRing
    key_id: bytes
    secret: bytes
    series: envelope.EnvelopeSeries
    """Makes the envelopes of what is written in small pieces, such as frames."""

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """Return the envelope of bytes."""
        return envelope.encrypt(data, self.key_id, self.secret)

    def encrypt_line(self, data: bytes, *, is_fixed: bool = False) -> bytes:
        """Return a line of text that only the key opens; `is_fixed` gives equal bytes equal
        lines."""
        salt = envelope.fixed_salt(self.secret, data) if is_fixed else b""
        sealed_bytes = envelope.encrypt(data, self.key_id, self.secret, b"", salt)
        return _LINE + binascii.b2a_base64(sealed_bytes, newline=False)


class Vault:
    """The data keys that this process knows, and its encrypted lakes."""

    def __init__(self) -> None:
        self.lakes: dict[str, LakeKeys] = {}
        """What encrypts for each encrypted lake, by its path with a slash after it."""
        self._secrets: dict[bytes, bytes] = {}
        self._is_envelope: dict[str, bool] = {}
        self.elsewhere: Callable[[str], Any] = lambda _: None
        """Returns what reads a file that is not here whole, None for any other."""
        self.finders: dict[str, Callable[[bytes], object]] = {}
        """What looks for a data key that others have made, for each lake that has other writers."""

    def keys_of(self, path: str) -> LakeKeys | None:
        """Return what encrypts for the lake that a path is in, None for a plain one."""
        root = self._root_of(path) if self.lakes else ""
        return self.lakes[root] if root else None

    def unlock(self, root: str, ring: KeyRing, master: Master | None = None) -> None:
        """Let this process read and write the lake at an absolute path. Raises InvalidKey."""
        if master is not None or any(bytes.fromhex(n) not in self._secrets for n in ring.keys):
            self.learn({name: key.hex() for name, key in ring.unlocked(master).items()})
        key_id = bytes.fromhex(ring.key)
        secret = self._secrets[key_id]
        lake_keys = LakeKeys(ring, key_id, secret, envelope.EnvelopeSeries(key_id, secret))
        # By its resolved path too, which some processes give to others.
        self.lakes[f"{root}/"] = self.lakes[f"{os.path.realpath(root)}/"] = lake_keys

    def forget_lake(self, root: str) -> None:
        """Note that the lake at a path is plain: it took the place of another one."""
        self.lakes.pop(f"{root}/", None)

    def secrets(self) -> dict[str, str]:
        """Return the data keys by id, in hex, for a child that cannot find them itself."""
        return {name.hex(): secret.hex() for name, secret in self._secrets.items()}

    def learn(self, secrets: dict[str, str]) -> None:
        """Take over the data keys of a parent."""
        for name, secret in secrets.items():
            self._secrets[bytes.fromhex(name)] = bytes.fromhex(secret)

    def secret_of(self, head: bytes) -> bytes:
        """Return the data key of an envelope, of its first bytes. Raises InvalidKey, ValueError."""
        for find in () if head[_KEY_ID] in self._secrets else list(self.finders.values()):
            # Whoever does not find it leaves it to the next one.
            with contextlib.suppress(LakelogError, OSError):
                find(head[_KEY_ID])
        secret = self._secrets.get(head[_KEY_ID])
        if secret is None:
            raise InvalidKey(
                f"the data key {head[_KEY_ID].hex()} is missing, which lakelog.json does not have"
                " under this master key: take that file from a copy of the lake, or restart with"
                " the present master key if it was changed"
            )
        return secret

    def decrypt(self, data: bytes, context: bytes = b"") -> bytes:
        """Return the plaintext of an envelope, and other bytes as they are. Raises NotDecrypted, a
        ValueError; InvalidKey where the key is missing."""
        if data[:4] != _MAGIC:
            return data
        return envelope.decrypt(data, self.secret_of(data), context)

    def decrypt_line(self, line: bytes) -> bytes:
        """Return the text of an encrypted line, and another line as it is. Raises as `decrypt`."""
        if not line.startswith(_LINE):
            return line
        try:
            return self.decrypt(binascii.a2b_base64(line[len(_LINE) :], strict_mode=True))
        except binascii.Error:
            raise envelope.NotDecrypted("its encrypted text is no base64") from None

    def decrypt_cache(self, path: str, data: bytes) -> bytes:
        """Return the plaintext of a file of a cache, and other files as they are.

        One that does not open is given as it is: whoever derived it finds it damaged, and does it
        again.
        """
        if data[:4] != _MAGIC or not self._is_cache(path):
            return data
        try:
            return self.decrypt(data)
        except (ValueError, LakelogError):
            return data

    def guarded(self, path: str, data: bytes) -> bytes:
        """Return the bytes to write to a file: an envelope of them in the cache of an encrypted
        lake. Raises NotAllowed for what would stand there in plain."""
        root = self._root_of(path)
        if not root or not data or data[:4] == _MAGIC:
            return data
        folder, _, name = path[len(root) :].partition("/")
        if folder in _DERIVED:
            is_plain = name.split("/", 1)[0] in _PLAIN_CACHES
            return data if is_plain else self.lakes[root].encrypt(data)
        if folder in _PLAIN or (not name and folder in _PLAIN_FILES):
            return data
        raise NotAllowed(_REFUSED.format(path))

    def refuse_appending(self, path: str) -> None:
        """Refuse to append a line to a file that would hold words of events in plain. Raises
        NotAllowed."""
        if self._is_cache(path):
            raise NotAllowed(_REFUSED.format(path))
        self.guarded(path, b"\n")

    def is_envelope(self, path: str) -> bool:
        """Whether an object, which never changes, is an envelope. One that is missing is none."""
        known_answer = self._is_envelope.get(path)
        if known_answer is None:
            try:
                with plain_file.open_binary(path) as file:
                    known_answer = file.read(4) == _MAGIC
            except OSError:
                return False
            if len(self._is_envelope) > _PATHS_MAX:
                self._is_envelope.clear()
            self._is_envelope[path] = known_answer
        return known_answer

    def file(self, path: str) -> Any:
        """Return what Arrow reads an object from: its path, or a file that decrypts or fetches it.
        Raises OSError, DamagedSegment, InvalidKey for such a one."""
        if (source := self.elsewhere(path)) is not None:
            return source
        if not self.lakes or not self.is_envelope(path):
            return path
        return plain_file.PlainFile(path, self.secret_of)

    @staticmethod
    def sealed_size(size: int) -> int:
        """How long the envelope of `size` bytes is."""
        return envelope.sealed_size(size)

    def ranges(self, size: int, fetch: Callable[[int, int], bytes]) -> PlainRanges | None:
        """Return what reads the plaintext of a file of `size` bytes, of which `fetch(start,
        length)` gives some; None for one that is no envelope. Raises ValueError, InvalidKey."""
        head = fetch(0, envelope.HEAD_BYTES)
        if head[:4] != _MAGIC:
            return None
        return plain_file.PlainRanges(head, size, self.secret_of(head), fetch)

    def open_file(self, path: str) -> BinaryIO:
        """Open a file, or its plaintext if it is an envelope, of which only what is read is
        decrypted. Raises OSError, ValueError, DamagedSegment, InvalidKey."""
        if (source := self.elsewhere(path)) is not None:
            return source  # type: ignore[no-any-return]
        file: BinaryIO = open(path, "rb")  # noqa: SIM115
        if self.lakes and file.read(4) == _MAGIC:
            file.close()
            return plain_file.PlainFile(path, self.secret_of)  # type: ignore[return-value]
        file.seek(0)
        return file

    def _is_cache(self, path: str) -> bool:
        """Whether a path is in the cache of an encrypted lake and its file an envelope."""
        root = self._root_of(path)
        names = path[len(root) :].split("/", 2) if root else []
        return len(names) > 1 and names[0] in _DERIVED and names[1] not in _PLAIN_CACHES

    def _root_of(self, path: str) -> str:
        """Return the path, with a slash, of the encrypted lake that a path is in, or ""."""
        path = path if path.startswith("/") else os.path.abspath(path)
        return next((root for root in self.lakes if path.startswith(root)), "")


VAULT = Vault()
"""That of this process."""
