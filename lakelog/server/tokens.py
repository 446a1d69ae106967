"""Tokens of a lake's server: made once, shown once, kept as a hash, revoked at any time.

They are in `server/tokens.json` of the lake, which no copy that lakelog makes takes along. A
server that runs notices a change with its next request.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from lakelog.disk import File, Folder, LockFile, disk
from lakelog.errors import AlreadyExists, InUse, InvalidSetting

_SIZE_MAX = 1 << 20


class TokenScope(enum.Enum):
    """What a token allows."""

    READ = "read"
    INGEST = "ingest"
    ADMIN = "admin"


@dataclass(frozen=True)
class TokenEntry:
    """A token: its name, the SHA-256 of its text in hex, what it allows, and its time (us)."""

    name: str
    digest: str
    scopes: frozenset[TokenScope]
    made_at: int


class TokenFile:
    """The tokens of the lake in a directory."""

    def __init__(self, root: str) -> None:
        self._directory = os.path.join(root, "server")
        self._path = os.path.join(self._directory, "tokens.json")
        self._stamp: tuple[int, int, int] | None = None
        self._entries: tuple[TokenEntry, ...] = ()

    def entries(self) -> tuple[TokenEntry, ...]:
        """Return the tokens there are now. Raises InvalidSetting for a file that is none."""
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            self._stamp, self._entries = None, ()
            return ()
        # Looked at with each request: reading and parsing happens only after a change.
        stamp = status.st_mtime_ns, status.st_ino, status.st_size
        if stamp != self._stamp:
            self._entries = self._parsed(File(self._path).read(_SIZE_MAX))
            self._stamp = stamp
        return self._entries

    def add(self, name: str, scopes: frozenset[TokenScope]) -> str:
        """Make a token and return it. Raises AlreadyExists, InvalidSetting."""
        if not name or not name.isprintable():
            raise InvalidSetting("a token has a name: choose one that says who uses it")
        if not scopes:
            raise InvalidSetting("a token has at least one scope: read, ingest or admin")
        # 256 bits; the prefix lets secret scanners and people tell what it is.
        token = "ll_" + secrets.token_urlsafe(32)
        digest = hashlib.sha256(token.encode()).hexdigest()
        Folder(self._directory).make_all()
        # Read again inside of the lock: two that add at once must not lose one.
        with self._alone():
            present = self.entries()
            if any(entry.name == name for entry in present):
                raise AlreadyExists(f"there is a token {name!r}: revoke it first, or choose a name")
            self._replace((*present, TokenEntry(name, digest, scopes, disk.now_us())))
        return token

    def revoke(self, name: str) -> bool:
        """Remove a token; whether there was one."""
        if not self.entries():
            return False
        with self._alone():
            present = self.entries()
            others = tuple(entry for entry in present if entry.name != name)
            if len(others) < len(present):
                self._replace(others)
        return len(others) < len(present)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with LockFile(os.path.join(self._directory, "lock")).hold(shared=False) as is_held:
            if not is_held:
                raise InUse("another process is changing the tokens: try again")
            yield

    def _replace(self, entries: tuple[TokenEntry, ...]) -> None:
        records = [
            {
                "name": entry.name,
                "sha256": entry.digest,
                "scopes": sorted(scope.value for scope in entry.scopes),
                "made_at": entry.made_at,
            }
            for entry in entries
        ]
        File(self._path).replace(orjson.dumps(records, option=orjson.OPT_INDENT_2))

    def _parsed(self, data: bytes) -> tuple[TokenEntry, ...]:
        try:
            records: list[dict[str, Any]] = orjson.loads(data)
            return tuple(
                TokenEntry(
                    str(record["name"]),
                    str(record["sha256"]),
                    frozenset(TokenScope(scope) for scope in record["scopes"]),
                    int(record["made_at"]),
                )
                for record in records
            )
        except (ValueError, KeyError, TypeError):
            raise InvalidSetting(
                f"{self._path} is damaged: delete it, and make tokens again"
            ) from None
