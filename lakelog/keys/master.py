"""The master key, which wraps the data keys of a lake, and where it comes from.

It is 32 bytes, written as 64 hex digits or in base64, and never in a lake. The first of these that
is set gives it:

    LAKELOG_KEY           the key itself
    LAKELOG_KEY_FILE      a file that only its owner may read
    LAKELOG_KEY_COMMAND   a command that prints it
    LAKELOG_KMS_COMMAND   a command that wraps and unwraps data keys, so that the master key stays
                          where it is: its last argument is `wrap` or `unwrap`, it reads base64 and
                          prints base64

and without any of them the file `<id>.key` in ~/.config/lakelog/keys.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import shlex
import subprocess
from dataclasses import dataclass

from lakelog.errors import AlreadyExists, InvalidKey
from lakelog.keys import envelope, key_file

_VARIABLES = ("LAKELOG_KEY", "LAKELOG_KEY_FILE", "LAKELOG_KEY_COMMAND", "LAKELOG_KMS_COMMAND")
_OTHERS = 0o077
_FILE_MAX = 4_096
_SECONDS = 60.0
_CONTEXT = b"lakelog data key"
KMS = "kms"
"""The id of a master key that only a command knows."""


@dataclass(frozen=True)
class MasterKey:
    """A master key; `origin` says where it came from, in words."""

    secret: bytes
    origin: str

    @property
    def id(self) -> str:
        """16 hex digits."""
        return hashlib.sha256(b"lakelog master key" + self.secret).hexdigest()[:16]

    def wrap(self, secret: bytes, key_id: str) -> str:
        """Return a data key that only this key unwraps, in base64. Raises MissingPackage."""
        sealed = envelope.encrypt(secret, bytes.fromhex(self.id), self.secret, _context(key_id))
        return base64.b64encode(sealed).decode()

    def unwrap(self, wrapped: str, key_id: str) -> bytes:
        """Return a data key. Raises InvalidKey, MissingPackage."""
        try:
            data = base64.b64decode(wrapped, validate=True)
            return _secret(envelope.decrypt(data, self.secret, _context(key_id)))
        except (binascii.Error, ValueError):
            reason = "was changed: take lakelog.json from a copy"
            raise InvalidKey(f"the wrapped data key {key_id} {reason}") from None


@dataclass(frozen=True)
class KeyService:
    """A master key behind a command."""

    command: str
    id: str = KMS

    @property
    def origin(self) -> str:
        """Where the key is, in words."""
        return f"the command {shlex.split(self.command)[0]}"

    def wrap(self, secret: bytes, key_id: str) -> str:
        """Return a data key that the command unwraps. Raises InvalidKey."""
        return _run(self.command, "wrap", base64.b64encode(secret).decode())

    def unwrap(self, wrapped: str, key_id: str) -> bytes:
        """Return a data key. Raises InvalidKey."""
        answer = _run(self.command, "unwrap", wrapped)
        try:
            return _secret(base64.b64decode(answer, validate=True))
        except (binascii.Error, ValueError):
            raise InvalidKey(f"{self.origin} unwrapped no data key of 32 bytes") from None


Master = MasterKey | KeyService


def find(master_id: str) -> Master:
    """Return the master key with an id. Raises InvalidKey."""
    master = of_environment()
    if master is None:
        path = default_path(master_id)
        if not os.path.exists(path):
            raise InvalidKey(
                f"the lake is encrypted with the master key {master_id}: set LAKELOG_KEY_FILE, or"
                f" LAKELOG_KEY, LAKELOG_KEY_COMMAND or LAKELOG_KMS_COMMAND"
            )
        master = load(path)
    if master.id != master_id:
        name = "no master key" if master.id == KMS else f"the master key {master.id}"
        raise InvalidKey(
            f"{master.origin} gives {name}, but the lake is encrypted with {master_id}:"
            " give that key"
        )
    return master


def of_environment() -> Master | None:
    """Return the master key that the environment gives, None where it gives none. Raises
    InvalidKey."""
    # The first that is set, in the order of the guide: a shell that exports one is not asked for
    # more.
    name = next((name for name in _VARIABLES if os.environ.get(name)), "")
    value = os.environ.get(name, "")
    if name == "LAKELOG_KEY":
        return MasterKey(_parsed(value, name), name)
    if name == "LAKELOG_KEY_FILE":
        return load(value)
    if name == "LAKELOG_KEY_COMMAND":
        origin = f"the command {shlex.split(value)[0]}"
        return MasterKey(_parsed(_run(value), origin), origin)
    return KeyService(value) if name else None


def load(path: str) -> MasterKey:
    """Return the master key in a file. Raises InvalidKey."""
    try:
        with open(path, "rb") as file:
            mode, data = os.fstat(file.fileno()).st_mode, file.read(_FILE_MAX)
    except OSError as error:
        raise InvalidKey(f"{path}: the master key cannot be read: {error.strerror}") from None
    # As OpenSSH does: a key that others may read is no secret any more.
    if mode & _OTHERS:
        raise InvalidKey(f"{path}: other users may read this key: run chmod 600 on it")
    return MasterKey(_parsed(data.decode("utf-8", "replace"), path), path)


def generate(path: str = "") -> MasterKey:
    """Return a new master key, written to a file of mode 0600: that of its id unless given. Raises
    AlreadyExists, OSError."""
    key = MasterKey(os.urandom(envelope.SECRET_BYTES), "")
    path = path or default_path(key.id)
    os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
    try:
        key_file.create(path, f"{key.secret.hex()}\n".encode(), 0o600)
    except FileExistsError:
        raise AlreadyExists(
            f"{path} exists: choose another file, keys are not overwritten"
        ) from None
    return MasterKey(key.secret, path)


def pick(path: str = "") -> Master:
    """Return the master key for a lake: that of a file, which is made where it is missing, or the
    one that the environment gives, or a new one in its default file. Raises InvalidKey, OSError."""
    if path:
        key_file.refuse_in_lake(path, "its key")
        return load(path) if os.path.exists(path) else generate(path)
    return of_environment() or generate()


def default_path(master_id: str) -> str:
    """The file in which a master key is looked for when nothing else gives one."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return f"{config}/lakelog/keys/{master_id}.key"


def _context(key_id: str) -> bytes:
    return _CONTEXT + key_id.encode()


def _secret(data: bytes) -> bytes:
    if len(data) != envelope.SECRET_BYTES:
        raise ValueError("a key has 32 bytes")
    return data


def _parsed(encoded: str, origin: str) -> bytes:
    """Return the bytes of a key that is written as hex or base64. Raises InvalidKey."""
    encoded = encoded.strip()
    try:
        return _secret(bytes.fromhex(encoded))
    except ValueError:
        pass
    try:
        return _secret(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        raise InvalidKey(
            f"{origin}: no master key, which is 64 hex digits or 32 bytes in base64"
        ) from None


def _run(command: str, *arguments: str) -> str:
    """Return what a command prints; the last argument is its input where there are two. Raises
    InvalidKey."""
    program, lines_in = [*shlex.split(command), *arguments[:1]], arguments[1:]
    try:
        process = subprocess.run(
            program,
            input=f"{lines_in[0]}\n".encode() if lines_in else b"",
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InvalidKey(f"the command {program[0]} gives no key: {error}") from None
    if process.returncode:
        lines = process.stderr.decode("utf-8", "replace").strip().splitlines()
        raise InvalidKey(
            f"the command {program[0]} gives no key: it ended with code {process.returncode}"
            + (f": {lines[-1]}" if lines else "")
        )
    return process.stdout.decode("utf-8", "replace").strip()
