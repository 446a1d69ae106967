"""Verbs that work in rounds: once, or again and again until a signal, also as a service."""

from __future__ import annotations

import _thread
import contextlib
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import click
from click.core import ParameterSource

from lakelog.cli.app import App
from lakelog.cli.options import option
from lakelog.errors import InvalidSetting
from lakelog.runtime.tables import ModuleFiles
from lakelog.settings import span_us

# Under `nohup` a terminal that is closed ends nothing.
_HANGUPS = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
SIGNALS = (signal.SIGINT, signal.SIGTERM, *_HANGUPS)
_GIVEN = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
_UNREPEATED = ("print_unit", "print_url")


class StopEvent(threading.Event):
    """An event that signal handlers may set, wherever the signal comes.

    An event has a lock, which the interrupted thread may hold: it would wait for itself for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_asked = False

    def set(self) -> None:
        """Set it at once, and wake those who wait for it."""
        self._is_asked = True
        # In a thread of its own, because this one may be inside of wait(), with the lock in its
        # hand.
        with contextlib.suppress(RuntimeError):  # the interpreter is shutting down
            _thread.start_new_thread(super().set, ())

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._is_asked

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, or so many seconds; whether it is."""
        return self._is_asked or super().wait(timeout)


@contextlib.contextmanager
def stop_at_signals() -> Iterator[StopEvent]:
    """Yield an event that SIGINT, SIGTERM and SIGHUP set, in place of their handlers."""
    stop = StopEvent()
    previous = {number: signal.signal(number, lambda *_: stop.set()) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Round(Protocol):
    """What a round did."""

    @property
    def commits(self) -> int:
        """How many transactions or moves it made."""
        ...


RoundResult = TypeVar("RoundResult", bound=Round)


def repeat(
    work: Callable[[threading.Event], RoundResult],
    report: Callable[[RoundResult, float], None],
    every: float | None,
) -> RoundResult:
    """Work once, or every so many seconds until a signal; return the last round's result.

    `work` ends early once its event is set. `report` gets each result that did something, and the
    seconds it took.
    """
    with stop_at_signals() as stop:
        while True:
            # A round without news says nothing: a service would fill its log once a second.
            started = time.monotonic()
            result = work(stop)
            if result.commits or every is None:
                report(result, time.monotonic() - started)
            if every is None or stop.wait(every):
                return result


class SpanParam(click.ParamType[float]):
    """A time such as 500ms, 1s or 5m, as seconds."""

    name = "span"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds that a text names."""
        if isinstance(value, float):
            return value
        span_text = str(value).strip()
        seconds = 0.0
        with contextlib.suppress(InvalidSetting):
            # A bare number is one of seconds, as of `sleep`; in settings it is an error.
            seconds = span_us(f"{span_text}s" if span_text[-1:].isdigit() else span_text) / 1e6
        if seconds < 0.01:
            self.fail(f"{value!r} is no time from 10ms on, such as 500ms, 1s or 5m", param, ctx)
        return seconds


EVERY = option(
    "--every TIME", "Time between rounds, such as 500ms, 1s or 5m.", type=SpanParam(), shown="1s"
)


_ONLINE = "Wants=network-online.target\nAfter=network-online.target"


def unit(
    app: App,
    verb: Sequence[str],
    subject: str,
    *,
    after: str = _ONLINE,
    secrets: str = "",
    restart: int = 5,
    stop: int = 60,
    **spellings: str,
) -> str:
    """Return a systemd unit that runs a `verb` with its arguments on the lake and branch of `app`,
    with the options that were given; `spellings` are values by parameter that are to stand for
    them. `restart` and `stop` are the seconds before it is started again, and until it is killed.
    """
    # This interpreter and this lake: systemd starts units with neither a PATH nor a directory.
    program = [sys.executable, "-m", "lakelog", "--lake", os.path.abspath(app.path)]
    program += ["--branch", app.branch] if app.branch != "main" else []
    arguments = [*verb, *_given_options(spellings), *["-q"] * app.quiet, *["-v"] * app.verbose]
    # % begins a specifier in a systemd unit, and $ a variable.
    command = shlex.join([*program, *arguments]).replace("%", "%%").replace("$", "$$")
    return (
        ModuleFiles(__file__)
        .text("unit.service")
        .format(
            subject=subject.replace("%", "%%"),
            after=after,
            secrets=secrets,
            command=command,
            restart=restart,
            stop=stop,
        )
    )


def _given_options(spellings: dict[str, str]) -> Iterator[str]:
    """Yield the options of the verb that were given, with absolute paths."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        # Only what was given: a unit with all defaults would keep those of this version for ever.
        is_given = context.get_parameter_source(name) in _GIVEN and parameter.expose_value
        # The unit is to serve, not to print itself again.
        if not is_given or name in _UNREPEATED or not isinstance(parameter, click.Option):
            continue
        value = context.params[name]
        for single in value if parameter.multiple else (value,):
            yield parameter.opts[0]
            if not parameter.is_flag:
                yield spellings.get(name) or _spelled(single, parameter.type)


def _spelled(value: object, parameter_type: click.ParamType[Any]) -> str:
    if isinstance(parameter_type, click.Path):
        return os.path.abspath(str(value))
    ending = "s" if isinstance(parameter_type, SpanParam) else ""
    # Enough digits that 30 days of seconds have no exponent, which no time is read with.
    return f"{value:.15g}{ending}" if isinstance(value, float) else str(value)
