"""A client of SFTP, version 3, over the standard streams of OpenSSH's `ssh -s HOST sftp`.

    packet    length (u32) of all that follows, kind (u8), number of the request (u32), fields
    field     u32, u64, or a string: its length (u32) and its bytes

Each answer has the number of its request, so that any number of requests is under way at once and
threads share a client. The server works on them in their order, so requests may be sent together
where the later ones do no harm if an earlier one fails. Extensions are those of OpenSSH's
PROTOCOL, section 4.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import stat
import struct
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as NoAnswer
from dataclasses import dataclass

from lakelog.remotes.remote import Interrupted

_INIT, _VERSION, _OPEN, _CLOSE, _READ, _WRITE, _LSTAT, _FSTAT = 1, 2, 3, 4, 5, 6, 7, 8
_OPENDIR, _READDIR, _REMOVE, _MKDIR = 11, 12, 13, 14
_STATUS, _HANDLE, _DATA, _NAME, _ATTRS, _EXTENDED, _REPLY = 101, 102, 103, 104, 105, 200, 201
_OK, _EOF, _NO_SUCH_FILE, _DENIED = 0, 1, 2, 3
READ, WRITE, CREATE, TRUNCATE, EXCLUSIVE = 1, 2, 8, 16, 32
"""How a file is opened."""
_HAS_SIZE, _HAS_OWNER, _HAS_MODE, _HAS_TIMES = 1, 2, 4, 8
_SAFE_LENGTH = 32 << 10
"""Bytes of a read or write that every server accepts."""
_LONGEST = 256 << 10
_PACKET_MAX = _LONGEST + 1024
_AHEAD = 16
"""Reads or writes of one file under way at once."""
_NAMES_MAX = 1_000_000
"""Names in a directory at most: a list that does not end must not be read for ever."""
_ANSWER = 120.0
"""Seconds to wait for an answer."""
_GOODBYE = 10.0
SftpReply = tuple[int, bytes]


class Lost(Interrupted):
    """Raised when there is no connection any more."""


class NotThere(FileNotFoundError):
    """Raised where the server has no file or directory of a name."""


class Denied(PermissionError):
    """Raised where the server's user may not do it."""


class Failed(OSError):
    """Raised where the server refuses a request without a reason that has a name."""


@dataclass(frozen=True)
class Attributes:
    """What a server says of a file; `mtime` is in seconds."""

    size: int
    is_file: bool
    mtime: int


class SftpClient:
    """One connection, which begins to be made when the client is. Threads share it.

    Methods raise Lost, NotThere, Denied, Failed.
    """

    def __init__(self, command: Sequence[str]) -> None:
        # Unbuffered: requests are joined here, and leave as whole packets.
        self._process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdin
        # A server that stops reading stops ssh, too: a write that blocked would have no end.
        os.set_blocking(self._process.stdin.fileno(), False)
        self._room = select.poll()
        self._room.register(self._process.stdin, select.POLLOUT)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[SftpReply]] = {}
        self._lock = threading.Lock()
        self._unsent: list[bytes] = []
        self._words: deque[bytes] = deque(maxlen=16)
        self._version: Future[SftpReply] = Future()
        self.extensions: frozenset[str] = frozenset()
        self.length = _SAFE_LENGTH
        self.is_lost = False
        self._threads = [
            # ssh writes to stderr at any time; an unread pipe would stop it.
            threading.Thread(target=work, daemon=True)
            for work in (self._receive, self._listen)
        ]
        for thread in self._threads:
            thread.start()
        self._send(struct.pack(">IBI", 5, _INIT, 3))

    def await_version(self) -> None:
        """Wait until the server has said what it can do."""
        _, body = self._result(self._version)
        fields = _Fields(body)
        fields.u32()
        names = []
        while not fields.is_at_end:
            names.append(fields.string().decode(errors="replace"))
            fields.string()
        self.extensions = frozenset(names)
        # OpenSSH 8.5 and later say how long reads and writes may be; others get what all accept.
        if "limits@openssh.com" in self.extensions:
            with contextlib.suppress(Failed):
                limits = _Fields(self.extended("limits@openssh.com"))
                _, reads, writes = limits.u64(), limits.u64(), limits.u64()
                longest = min(reads or _LONGEST, writes or _LONGEST, _LONGEST)
                self.length = max(longest, _SAFE_LENGTH)

    @property
    def last_words(self) -> str:
        """What ssh has said last, usually why there is no connection."""
        return b"".join(self._words).decode(errors="replace")

    def close(self) -> None:
        """End the connection, once the server has done what was asked."""
        # What was asked without waiting, such as closing files, leaves with this.
        self._send(b"")
        # A server that reads the end of its requests may leave those before it undone.
        wait(list(self._waiting.values()), _GOODBYE)
        if self.is_lost:
            self._process.kill()
        assert self._process.stdin
        with self._lock, contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_GOODBYE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join(_GOODBYE)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream
            stream.close()
        self._break()

    # --- files ------------------------------------------------------------------------------------

    def read(self, path: bytes, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes of a file from `start` on, some requests ahead."""
        handle = self._open(path, READ)
        try:
            # Asked for together, as most files are short.
            length, facts = self._ask(_FSTAT, _string(handle)), self._read(handle, start)
            size = _attributes(self._answer(length, _ATTRS)).size
            yield from self._read_on(handle, start, size, facts)
        finally:
            self._forget(handle)

    def _read_on(
        self, handle: bytes, start: int, size: int, answer: Future[SftpReply]
    ) -> Iterator[bytes]:
        offset, requested = start, start + self.length
        under_way = deque([answer])
        while True:
            # Ahead of what came: one block for each round trip would be slow on a far line.
            while len(under_way) < _AHEAD and requested < size:
                under_way.append(self._read(handle, requested))
                requested += self.length
            data = self._data(under_way.popleft())
            if not data:
                return
            offset += len(data)
            yield data
            if not under_way and offset >= size:
                return
            if len(data) < self.length and offset < size:
                # Less than was asked for: what follows was asked for at a wrong place.
                under_way, requested = deque([self._read(handle, offset)]), offset + self.length

    def _read(self, handle: bytes, offset: int) -> Future[SftpReply]:
        return self._ask(_READ, _string(handle), struct.pack(">QI", offset, self.length))

    def _data(self, answer: Future[SftpReply]) -> bytes:
        packet_type, body = self._result(answer)
        if packet_type == _STATUS and _Fields(body).u32() == _EOF:
            return b""
        data = _Fields(self._expect(packet_type, body, _DATA)).string()
        if len(data) > self.length:
            raise self._nonsense()
        return data

    def write(self, path: bytes, chunks: Iterator[bytes], how: int) -> None:
        """Write a file and sync it."""
        handle = self._open(path, WRITE | how)
        under_way: deque[Future[SftpReply]] = deque()
        try:
            offset = 0
            for chunk in chunks:
                for begin in range(0, len(chunk), self.length):
                    block = chunk[begin : begin + self.length]
                    fields = (_string(handle), struct.pack(">Q", offset), _string(block))
                    under_way.append(self._ask(_WRITE, *fields))
                    # Its own offset for each: the server may answer in any order, and none waits
                    # for another.
                    offset += len(block)
                    if len(under_way) > _AHEAD:
                        self._done(under_way.popleft())
            # In the same packet of the network as the last writes: nothing has a name yet.
            under_way.append(self._ask_more("fsync@openssh.com", _string(handle)))
            while under_way:
                self._done(under_way.popleft())
        finally:
            self._forget(handle)

    def sync_dirs(self, paths: Sequence[bytes]) -> None:
        """Sync directories, where the server opens one as a file, as that of OpenSSH does."""
        for some in range(0, len(paths), _AHEAD):
            batch = paths[some : some + _AHEAD]
            # Opened together, then synced together: two round trips for all of them.
            how = struct.pack(">II", READ, 0)
            handles = [self._ask(_OPEN, _string(path), how, send=False) for path in batch]
            self._send(b"")
            syncs = []
            for answer in handles:
                # Servers that are not OpenSSH's refuse to open a directory: then nobody syncs it.
                with contextlib.suppress(Failed):
                    handle = _Fields(self._answer(answer, _HANDLE)).string()
                    syncs.append(self._ask_more("fsync@openssh.com", _string(handle)))
                    self._forget(handle)
            for answer in syncs:
                self._done(answer)

    def attributes(self, path: bytes) -> Attributes:
        """What is known of a file, of a link itself."""
        return _attributes(self._answer(self._ask(_LSTAT, _string(path)), _ATTRS))

    def sizes(self, paths: Sequence[bytes]) -> list[int | None]:
        """The lengths of files, None for those that are not there; asked for at once."""
        answers = [self._ask(_LSTAT, _string(path), send=False) for path in paths]
        self._send(b"")
        lengths: list[int | None] = []
        for answer in answers:
            try:
                lengths.append(_attributes(self._answer(answer, _ATTRS)).size)
            except NotThere:
                lengths.append(None)
        return lengths

    def entries(self, path: bytes) -> Iterator[tuple[bytes, Attributes]]:
        """Yield the names in a directory, with what is known of each."""
        handle = _Fields(self._answer(self._ask(_OPENDIR, _string(path)), _HANDLE)).string()
        names = 0
        try:
            while names < _NAMES_MAX:
                packet_type, body = self._result(self._ask(_READDIR, _string(handle)))
                if packet_type == _STATUS and _Fields(body).u32() == _EOF:
                    return
                fields = _Fields(self._expect(packet_type, body, _NAME))
                count = fields.u32()
                # A server that answers without names must not be asked for ever.
                names += max(count, 1)
                for _ in range(count):
                    name = fields.string()
                    fields.string()
                    attributes = fields.attributes()
                    # With a slash it would be a path somewhere else.
                    if name not in (b"", b".", b"..") and b"/" not in name:
                        yield name, attributes
            raise self._nonsense()
        finally:
            self._forget(handle)

    def remove(self, path: bytes) -> None:
        """Remove a file, if it is there, some time before the connection is closed."""
        self._ask(_REMOVE, _string(path))

    def make_dir(self, path: bytes) -> None:
        """Make a directory."""
        # Nobody waits: a leftover temporary file harms nobody.
        self._done(self._ask(_MKDIR, _string(path), struct.pack(">I", 0)))

    def link(self, source: bytes, target: bytes) -> None:
        """Give a file a second name; Failed if it is taken."""
        self._done(self._ask_more("hardlink@openssh.com", _string(source), _string(target)))

    def rename(self, source: bytes, target: bytes) -> None:
        """Give a file another name, in the place of what has it."""
        self._done(self._ask_more("posix-rename@openssh.com", _string(source), _string(target)))

    def free_bytes(self, path: bytes) -> int | None:
        """Bytes that a user may still write below a path, None if the server does not say."""
        if "statvfs@openssh.com" not in self.extensions:
            return None
        fields = _Fields(self.extended("statvfs@openssh.com", _string(path)))
        _, block, _, _, available = (fields.u64() for _ in range(5))
        return block * available

    def extended(self, name: str, *fields: bytes) -> bytes:
        """Make a request of an extension that answers."""
        return self._answer(self._ask_more(name, *fields), _REPLY)

    # --- packets ----------------------------------------------------------------------------------

    def _open(self, path: bytes, how: int) -> bytes:
        fields = (_string(path), struct.pack(">II", how, 0))
        return _Fields(self._answer(self._ask(_OPEN, *fields), _HANDLE)).string()

    def _forget(self, handle: bytes) -> None:
        # Nobody waits for the answer, as what matters was synced before: it goes out in the same
        # packet of the network as the next request.
        self._ask(_CLOSE, _string(handle), send=False)

    def _ask_more(self, name: str, *fields: bytes) -> Future[SftpReply]:
        return self._ask(_EXTENDED, _string(name.encode()), *fields)

    def _ask(self, packet_type: int, *fields: bytes, send: bool = True) -> Future[SftpReply]:
        """Make a request; one that is not sent goes out with the next one that is."""
        body, answer = b"".join(fields), Future[SftpReply]()
        number = next(self._numbers) & 0xFFFFFFFF
        # Noted before it is sent: the answer may come at once.
        self._waiting[number] = answer
        packet = struct.pack(">IBI", len(body) + 5, packet_type, number) + body
        if send:
            self._send(packet)
        else:
            with self._lock:
                self._unsent.append(packet)
        return answer

    def _send(self, packet: bytes) -> None:
        assert self._process.stdin
        try:
            with self._lock:
                view = memoryview(b"".join((*self._unsent, packet)))
                self._unsent.clear()
                # A pipe may take less than was offered.
                while view and not self.is_lost:
                    if not self._room.poll(_ANSWER * 1000):
                        raise TimeoutError
                    view = view[os.write(self._process.stdin.fileno(), view) :]
        except (OSError, ValueError):
            self._break()
        if self.is_lost:
            self._break()  # whoever broke it may have done so before this request was noted

    def _result(self, answer: Future[SftpReply]) -> SftpReply:
        try:
            return answer.result(_ANSWER)
        # A connection that does not answer is given up whole: later answers would have no order.
        except NoAnswer:
            self._break()
            raise Lost("the server does not answer") from None

    def _answer(self, answer: Future[SftpReply], packet_type: int) -> bytes:
        got, body = self._result(answer)
        return self._expect(got, body, packet_type)

    def _done(self, answer: Future[SftpReply]) -> None:
        packet_type, body = self._result(answer)
        self._expect(packet_type, body, _STATUS)

    def _expect(self, packet_type: int, body: bytes, expected: int) -> bytes:
        """Return the body of an answer of the wanted kind; raise what a status says."""
        if packet_type == _STATUS:
            code = _Fields(body).u32()
            if code == _OK and expected == _STATUS:
                return body
            if code == _NO_SUCH_FILE:
                raise NotThere
            if code == _DENIED:
                raise Denied
            raise Failed
        if packet_type != expected:
            raise self._nonsense()
        return body

    def _nonsense(self) -> Lost:
        self._break()
        return Lost("the server breaks the protocol")

    def _receive(self) -> None:
        """Hand answers to those who wait for them, until the stream ends."""
        assert self._process.stdout
        stream = self._process.stdout.fileno()
        with contextlib.suppress(OSError, EOFError, ValueError, struct.error):
            while True:
                length, packet_type = struct.unpack(">IB", _exactly(stream, 5))
                if not 5 <= length <= _PACKET_MAX:
                    break
                body = _exactly(stream, length - 1)
                if packet_type == _VERSION:
                    self._version.set_result((packet_type, body))
                    continue
                # An answer to nothing that was asked: the stream is not in step any more.
                waiting = self._waiting.pop(struct.unpack(">I", body[:4])[0], None)
                if waiting is None:
                    break
                waiting.set_result((packet_type, body[4:]))
        self._break()

    def _listen(self) -> None:
        assert self._process.stderr
        with contextlib.suppress(OSError, ValueError):
            while output := os.read(self._process.stderr.fileno(), 1024):
                self._words.append(output)

    def _break(self) -> None:
        """Tell all who wait that the connection is lost."""
        self.is_lost = True
        for answer in [self._version, *(self._waiting.pop(n, None) for n in list(self._waiting))]:
            with contextlib.suppress(Exception):  # answered at the same moment
                if answer and not answer.done():
                    answer.set_exception(Lost("the connection was lost"))


class _Fields:
    """The fields of a packet, one after the other. Raises Failed where it ends too early."""

    def __init__(self, body: bytes) -> None:
        self._body, self._at = body, 0

    @property
    def is_at_end(self) -> bool:
        return self._at >= len(self._body)

    def u32(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def u64(self) -> int:
        return int.from_bytes(self._take(8), "big")

    def string(self) -> bytes:
        return self._take(self.u32())

    def attributes(self) -> Attributes:
        flags = self.u32()
        # Fields that are not flagged are not there at all.
        size = self.u64() if flags & _HAS_SIZE else 0
        if flags & _HAS_OWNER:
            self.u64()
        mode = self.u32() if flags & _HAS_MODE else stat.S_IFREG
        mtime = self.u64() & 0xFFFFFFFF if flags & _HAS_TIMES else 0
        return Attributes(size, stat.S_ISREG(mode), mtime)

    def _take(self, length: int) -> bytes:
        value = self._body[self._at : self._at + length]
        if len(value) < length:
            raise Failed("the answer is too short")
        self._at += length
        return value


def _attributes(body: bytes) -> Attributes:
    return _Fields(body).attributes()


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _exactly(stream: int, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        chunk = os.read(stream, length - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return bytes(data)
