"""A process that answers questions of the dashboard: python -m lakelog.server.api.answer_process

An expensive page costs it and not the process that stores events. It writes nothing of the lake
but its cache, where the counts of views are kept for the next one, and it can be ended any time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import traceback
from dataclasses import dataclass

import orjson

from lakelog.disk import Folder
from lakelog.errors import LakelogError
from lakelog.lake import Lake
from lakelog.server.api.answers import QUESTIONS, answered
from lakelog.server.api.question import DashboardQuestion
from lakelog.server.gate import Caller
from lakelog.server.sql import query_limits as wire
from lakelog.server.sql.bucket_relay import BucketNeeds
from lakelog.server.sql.confinement import allow_processor, confine
from lakelog.server.sql.query_limits import QueryLimits, QueryRefused
from lakelog.server.sql.request_loop import FrameOutput, answer_requests, begin, resident_bytes
from lakelog.server.tokens import TokenScope
from lakelog.store import Store

MODULE = "lakelog.server.api.answer_process"
_FIRST = ("about", "overview", "counts", "standing", "storage", "events")


@dataclass(frozen=True)
class AnswerRequest:
    """A question by its name, with its parameters, and who asks."""

    number: int
    name: str
    query: dict[str, str]
    caller: str
    scopes: list[str]

    def encode(self) -> bytes:
        """Return it as JSON."""
        return orjson.dumps(dataclasses.asdict(self))

    def question(self, lake: Lake) -> DashboardQuestion:
        """The same about a lake."""
        caller = Caller(self.caller, frozenset(map(TokenScope, self.scopes)))
        return DashboardQuestion(lake, self.query, {}, caller)


class AnswerProcess:
    """Answers the questions of one server."""

    def __init__(self, lake: Lake, limits: QueryLimits, output: FrameOutput) -> None:
        self._lake, self._limits, self._output = lake, limits, output
        self.number = 0
        self._question: DashboardQuestion | None = None

    def answer(self, content: bytes) -> None:
        """Answer one question; whatever goes wrong is part of the answer."""
        request = AnswerRequest(**orjson.loads(content))
        self._question, self.number = request.question(self._lake), request.number
        allow_processor(self._limits.seconds)
        ending: dict[str, object] = {}
        try:
            answer = answered(QUESTIONS[request.name], self._question)
            head = {"status": answer.status, "headers": dict(answer.headers)}
            self._output.send(wire.HEAD, orjson.dumps(head))
            self._output.send_chunks(answer.body())
        except (LakelogError, OSError, MemoryError) as error:
            message = str(error) or "the question needs more memory than it may take"
            ending = QueryRefused("unavailable", message, status=503).ending()
            # It is confined to the files of a lake, in whose place a copy may have been put.
            ending["retire"] = isinstance(error, OSError)
        except Exception as error:
            message = f"a fault of the server: {type(error).__name__}: {error}"
            ending = QueryRefused("unavailable", message, status=500).ending()
            ending["traceback"] = traceback.format_exc()
        # An interrupt that comes from here on finds nothing to stop, and not the next question.
        self.number, self._question = 0, None
        # What the engine has allocated is hardly ever returned: a new process starts small.
        ending["retire"] = ending.get("retire") or resident_bytes() > self._limits.memory // 2
        self._output.send(wire.END, orjson.dumps(ending))

    def interrupt(self) -> None:
        """Stop the question that is answered, from another thread."""
        if (question := self._question) is not None:
            question.cancel()


def main() -> None:
    """Answer questions until the input ends."""
    plan, output = begin()
    limits = QueryLimits(**plan["limits"])
    store = Store.load(plan["root"])
    store.settings = dataclasses.replace(
        store.settings, seal="never", memory_bytes=limits.memory // 2
    )
    with contextlib.suppress(OSError):  # a lake that cannot be written is read all the same
        Folder(store.paths.cache).make()
    needs = BucketNeeds(output)
    needs.relay(store)
    is_confined = confine(store.paths, store.paths.cache, limits.memory, limits.spill, of_lake=[""])
    lake = Lake(store, plan["branch"])
    if plan["is_warm"]:
        _warm(lake)
    output.send(wire.HEAD, orjson.dumps({"confined": is_confined, "spill": ""}))
    # What is there now lives as long as the process: later collections need not look at it.
    gc.freeze()
    answer_requests(AnswerProcess(lake, limits, output), needs)


def _warm(lake: Lake) -> None:
    """Answer what the first page asks, so that it finds engine, modules and counts ready."""
    # Of what is published: a server that starts under load has a tail that grows meanwhile.
    for name in _FIRST:
        with contextlib.suppress(Exception):  # who asks for it is told
            request = AnswerRequest(0, name, {"at": lake.branch_name}, "", [])
            answered(QUESTIONS[name], request.question(lake))


if __name__ == "__main__":
    main()
