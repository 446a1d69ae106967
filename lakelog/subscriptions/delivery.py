"""Handing events to a program, again and again where it fails, and giving up in the end.

An event that failed too often becomes a dead letter: an event of the same subject that says where
it is, with the error. It is published with the position behind the event, so that neither is lost
or doubled. It holds nothing of the event: whoever erases that, or destroys the key of its fields,
would have to look into letters, too.

A program as handler: it reads events from its standard input, and may write what is appended.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from lakelog.disk import disk
from lakelog.errors import LakelogError
from lakelog.event import BookkeepingEvent, EncodedBatch, Event

DEAD_LETTER, SETTLED = "lakelog.dead_letter", "lakelog.dead_letter.settled"
"""Types of events: one that was given up, and that it was handled later on."""
NOT_DEAD = (
    f"(source IS DISTINCT FROM '{BookkeepingEvent.SOURCE}'"
    f" OR NOT starts_with(type, '{DEAD_LETTER}'))"
)
"""SQL for the events that subscriptions hand out: a dead letter would cause the next one."""
ATTEMPTS = 5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
_ERROR_MAX = 1_000
ReadEvent = dict[str, Any]
"""An event as a lake has it: its columns by their names, `data` as JSON text."""
EventHandler = Callable[[ReadEvent], Any]
"""Handles one event; returns None, or what is appended: an event, or several."""
BatchHandler = Callable[[Sequence[ReadEvent]], Any]


@dataclass
class Handled:
    """What a program did since the last commit: events that it handled and gave up, and what it
    wants to append."""

    count: int = 0
    dead: int = 0
    outputs: list[Event] = field(default_factory=list)

    def clear(self) -> None:
        """Forget all of it, as it was committed or has to be done again."""
        self.count, self.dead, self.outputs = 0, 0, []


@dataclass(frozen=True)
class EventBatch:
    """Some events of a subscription. `position` is the text that a program stores in its own
    transaction; `commit` stores it in the lake, with events that are appended."""

    events: list[ReadEvent]
    position: str
    commit: Callable[..., None]


class Delivery:
    """Gives events to one handler."""

    def __init__(
        self,
        name: str,
        handler: BatchHandler,
        *,
        attempts: int,
        stop: threading.Event,
        say: Callable[[str], None],
    ) -> None:
        self._name, self._handler, self._attempts = name, handler, attempts
        self._stop, self._say = stop, say
        self.handled = Handled()

    def give(self, events: Sequence[ReadEvent]) -> bool:
        """Hand out events in their order; False if it was stopped before all were handled."""
        # Together first: a handler of batches is called a thousand times less.
        if len(events) > 1 and self._is_handled(events):
            return True
        # Together they failed, perhaps because of one: then each stands for itself.
        return all(self._give_one(event) for event in events)

    def _is_handled(self, events: Sequence[ReadEvent]) -> bool:
        try:
            self._take(events)
        # Which event it was is found out one by one.
        except Exception:
            return False
        return True

    def _take(self, events: Sequence[ReadEvent]) -> None:
        self.handled.outputs += outputs_of(self._handler(events))
        self.handled.count += len(events)

    def _give_one(self, event: ReadEvent) -> bool:
        for attempt in range(1, self._attempts + 1):
            if self._stop.is_set():
                return False
            try:
                self._take([event])
                return True
            # Whatever a handler raises is its own; the event must not stop those behind it.
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"[:_ERROR_MAX]
            # No pause behind the last one, which is given up.
            if attempt < self._attempts:
                self._stop.wait(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt))
        self._say(f"{self._name}: gave up event {event['seq']} ({event['type']}): {problem}")
        self.handled.outputs.append(dead_letter(self._name, event, problem, self._attempts))
        self.handled.count += 1
        self.handled.dead += 1
        return True


def dead_letter(name: str, event: ReadEvent, problem: str, attempts: int) -> Event:
    """Return the event that says that one was given up."""
    data = {"subscription": name, "attempts": attempts, "error": problem}
    data |= {"origin": event["origin"], "position": event["position"]}
    subject, letter_id = event["subject"], disk.random_hex(8)
    letter = BookkeepingEvent.of(DEAD_LETTER, subject, level="ERROR", message=problem, data=data)
    return {**letter, "id": letter_id}


def as_events(outputs: Any) -> list[Event]:
    """Return what a handler wants to append as a list."""
    if outputs is None:
        return []
    if isinstance(outputs, Mapping):
        return [cast(Event, dict(outputs))]
    # A text is an iterable of texts, and no event.
    if isinstance(outputs, Iterable) and not isinstance(outputs, (str, bytes)):
        return [event for output in outputs for event in as_events(output)]
    raise TypeError(f"a handler returns None or events to append, not {type(outputs).__name__}")


def outputs_of(returned: Any) -> list[Event]:
    """Return the same, if it can be appended. Raises InvalidEvent, TypeError."""
    outputs = as_events(returned)
    # What cannot is a failure of the event that it was returned for, and not of the commit.
    EncodedBatch.of(outputs)
    return outputs


def one_by_one(handler: EventHandler) -> BatchHandler:
    """Return a handler of batches that calls one of single events."""

    def handle(events: Sequence[ReadEvent]) -> list[Event]:
        return [output for event in events for output in as_events(handler(event))]

    return handle


COLUMNS = tuple("time type category source subject level message id data".split())
"""What a program is given of an event: what an append takes."""


class CommandHandler:
    """Starts a command for each batch of events, one JSON line each; 0 means that it handled all.

    With `appends`, the JSON lines that it writes are events to append.
    """

    def __init__(self, command: str, *, appends: bool = False) -> None:
        self._command, self._appends = command, appends

    def __call__(self, events: Sequence[ReadEvent]) -> list[Event]:
        """Run the command. Raises LakelogError where it fails, or writes what is no event."""
        process = subprocess.run(
            self._command,
            # The user's own command line, as in crontab.
            shell=True,
            input=b"".join(map(line_of, events)),
            stdout=subprocess.PIPE if self._appends else None,
            check=False,
        )
        if process.returncode:
            raise LakelogError(f"the command {self._command!r} ended with {process.returncode}")
        # Read only after it ended with 0: what a failed one wrote is not appended.
        try:
            return [orjson.loads(line) for line in (process.stdout or b"").splitlines() if line]
        except orjson.JSONDecodeError as error:
            raise LakelogError(
                f"the command {self._command!r} wrote a line that is not JSON: {error}"
            ) from None


def line_of(event: ReadEvent) -> bytes:
    """Return an event as a line of JSON, which `lakelog append` takes."""
    members = {name: event[name] for name in COLUMNS if event.get(name) is not None}
    if isinstance(members.get("data"), str):
        members["data"] = orjson.Fragment(members["data"])
    return orjson.dumps(members, option=orjson.OPT_UTC_Z) + b"\n"
