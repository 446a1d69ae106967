"""top and dashboard: what happens in a lake now, in one screen that keeps itself up to date."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import click

import lakelog.top as tops
from lakelog.cli.app import App, state_option, verb
from lakelog.cli.options import flag, option
from lakelog.cli.render import terminal
from lakelog.cli.render.tables import clock
from lakelog.cli.rounds import SpanParam, StopEvent, stop_at_signals
from lakelog.compat import omega
from lakelog.disk import disk
from lakelog.errors import LakelogError
from lakelog.lake import Lake
from lakelog.top import (
    ORDERS,
    FrameOptions,
    Lag,
    LakeFigures,
    LiveFeed,
    MachineFigures,
    MachineMeter,
)

_LAG_EVERY = 10.0
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _LINE_END, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_ESCAPE, _BACKSPACE = "\x1b", ("\x7f", "\b")
_COLOURS = ("red", "yellow", "green")
Notes = Callable[[Lake], tuple[tuple[str, str], ...]]

EVERY = option("--every TIME", "Time between two frames.", type=SpanParam(), shown="1s")
ONCE = flag("--once", "Print one frame; also without a terminal.")
SYNC = option("--sync TARGET", "Also show how far this sync target is behind.", multiple=True)


@verb()
def top(
    app: App,
    every: float = EVERY,
    once: bool = ONCE,
    at: str | None = state_option("Show a tag, branch, snapshot or time."),
    targets: tuple[str, ...] = SYNC,
) -> None:
    """Show what happens in the lake now, until `q`.

    Rates by level, source and type, errors, the newest events, who feeds the lake and who
    follows it, storage, and the machine. Keys: q quits, p pauses, s sorts by rate, total or
    name, / shows only what contains a text, Esc shows all again.
    """
    _show(app, every, once, at, targets, lambda _: ())


@verb()
def dashboard(
    app: App,
    db: str | None = option("--db PATH", "The lake; the same as --lake.", type=click.Path()),
    every: float = EVERY,
    once: bool = ONCE,
) -> None:
    """Show the older event store live: what `lakelog top` does, and how learning goes.

    Patterns with their confidence, active embryos and mean fitness are those of
    omega.patterns and omega.system_stats.
    """
    app.path = db or app.path
    _show(app, every, once, None, (), _learning)


def _show(
    app: App, every: float, once: bool, at: str | None, targets: tuple[str, ...], notes: Notes
) -> None:
    title = f"{app.path} · {app.branch}"
    with app.open() as lake:
        if at is not None:
            options = FrameOptions(title=title, mode=f"as of {at}")
            _print(tops.of_state(lake, at), MachineFigures(), options, [])
            return
        # Keys are read from the terminal, too: with either end piped there is no screen.
        is_screen = terminal.is_terminal(sys.stdout) and terminal.is_terminal(sys.stdin)
        if once or not is_screen or os.environ.get("TERM", "dumb") == "dumb":
            feed, machine = LiveFeed(lake), MachineMeter(lake.path)
            # A rate needs two looks, so that one frame takes a second.
            feed.look()
            machine.measure()
            time.sleep(every)
            feed.count()
            options = FrameOptions(title=title, notes=notes(lake))
            _print(feed.look(), machine.measure(), options, tops.lags(lake, targets))
            return
        with stop_at_signals() as stop:
            LiveScreen(lake, FrameOptions(title=title), every, targets, notes).run(stop)


def _print(
    figures: LakeFigures, machine: MachineFigures, options: FrameOptions, lags: list[Lag]
) -> None:
    """Write one frame, whole."""
    size = shutil.get_terminal_size((80, 24))
    height = size.lines if terminal.is_terminal(sys.stdout) else None
    options = replace(
        options,
        width=max(size.columns, 20),
        # One line less than the screen has, or the prompt would scroll the first line away.
        height=max(height - 1, 10) if height else None,
        clock=clock(disk.now_us())[11:],
        is_unicode=_has_unicode(),
    )
    for line in tops.frame(figures, machine, lags, options):
        click.echo(_painted(line), color=terminal.has_colour(sys.stdout))


@dataclass
class LiveScreen:
    """The screen while it is live."""

    lake: Lake
    options: FrameOptions
    every: float
    targets: tuple[str, ...]
    notes: Notes
    is_paused: bool = False
    entry: str | None = None
    """What was keyed in behind `/` and not yet entered."""
    lags: list[Lag] = field(default_factory=list)

    def run(self, stop: StopEvent) -> None:
        """Show frames until `q` or a signal."""
        feed, machine = LiveFeed(self.lake), MachineMeter(self.lake.path)
        watcher = threading.Thread(target=self._watch, args=(feed, stop), daemon=True)
        watcher.start()
        with _screen() as descriptor:
            figures, measures = feed.look(), machine.measure()
            # A key does not move the next frame: who types would otherwise see old figures.
            due = time.monotonic() + self.every
            while not stop.is_set():
                self._draw(figures, measures)
                # Half a second at most: a signal in another thread only sets the event.
                pause = min(max(0.0, due - time.monotonic()), 0.5)
                if select.select([descriptor], [], [], pause)[0]:
                    if not self._press(os.read(descriptor, 64).decode("utf-8", "replace")):
                        break
                elif time.monotonic() >= due:
                    due = time.monotonic() + self.every
                    if not self.is_paused:
                        figures, measures = feed.look(), machine.measure()
        stop.set()
        watcher.join(1.0)

    def _press(self, keys: str) -> bool:
        """Do what keys say; False ends the screen."""
        if keys.startswith(_ESCAPE):  # alone, or the beginning of an arrow key
            if keys == _ESCAPE:
                self.entry, self.options = None, replace(self.options, pattern="")
            return True
        for key in keys:
            if self.entry is not None:
                self._type(key)
            elif key in "qQ":
                return False
            elif key in "pP ":
                self.is_paused = not self.is_paused
            elif key in "sS":
                place = ORDERS.index(self.options.order) + 1
                self.options = replace(self.options, order=ORDERS[place % len(ORDERS)])
            elif key == "/":
                self.entry = ""
        return True

    def _type(self, key: str) -> None:
        entry = self.entry or ""
        if key in "\r\n":
            self.entry, self.options = None, replace(self.options, pattern=entry)
        elif key in _BACKSPACE:
            self.entry = entry[:-1]
        elif key.isprintable():
            self.entry = entry + key

    def _draw(self, figures: LakeFigures, machine: MachineFigures) -> None:
        size = shutil.get_terminal_size((80, 24))
        pattern = self.options.pattern if self.entry is None else self.entry
        options = replace(
            self.options,
            width=size.columns,
            height=size.lines,
            clock=clock(disk.now_us())[11:],
            mode="paused" if self.is_paused else "live",
            pattern=pattern,
            is_unicode=_has_unicode(),
            footer=self._footer(pattern),
        )
        # Each line ends by erasing what is left of the longer one before: clearing all would
        # flicker.
        lines = tops.frame(figures, machine, self.lags, options)
        painted = (f"{_painted(line)}{_LINE_END}" for line in lines)
        sys.stdout.write(_HOME + "\r\n".join(painted) + _BELOW)
        sys.stdout.flush()

    def _footer(self, pattern: str) -> str:
        if self.entry is not None:
            return f"/{self.entry}_  Enter keeps it, Esc shows all"
        resume = "p goes on" if self.is_paused else "p pauses"
        hint = f"/ shows {pattern!r}, Esc all" if pattern else "/ filters"
        return f"q quits  {resume}  s sorts by {self.options.order}  {hint}"

    def _watch(self, feed: LiveFeed, stop: StopEvent) -> None:
        """Ask who is behind, now and then: a target may take long to answer."""
        # The first look is at once, and the pause behind it.
        while True:
            with contextlib.suppress(LakelogError, OSError):
                feed.count()
                self.lags = tops.lags(self.lake, self.targets)
                self.options = replace(self.options, notes=self.notes(self.lake))
            if stop.wait(_LAG_EVERY):
                return


def _learning(lake: Lake) -> tuple[tuple[str, str], ...]:
    """What the older event store says of learning."""
    figures = omega.learning(lake)
    count, types = figures["patterns"], figures["pattern_types"]
    of_types = f" of {types:,} type{'s' if types > 1 else ''}" if types else ""
    notes = [("patterns", f"{count:,}{of_types}" if count else "none yet")]
    forms = {"confidence": "{:.2f}", "active_embryos": "{:,}", "avg_fitness": "{:.3f}"}
    for name, form in forms.items():
        if figures[name] is not None:
            notes.append((name.replace("_", " "), form.format(figures[name])))
    return tuple(notes)


@contextlib.contextmanager
def _screen() -> Iterator[int]:
    """The terminal as a screen of its own, whose keys come one by one; also after Ctrl-Z."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def enter() -> None:
        tty.setcbreak(descriptor)
        sys.stdout.write(_ENTER)
        sys.stdout.flush()

    def leave() -> None:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

    def pause(*_: object) -> None:
        leave()
        # SIGSTOP and not SIGTSTP, whose handler this is; the shell sees the same stop.
        os.kill(os.getpid(), signal.SIGSTOP)
        enter()

    handler = signal.signal(signal.SIGTSTP, pause)
    enter()
    try:
        yield descriptor
    finally:
        leave()
        signal.signal(signal.SIGTSTP, handler)


def _painted(line: list[tuple[str, str]]) -> str:
    """A line with the styles that the terminal shows."""
    spans = []
    for content, style in line:
        # Unknown styles are attributes such as bold or dim.
        look = {"fg": style} if style in _COLOURS else {style: True} if style else {}
        spans.append(terminal.paint(content, sys.stdout, **look) if look else content)
    return "".join(spans).rstrip()


def _has_unicode() -> bool:
    try:
        "▁█…·".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
