"""What people do with rules: add, try, remove, silence. A question is tried before it is kept."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from lakelog.alerts import rule as rules
from lakelog.alerts import silence as silences
from lakelog.alerts.judgement import AlertChange
from lakelog.alerts.notices import Notice, document_of
from lakelog.alerts.question import AlertRow, RuleQueries
from lakelog.alerts.rule import AlertRule
from lakelog.alerts.samples import link, samples
from lakelog.alerts.silence import Silence
from lakelog.alerts.sinks import known
from lakelog.alerts.sinks.sink import DeliveryFailed, sink_id
from lakelog.alerts.standing import FIRING, read_standing
from lakelog.errors import InvalidSetting
from lakelog.lake import Lake
from lakelog.store import disk
from lakelog.store.ref import author
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
        alerts = read_standing(self._lake).of_rule(name).values()
        rules.remove(self._lake.store, self._lake.branch_name, name, is_told=bool(alerts))
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
                until = min(until, queries.newest() + 1)
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
