"""Telling receivers: each change to each sink, in order, and once as far as a receiver lets us.

The change is durable before anybody is told, and names its sinks. After an attempt its outcome is
an event. A process that dies between the two tells the receiver once more, with the same id. A sink
that fails is left alone for longer and longer, and then given the oldest change again; nothing
overtakes it, so that nobody hears that an alert ended before that it began.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lakelog.alerts.notices import Notice
from lakelog.alerts.rule import AlertRule, sink_id
from lakelog.alerts.sinks import known
from lakelog.alerts.sinks.sink import AlertSink, DeliveryFailed
from lakelog.alerts.sinks.webhook import Webhook
from lakelog.alerts.standing import (
    DELIVERED,
    FAILED,
    GIVEN_UP,
    AlertLog,
    PendingDelivery,
    delivery_event,
    micros_of,
)
from lakelog.errors import InvalidSetting, LakelogError
from lakelog.render import micros
from lakelog.values import JsonObject

GIVE_UP_US = 86_400_000_000
"""How long a change is offered to a sink that fails."""
_FIRST_US, _LONGEST_US = 1_000_000, 300_000_000
_REPEAT_US = 60_000_000
_AT_ONCE = 8
"""Sinks that are told at the same time."""
_TURN_SECONDS = 1.0
"""After which a sink gets no further change before rules are asked again."""


@dataclass(frozen=True)
class _DeliveryAttempt:
    """A delivery that was tried: how it ended, and why."""

    delivery: PendingDelivery
    outcome: str
    address: str
    error: str = ""
    retry_after: float = 0


class Outbox:
    """Delivers what the log of alerts says is to be delivered."""

    def __init__(self, log: AlertLog, say: Callable[[str], None], clock: Callable[[], int]) -> None:
        self._log, self._say, self._clock = log, say, clock
        self._sinks: dict[str, AlertSink | None] = {}
        self._repeated = 0

    def use(self, rules: Mapping[str, AlertRule]) -> None:
        """Know the sinks of rules; what is for others is given up."""
        # Read anew with the rules: a password in a file may be another one.
        self._sinks.clear()
        for spelled in {sink for rule in rules.values() for sink in rule.sinks}:
            try:
                self._sinks[sink_id(spelled)] = known.parse(spelled, self._say)
            except InvalidSetting:  # of a rule that another release wrote
                self._sinks[sink_id(spelled)] = None

    def deliver(self, stop: Callable[[], bool] = lambda: False) -> int:
        """Deliver what is due, all sinks at a time; return how many changes were delivered."""
        queues: dict[str, list[PendingDelivery]] = {}
        for delivery in self._log.read().deliveries.values():
            queues.setdefault(delivery.sink, []).append(delivery)
        # In the order of the changes, which the events have in their numbers.
        due = [sorted(queue, key=lambda d: d.number) for queue in queues.values()]
        moment = self._clock()
        # A clock that went back must not hold up a delivery for as long.
        due = [q for q in due if not 0 < q[0].retry - moment <= _LONGEST_US]
        if not due:
            return 0
        # All at once: a receiver that takes its ten seconds must not hold up the others.
        with ThreadPoolExecutor(min(_AT_ONCE, len(due)), "lakelog-alerts") as pool:
            counts = list(pool.map(lambda queue: self._work_off(queue, stop), due))
        return sum(counts)

    def repeat(self) -> None:
        """Tell Alertmanager again each minute what it knows to fire: it keeps that in memory, and
        whoever sends to it is expected to."""
        if 0 <= self._clock() - self._repeated < _REPEAT_US:
            return
        self._repeated = self._clock()
        firing: dict[str, list[Notice]] = {}
        for deliveries in self._log.read().delivered.values():
            for sink_key, delivery in deliveries.items():
                notice = Notice(f"{delivery.change}-{sink_key}", 1, delivery.document)
                firing.setdefault(sink_key, []).append(notice)
        for sink_key, notices in firing.items():
            sink = self._sinks.get(sink_key)
            if isinstance(sink, Webhook) and sink.is_alertmanager:
                # One that is away is told the next time.
                with contextlib.suppress(DeliveryFailed):
                    sink.repeat(notices)

    def _work_off(self, queue: list[PendingDelivery], stop: Callable[[], bool]) -> int:
        delivered, until = 0, time.monotonic() + _TURN_SECONDS
        for delivery in queue:
            # Rules have to be asked in between, and the other sinks wait for a slow one.
            if stop() or time.monotonic() > until:
                break
            attempt = self._attempt(delivery)
            # After each attempt: a process that dies repeats one delivery at most.
            self._record(attempt)
            # What follows waits for it, or a receiver would hear of the end before the beginning.
            if attempt.outcome == FAILED:
                break
            delivered += attempt.outcome == DELIVERED
        return delivered

    def _attempt(self, delivery: PendingDelivery) -> _DeliveryAttempt:
        # The addresses as they were when the change was made.
        entries = {sink["id"]: sink for sink in delivery.document["sinks"]}
        sink, entry = self._sinks.get(delivery.sink), entries[delivery.sink]
        address = entry["to"]
        if sink is None:
            return _DeliveryAttempt(delivery, GIVEN_UP, address, "no rule has it any more")
        # It may have heard of the alert by another change than the others.
        document = {**delivery.document}
        if "resolves" in entry:
            document["resolves"] = entry["resolves"]
        notice = Notice(f"{delivery.change}-{delivery.sink}", delivery.attempts + 1, document)
        # Before, as one that gave no answer may have it.
        self._log.note_delivery(address)
        try:
            sink.deliver(notice)
        except DeliveryFailed as error:
            return self._failure(delivery, address, error)
        # A fault of ours must not stop the other receivers, nor be tried without end.
        except Exception as error:
            failure = DeliveryFailed(f"{type(error).__name__}: {error}")
            return self._failure(delivery, address, failure)
        return _DeliveryAttempt(delivery, DELIVERED, address)

    def _failure(
        self, delivery: PendingDelivery, address: str, error: DeliveryFailed
    ) -> _DeliveryAttempt:
        from_change = self._clock() - micros_of(delivery.document["time"])
        outcome = GIVEN_UP if error.is_final or from_change > GIVE_UP_US else FAILED
        return _DeliveryAttempt(delivery, outcome, address, str(error)[:500], error.retry_after)

    def _record(self, attempt: _DeliveryAttempt) -> None:
        delivery, moment = attempt.delivery, self._clock()
        count = delivery.attempts + 1
        document: JsonObject = {
            "change": delivery.change,
            "number": delivery.number,
            "rule": delivery.document["rule"],
            "sink": delivery.sink,
            "to": attempt.address,
            "outcome": attempt.outcome,
            "attempt": count,
            "time": micros(moment),
        }
        if attempt.outcome == FAILED:
            document["retry"] = micros(moment + pause(count, attempt.retry_after))
        if attempt.error:
            document["error"] = attempt.error
            problem = problem_of(attempt.address, attempt.error)
            self._say(f"alert {delivery.document['rule']}: {problem}")
        self._log.append([delivery_event(document)])


def pause(attempts: int, seconds: float = 0) -> int:
    """How long (us) a sink is left alone after so many failures with one change, at least the
    seconds that it asks for."""
    # Doubled with each failure; the shift is bounded, since Python's integers are not.
    return int(min(_LONGEST_US, max(_FIRST_US << min(attempts - 1, 20), seconds * 1_000_000)))


def problem_of(address: str, error: str) -> str:
    """Return the error of a receiver with its address before it, once."""
    return error if error.startswith(f"{address}: ") else f"{address}: {error}"


def shown(spelled: str) -> str:
    """Return a sink as it is shown: without secrets. Never raises."""
    try:
        return known.parse(spelled, lambda _: None).address
    except LakelogError:
        return spelled.partition(":")[0]
