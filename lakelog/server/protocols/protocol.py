"""What a protocol of ingest is: how it reads a body, and how it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from lakelog.server.arrivals import Arrivals
from lakelog.values import JsonObject

JSON, PROTOBUF = "application/json", "application/x-protobuf"
_ATTRIBUTE = "ce-"


@dataclass(frozen=True)
class Answer:
    """What a request is answered: a body of JSON, or bytes as they are."""

    status: int = 200
    content: object = None
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = JSON

    def body(self) -> bytes:
        """The bytes of the answer."""
        if isinstance(self.content, bytes):
            return self.content
        return b"" if self.content is None else orjson.dumps(self.content)


@dataclass(frozen=True)
class IngestRequest:
    """What a protocol may look at: names in the path, and headers in lower case."""

    path: Mapping[str, str]
    headers: Mapping[str, str]

    @property
    def attributes(self) -> dict[str, str]:
        """The headers of a CloudEvent in binary mode by the names of its attributes, as they were
        sent; empty for any other request."""
        if f"{_ATTRIBUTE}specversion" not in self.headers:
            return {}
        return {
            name.removeprefix(_ATTRIBUTE): value
            for name, value in self.headers.items()
            if name.startswith(_ATTRIBUTE)
        }

    @property
    def media_type(self) -> str:
        """The type of the body, without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class IngestProtocol(ABC):
    """A protocol; `routes` are its paths and their methods."""

    routes: tuple[str, ...]
    methods: tuple[str, ...] = ("POST",)
    is_whole = True
    """Whether a body is parsed as a whole, and so has to be shorter."""

    @abstractmethod
    def receive(self, request: IngestRequest, body: bytes) -> Arrivals:
        """Return what a body holds. Raises RequestRefused if that cannot be told."""

    @abstractmethod
    def answer(self, request: IngestRequest, arrivals: Arrivals) -> Answer:
        """Return the answer to a body whose events are stored."""

    def failure(self, request: IngestRequest, status: int, reason: str) -> Answer:
        """Return the answer to a body that is not stored."""
        return Answer(status, {"error": reason})


def counts(arrivals: Arrivals) -> JsonObject:
    """The answer in numbers, with the first refused records by their places."""
    errors = [{"line": r.number + 1, "reason": r.reason} for r in arrivals.rejects[:100]]
    numbers: JsonObject = {"accepted": arrivals.stored, "rejected": len(arrivals.rejects)}
    return numbers | ({"errors": errors} if errors else {})


def has_unknown_fields(message: Any, size: int) -> bool:
    """Whether a protobuf message, of so many bytes, has fields that it does not know. These are
    passed over, and may be all that there is; the message loses them."""
    message.DiscardUnknownFields()
    return bool(message.ByteSize() != size)
