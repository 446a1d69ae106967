"""Recording what the Python clients of OpenAI and Anthropic do: `lakelog.instrument_openai()`.

Every call becomes a span in the names of OpenTelemetry (see genai_fields.py), within the span that
is open: chats, responses, completions, embeddings and messages, of synchronous and asynchronous
clients, with and without a stream. Both clients send all requests through one method, `request`;
that one is replaced, in a client or in the class of all. A call returns and raises the same as
without lakelog.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from lakelog.errors import MissingPackage
from lakelog.loggers.destination import LakeOrPath
from lakelog.loggers.genai_calls import OPERATIONS, PRICES, Call, ContentFilter, Prices, counted
from lakelog.loggers.genai_fields import Fields
from lakelog.loggers.queue import QueueStats
from lakelog.loggers.recorder import OPEN_SPAN, Recorder
from lakelog.loggers.spans import Span, recorder_of

_CURRENT: ContextVar[object] = ContextVar("lakelog_request", default=None)
"""The request that is being recorded here: a client that is patched twice passes it twice."""


def instrument_openai(
    client: object = None,
    *,
    lake: LakeOrPath | None = None,
    content: ContentFilter = True,
    prices: Prices | None = None,
) -> Instrumentation:
    """Record the calls of a client of `openai`, without one those of all its clients.

    `lake` is found as `span` finds it. `content` says whether prompts, answers, arguments and
    results of tools are stored; a function gets each of their texts and returns what is stored.
    `prices` are those of a million tokens by model, such as `{"m": {"input": 2.5, "output": 10}}`,
    also `cache_read` and `cache_creation`; with them calls have a cost, `gen_ai.usage.cost`.

    Returns what undoes it, by `undo` or at the end of `with`. Raises MissingPackage for a package
    that is not installed, ValueError for a client of another one or for other prices, and what
    `lakelog.open` does.
    """
    return _instrument("openai", client, lake, content, prices)


def instrument_anthropic(
    client: object = None,
    *,
    lake: LakeOrPath | None = None,
    content: ContentFilter = True,
    prices: Prices | None = None,
) -> Instrumentation:
    """Record the calls of a client of `anthropic`, as `instrument_openai` does."""
    return _instrument("anthropic", client, lake, content, prices)


def _instrument(
    package: str,
    client: object,
    lake: LakeOrPath | None,
    content: ContentFilter,
    prices: Prices | None,
) -> Instrumentation:
    # Before anything is replaced.
    _check(prices or {})
    owners = _classes(package) if client is None else [client]
    for owner in owners:
        client_class = owner if isinstance(owner, type) else type(owner)
        # A class of the program's own is one of a client, too.
        if not any(
            base.__module__.split(".")[0] == package for base in client_class.__mro__
        ) or not hasattr(owner, "request"):
            raise ValueError(f"instrument_{package} takes a client of {package}, not {owner!r}")
    instrumentation = Instrumentation(recorder_of(lake), lake is not None, content, prices or {})
    for owner in owners:
        instrumentation._patch(owner)
    return instrumentation


def _classes(package: str) -> list[type]:
    """The classes that define `request` for all clients of a package, Azure's and others too."""
    try:
        module = importlib.import_module(package)
    except ImportError:
        raise MissingPackage(f"{package} is not installed: pip install {package}") from None
    names = {"openai": ("OpenAI", "AsyncOpenAI"), "anthropic": ("Anthropic", "AsyncAnthropic")}
    clients: list[type] = [getattr(module, name) for name in names[package]]
    # The class that defines it: patched there, subclasses have it as well.
    return [next(base for base in c.__mro__ if "request" in vars(base)) for c in clients]


def _check(prices: Prices) -> None:
    for model, price in prices.items():
        if wrong := next((name for name in price if name not in PRICES), None):
            raise ValueError(f"prices: {model!r} has {wrong!r}, not one of {', '.join(PRICES)}")


@dataclass(eq=False)
class Instrumentation:
    """Clients whose calls are recorded, until `undo` or the end of `with`."""

    _recorder: Recorder
    _is_lake_given: bool
    _content: ContentFilter
    _prices: Prices
    _is_active: bool = True
    _patches: list[tuple[Any, object, object]] = field(default_factory=list)

    def undo(self) -> None:
        """Record no more calls. A stream that is being read is recorded to its end."""
        self._is_active = False
        for owner, previous, patch in self._patches:
            # Unless somebody patched it once more: ours then passes everything on.
            if vars(owner).get("request") is not patch:
                continue
            delattr(owner, "request")
            # It was the class's own: without ours, that one is found again.
            if previous is not None:
                owner.request = previous
            elif not isinstance(owner, type):
                for name in ("copy", "with_options"):
                    vars(owner).pop(name, None)
        self._patches.clear()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all calls that ended are stored, or so many seconds; whether they are."""
        return self._recorder.flush(timeout)

    def stats(self) -> QueueStats:
        """What was stored, is waiting, was dropped or refused."""
        return self._recorder.stats()

    def __enter__(self) -> Instrumentation:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()

    def _patch(self, owner: Any) -> None:
        patch = self._patched(owner.request, None if isinstance(owner, type) else owner)
        self._patches.append((owner, vars(owner).get("request"), patch))
        owner.request = patch
        if not isinstance(owner, type):
            # A copy with other options is a new client.
            for name in ("copy", "with_options"):
                setattr(owner, name, self._copier(getattr(owner, name)))

    def _patched(self, original: Any, client: object) -> Callable[..., object]:
        """Return what takes the place of `request`: of a client, without one of a class."""

        def bound(args: tuple[object, ...]) -> tuple[Any, Any, tuple[object, ...]]:
            if client is not None:
                return original, client, args
            # A function of the class has to be bound to the client that calls.
            return original.__get__(args[0]), args[0], args[1:]

        # What the client returns or raises passes through; only what is recorded of it is ours.
        def request(*args: object, **kwargs: object) -> object:
            send, sender, args = bound(args)
            call = self._begin(sender, args, kwargs)
            with _sending(call):
                result = send(*args, **kwargs)
            if call is not None:
                call.watch(result)
            return result

        async def request_async(*args: object, **kwargs: object) -> object:
            send, sender, args = bound(args)
            call = self._begin(sender, args, kwargs)
            with _sending(call):
                result = await send(*args, **kwargs)
            if call is not None:
                call.watch(result)
            return result

        return request_async if inspect.iscoroutinefunction(original) else request

    def _copier(self, copy: Callable[..., object]) -> Callable[..., object]:
        def patched_copy(*args: object, **kwargs: object) -> object:
            client = copy(*args, **kwargs)
            if self._is_active:
                self._patch(client)
                self._patches.pop()  # it lives as long as the caller keeps it
            return client

        return patched_copy

    def _begin(self, client: object, args: tuple[Any, ...], kwargs: Fields) -> Call | None:
        """Start the span of a request; None if it is not one that is recorded."""
        if not self._is_active:
            return None
        call = None
        with counted(self._recorder):
            request = kwargs["options"] if "options" in kwargs else args[1]
            operation = OPERATIONS.get(str(request.url).partition("?")[0])
            # Seen already: a client and its class may both be patched. What is got from such a path
            # is a list of answers that the provider stored.
            is_got = request.method.lower() == "get"
            if operation is None or is_got or _CURRENT.get() is request:
                return None
            # Within a span of lakelog the call belongs to that lake.
            recorder, outer = self._recorder, OPEN_SPAN.get()
            if isinstance(outer, Span) and not self._is_lake_given:
                recorder = outer.recorder
            call = Call(self._content, self._prices, recorder, operation, client, request)
        return call


@contextmanager
def _sending(call: Call | None) -> Iterator[None]:
    """Note which request is under way, and record what it raises."""
    token = _CURRENT.set(call.request if call is not None else _CURRENT.get())
    try:
        yield
    except BaseException as error:
        if call is not None:
            call.fail(error)
        raise
    finally:
        _CURRENT.reset(token)
