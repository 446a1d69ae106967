"""What an answer changes: which alerts begin, fire and end. Pure: the times are given.

An alert fires once its row was there in all questions for as long as the rule says. Only time that
was looked at counts: after a gap, such as of a machine that slept, at most half of it, so that two
looks far apart never make an alert fire; a clock that went back counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lakelog.alerts.question import AlertRow
from lakelog.alerts.rule import AlertRule, sink_id
from lakelog.alerts.silence import Silence
from lakelog.alerts.standing import FIRING, PENDING, RESOLVED, Alert, fingerprint

CATCH_UP = 86_400_000_000
"""The longest gap whose events are still looked at (us)."""


@dataclass(frozen=True)
class AlertChange:
    """An alert that goes to a state. `silence` names the one by which nobody is told, `receivers`
    are the ids of the sinks of the rule that shall know."""

    labels: Mapping[str, str]
    state: str
    since: int
    value: float | None
    before: Alert | None
    silence: str = ""
    receivers: tuple[str, ...] = ()
    reason: str = ""


def window(rule: AlertRule, time_us: int, previous: int) -> int:
    """Return where a question begins: the rule's window before now, or where the question before
    it ended if that is earlier, so that nothing between is left out; at most a day."""
    # After a gap the question reaches back, or events in it would never be asked for.
    start = time_us - rule.window
    is_gap = 0 < previous < start
    return max(previous, time_us - CATCH_UP, 0) if is_gap else start


def is_due(rule: AlertRule, time_us: int, previous: int) -> bool:
    """Whether a rule is asked again: its time has passed, or the clock went back."""
    # A clock that went back would else keep a rule from being asked for as long.
    return not 0 <= time_us - previous < rule.every


def missed(rule: AlertRule, time_us: int, previous: int) -> int:
    """How many questions a gap left out."""
    return max(0, (time_us - previous) // rule.every - 1) if 0 < previous < time_us else 0


def observed(rule: AlertRule, time_us: int, previous: int) -> int:
    """How much of the time since the question before counts as looked at (us)."""
    span = time_us - previous if 0 < previous < time_us else 0
    # Twice its interval is no gap yet; half of the wait, so that two looks never make it pass.
    return span if span <= 2 * rule.every else min(span, rule.wait // 2)


def judge(
    rule: AlertRule,
    present: Mapping[str, Alert],
    rows: Iterable[AlertRow],
    time_us: int,
    span: int,
    stood: dict[str, int],
    silences: Sequence[Silence],
) -> list[AlertChange]:
    """Return what an answer changes of the alerts of a rule, by fingerprint.

    `span` is what counts since the question before; `stood` has how long each row was there, and is
    brought up to date.
    """
    changes, seen_before = list[AlertChange](), dict(stood)
    everybody = tuple(map(sink_id, rule.sinks))
    # What is no row any more has to wait from the beginning.
    stood.clear()
    for row in rows:
        key = fingerprint(rule.name, row.labels)
        # By labels: the value of an alert changes while it stands.
        alert = present.get(key)
        labels = labels_of(rule, row.labels)
        silence = next((s.id for s in silences if s.covers(labels, time_us)), "")
        if alert is None or alert.state == PENDING:
            is_new = alert is None
            stood[key] = 0 if is_new else seen_before.get(key, 0) + span
            state = FIRING if stood[key] >= rule.wait else PENDING
            # It waits on, and nothing changed.
            if not is_new and state == PENDING:
                continue
            receivers = everybody if state == FIRING and not silence else ()
            reason = ""
        # Who was not told of it, as it was silenced or the rule had other receivers, hears late.
        elif not silence and (late := tuple(e for e in everybody if e not in alert.receivers)):
            is_silence_over = alert.silence and not alert.receivers
            state, receivers = FIRING, late
            reason = "its silence is over" if is_silence_over else "its rule has other receivers"
        else:
            continue
        # Since it began to fire, and not since somebody else is told.
        since = alert.since if alert is not None and alert.state == FIRING else time_us
        changes.append(
            AlertChange(row.labels, state, since, row.value, alert, silence, receivers, reason)
        )
    keys = {fingerprint(rule.name, row.labels) for row in rows}
    for key, alert in present.items():
        if key not in keys:
            # Whoever knows that it fires has to know that it ended, silenced or not.
            receivers = everybody if alert.state == FIRING and alert.receivers else ()
            reason = "the rule was removed" if rule.is_removed else ""
            changes.append(
                AlertChange(
                    alert.labels, RESOLVED, time_us, alert.value, alert, "", receivers, reason
                )
            )
    return changes


def labels_of(rule: AlertRule, labels: Mapping[str, str]) -> dict[str, str]:
    """All labels of an alert: of its row, of its rule, its rule's name and severity."""
    return {**rule.labels, **labels, "rule": rule.name, "severity": rule.severity}
