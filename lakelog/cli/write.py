"""init and append: create a lake, and store JSON lines or one event from the command line."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import click

from lakelog.cli import exits
from lakelog.cli.app import App, complete_pair, complete_source, complete_type, verb
from lakelog.cli.arguments import event_of, pair_of, utf8
from lakelog.cli.keys import new_ring
from lakelog.cli.options import argument, flag, option
from lakelog.cli.render import terminal
from lakelog.cli.render.tables import cell
from lakelog.cli.stdin_lines import InputLine, chunks, documents, split
from lakelog.disk import disk
from lakelog.errors import InvalidEvent
from lakelog.event import EncodedBatch
from lakelog.lake import Lake
from lakelog.settings import parse
from lakelog.store import Store

# Each batch is one durable write: larger ones are faster, smaller ones are acknowledged sooner.
BATCH_LINES = 1000
BATCH_BYTES = 4 << 20
REPORTED_MAX = 5
_SHOWN_BY = "SELECT * FROM quarantine shows them"


@verb()
def init(
    app: App,
    path: str | None = argument("[DIR]", type=click.Path()),
    settings: tuple[str, ...] = option(
        "--setting K=V",
        "A setting that differs from its default; `lakelog config` lists them.",
        shell_complete=complete_pair,
    ),
    encrypt: bool = flag("--encrypt", "Encrypt all that the lake holds."),
    key: str = option("--key FILE", "The master key; made if it is missing.", default=""),
) -> None:
    """Create a lake in a new or empty directory.

    Without DIR, the directory is that of --lake. `append`, `ingest` and `watch` create a
    lake if there is none. With --encrypt its master key is that of --key, else of the
    variables LAKELOG_KEY_FILE, LAKELOG_KEY, LAKELOG_KEY_COMMAND or LAKELOG_KMS_COMMAND,
    else a new one below ~/.config/lakelog/keys. Needs the extra `encrypt`.
    """
    if key and not encrypt:
        raise click.UsageError("--key is for --encrypt")
    chosen_settings = parse(dict(pair_of(s) for s in settings))
    # The key before the lake: without one, no lake stays behind that nobody could open.
    ring = new_ring(app, path or app.path, key) if encrypt else None
    store = Store.create(path or app.path, chosen_settings, ring=ring)
    app.say(f"created a lake at {store.paths.root}")


@verb()
def append(
    app: App,
    pairs: tuple[str, ...] = argument("[KEY=VALUE]...", type=utf8),
    dedupe: str | None = option(
        "--dedupe", "Store an event only if no equal one is stored.", type=click.Choice(["content"])
    ),
    kind: str | None = option(
        "--type NAME", "Type of events that name none.", type=utf8, shell_complete=complete_type
    ),
    source: str | None = option(
        "--source NAME",
        "Source of events that name none.",
        type=utf8,
        shell_complete=complete_source,
    ),
    expect: tuple[str, ...] = option(
        "--expect SUBJECT=N",
        "Store all events, or none unless the stream of SUBJECT is at version N.",
        type=utf8,
    ),
) -> None:
    """Store events durably: JSON lines on stdin, or one event from KEY=VALUE.

    Lines are stored as they arrive, at most a thousand at a time. A bad line does not stop
    the run: it goes to quarantine with its offset and the reason, and the exit code is 1.
    An array, an object over several lines and {"Records": [...]} are accepted, too. With
    --expect nothing is stored if a line is bad.

    KEY is a column; any other key goes into data, and dots nest: data.a.b=1. VALUE is JSON
    if it parses, otherwise text.
    """
    event = None if pairs in ((), ("-",)) else event_of(pairs)
    if event is not None:
        with_defaults(event, kind, source)
        # Before a lake is created: an event that cannot be stored must not leave an empty one
        # behind.
        EncodedBatch.of([event])
    elif terminal.is_terminal(sys.stdin):
        app.say("reading JSON lines from the terminal; Ctrl-D ends them", dim=True)
    versions = dict(map(_expected, expect))
    if versions and event is None:
        # Read whole: with --expect all events are stored together or none is.
        events = _whole_input(kind, source)
    with app.open_or_create() as lake:
        if versions:
            receipt = lake.append([event] if event else events, dedupe=dedupe, expect=versions)
            ends = ", ".join(f"{cell(s)} is at version {n}" for s, n in receipt.versions.items())
            app.say(f"stored {terminal.many(receipt.count, 'event')}: {ends}")
            return
        if event is not None:
            receipt = lake.append(event, dedupe=dedupe)
            # One event from the command line reports its id, by which it can be found again.
            app.say(f"stored 1 event, id {receipt.ids[0]}")
            return
        intake = Intake(app, lake, dedupe, kind, source)
        intake.run()
    # Nothing is lost, but a script has to notice.
    exits.exit_if(intake.quarantined, exits.FAILED)


def _expected(argument: str) -> tuple[str, int]:
    """Split SUBJECT=N. Raises UsageError."""
    subject, _, number = argument.rpartition("=")
    if not subject or not re.fullmatch(r"[0-9]{1,18}", number, re.ASCII):
        raise click.UsageError(
            f"--expect {argument[:60]!r} is not SUBJECT=N, such as order-17=4; 0 for a new stream"
        )
    return subject, int(number)


def _whole_input(kind: str | None, source: str | None) -> list[dict[str, object]]:
    """Return all events of standard input. Raises InvalidEvent for the first that is none."""
    events = []
    for line in documents(split(chunks())):
        if line is None or line.is_blank:
            continue
        try:
            event = line.event()
            with_defaults(event, kind, source)
            EncodedBatch.of([event])
        except InvalidEvent as error:
            raise InvalidEvent(f"{line.unit} {line.number}: {error.reason}") from None
        events.append(event)
    return events


class Intake:
    """Stores lines in batches, each durable before more is read."""

    def __init__(
        self, app: App, lake: Lake, dedupe: str | None, default_type: str | None, source: str | None
    ) -> None:
        self._app, self._lake, self._dedupe = app, lake, dedupe
        self._kind, self._source = default_type, source
        # Erasures and merges tell lines by their places: each input has places of its own.
        self._origin = f"stdin:{disk.random_hex()}"
        self._accepted: list[tuple[InputLine, dict[str, object]]] = []
        self._rejected: list[tuple[InputLine, str]] = []
        self._bytes = 0
        self.stored = self.quarantined = 0

    def run(self) -> None:
        """Store all of standard input, and report the counts at the end."""
        start = time.monotonic()
        # What is typed would stand in the same line.
        is_quiet = self._app.quiet or terminal.is_terminal(sys.stdin)
        try:
            with terminal.ProgressLine("storing", "events", is_quiet) as progress:
                for line in documents(split(chunks())):
                    if line is not None:
                        self.take(line)
                    if line is None or self.is_full():
                        self.commit()
                        rate = self.stored / max(time.monotonic() - start, 1e-6)
                        progress(self.stored, note=f"{rate:,.0f}/s")
            self.commit()
        # Lines that were read are gone from the pipe, so they are stored before the end.
        except KeyboardInterrupt:
            self.commit()
            raise
        # Also after an error: what was stored until then is stored.
        finally:
            self._sum_up(time.monotonic() - start)

    def take(self, line: InputLine) -> None:
        """Add one line to the next batch."""
        if line.is_blank:
            return
        try:
            event = line.event()
            with_defaults(event, self._kind, self._source)
            self._accepted.append((line, event))
        except InvalidEvent as error:
            self._rejected.append((line, error.reason))
        self._bytes += len(line.text)

    def is_full(self) -> bool:
        """Whether the batch should be stored before more is read."""
        return (
            len(self._accepted) + len(self._rejected) >= BATCH_LINES or self._bytes >= BATCH_BYTES
        )

    def commit(self) -> None:
        """Store the batch; lines that are not events go to quarantine. Ctrl-C waits for its end."""
        with _interrupted_later():
            self._store()

    def _store(self) -> None:
        accepted, rejected = self._accepted, self._rejected
        self._accepted, self._rejected, self._bytes = [], [], 0
        if accepted:
            try:
                self._lake.append([event for _, event in accepted], dedupe=self._dedupe)
            # The whole batch was refused for one event: which one is only looked for now, as it is
            # rare.
            except InvalidEvent:
                accepted, refused = _sift(accepted)
                rejected += refused
                self._lake.append([event for _, event in accepted], dedupe=self._dedupe)
            self.stored += len(accepted)
        if rejected:
            # Refused events come after lines that are no JSON; the user looks for them in the order
            # of the file.
            rejected.sort(key=lambda pair: (pair[0].offset, pair[0].number))
            lines = [(self._origin, ln.offset, why, ln.display()) for ln, why in rejected]
            self._lake.quarantine(lines)
            for line, reason in rejected[: max(REPORTED_MAX - self.quarantined, 0)]:
                self._app.say(f"lakelog: {line.unit} {line.number}: {cell(reason)}")
            self.quarantined += len(rejected)

    def _sum_up(self, seconds: float) -> None:
        unreported = self.quarantined - REPORTED_MAX
        if unreported > 0:
            self._app.say(f"lakelog: and {terminal.many(unreported, 'more bad line')}")
        message = f"stored {terminal.many(self.stored, 'event')}"
        if self.quarantined:
            terminal.say(f"{message}, {self.quarantined:,} quarantined ({_SHOWN_BY})")
            message = terminal.many(self.stored + self.quarantined, "line")
        rate = (self.stored + self.quarantined) / max(seconds, 1e-6)
        self._app.say(f"{message} in {seconds:.1f} s, {rate:,.0f}/s")


@contextlib.contextmanager
def _interrupted_later() -> Iterator[None]:
    """Let Ctrl-C wait for the end, but only once: whoever presses it again is obeyed."""
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            signal.default_int_handler(number, frame)
        pressed = True

    # Only in place of Python's own handler: where a shell ignores Ctrl-C for a job in the
    # background, it stays ignored.
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_default or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt


def with_defaults(event: dict[str, object], default_type: str | None, source: str | None) -> None:
    """Fill in the type and source of an event that has none."""
    if default_type is not None:
        has_type = any(event.get(key) not in (None, "") for key in ("type", "event_type"))
        if not has_type and not any(
            isinstance(event.get(key), str) for key in EncodedBatch.TYPE_HINTS
        ):
            event["type"] = default_type
    if source is not None and event.get("source") in (None, ""):
        event["source"] = source


def _sift(
    accepted: list[tuple[InputLine, dict[str, object]]],
) -> tuple[list[tuple[InputLine, dict[str, object]]], list[tuple[InputLine, str]]]:
    """Separate events that can be stored from those that cannot, with the reason."""
    good, refused = [], []
    for line, event in accepted:
        try:
            EncodedBatch.of([event])
            good.append((line, event))
        except InvalidEvent as error:
            refused.append((line, error.reason))
    return good, refused
