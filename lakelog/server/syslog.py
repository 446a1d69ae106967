"""Syslog: messages of RFC 5424 and RFC 3164 over TCP, TLS and UDP.

Over TCP a message is counted (`26 <34>1 …`) or ends with a newline or NUL, as RFC 6587 has it; a
connection is read on only once what came is on disk, so that a sender waits and loses nothing. Over
UDP nobody waits: what the kernel threw away is counted where it says so. The protocol knows no
answer: what was under way when a server was killed is lost, whatever sent it.

Events are those of the format `syslog` of files; a line that is none is the message of one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lakelog import formats
from lakelog.errors import InvalidEvent, InvalidSetting, LakelogError
from lakelog.formats import EventMembers
from lakelog.server.gate import is_loopback
from lakelog.server.intake import EventIntake
from lakelog.server.protocols.protocol import Answer

PORT = 5514
MESSAGE_MAX = 1 << 20
"""Bytes of a message; of a longer one nobody knows the end, so that it ends its connection."""
_READ = 1 << 16
_LEAVE, _LEAVE_MAX = 0.5, 10.0
"""Seconds that senders have at the end to see that they should go elsewhere, and those in which
what they had sent is stored."""
_UDP_WAITING = 20_000
"""Datagrams that wait to be stored; those above are counted as lost."""
_STRANGERS_MAX = 100
"""Senders that are logged as refused."""
_RECEIVE_BUFFER = 4 << 20
_FIELD_INODE, _FIELD_DROPS = 9, 12
_COUNT = re.compile(rb"([1-9][0-9]{0,6}) (?=<)")
"""The length before a message (RFC 6587, 3.4.1), which begins with its `<PRI>`."""
_COUNT_BEGUN = re.compile(rb"[1-9][0-9]{0,6} ?")
_END = re.compile(rb"\n|\0(?=<|\Z)")
"""What ends a message that is not counted; Python's handler sends a NUL (RFC 6587, 3.4.2)."""
_BYTE_ORDER_MARK = "\ufeff"
"""What RFC 5424 puts before a message in UTF-8."""
_LOG = logging.getLogger("lakelog.server")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class SyslogPlan:
    """Where syslog is received, and from whom: `networks` are addresses beside this machine's;
    with `authority`, a file of certificates, only from clients that have one of it, over TLS."""

    syslog_port: int | None = None
    networks: tuple[str, ...] = ()
    authority: str | None = None


class SyslogServer:
    """Receives messages on one port, over TCP and, where it is not TLS, UDP."""

    def __init__(self, plan: SyslogPlan, host: str, intake: EventIntake[Answer]) -> None:
        """Raises InvalidSetting where anybody could send."""
        self._plan, self._host, self._intake = plan, host, intake
        self._networks = _networks(plan.networks)
        self._strangers = set[str]()
        self._reads = self._storing = 0
        # Refused at the start: whoever may send can fill the lake with forged lines.
        if not (is_loopback(host) or plan.networks or plan.authority):
            raise InvalidSetting(
                f"{host} is reached by other machines: say from which addresses syslog comes with"
                " --syslog-from, or give --syslog-ca for clients with certificates"
            )
        self._tcp: asyncio.Server | None = None
        self._senders: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}
        self._udp: asyncio.DatagramTransport | None = None
        self._datagrams: _Datagrams | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._tcp.sockets[0].getsockname()[1]) if self._tcp else 0

    async def start(self, context: ssl.SSLContext | None) -> None:
        """Begin to listen. Raises OSError."""
        # Loads the format: datagrams, which nobody sends again, do not wait for that.
        event_of(b"")
        listener = self._bind(socket.SOCK_STREAM, self._plan.syslog_port or 0)
        # Without TLS only: DTLS is not spoken, and plain datagrams beside TLS would be a hole.
        self._tcp = await asyncio.start_server(self._connection, sock=listener, ssl=context)
        if context is None:
            receiver = self._bind(socket.SOCK_DGRAM, self.port)
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            self._datagrams = _Datagrams(self, receiver)
            loop = asyncio.get_running_loop()
            datagrams = self._datagrams
            self._udp, _ = await loop.create_datagram_endpoint(lambda: datagrams, sock=receiver)

    def _bind(self, socket_type: int, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        endpoint = socket.socket(family, socket_type)
        try:
            endpoint.setblocking(False)
            # For a restart: connections of the server before may still be in TIME_WAIT.
            if socket_type == socket.SOCK_STREAM:
                endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            endpoint.bind((self._host, port))
        except OSError:
            endpoint.close()
            raise
        return endpoint

    async def stop(self) -> None:
        """End, and store what has come."""
        if self._tcp is not None:
            self._tcp.close()
        # What a sender got rid of it never sends again: it is told that this is the end, and what
        # it sent before it knew is stored.
        for writer in self._senders.values():
            if writer.can_write_eof():
                with suppress(OSError):
                    writer.write_eof()
        # While some of it comes still: what waits in the kernel goes with its connection.
        until, reads = time.monotonic() + _LEAVE_MAX, -1
        while (self._storing or self._reads > reads) and self._senders and time.monotonic() < until:
            reads = self._reads
            await self._wait_for_senders(_LEAVE)
        for writer in self._senders.values():
            writer.close()
        await self._wait_for_senders(None)
        if self._udp is not None and self._datagrams is not None:
            self._udp.close()
            await self._datagrams.stored()

    async def _wait_for_senders(self, seconds: float | None) -> None:
        if connections := [task for task in self._senders if task is not None]:
            await asyncio.wait(connections, timeout=seconds)

    @property
    def lost(self) -> int:
        """Datagrams that the kernel or this server had to throw away."""
        return self._datagrams.lost if self._datagrams else 0

    def admits(self, address: str) -> bool:
        """Whether an address may send."""
        try:
            sender = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        # A socket of IPv6 shows IPv4 senders as ::ffff:a.b.c.d, which no network of theirs
        # contains.
        if isinstance(sender, ipaddress.IPv6Address) and sender.ipv4_mapped is not None:
            sender = sender.ipv4_mapped
        return sender.is_loopback or any(sender in network for network in self._networks)

    def refuse(self, address: str) -> None:
        """Log that a sender is not admitted, once: datagrams may come by the thousand, each from
        an address that is forged."""
        if address not in self._strangers and len(self._strangers) < _STRANGERS_MAX:
            self._strangers.add(address)
            _LOG.warning("syslog from %s is refused: --syslog-from does not name it", address)

    async def store(self, messages: Sequence[bytes]) -> None:
        """Store messages. Raises LakelogError, OSError."""
        events = [event_of(message) for message in messages if message.strip()]
        if events:
            self._storing += 1
            try:
                await self._intake.store(events)
            finally:
                self._storing -= 1

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = str(writer.get_extra_info("peername")[0])
        task = asyncio.current_task()
        self._senders[task] = writer
        try:
            if self._plan.authority is None and not self.admits(address):
                self.refuse(address)
                return
            waiting = b""
            while content := await reader.read(_READ):
                self._reads += 1
                messages, waiting = split(waiting + content)
                await self.store(messages)
            # The last message of a connection may have no newline, or not all that was counted.
            count = _COUNT.match(waiting)
            await self.store([waiting[count.end() :] if count else waiting])
        except (LakelogError, OSError, ValueError) as error:
            # The sender connects again, and sends what it has not got rid of.
            _LOG.error("syslog from %s: %s", address, error)
        finally:
            del self._senders[task]
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    """Collects datagrams while those before them are stored."""

    def __init__(self, server: SyslogServer, receiver: socket.socket) -> None:
        self._server, self._waiting = server, list[bytes]()
        self._task: asyncio.Task[None] | None = None
        self._refused = 0
        self._inode = Path(f"/proc/self/fd/{receiver.fileno()}").stat().st_ino
        self._thrown = 0

    @property
    def lost(self) -> int:
        """Datagrams that are gone."""
        # The kernel's counter ends with the socket; what it said before stays counted.
        self._thrown = max(self._thrown, _kernel_drops(self._inode))
        return self._refused + self._thrown

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Take one; it may hold several lines."""
        if not self._server.admits(addr[0]):
            self._server.refuse(addr[0])
            return
        if len(self._waiting) >= _UDP_WAITING:
            self._refused += 1
            return
        self._waiting.append(data.rstrip(b"\r\n\0"))
        # One task at a time: what comes meanwhile is stored together by its next turn.
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._store())

    async def stored(self) -> None:
        """Wait until all that came is stored."""
        if self._task is not None:
            await self._task

    async def _store(self) -> None:
        while self._waiting:
            messages, self._waiting = self._waiting, []
            try:
                await self._server.store(messages)
            except (LakelogError, OSError) as error:
                self._refused += len(messages)
                _LOG.error("syslog: %s", error)


def split(content: bytes) -> tuple[list[bytes], bytes]:
    """Return the whole messages of a stream, and what has no end yet.

    Raises ValueError for a message that is too long, once those before it were returned.
    """
    messages, place = list[bytes](), 0
    while place < len(content):
        # A line may begin with digits, too, as those of a stack trace do.
        if count := _COUNT.match(content, place):
            start = count.end()
            end = start + int(count[1])
            following, size = end, end - start
        elif _COUNT_BEGUN.fullmatch(content, place):
            break
        else:
            start, size = place, len(content) - place
            ending = _END.search(content, place)
            end, following = ending.span() if ending else (len(content) + 1, 0)
        if end > len(content):
            if size > MESSAGE_MAX and not messages:
                raise ValueError("a message is longer than a megabyte")
            break
        messages.append(content[start:end].rstrip(b"\r\n\0"))
        place = following
    return messages, content[place:]


def event_of(message: bytes) -> EventMembers:
    """The event of one message, whatever it looks like."""
    # Older devices send Latin-1, which files are read as, too.
    recoded = formats.LineEncoding.recoded(message)
    event = _parsed(message if recoded is None else recoded)
    if recoded is not None:
        event["data"] = {**(event.get("data") or {}), "encoding": formats.LineEncoding.OLDER}
    return event


def _parsed(message: bytes) -> EventMembers:
    # The format of files is of one line. A counted message may have several, which all belong to
    # its text.
    head, _, other_lines = message.partition(b"\n")
    try:
        parsed = formats.FORMATS.by_name("syslog").parse(head)
    except InvalidEvent:
        parsed = []
    if isinstance(parsed, dict):
        if str(parsed.get("message") or "").startswith(_BYTE_ORDER_MARK):
            parsed["message"] = parsed["message"][1:]
        if other_lines:
            lines = other_lines.decode("utf-8", "backslashreplace")
            parsed["message"] = f"{parsed.get('message') or ''}\n{lines}"
        return parsed
    return {"type": "syslog", "message": message.decode("utf-8", "backslashreplace")}


def _networks(addresses: Sequence[str]) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(address, strict=False) for address in addresses)
    except ValueError as error:
        raise InvalidSetting(
            f"--syslog-from takes an address or a network, such as 10.0.0.0/8: {error}"
        ) from None


def _kernel_drops(inode: int) -> int:
    """What the kernel threw away for a socket (/proc/net/udp); 0 where it does not say."""
    for name in ("udp", "udp6"):
        try:
            rows = Path("/proc/net", name).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if len(fields) > _FIELD_DROPS and fields[_FIELD_INODE] == str(inode):
                return int(fields[_FIELD_DROPS])
    return 0
