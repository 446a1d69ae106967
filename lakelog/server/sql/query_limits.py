"""What one query may take, and how a query is asked and answered between two processes.

Between server and worker go frames: a byte for their type, four for their length, and the content.

    ASK      a `QueryRequest` as JSON
    CANCEL   the number of a request
    HEAD     the state that is read, as JSON
    CHUNK    a piece of the answer in its format
    END      how many rows there were, and whether there are more, or an error; as JSON
    NEED     what the server is to fetch from the bucket of a shared lake (`bucket_relay`)
    GIVEN    the answer to that
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import orjson

from lakelog.errors import LakelogError
from lakelog.values import JsonObject

HEADER = struct.Struct(">cI")
ASK, CANCEL, HEAD, CHUNK, END = b"A", b"X", b"H", b"C", b"E"
NEED, GIVEN = b"N", b"G"
SQL_MAX = 1 << 18
"""Bytes of the text of a query."""


@dataclass(frozen=True)
class QueryLimits:
    """Limits of the queries of one server. Sizes in bytes, times in seconds."""

    workers: int = 2
    """Processes that answer queries, each one at a time."""
    seconds: float = 30.0
    """How long a query may take, until its last row is fetched; its process is killed a moment
    later."""
    memory: int = 2 << 30
    """What a process may allocate; the engine takes half of it before it spills to disk."""
    spill: int = 4 << 30
    """What a query may spill to disk."""
    rows: int = 1_000_000
    """Rows of an answer."""
    result: int = 256 << 20
    """Bytes of an answer."""
    fetch: int = 4 << 30
    """Bytes of a shared lake that a query may have fetched from its bucket."""
    waiting: int = 64
    """Queries that wait for a process; one more is answered with 429."""


class ProcessRequest(Protocol):
    """What is asked of a process. `number` says which request a cancel is about."""

    @property
    def number(self) -> int:
        """The number of the request."""
        ...

    def encode(self) -> bytes:
        """The request as the process decodes it."""
        ...


class FrameSender(Protocol):
    """Where a process sends frames to."""

    def send(self, frame_type: bytes, content: bytes | memoryview) -> None:
        """Send a frame."""
        ...


class QueryFormat(Enum):
    """How rows are written. JSON rows are lists, in the order of the columns."""

    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    ARROW = "arrow"


@dataclass(frozen=True)
class QueryRequest:
    """One SELECT. `ref` names the state to read, None the present with its tail; of more than
    `limit` rows the others are left out. `is_trusted` if it is a text of our own."""

    number: int
    sql: str
    params: list[object] | dict[str, object] | None = None
    ref: str | None = None
    limit: int | None = None
    format: QueryFormat = QueryFormat.ARROW
    is_trusted: bool = False

    def encode(self) -> bytes:
        """Return it as JSON. Raises TypeError for parameters that are no JSON."""
        return orjson.dumps(
            {**self.__dict__, "format": self.format.value}, option=orjson.OPT_NON_STR_KEYS
        )

    @classmethod
    def decode(cls, data: bytes) -> QueryRequest:
        """The other way round."""
        fields: JsonObject = orjson.loads(data)
        return cls(**{**fields, "format": QueryFormat(fields["format"])})


class QueryRefused(LakelogError):
    """A query is not answered. `code` is for programs, `status` that of HTTP, `hint` what to do."""

    def __init__(self, code: str, message: str, hint: str = "", status: int = 400) -> None:
        # In one line, as clients show it; engines write carets below a copy of the query.
        super().__init__(" ".join(message.split()))
        self.code, self.hint, self.status = code, " ".join(hint.split()), status

    def record(self) -> dict[str, object]:
        """The error as it is answered."""
        return {"error": {"code": self.code, "message": str(self), "hint": self.hint}}

    def ending(self) -> dict[str, object]:
        """The error as a process sends it at the end of an answer."""
        return {**self.record(), "status": self.status}


def frame(frame_type: bytes, content: bytes | memoryview) -> bytes:
    """Return a frame."""
    return HEADER.pack(frame_type, len(content)) + bytes(content)
