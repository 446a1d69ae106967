"""A directory of another machine as a remote: `ssh://[USER@]HOST[:PORT]/PATH`, over SFTP.

The machine's own `ssh` makes the connection, so its configuration, keys, agent and known hosts
apply; nothing is needed at the other side but sshd. Files are written as a lake writes them
(F9.1): what decides is a hard link, which fails if the name is taken.

No lock can be held over SFTP. So while a push names objects it has a lease there, `gc/push-*`, and
gc announces deletions by `gc/deleting` (F9.11). Each makes its own file before it looks for the
other's, so one of both sees the other: gc then deletes nothing, a push waits. The lease is the file
that becomes the ref: a lease that gc took away, as one of a push that slept, can no longer be.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import quote, unquote, urlsplit

from lakelog.disk import disk
from lakelog.errors import MissingPackage, TransferRefused, Unreachable
from lakelog.paths import LEASE
from lakelog.remotes import remote as remotes
from lakelog.remotes.remote import Interrupted, Remote
from lakelog.remotes.sftp import (
    CREATE,
    EXCLUSIVE,
    TRUNCATE,
    Denied,
    Failed,
    Lost,
    NotThere,
    SftpClient,
)

PROGRAM = "LAKELOG_SSH"
"""Names the environment variable with the program and its options, by default `ssh`."""
_OPTIONS = """-T -a -x -o StrictHostKeyChecking=yes -o ClearAllForwardings=yes
    -o PermitLocalCommand=no -o ConnectTimeout=15 -o ServerAliveInterval=15
    -o ControlMaster=no""".split()
"""An existing shared connection is used; one that outlived this process would keep its streams."""
_NEEDED = ("hardlink@openssh.com", "posix-rename@openssh.com", "fsync@openssh.com")
_DELETING = "gc/deleting"
_GC_WAIT = 600.0
"""Seconds to wait for a gc that runs there."""
_GC_LONGEST = 3_600
"""Seconds after which a gc that deletes counts as interrupted."""
_FULL = 1 << 20


class SshRemote(Remote):
    """The files below a directory of another machine."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._host, self._root, self._command = _parse(url)
        self._lock = threading.Lock()
        self._changed: set[str] = set()
        self._lease = _NO_LEASE
        self._client: SftpClient | None = None
        self._is_ready = False
        self._connect()  # its handshake runs while the caller works

    def stream(self, key: str, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes of a file."""
        with self._translating(key):
            yield from self._ready().read(self._path(key), start)

    def names(self, folder: str) -> Iterator[str]:
        """Yield the names in a folder."""
        with self._translating(folder), contextlib.suppress(NotThere):
            for name, _ in self._ready().entries(self._path(folder)):
                yield os.fsdecode(name)

    def lengths(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield the files of a folder with their lengths."""
        with self._translating(folder), contextlib.suppress(NotThere):
            for name, attributes in self._ready().entries(self._path(folder)):
                if attributes.is_file:
                    yield os.fsdecode(name), attributes.size

    def size(self, key: str) -> int | None:
        """The length of a file, None if it is not there."""
        try:
            with self._translating(key):
                return self._ready().attributes(self._path(key)).size
        except FileNotFoundError:
            return None

    def sizes(self, keys: Sequence[str]) -> list[int | None]:
        """The lengths of some files, in one round trip."""
        with self._translating(""):
            return self._ready().sizes([self._path(key) for key in keys])

    def put(self, key: str, read_chunks: Callable[[], Iterator[bytes]], size: int) -> None:
        """Store an object; its name is durable after `flush`."""
        with self._translating(key), self._temporary(key, read_chunks) as temporary:
            # A rename, not a link: what has the name may be short or damaged.
            self._ready().rename(self._path(temporary), self._path(key))
        self._changed.add(os.path.dirname(key))

    def put_new(self, key: str, data: bytes) -> bool:
        """Store a file that must not exist."""
        folder = self._path(os.path.dirname(key))
        with self._translating(key), self._written(key, data) as source:
            client = self._ready()
            # Before, too: a power cut must not take the move before this one (F9.3, step 4).
            client.sync_dirs([folder])
            try:
                client.link(self._path(source), self._path(key))
            # SFTP has one code for all refusals: whether the name is taken has to be looked at.
            except Failed:
                if self.size(key) is None:
                    raise
                return False
            finally:
                client.sync_dirs([folder])
                # The lease itself is now the ref, under a second name: removing it ends the lease
                # alone.
                if source != self._lease.key:
                    self._remove(source)
        return True

    def replace(self, key: str, data: bytes) -> None:
        """Store a file in the place of another."""
        with self._translating(key), self._written(key, data) as source:
            client = self._ready()
            client.rename(self._path(source), self._path(key))
            client.sync_dirs([self._path(os.path.dirname(key))])

    def remove(self, key: str) -> None:
        """Remove a file."""
        self._remove(key)

    def flush(self) -> None:
        """Sync the folders of new objects."""
        with self._translating(""):
            folders = list(self._changed)
            self._ready().sync_dirs([self._path(folder) for folder in folders])
            self._changed.difference_update(folders)

    @contextlib.contextmanager
    def publishing(self, objects: Mapping[str, int]) -> Iterator[None]:
        """Have a lease there, while no gc deletes."""
        lease = _Lease(f"gc/{LEASE}{disk.random_hex()}")
        remotes.retrying(lambda: self._make_lease(lease))
        self._lease = lease
        try:
            self._await_gc(lease)
            yield
        finally:
            self._lease = _NO_LEASE
            # One that is left over holds gc off for an hour at most.
            with contextlib.suppress(OSError):
                self._ready().remove(self._path(lease.key))

    def close(self) -> None:
        """End the connection."""
        if self._client:
            self._client.close()
        self._client = None

    # --- writing ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _temporary(self, key: str, read_chunks: Callable[[], Iterator[bytes]]) -> Iterator[str]:
        """Write a file beside its later name, whole and durable. Whoever does not rename it
        removes it; an error does, too."""
        folder = os.path.dirname(key)
        name = f"{folder}/{disk.TEMPORARY}{disk.random_hex(8)}".lstrip("/")
        try:
            self._write(name, read_chunks, CREATE | EXCLUSIVE)
            try:
                yield name
            except NotThere:
                raise Interrupted(f"{self.url}: gc there removed what was being sent") from None
        except BaseException:
            self._remove(name)
            raise

    def _remove(self, name: str) -> None:
        if self._client:
            self._client.remove(self._path(name))

    def _write(self, name: str, read_chunks: Callable[[], Iterator[bytes]], flags: int) -> None:
        client = self._ready()
        # Before the first byte: without these extensions nothing can be stored safely.
        self._require_extensions(client)
        try:
            client.write(self._path(name), read_chunks(), flags)
        except NotThere:
            if not flags & CREATE:
                raise
            try:
                self._make_dirs(os.path.dirname(name))
                client.write(self._path(name), read_chunks(), flags)
            # Its own folder was there a moment ago, or was just made.
            except NotThere:
                raise Failed from None  # a folder above is a file

    def _make_dirs(self, folder: str) -> None:
        """Make a folder and those above it, also above the remote itself, durably."""
        path, client = self._path(folder), self._ready()
        missing = []
        while path not in (b"", b"/", b"."):
            try:
                client.attributes(path)
                break
            except NotThere:
                missing.append(path)
                path = os.path.dirname(path)
        for path in reversed(missing):
            with contextlib.suppress(Failed):  # another one was faster; if not, the write fails
                client.make_dir(path)
            client.sync_dirs([os.path.dirname(path) or b"."])

    @contextlib.contextmanager
    def _written(self, key: str, data: bytes) -> Iterator[str]:
        """Write what becomes a ref or another small file; the first ref of a lease is the lease."""
        lease = self._lease
        # Each lease makes one ref; what else is written meanwhile has a file of its own.
        if lease.is_used and lease.user != key:
            with self._temporary(key, lambda: iter((data,))) as temporary:
                yield temporary
            return
        # Before: else a link that fails could mean this folder, too.
        self._make_dirs(os.path.dirname(key))
        try:
            # Once a request to link it was sent it may be a ref: then it is not written to again.
            if not lease.is_used:
                self._write(lease.key, lambda: iter((data,)), TRUNCATE)
                lease.is_used, lease.user = True, key
            yield lease.key
        except NotThere:
            raise TransferRefused(
                f"{self.url}: gc there took this push for dead: nothing was changed, run it again"
            ) from None

    def _make_lease(self, lease: _Lease) -> None:
        with self._translating(lease.key):
            self._write(lease.key, lambda: iter(()), CREATE)

    def _await_gc(self, lease: _Lease) -> None:
        ends = time.monotonic() + _GC_WAIT
        while (started := self._stamp(_DELETING)) is not None:
            # Both by the clock of the other side. An interrupted gc left the file: its owner has to
            # look, since it may have deleted half.
            if (self._stamp(lease.key) or 0) - started > _GC_LONGEST:
                raise TransferRefused(
                    f"{self.url}: a gc was interrupted there: run `lakelog gc` on that machine,"
                    " then push again"
                )
            if time.monotonic() > ends:
                raise TransferRefused(f"{self.url}: gc runs there: try again when it has ended")
            time.sleep(0.2)

    def _stamp(self, key: str) -> int | None:
        """When a file was last written, in seconds; None if it is not there."""

        def look() -> int | None:
            with self._translating(key):
                try:
                    return self._ready().attributes(self._path(key)).mtime
                except NotThere:
                    return None

        return remotes.retrying(look)

    # --- connection -------------------------------------------------------------------------------

    def _connect(self) -> SftpClient:
        try:
            self._client = SftpClient(self._command)
        except FileNotFoundError:
            raise MissingPackage(
                f"ssh:// needs the program {self._command[0]}: install OpenSSH's client"
            ) from None
        self._is_ready = False
        return self._client

    def _ready(self) -> SftpClient:
        """Return the client, connected anew if it was lost. Raises Unreachable, Lost."""
        with self._lock:
            client = self._client
            # Lost during the handshake is explained below; lost later is connected anew.
            if client is None or (client.is_lost and self._is_ready):
                if client:
                    client.close()
                client = self._connect()
            if not self._is_ready:
                try:
                    client.await_version()
                except Lost:
                    client.close()
                    self._client = None
                    raise self._explained(client.last_words) from None
                self._is_ready = True
            return client

    def _require_extensions(self, client: SftpClient) -> None:
        missing = [name for name in _NEEDED if name not in client.extensions]
        if missing:
            raise TransferRefused(
                f"{self.url}: its SFTP server lacks {missing[0]}, so that nothing can be stored"
                " safely: use that of OpenSSH 6.5 or later"
            )

    def _explained(self, output: str) -> Exception:
        """Return the error for what ssh said."""
        host, url = self._host, self.url
        for sign, advice in (
            (
                "IDENTIFICATION HAS CHANGED",
                f"the key of {host} has changed: it was installed again, or somebody listens in:"
                f" ask who runs it, and only then `ssh-keygen -R {host}`",
            ),
            (
                "host key is known for",
                f"the key of {host} is not known: run `ssh {host}` once, compare the fingerprint"
                " with the one you were told, then try again",
            ),
            ("Host key verification failed", f"the key of {host} is not the known one"),
            (
                "Permission denied",
                f"{host} accepts none of your keys: see `ssh -v {host}`, or `ssh-add` a key",
            ),
            ("Could not resolve", f"there is no host {host}: check the address"),
            ("subsystem request failed", f"{host} has no SFTP: ask who runs it to allow it"),
        ):
            # ssh has one exit code for everything, so that only its words tell.
            if sign in output:
                return Unreachable(f"{url}: {advice}")
        last_line = (output.strip().splitlines() or ["there is no connection"])[-1]
        printable = "".join(c if c.isprintable() else "?" for c in last_line.strip())[:200]
        return Interrupted(f"{url}: {printable.removeprefix('ssh: ').rstrip('.')}")

    def _path(self, key: str) -> bytes:
        return os.fsencode(f"{self._root}/{key}".rstrip("/") or "/")

    @contextlib.contextmanager
    def _translating(self, key: str) -> Iterator[None]:
        """Raise our errors for those of the connection and of the other file system."""
        name = f"{self.url}: {key}"
        try:
            yield
        except Lost as error:
            raise Interrupted(f"{self.url}: {error}") from None
        except NotThere:
            raise FileNotFoundError(f"{name} is not there") from None
        except Denied:
            raise TransferRefused(f"{name}: permission is denied there") from None
        except Failed:
            raise TransferRefused(f"{name}: {self._reason()}") from None

    def _reason(self) -> str:
        """Say why a request was refused: SFTP has one code for most reasons."""
        with contextlib.suppress(OSError, Lost):
            for path in (self._path(""), os.path.dirname(self._path(""))):
                with contextlib.suppress(NotThere):
                    free = self._ready().free_bytes(path)
                    if free is not None and free < _FULL:
                        return "the disk is full there: free space and run it again"
                    break
        return "the server refuses it: is it a file system with hard links, and is it writable?"


REMOTE_CLASS = SshRemote


class _Lease:
    """A file there, `key`; `user` is the ref that it became, or is about to."""

    def __init__(self, key: str, is_used: bool = False) -> None:
        self.key, self.is_used, self.user = key, is_used, ""


_NO_LEASE = _Lease("", is_used=True)


def checked(url: str) -> str:
    """Return an address as it is stored. Raises TransferRefused."""
    _parse(url)
    return url.rstrip("/")


def of_short_form(address: str) -> str | None:
    """Return the address for `[USER@]HOST:PATH`, None for a path: one that is there, or that has a
    slash before the first colon."""
    place, _, path = address.partition(":")
    # scp's form: a colon after a slash belongs to a path.
    if not place or not path or "/" in place or path.startswith("//") or os.path.lexists(address):
        return None
    return f"ssh://{place}{quote(path) if path.startswith('/') else '/~/' + quote(path)}"


def _parse(url: str) -> tuple[str, str, list[str]]:
    """Return the host, the directory there, and the command. Raises TransferRefused."""
    try:
        address = urlsplit(url)
        host, user, port = address.hostname or "", address.username, address.port
    except ValueError:
        host = ""
    if not host or host.startswith("-") or (user or "").startswith("-"):
        raise TransferRefused(f"{url}: name a host, as in ssh://[USER@]HOST[:PORT]/PATH")
    path = unquote(address.path).rstrip("/")
    if not path or path == "/~" or "\0" in path:
        raise TransferRefused(
            f"{url}: name a directory, as in ssh://HOST/PATH or ssh://HOST/~/PATH"
        )
    program = shlex.split(os.environ.get(PROGRAM, "")) or ["ssh"]
    # In front of the user's own: ssh takes the first value that it is given.
    command = [program[0], *_OPTIONS, *program[1:]]
    # ssh asks for passphrases on the terminal, and a job without one would wait for ever.
    if not os.isatty(0):
        command += ["-o", "BatchMode=yes"]
    command += ["-p", str(port)] if port else []
    command += ["-l", user] if user else []
    # SFTP knows no `~`: a path without a slash in front begins at home.
    return host, path.removeprefix("/~/"), [*command, "-s", "--", host, "sftp"]
