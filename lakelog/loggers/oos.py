"""The logger of the OOS log stream: `get_logger("oos.log").complete("podcast", "A", "A_1")`.

    2025-09-29T02:00:19.480Z|COMPLETE|podcast|A|A_1|{"words":4800}

A line has the time, the type, and then content type, source and item, which hold no bar and no
newline; `data` is JSON on the same line.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from lakelog.errors import InvalidEvent
from lakelog.loggers.destination import LakeOrPath
from lakelog.loggers.logfile import ROTATE_BYTES, LineLog, LineLogger
from lakelog.loggers.values import encode_members

DEFAULT_LOG = "oos.log"
_KIND, _STAMP = rb"(?m)^[^|\n]*\|([^|\n]*)\|", rb"^([^|]*)\|"
_BARS = 5
Data = Mapping[str, object] | None


class OOSLogger(LineLogger):
    """Writes lines of the OOS log stream; safe for threads, forks and several processes."""

    def __init__(self, log: LineLog, stdout: bool = False) -> None:
        super().__init__(log)
        self._stdout = stdout
        self._clock = (0, b"")

    def discover(self, content_type: str, source: str, item_id: str, data: Data = None) -> None:
        """An item was found."""
        self.log("DISCOVER", content_type, source, item_id, data)

    def process(self, content_type: str, source: str, item_id: str, data: Data = None) -> None:
        """Work on an item began."""
        self.log("PROCESS", content_type, source, item_id, data)

    def complete(self, content_type: str, source: str, item_id: str, data: Data = None) -> None:
        """Work on an item succeeded."""
        self.log("COMPLETE", content_type, source, item_id, data)

    def fail(self, content_type: str, source: str, item_id: str, data: Data = None) -> None:
        """Work on an item failed; the views count `data["error"]`."""
        self.log("FAIL", content_type, source, item_id, data)

    def log(
        self, event_type: str, content_type: str, source: str, item_id: str, data: Data = None
    ) -> None:
        """Write an event of any type. What cannot be written is counted; a strict logger raises
        InvalidEvent."""
        try:
            fields = f"|{event_type}|{content_type}|{source}|{item_id}|"
            if not (event_type and content_type and source and item_id):
                raise InvalidEvent(f"an OOS event has four fields that are not empty: {fields}")
            if fields.count("|") != _BARS or "\n" in fields or "\r" in fields:
                raise InvalidEvent(f"a field of an OOS event holds a bar or a newline: {fields!r}")
            if data is not None and not isinstance(data, Mapping):
                raise InvalidEvent(f"data of an OOS event is a dict, not {type(data).__name__}")
            # Without a file the event goes to the lake alone, under the columns of its fields.
            recorder = self._log.recorder
            if recorder is not None:
                names = ("type", "category", "source", "subject")
                columns = dict(zip(names, fields.split("|")[1:-1], strict=True))
                event = {"time": datetime.now(UTC), **columns, "data": dict(data or {})}
                recorder.record(event)
                return
            payload = encode_members(dict(data)) if data else b"{}"
            line = self._now() + fields.encode() + payload
            self._log.put(line)
            if self._stdout:
                sys.stdout.write(line.decode() + "\n")
        except Exception as error:
            self._log.fail(error)

    def _now(self) -> bytes:
        """The time with milliseconds; the seconds are written once for all events in them."""
        clock = time.time()
        whole_second = int(clock)
        start, stamp = self._clock
        if whole_second != start:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole_second)).encode()
            self._clock = whole_second, stamp
        return b"%b.%03dZ" % (stamp, (clock - whole_second) * 1000)


def get_logger(
    path: str | os.PathLike[str] | None = DEFAULT_LOG,
    *,
    lake: LakeOrPath | None = None,
    stdout: bool = False,
    rotate_bytes: int = ROTATE_BYTES,
    strict: bool = False,
) -> OOSLogger:
    """Return the logger of an OOS log file, of a lake, or of a file that a lake gets too.

    `stdout` prints each line as well. At `rotate_bytes` the file is renamed and summed up; 0 for
    never. Raises OSError, and for a lake what `lakelog.open` does.
    """
    return OOSLogger(LineLog(path, lake, _KIND, _STAMP, rotate_bytes, strict), stdout)
