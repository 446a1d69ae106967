"""Requests to the bucket of a shared lake, which the server makes for its processes: those reach no
network, and write nothing of the lake. It finds data keys that others have made, too.

    NEED     the number of a request, and what is asked of `BucketAttachment.answer`, or a
             `data_key`; as JSON
    GIVEN    a line of JSON with the number, and `error` and `message` where it failed; then bytes
"""

from __future__ import annotations

import functools
import itertools
import os
import queue
import threading
from collections.abc import Callable

import orjson

from lakelog.errors import LakelogError, TransferRefused, Unreachable
from lakelog.keys import VAULT
from lakelog.server.sql import query_limits as wire
from lakelog.server.sql.query_limits import FrameSender, QueryRefused
from lakelog.store import Store
from lakelog.values import JsonObject

_TOGETHER = 16
"""Objects that are fetched before the bound is looked at again."""
_OVER = "fetch_limit"
_Answers = queue.SimpleQueue[tuple[JsonObject, bytes]]
_ERRORS: dict[str, Callable[[str], Exception]] = {
    _OVER: lambda message: QueryRefused(_OVER, message, "ask for a shorter time, or by a subject"),
    "FileNotFoundError": FileNotFoundError,
    "TransferRefused": TransferRefused,
}


class BucketNeeds:
    """In a process: what it needs of the bucket. Threads share it."""

    def __init__(self, output: FrameSender) -> None:
        self._output, self._numbers = output, itertools.count(1)
        self._answers: dict[int, _Answers] = {}

    def relay(self, store: Store) -> None:
        """Have the server fetch and find what a lake has that is not here."""
        if store.attachment is not None:
            store.attachment.relay(self.ask)
        if store.paths.keys is not None:
            VAULT.finders[store.paths.root] = self._find

    def _find(self, key_id: bytes) -> None:
        VAULT.learn({key_id.hex(): self.ask({"data_key": key_id.hex()}).hex()})

    def ask(self, request: JsonObject) -> bytes:
        """Have a request made. Raises FileNotFoundError, TransferRefused, Unreachable,
        QueryRefused."""
        number = next(self._numbers)
        answers = self._answers[number] = _Answers()
        self._output.send(wire.NEED, orjson.dumps({**request, "number": number}))
        head, data = answers.get()
        if error := head.get("error"):
            raise _ERRORS.get(error, Unreachable)(head["message"])
        return data

    def give(self, content: bytes) -> None:
        """Pass an answer to who waits for it."""
        line, _, data = content.partition(b"\n")
        head = orjson.loads(line)
        self._answers.pop(head["number"]).put((head, data))


class FetchAllowance:
    """What one query may still have fetched, in bytes; nothing once it `has_ended`."""

    def __init__(self, limit: int) -> None:
        self._limit, self._left, self._lock = limit, limit, threading.Lock()
        self.has_ended = False

    def use(self, count: int) -> None:
        """Note bytes. Raises QueryRefused for the first ones that are too many."""
        with self._lock:
            self._left -= count
            if self._left < 0 or self.has_ended:
                raise QueryRefused(
                    _OVER,
                    f"the query needs more than {self._limit:,} bytes that are still in the bucket",
                )


class BucketRelay:
    """In the server: makes the requests of its processes. Threads share it."""

    def __init__(self, root: str) -> None:
        self._root = root

    @functools.cached_property
    def _store(self) -> Store:
        return Store.load(self._root)

    def answer(self, content: bytes, allowance: FetchAllowance) -> bytes:
        """Make a request; whatever goes wrong is part of the answer."""
        request: JsonObject = orjson.loads(content)
        head, data = {"number": request.pop("number")}, b""
        try:
            data = self._answered(request, allowance)
        except QueryRefused as error:
            head |= {"error": error.code, "message": str(error)}
        except (LakelogError, OSError, LookupError, TypeError, ValueError) as error:
            head |= {"error": type(error).__name__, "message": str(error)}
        return orjson.dumps(head) + b"\n" + data

    def _answered(self, request: JsonObject, allowance: FetchAllowance) -> bytes:
        attachment = self._store.attachment
        if "data_key" in request:
            return VAULT.secret_of(bytes(8) + bytes.fromhex(request["data_key"]))
        if attachment is None:
            raise FileNotFoundError(self._root)
        if "keys" not in request:
            data = attachment.answer(request)
            allowance.use(len(data))
            return data
        # Some at a time: a process may ask for all that there is.
        for start in range(0, len(request["keys"]), _TOGETHER):
            keys = request["keys"][start : start + _TOGETHER]
            attachment.answer({"keys": keys})
            paths = [f"{self._root}/{key}" for key in keys]
            allowance.use(sum(os.path.getsize(path) for path in paths if os.path.exists(path)))
        return b""
