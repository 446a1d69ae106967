"""The logger of AI systems: decisions and their outcomes, operations, metrics, patterns.

A line is a JSON object: `timestamp, event_type, category, source, details, system_metrics
{cpu_percent, memory_percent}, user_interaction, ai_analysis, performance_impact`; decisions and
outcomes have a `subject`, by which training sets bring the two together. Within a span or an
operation `details` has its `traceId` and `spanId`.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import orjson

from lakelog.loggers.destination import LakeOrPath
from lakelog.loggers.exceptions import exception_data, text_of
from lakelog.loggers.logfile import ROTATE_BYTES, LineLog, LineLogger
from lakelog.loggers.recorder import open_span
from lakelog.loggers.spans import SpanScope
from lakelog.loggers.values import encode_members
from lakelog.runtime import forks

DEFAULT_LOG = "ai.log"
_KIND, _STAMP = rb'"event_type":"([^"]*)"', rb'^\{"timestamp":"([^"]*)"'
_EVERY = 1.0
Details = Mapping[str, object]
_newest: AILogger | None = None


class _Sampler:
    """CPU and memory of the machine, sampled once a second by a thread off the hot path: the last
    sample, as JSON text."""

    def __init__(self) -> None:
        self.text = orjson.Fragment(b'{"cpu_percent":null,"memory_percent":null}')
        self._busy = self._total = 0
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Sample now, and from now on; nothing if it does."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self.sample()
                self._thread = threading.Thread(
                    target=self._run, name="lakelog-sampler", daemon=True
                )
                with contextlib.suppress(RuntimeError):  # the interpreter is shutting down
                    self._thread.start()

    def sample(self) -> None:
        """Measure; the use of the processors is that since the last sample, first since boot."""
        sample = {"cpu_percent": self._cpu(), "memory_percent": _memory()}
        self.text = orjson.Fragment(orjson.dumps(sample))

    def after_fork(self) -> None:
        """In a child: the thread is the parent's."""
        self._thread, self._lock = None, threading.Lock()

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(_EVERY):
            self.sample()

    def _cpu(self) -> float | None:
        try:
            with open("/proc/stat", "rb") as file:
                times = [int(field) for field in file.readline().split()[1:9]]
        except (OSError, ValueError):
            return None
        total, busy = sum(times), sum(times) - times[3] - times[4]  # without idle and iowait
        share = (busy - self._busy) / max(total - self._total, 1)
        self._busy, self._total = busy, total
        return round(100 * min(max(share, 0.0), 1.0), 1)


def _memory() -> float | None:
    try:
        with open("/proc/meminfo", "rb") as file:
            sizes = dict(line.split()[:2] for line in file)
        return round(100 * (1 - int(sizes[b"MemAvailable:"]) / int(sizes[b"MemTotal:"])), 1)
    except (OSError, ValueError, KeyError):
        return None


_SAMPLER = _Sampler()
forks.after_in_child(_SAMPLER.after_fork)


class AILogger(LineLogger):
    """Writes events of an AI system; safe for threads, forks and several processes."""

    def __init__(self, log: LineLog, source: str) -> None:
        super().__init__(log)
        self.source = source
        _SAMPLER.start()

    @staticmethod
    def log_newest_start(name: str, version: str = "", config: Details | None = None) -> None:
        """Write to the logger that `get_ai_logger` returned last that a service began; without one
        to ./ai.log."""
        (_newest or get_ai_logger()).log_system_start(name, version, config)

    @staticmethod
    def measure_newest(name: str, **details: object) -> Operation:
        """Measure an operation in the logger that `get_ai_logger` returned last, else in
        ./ai.log."""
        return (_newest or get_ai_logger()).measure_operation(name, **details)

    def log(
        self,
        event_type: str,
        category: str,
        details: Details,
        *,
        subject: str | None = None,
        user_interaction: Details | None = None,
        ai_analysis: Details | None = None,
        performance_impact: Details | None = None,
    ) -> None:
        """Write an event. What cannot be written is counted; a strict logger raises."""
        try:
            members = dict(details)
            # Ids that the caller gave come first: they are of a span elsewhere.
            if "spanId" not in members and (ids := open_span()) is not None:
                members["traceId"], members["spanId"] = ids
            _SAMPLER.start()  # again, in a forked process
            payload = {
                "details": members,
                "system_metrics": _SAMPLER.text,
                "user_interaction": user_interaction,
                "ai_analysis": ai_analysis,
                "performance_impact": performance_impact,
            }
            now = datetime.now(UTC)
            recorder = self._log.recorder
            # Straight into the lake the event needs no line of text.
            if recorder is not None:
                columns = {"category": category, "source": self.source, "subject": subject}
                recorder.record({"time": now, "type": event_type, **columns, "data": payload})
                return
            moment = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
            line = {"timestamp": moment, "event_type": event_type, "category": category}
            line["source"] = self.source
            if subject is not None:
                line["subject"] = subject
            self._log.put(encode_members({**line, **payload}))
        except Exception as error:
            self._log.fail(error)

    def log_system_start(self, name: str, version: str = "", config: Details | None = None) -> None:
        """A service began, in this version and with this configuration."""
        details = {"action": "service_start", "service": name, "version": version}
        settings = {"config": dict(config or {})}
        machine = {"python": platform.python_version(), "host": platform.node(), "pid": os.getpid()}
        self.log("start", "system", {**details, **settings, **machine})

    def measure_operation(self, name: str, **details: object) -> Operation:
        """Return a context manager that writes an operation when it ends: duration, outcome,
        metrics, error. Operations nest as spans do."""
        return Operation(self, name, details)

    def ai_decision(
        self,
        point: str,
        options: Sequence[object],
        chosen: object,
        confidence: float | None = None,
        reason: str = "",
        *,
        subject: str | None = None,
        **details: object,
    ) -> Decision:
        """Write a decision: what there was to choose from, what was chosen, how sure, and why.

        Returns it, so that `outcome` can be written once it is known. `subject` is whom it is
        about; without one, the decision itself.
        """
        decision = Decision(self, os.urandom(8).hex(), point, chosen, subject)
        members: dict[str, object] = {"decision_id": decision.id, "decision_point": point}
        members |= {
            "options": list(options),
            "chosen": chosen,
            "confidence": confidence,
            "reason": reason,
            **details,
        }
        # Derived, but what a query for rejected options would otherwise have to compute.
        members["alternatives"] = [option for option in options if option != chosen]
        analysis = {"confidence": confidence, "reason": reason}
        self.log("decision", "ai", members, subject=decision.subject, ai_analysis=analysis)
        return decision

    def performance_metric(
        self, name: str, value: float, unit: str = "", **details: object
    ) -> None:
        """Write a measured value."""
        members = {"metric": name, "value": value, "unit": unit, **details}
        self.log("metric", "performance", members, performance_impact={name: value})

    def pattern_detected(
        self, name: str, data: object = None, confidence: float | None = None, impact: object = None
    ) -> None:
        """Write a pattern that was found, how sure that is, and what it means."""
        members = {"pattern": name, "data": data, "confidence": confidence, "impact": impact}
        analysis = {"confidence": confidence, "impact": impact}
        self.log("pattern", "ai", members, ai_analysis=analysis)

    def user_interaction(self, action: str, user: str | None = None, **details: object) -> None:
        """Write what a user did."""
        interaction = {"action": action, "user": user}
        members = {**interaction, **details}
        self.log("interaction", "user", members, subject=user, user_interaction=interaction)


class Decision:
    """A decision that was written; its outcome may come later, also from another process."""

    def __init__(
        self, logger: AILogger, id: str, point: str, chosen: object, subject: str | None
    ) -> None:
        self._logger, self.id, self.point, self.chosen = logger, id, point, chosen
        self.subject = subject or id
        # A monotonic clock: that of the day may be set in between.
        self._clock = time.monotonic()

    def outcome(self, outcome: object, reward: float | None = None, **details: object) -> None:
        """Write what came of it, linked by `decision_id` and `subject`; `reward` is its value."""
        members = {"decision_id": self.id, "decision_point": self.point, "chosen": self.chosen}
        members |= {"outcome": outcome, "reward": reward}
        members["after_ms"] = round(1000 * (time.monotonic() - self._clock), 3)
        self._logger.log("outcome", "ai", {**members, **details}, subject=self.subject)


class Operation(SpanScope):
    """An operation that is measured, from `with` to its end; a span of its own."""

    def __init__(self, logger: AILogger, name: str, details: dict[str, object]) -> None:
        super().__init__(open_span())
        self._logger, self.name, self._details = logger, name, details
        self.metrics: dict[str, object] = {}
        self._outcome = "success"

    def metric(self, name: str, value: object) -> None:
        """Add a figure that was measured within the operation."""
        self.metrics[name] = value

    def fail(self, reason: str) -> None:
        """The operation failed, though no exception says so."""
        self._outcome = "failure"
        self._details["error"] = reason

    def end(self, error: Exception | None = None) -> None:
        """Write the operation, as failed if there is an error."""
        elapsed_ms = round(self.elapsed_ns() / 1e6, 3)
        if error is not None:
            # The text of an error may have secrets, which the clients of models replace.
            self.fail(f"{type(error).__name__}: {text_of(error)}")
        members = {"operation": self.name, "duration_ms": elapsed_ms, **self._details}
        members["traceId"], members["spanId"] = self.ids
        if self._parent is not None:
            members["parentSpanId"] = self._parent[1]
        if error is not None:
            members["exception"] = exception_data(error)
        members |= {"outcome": self._outcome, "metrics": self.metrics}
        impact = {"duration_ms": elapsed_ms, **self.metrics}
        self._logger.log("operation", "performance", members, performance_impact=impact)


def get_ai_logger(
    path: str | os.PathLike[str] | None = DEFAULT_LOG,
    *,
    lake: LakeOrPath | None = None,
    source: str | None = None,
    rotate_bytes: int = ROTATE_BYTES,
    strict: bool = False,
) -> AILogger:
    """Return the logger of an AI log file, of a lake, or of a file that a lake gets too.

    `source` is who logs, by default the program. At `rotate_bytes` the file is renamed and summed
    up; 0 for never. Raises OSError, and for a lake what `lakelog.open` does.
    """
    global _newest
    program = os.path.basename(sys.argv[0] if sys.argv else "") or "python"
    log = LineLog(path, lake, _KIND, _STAMP, rotate_bytes, strict)
    _newest = AILogger(log, program if source is None else source)
    return _newest
