"""How rules, alerts, receivers and silences stand, for people and for pages."""

from __future__ import annotations

from lakelog.alerts.outbox import problem_of, shown
from lakelog.alerts.question import DELIVERY
from lakelog.alerts.rounds import RuleStatus, is_evaluated, read_status
from lakelog.alerts.rule import AlertRule
from lakelog.alerts.rulebook import RuleBook
from lakelog.alerts.silence import Silence
from lakelog.alerts.sinks.sink import sink_id
from lakelog.alerts.standing import (
    FIRING,
    GIVEN_UP,
    PENDING,
    Alert,
    AlertStanding,
    documents,
    read_standing,
    text_of,
)
from lakelog.lake import Lake
from lakelog.store import disk
from lakelog.values import JsonObject

_STALE = 3
"""After so many times its `every` without an answer a rule counts as not evaluated."""


def overview(lake: Lake, name: str | None = None) -> JsonObject:
    """Return `evaluated` (whether a process asks the rules now), `rules`, `alerts` that are pending
    or firing, and `silences`; with a name those of one rule. Raises UnknownRef."""
    book, standing = RuleBook(lake), read_standing(lake)
    status = read_status(lake.store, lake.branch_name)
    rules = book.rules() if name is None else [book.rule(name)]
    names = {rule.name for rule in rules}
    moment = disk.now_us()
    return {
        "evaluated": is_evaluated(lake.store, lake.branch_name),
        "rules": [_rule(r, standing, status.get(r.name, RuleStatus()), moment) for r in rules],
        "alerts": [
            _alert(alert)
            for alert in standing.alerts.values()
            if name is None or alert.rule in names
        ],
        "silences": [_silence(silence, moment) for silence in book.silences()],
    }


def glance(lake: Lake) -> JsonObject:
    """Return how many `rules` there are, how many `rows` of their last answers fire or pend, how
    many rules are in error (`errors`), and whether they are `evaluated`: without reading events."""
    rules = RuleBook(lake).rules()
    status = read_status(lake.store, lake.branch_name)
    asked = [status[rule.name] for rule in rules if rule.name in status]
    return {
        "rules": len(rules),
        "rows": sum(rule_status.rows for rule_status in asked),
        "errors": sum(bool(rule_status.error) for rule_status in asked),
        "evaluated": bool(rules) and is_evaluated(lake.store, lake.branch_name),
    }


def history(lake: Lake, newest: int = 100) -> list[JsonObject]:
    """Return the newest changes and deliveries as the lake has them, oldest first, each with its
    `event`: `change` or `delivery`."""
    return [
        {"event": "delivery" if event_type == DELIVERY else "change", **document}
        for event_type, document in documents(lake, newest)
    ]


def _rule(rule: AlertRule, standing: AlertStanding, status: RuleStatus, moment: int) -> JsonObject:
    alerts = standing.of_rule(rule.name).values()
    firing = sum(alert.state == FIRING for alert in alerts)
    pending = sum(alert.state == PENDING for alert in alerts)
    state = FIRING if firing else PENDING if pending else "ok" if status.answered else "new"
    receivers = [_sink(spelled, rule, standing) for spelled in rule.sinks]
    return {
        "name": rule.name,
        "state": "error" if status.error else state,
        "firing": firing,
        "pending": pending,
        "severity": rule.severity,
        "question": question(rule),
        **_entry(rule),
        "asked": text_of(status.time) if status.time else None,
        "seconds": round(status.seconds, 3),
        "rows": status.rows,
        "note": note(rule, status, receivers, moment),
        "error": status.error,
        "receivers": receivers,
    }


def question(rule: AlertRule) -> str:
    """A rule's question in one line."""
    if rule.search:
        return f"count of {' '.join(rule.search.split())} {rule.threshold}"
    source = f"view {rule.view}" if rule.view else " ".join(rule.query.split())
    return f"{source} {rule.threshold}".strip()


def note(rule: AlertRule, status: RuleStatus, receivers: list[JsonObject], moment: int) -> str:
    """What is wrong with a rule or its receivers, in one line; nothing if all is well."""
    notes = [status.error] if status.error else []
    late = moment - status.answered
    if status.time and not status.error and late > _STALE * max(rule.every, 10_000_000):
        notes.append("not evaluated any more: run `lakelog alerts run` or `lakelog serve`")
    if status.missed:
        notes.append(f"{status.missed:,} evaluations were missed before the last one")
    notes += [problem_of(r["to"], r["error"]) for r in receivers if r["error"]]
    return "; ".join(notes)


def _entry(rule: AlertRule) -> JsonObject:
    addresses = [shown(spelled) for spelled in rule.sinks]
    members = {**rule.members(), "time": text_of(rule.time), "sinks": addresses}
    del members["removed"]
    return members


def _sink(spelled: str, rule: AlertRule, standing: AlertStanding) -> JsonObject:
    key = sink_id(spelled)
    record = standing.sinks.get((rule.name, key))
    waiting = [d for d in standing.deliveries.values() if d.sink == key]
    error = record.error if record is not None else ""
    return {
        "to": shown(spelled),
        "delivered": record.delivered if record is not None else 0,
        GIVEN_UP.replace(" ", "_"): record.given_up if record is not None else 0,
        "waiting": sum(d.document["rule"] == rule.name for d in waiting),
        "error": error,
    }


def _alert(alert: Alert) -> JsonObject:
    return {
        "rule": alert.rule,
        "state": alert.state,
        "labels": dict(alert.labels),
        "value": alert.value,
        "since": text_of(alert.since),
        "silenced": alert.silence or None,
        "fingerprint": alert.fingerprint,
    }


def _silence(silence: Silence, moment: int) -> JsonObject:
    return {
        "id": silence.id,
        "matchers": [str(matcher) for matcher in silence.matchers],
        "start": text_of(silence.start),
        "end": text_of(silence.end),
        "comment": silence.comment,
        "author": silence.author,
        "active": silence.start <= moment < silence.end,
    }
