"""The journal of systemd as a source: its entries, read from `journalctl -o export`.

`journalctl` runs as long as it is followed, and begins after the cursor that the lake has. An entry
is read as journald's JSON, in which a field of binary values is a list of bytes. Its position is
its cursor, and its number the one that the journal counts by. journald counts anew in the file that
it begins after a crash, or where the older ones were removed, and `journalctl` puts the entries of
all files in one order: so it alone knows what follows a cursor, even one whose entry is gone.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
from collections.abc import Mapping, Sequence

from lakelog.clients import ConnectionLost
from lakelog.consume.source import MessageSource, StreamState, encode_object
from lakelog.errors import Unreachable
from lakelog.formats import JournalExport
from lakelog.ingest import Message
from lakelog.values import JsonObject

URL = "journal:"
PROGRAM = "journalctl"
LATEST = "latest"
"""The position behind every entry, wherever that is now."""
WAIT = 0.2
"""Seconds for which the next entries are waited for."""
_READ = 1 << 20
_CURSOR = re.compile(r"s=([0-9a-f]+);i=([0-9a-f]+)(?:;(b=[0-9a-f]+;m=[0-9a-f]+;t=([0-9a-f]+);.*))?")
_NUMBER_MAX = (1 << 51) - 1


class JournalSource(MessageSource):
    """This machine's journal. With `follows` what is written later is read by the same process."""

    address, name = "the journal", "journal"
    absence = "the journal has no entries, or none that this user may read (group systemd-journal)"

    def __init__(self, *, follows: bool = False) -> None:
        self._follows = follows
        self._process: subprocess.Popen[bytes] | None = None
        self._position, self._rest, self._is_begun = "", b"", False
        self._key, self._end = "", ""

    def connect(self, group: str) -> None:
        """See which journal it is. Raises Unreachable."""
        del group  # nobody else sees who reads it
        entry = self._last()
        fields = JournalExport.values_of(entry) if entry else {}
        self._key = f"{URL}{fields.get('_MACHINE_ID', '')}" if entry else ""
        self._end = str(fields.get("__CURSOR", ""))

    def states(self) -> Sequence[StreamState]:
        """The journal, whose end is known when it is connected to and is open once it is read."""
        return [StreamState(self._key, self.name, "", self._end, 0)] if self._key else []

    def order(self, position: str) -> int:
        """The number of an entry in its journal."""
        if position == LATEST:
            return 1 << 64
        match = _CURSOR.match(position)
        return int(match[2], 16) if match else 0

    def is_beyond(self, position: str, end: str) -> bool:
        """Whether the journal was removed, and the clock set back since."""
        before, newest = _CURSOR.match(position), _CURSOR.match(end)
        # Of one numbering, all that follows is found, whatever the clock says.
        if before is None or newest is None or before[1] == newest[1]:
            return False
        return int(before[4] or "0", 16) > int(newest[4] or "0", 16)

    def read(
        self, positions: Mapping[str, str], ends: Mapping[str, str], limit: int
    ) -> tuple[list[Message], bool]:
        """Return the entries after a position that are there now."""
        del ends  # what comes meanwhile is read as well
        self._end = LATEST
        process = self._at(positions[self._key])
        messages: list[Message] = []
        assert process.stdout is not None
        while len(messages) < limit:
            # One that does not follow ends by itself, however slowly the machine starts it.
            wait = WAIT if self._follows else None
            is_ready, _, _ = select.select([process.stdout], [], [], wait)
            if not is_ready:
                return messages, True
            data = os.read(process.stdout.fileno(), _READ)
            entries, self._rest = JournalExport.split(self._rest + data, is_end=not data)
            for entry in entries:
                messages += self._following(entry)
            if not data:
                self._end_process(process)
                return messages, True
        return messages, False

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def _at(self, position: str) -> subprocess.Popen[bytes]:
        """The process that gives what follows a position."""
        if self._process is None or self._position != position:
            self.close()
            # Not --after-cursor: where the entry is gone, systemd 252 leaves out the next one.
            arguments = [f"--cursor={position}"] if position else []
            arguments += ["--follow", "--no-tail"] if self._follows else []
            self._process = _started(arguments)
            self._position, self._rest, self._is_begun = position, b"", False
        return self._process

    def _following(self, entry: bytes) -> list[Message]:
        """The message of an entry; none of the one at the position itself, the first if it is
        there."""
        fields = JournalExport.values_of(entry)
        cursor = str(fields.get("__CURSOR", ""))
        is_first, self._is_begun = not self._is_begun, True
        is_read = is_first and _place(cursor) == _place(self._position)
        return [] if is_read else [self._message(fields, cursor)]

    def _message(self, fields: JsonObject, cursor: str) -> Message:
        match = _CURSOR.match(cursor)
        number = int(match[2], 16) if match else 0
        time = str(fields.get("__REALTIME_TIMESTAMP", ""))
        self._position = cursor
        return Message(
            self._key,
            cursor,
            number & _NUMBER_MAX,
            encode_object(fields),
            None,
            int(time) if time.isdecimal() else None,
            encode_object({"entry": number}),
            "journal",
            match[1][:8] if match else "",
        )

    def _end_process(self, process: subprocess.Popen[bytes]) -> None:
        """Say why the process ended. Raises ConnectionLost, Unreachable."""
        assert process.stderr is not None
        complaint = process.stderr.read().decode("utf-8", "replace").strip()
        code = process.wait()
        self.close()
        if code and "cursor" in complaint.lower():
            raise Unreachable(f"{PROGRAM}: {complaint}")
        if code or self._follows:
            raise ConnectionLost(
                f"{PROGRAM} ended with {code}{f': {complaint}' if complaint else ''}"
            )

    def _last(self) -> bytes:
        """The newest entry; empty where there is none. Raises Unreachable."""
        process = _started(["--lines=1"])
        data, complaint = process.communicate()
        if process.returncode and not data:
            message = complaint.decode("utf-8", "replace").strip()
            raise Unreachable(f"{PROGRAM} ended with {process.returncode}: {message}")
        entries, _ = JournalExport.split(data, is_end=True)
        return entries[-1] if entries else b""


def _place(cursor: str) -> str:
    """What an entry keeps when journald moves it to another file, where it gets another number."""
    match = _CURSOR.match(cursor)
    return match[3] or cursor if match else cursor


def _started(arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start `journalctl`. Raises Unreachable."""
    command = [PROGRAM, "--output=export", "--no-pager", "--quiet", *arguments]
    try:
        # In a session of its own: Ctrl-C ends us in order, and then it.
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise Unreachable(f"{PROGRAM} cannot be run: {error.strerror or error}") from None
