"""Alerts: rules and how they stand, what was told, and changes of rules and silences."""

from __future__ import annotations

import lakelog.alerts as alerting
from lakelog.alerts import AlertRule, RuleBook
from lakelog.errors import InvalidSetting
from lakelog.server.api.question import DashboardQuestion
from lakelog.server.arrivals import RequestRefused
from lakelog.settings import span_us


def alerts(question: DashboardQuestion) -> dict[str, object]:
    """Rules, alerts that are pending or firing, and silences; of one rule with `name`."""
    return alerting.overview(question.lake, question.text("name") or None)


def history(question: DashboardQuestion) -> dict[str, object]:
    """The newest changes and deliveries, oldest first; of one rule with `name`."""
    limit, name = question.number("limit", 100), question.text("name")
    return {"entries": alerting.history(question.lake, limit, name)}


def add(question: DashboardQuestion) -> dict[str, object]:
    """Keep the rule `rule`, once its question was tried."""
    rule = _members(question)
    is_new = question.body.get("replace") is not True
    name = question.member("name")
    # It came over the network, and may name no program, file or variable of this machine.
    remark = RuleBook(question.lake).add_remote(name, rule, replace=not is_new)
    return {"name": name, "remark": remark}


def remove(question: DashboardQuestion) -> dict[str, object]:
    """Remove the rule `name`."""
    return {"resolved": RuleBook(question.lake).remove(question.member("name"))}


def trial(question: DashboardQuestion) -> dict[str, object]:
    """What the rule `rule`, or the kept one of that `name`, would send now; nothing is stored."""
    book = RuleBook(question.lake)
    if "rule" not in question.body:
        rule = book.rule(question.member("name"))
    else:
        try:
            rule = AlertRule.from_members(question.member("name", "trial"), _members(question))
        except (TypeError, ValueError) as error:
            raise InvalidSetting(f"a member of the rule is wrong: {error}") from None
    answer = book.trial(rule)
    return {"rows": len(answer.rows), "notifications": answer.documents, "remark": answer.remark}


def silence(question: DashboardQuestion) -> dict[str, object]:
    """Tell nobody of alerts that all `matchers` hold for, for the span `for`."""
    matchers = question.body.get("matchers")
    if not isinstance(matchers, list) or not all(isinstance(m, str) for m in matchers):
        raise RequestRefused(400, "'matchers' is a list of texts such as rule=NAME")
    span = span_us(question.member("for"))
    entry = RuleBook(question.lake).silence(matchers, span, question.member("comment"))
    return {"id": entry.id, "end": entry.end / 1000}


def end_silence(question: DashboardQuestion) -> dict[str, object]:
    """End the silence `id` now."""
    RuleBook(question.lake).end_silence(question.member("id"))
    return {"id": question.member("id")}


def _members(question: DashboardQuestion) -> dict[str, object]:
    rule = question.body.get("rule")
    if not isinstance(rule, dict):
        raise RequestRefused(400, "'rule' is an object with the members of a rule")
    return rule
