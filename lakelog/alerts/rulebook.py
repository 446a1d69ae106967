"""What people do with rules: add, try, remove, silence. A question is tried before it is kept.

How rules, alerts, receivers and silences stand, for people and for pages.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from lakelog.alerts import rule as rules
from lakelog.alerts import silence as silences
from lakelog.alerts.judgement import AlertChange
from lakelog.alerts.notices import Notice, document_of
from lakelog.alerts.outbox import problem_of, shown
from lakelog.alerts.question import DELIVERY, AlertRow, RuleQueries
from lakelog.alerts.rounds import RuleStatus, is_evaluated, read_status
from lakelog.alerts.rule import AlertRule, sink_id
from lakelog.alerts.samples import link, samples
from lakelog.alerts.silence import Silence
from lakelog.alerts.sinks import known
from lakelog.alerts.sinks.sink import DeliveryFailed
from lakelog.alerts.standing import (
    FIRING,
    GIVEN_UP,
    PENDING,
    Alert,
    AlertStanding,
    documents,
    read_standing,
)
from lakelog.disk import disk
from lakelog.errors import InvalidSetting
from lakelog.lake import Lake
from lakelog.refs import author
from lakelog.render import micros
from lakelog.values import JsonObject


@dataclass(frozen=True)
class Trial:
    """What a rule would do now: the rows that fire, the notifications of them, and a remark on
    the question, if there is one."""

    rows: list[AlertRow]
    documents: list[JsonObject]
    remark: str = ""


class RuleBook:
    """The rules and silences of an open lake's branch."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def rules(self) -> list[AlertRule]:
        """The rules by name, without those that are removed. Raises DamagedManifest."""
        store = self._lake.store
        present = rules.of_state(store, store.state(self._lake.branch_name)).values()
        return sorted((r for r in present if not r.is_removed), key=lambda rule: rule.name)

    def rule(self, name: str) -> AlertRule:
        """The rule of that name. Raises UnknownRef."""
        return rules.find(self._lake.store, self._lake.branch_name, name)

    def silences(self) -> list[Silence]:
        """The silences, those that ended within a week included. Raises DamagedManifest."""
        store = self._lake.store
        return silences.of_state(store, store.state(self._lake.branch_name))

    def add(self, rule: AlertRule, *, replace: bool = False) -> str:
        """Keep a rule, once its question was answered and its receivers could be read; return a
        remark on it, or nothing. Raises InvalidSetting, AlreadyExists, QueryFailed, InvalidView."""
        for spelled in rule.checked().sinks:
            known.parse(spelled, lambda _: None)
        remark = self.trial(rule).remark
        rules.add(self._lake.store, self._lake.branch_name, rule, replace=replace)
        return remark

    def add_remote(self, name: str, members: Mapping[str, object], *, replace: bool) -> str:
        """Keep a rule that came over the network, with members as in F6.21, times also as `5m`. It
        may name no program, file or variable of this machine. Raises as `add`."""
        try:
            rule = AlertRule.from_members(name, {**members, "time": 0, "removed": False})
        except (TypeError, ValueError, KeyError) as error:
            raise InvalidSetting(f"{name[:80]!r}: a member of the rule is wrong: {error}") from None
        if not all(map(known.is_safe, rule.sinks)):
            raise InvalidSetting(
                "commands, and secrets of files and variables, are added with `lakelog alerts add`"
            )
        return self.add(rule, replace=replace)

    def remove(self, name: str) -> int:
        """Remove a rule; return how many alerts of it fire, whose receivers will hear that it is
        over. Raises UnknownRef."""
        standing, store = read_standing(self._lake), self._lake.store
        alerts = standing.of_rule(name).values()
        is_awaited = any(d.document["rule"] == name for d in standing.deliveries.values())
        # Who is asking rules now may be about to say that one more alert of it fires.
        is_asked = is_evaluated(store, self._lake.branch_name)
        is_told = bool(alerts) or is_awaited or is_asked
        rules.remove(store, self._lake.branch_name, name, is_told=is_told)
        return sum(bool(alert.receivers) for alert in alerts)

    def silence(self, matchers: list[str], span: int, comment: str = "") -> Silence:
        """Tell nobody of alerts whose labels match, for a span (us). Raises InvalidSetting."""
        return silences.add(
            self._lake.store, self._lake.branch_name, matchers, span, comment, author()
        )

    def end_silence(self, id: str) -> None:
        """End a silence now. Raises UnknownRef."""
        silences.end(self._lake.store, self._lake.branch_name, id)

    def trial(self, rule: AlertRule, site: str = "") -> Trial:
        """Ask a rule now, whether it is kept or not; nothing is stored and nobody told. Raises
        InvalidSetting, QueryFailed, InvalidView."""
        rule.checked()
        with contextlib.closing(RuleQueries(self._lake)) as queries:
            remark = queries.check(rule)
            until = disk.now_us()
            if rule.clock == "log":
                # A window ends before its end: the newest event has to be in it.
                until = queries.newest(until) + 1
            since = max(0, until - rule.window)
            rows = queries.ask(rule, since, until)
            documents = [
                self._document(rule, row, until, link(rule, row.labels, since, until, site), lines)
                for row in rows[:5]
                for lines in (samples(queries, rule, row.labels, since, until),)
            ]
        return Trial(rows, documents, remark)

    def send_test(self, rule: AlertRule) -> dict[str, str]:
        """Send one notification to each receiver of a rule, that says it is a test; return what is
        wrong by receiver, "" where it was taken."""
        row, outcomes = AlertRow({}, None), dict[str, str]()
        tested = dataclasses.replace(rule, message="This is a test: nothing is wrong.")
        document = self._document(tested, row, disk.now_us(), "", [])
        for spelled in rule.sinks:
            # Each for itself: one that fails must not keep the others from their test.
            sink = known.parse(spelled, lambda _: None)
            notice = Notice(f"{document['id']}-{sink_id(spelled)}", 1, document)
            outcomes[sink.address] = ""
            try:
                sink.deliver(notice)
            except DeliveryFailed as error:
                outcomes[sink.address] = str(error)
        return outcomes

    def _document(
        self, rule: AlertRule, row: AlertRow, time_us: int, place: str, lines: list[str]
    ) -> JsonObject:
        change = AlertChange(row.labels, FIRING, time_us, row.value, None)
        return document_of(
            rule,
            change,
            id=f"test{disk.random_hex(6)}",
            number=0,
            time_us=time_us,
            sinks=[],
            samples=lines,
            link=place,
            lake=self._lake.store.lake_id,
            branch=self._lake.branch_name,
        )


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
    many rules are in error (`errors`), and whether they are `evaluated` (of a shared lake: perhaps
    by another machine): without reading events or asking a bucket."""
    rules = RuleBook(lake).rules()
    status = read_status(lake.store, lake.branch_name)
    asked = [status[rule.name] for rule in rules if rule.name in status]
    return {
        "rules": len(rules),
        "rows": sum(rule_status.rows for rule_status in asked),
        "errors": sum(bool(rule_status.error) for rule_status in asked),
        "evaluated": bool(rules)
        and (lake.store.attachment is not None or is_evaluated(lake.store, lake.branch_name)),
    }


def history(lake: Lake, newest: int = 100, name: str = "") -> list[JsonObject]:
    """Return the newest changes and deliveries as the lake has them, oldest first, each with its
    `event`: `change` or `delivery`; with a name those of one rule."""
    return [
        {"event": "delivery" if event_type == DELIVERY else "change", **document}
        for event_type, document in documents(lake, newest, name)
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
        "asked": micros(status.time) if status.time else None,
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
        number = f"{status.missed:,} evaluations were" if status.missed > 1 else "1 evaluation was"
        notes.append(f"{number} missed before the last one")
    notes += [problem_of(r["to"], r["error"]) for r in receivers if r["error"]]
    return "; ".join(notes)


def _entry(rule: AlertRule) -> JsonObject:
    addresses = [shown(spelled) for spelled in rule.sinks]
    members = {**rule.members(), "time": micros(rule.time), "sinks": addresses}
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
        "since": micros(alert.since),
        "silenced": alert.silence or None,
        "fingerprint": alert.fingerprint,
    }


def _silence(silence: Silence, moment: int) -> JsonObject:
    return {
        "id": silence.id,
        **silence.entry().members,
        "start": micros(silence.start),
        "end": micros(silence.end),
        "active": silence.is_active(moment),
    }
