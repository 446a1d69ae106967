"""init and append: making a lake, and taking in JSON lines or one event from the command line."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from lakelog.cli import exits
from lakelog.cli.app import App, complete_pair, verb
from lakelog.cli.pairs import event_of, pair_of
from lakelog.cli.render import terminal
from lakelog.cli.render.tables import cell
from lakelog.cli.stdin_lines import Line, chunks, documents, split
from lakelog.errors import InvalidEvent
from lakelog.event import TYPE_HINTS, encode
from lakelog.lake import Lake
from lakelog.settings import parse
from lakelog.store import bootstrap

BATCH_LINES = 1000
BATCH_BYTES = 4 << 20
TOLD_MAX = 5
_SHOWN_BY = "SELECT * FROM quarantine shows them"


@verb(
    examples="""
    lakelog init
    lakelog init flights
    lakelog init --setting seal=inline --setting rotate_bytes=64MB
"""
)
@click.argument("path", required=False, metavar="[DIR]", type=click.Path())
@click.option(
    "--setting",
    "settings",
    multiple=True,
    metavar="K=V",
    shell_complete=complete_pair,
    help="A setting that differs from its default; `lakelog config` lists them.",
)
def init(app: App, path: str | None, settings: tuple[str, ...]) -> None:
    """Create a lake in a new or empty directory.

    Without DIR, the directory is that of --lake. `append`, `ingest` and `watch` create a
    lake if there is none.
    """
    wanted = parse(dict(pair_of(s) for s in settings))
    store = bootstrap.create(path or app.path, wanted)
    app.say(f"created a lake at {store.paths.root}")


@verb(
    examples="""
    app | lakelog append
    lakelog append < events.jsonl
    lakelog append --type tweet < twitter.json
    lakelog append type=deploy data.version=3 message="to production"
"""
)
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--dedupe",
    type=click.Choice(["content"]),
    help="Store an event only if no equal one is stored.",
)
@click.option("--type", "kind", metavar="NAME", help="Type of events that name none.")
@click.option("--source", metavar="NAME", help="Source of events that name none.")
def append(
    app: App, pairs: tuple[str, ...], dedupe: str | None, kind: str | None, source: str | None
) -> None:
    """Store events durably: JSON lines on stdin, or one event from KEY=VALUE.

    Lines are stored as they arrive, at most a thousand at a time. A bad line does not stop
    the run: it goes to quarantine with its offset and the reason, and the exit code is 1.
    An array, an object over several lines and {"Records": [...]} are accepted, too.

    KEY is a column; any other key goes into data, and dots nest: data.a.b=1. VALUE is JSON
    if it parses, otherwise text.
    """
    event = None if pairs in ((), ("-",)) else event_of(pairs)
    if event is not None:
        with_defaults(event, kind, source)
        encode([event])
    elif terminal.is_terminal(sys.stdin):
        app.say("reading JSON lines from the terminal; Ctrl-D ends them", dim=True)
    with app.open_or_create() as lake:
        if event is not None:
            receipt = lake.append(event, dedupe=dedupe)
            app.say(f"stored 1 event, id {receipt.ids[0]}")
            return
        intake = Intake(app, lake, dedupe, kind, source)
        intake.run()
    if intake.quarantined:
        click.get_current_context().exit(exits.FAILED)


class Intake:
    """Takes lines into a lake in batches, each durable before more is read."""

    def __init__(
        self, app: App, lake: Lake, dedupe: str | None, kind: str | None, source: str | None
    ) -> None:
        self._app, self._lake, self._dedupe = app, lake, dedupe
        self._kind, self._source = kind, source
        self._taken: list[tuple[Line, dict[str, Any]]] = []
        self._bad: list[tuple[Line, str]] = []
        self._bytes = 0
        self.stored = self.quarantined = 0

    def run(self) -> None:
        """Take all of standard input, and say at the end what became of it."""
        start = time.monotonic()
        try:
            with self._app.progress("storing", "events") as progress:
                for line in documents(split(chunks())):
                    if line is not None:
                        self.take(line)
                    if line is None or self.is_full():
                        self.commit()
                        rate = self.stored / max(time.monotonic() - start, 1e-6)
                        progress(self.stored, note=f"{rate:,.0f}/s")
            self.commit()
        except KeyboardInterrupt:
            self.commit()
            raise
        finally:
            self._sum_up(time.monotonic() - start)

    def take(self, line: Line) -> None:
        """Take one line for the next batch."""
        if line.is_blank:
            return
        try:
            event = line.event()
            with_defaults(event, self._kind, self._source)
            self._taken.append((line, event))
        except InvalidEvent as error:
            self._bad.append((line, error.reason))
        self._bytes += len(line.text)

    def is_full(self) -> bool:
        """Whether the batch is to be stored before more is taken."""
        return len(self._taken) + len(self._bad) >= BATCH_LINES or self._bytes >= BATCH_BYTES

    def commit(self) -> None:
        """Store the batch; what is no event goes to quarantine."""
        taken, bad = self._taken, self._bad
        self._taken, self._bad, self._bytes = [], [], 0
        if taken:
            try:
                self._lake.append([event for _, event in taken], dedupe=self._dedupe)
            except InvalidEvent:
                taken, refused = _sift(taken)
                bad += refused
                self._lake.append([event for _, event in taken], dedupe=self._dedupe)
            self.stored += len(taken)
        if bad:
            bad.sort(key=lambda pair: (pair[0].offset, pair[0].number))
            self._lake.quarantine([("stdin", ln.offset, why, ln.shown()) for ln, why in bad])
            self._tell(bad)
            self.quarantined += len(bad)

    def _tell(self, bad: list[tuple[Line, str]]) -> None:
        for line, reason in bad[: max(TOLD_MAX - self.quarantined, 0)]:
            self._app.say(f"lakelog: {line.unit} {line.number}: {cell(reason)}")

    def _sum_up(self, seconds: float) -> None:
        more = self.quarantined - TOLD_MAX
        if more > 0:
            self._app.say(f"lakelog: and {terminal.many(more, 'more bad line')}")
        words = f"stored {terminal.many(self.stored, 'event')}"
        if self.quarantined:
            terminal.say(f"{words}, {self.quarantined:,} quarantined ({_SHOWN_BY})")
            words = terminal.many(self.stored + self.quarantined, "line")
        rate = (self.stored + self.quarantined) / max(seconds, 1e-6)
        self._app.say(f"{words} in {seconds:.1f} s, {rate:,.0f}/s")


def with_defaults(event: dict[str, Any], kind: str | None, source: str | None) -> None:
    """Fill in the type and source of an event that has none."""
    if kind is not None and not _has_type(event):
        event["type"] = kind
    if source is not None and event.get("source") in (None, ""):
        event["source"] = source


def _has_type(event: dict[str, Any]) -> bool:
    if any(event.get(key) not in (None, "") for key in ("type", "event_type")):
        return True
    return any(isinstance(event.get(key), str) for key in TYPE_HINTS)


def _sift(
    taken: list[tuple[Line, dict[str, Any]]],
) -> tuple[list[tuple[Line, dict[str, Any]]], list[tuple[Line, str]]]:
    """Part events that can be stored from those that cannot, with the reason."""
    good, refused = [], []
    for line, event in taken:
        try:
            encode([event])
            good.append((line, event))
        except InvalidEvent as error:
            refused.append((line, error.reason))
    return good, refused
