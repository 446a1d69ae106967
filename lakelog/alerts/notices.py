"""What is said of a change: the document that the lake keeps, and the forms that receivers read.

The document is made once, with the change. So a notification is the same at each attempt, whatever
became of the rule.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from lakelog.alerts.judgement import AlertChange
from lakelog.alerts.rule import AlertRule
from lakelog.alerts.standing import FIRING, RESOLVED, fingerprint, micros_of
from lakelog.render import micros
from lakelog.values import JsonObject

_FIELD = re.compile(r"\{([^{}]+)\}")
_NO_LABEL = re.compile(r"^(?=[0-9])|^$|[^A-Za-z0-9_]")
_FOREVER = "9999-01-01T00:00:00Z"
"""When an alert that fires ends, for a receiver that would else take it for ended by itself."""
_SKEW_US = 60_000_000
"""How far the clock of a receiver may be behind ours: what ends in its future has not ended."""


@dataclass(frozen=True)
class Notice:
    """A change as one receiver gets it. `id` is the same at each attempt, and no other's."""

    id: str
    attempt: int
    document: JsonObject

    @property
    def line(self) -> str:
        """It in one line: `firing critical NAME source=web: 12 errors`."""
        document = self.document
        labels = "".join(f" {name}={value}" for name, value in sorted(document["labels"].items()))
        names = f"{document['state']} {document['severity']} {document['rule']}{labels}"
        return f"{names}: {document['message']}"

    @property
    def body(self) -> JsonObject:
        """Our own form. Members that only concern the lake are left out."""
        document = {n: v for n, v in self.document.items() if n not in ("number", "sinks")}
        labels = {**document.pop("rule_labels"), **document["labels"]}
        return {"version": 1, **document, "id": self.id, "labels": labels}


def document_of(
    rule: AlertRule,
    change: AlertChange,
    *,
    id: str,
    number: int,
    time_us: int,
    sinks: list[dict[str, str]],
    samples: list[str],
    link: str,
    lake: str,
    branch: str,
) -> JsonObject:
    """Return the document of a change, which the event of it holds."""
    document: JsonObject = {
        "id": id,
        "number": number,
        "rule": rule.name,
        "state": change.state,
        "severity": rule.severity,
        "labels": dict(change.labels),
        "rule_labels": dict(rule.labels),
        # JSON has no number for what is infinite; the message says it.
        "value": change.value if math.isfinite(change.value or 0) else None,
        "threshold": rule.threshold,
        "since": micros(change.since),
        "time": micros(time_us),
        "message": message_of(rule, change.labels, change.value),
        "samples": samples,
        "link": link,
        "lake": lake,
        "branch": branch,
        "sinks": sinks,
    }
    before = change.before
    if change.state == RESOLVED and before is not None:
        document |= {"fired": micros(before.since), "resolves": before.change}
    document |= {"silenced": change.silence} if change.silence else {}
    return document | ({"reason": change.reason} if change.reason else {})


def message_of(rule: AlertRule, labels: Mapping[str, str], value: float | None) -> str:
    """Return the rule's message with its `{value}` and `{LABEL}`; without one, its value."""
    # A share of nothing is infinite: it has no whole number, and is written as `inf`.
    is_whole = value is not None and value.is_integer()
    number = "" if value is None else f"{value:.0f}" if is_whole else f"{value:g}"
    if not rule.message:
        return f"value {number} {rule.threshold}".rstrip() if number else "its query gives this row"
    fields = {**rule.labels, **labels, "value": number, "rule": rule.name}
    return _FIELD.sub(lambda match: fields.get(match[1], match[0]), rule.message)


def alertmanager_alert(notice: Notice) -> JsonObject:
    """Return an alert as the API of Alertmanager takes it (`POST /api/v2/alerts`)."""
    document = notice.document
    is_firing = document["state"] == FIRING
    names = {"alertname": document["rule"], "severity": document["severity"]}
    annotations = {"summary": document["message"], "notification": notice.id}
    if document["samples"]:
        annotations["samples"] = "\n".join(document["samples"])
    labels = {**document["rule_labels"], **document["labels"]}
    alert: JsonObject = {
        # It refuses an alert with a label of any other name, as columns may have.
        "labels": {**{_NO_LABEL.sub("_", n): v for n, v in labels.items()}, **names},
        "annotations": annotations,
        "startsAt": document["since"] if is_firing else document["fired"],
        "endsAt": _FOREVER if is_firing else _ended(document),
    }
    # It refuses an address without a host.
    return alert | ({"generatorURL": document["link"]} if "://" in document["link"] else {})


def _ended(document: JsonObject) -> str:
    """When an alert ended, so early that a clock behind ours takes it for ended."""
    begin, end = micros_of(document["fired"]), micros_of(document["since"])
    return micros(max(begin + 1_000, end - _SKEW_US))


def alertmanager_body(notice: Notice) -> JsonObject:
    """Return what Alertmanager sends to a webhook (version 4), for receivers that read that."""
    alert, document = alertmanager_alert(notice), notice.document
    # Receivers know by it which alert is over: it is of the labels, and not of the change.
    key = fingerprint(document["rule"], document["labels"])
    status = {"status": document["state"], "fingerprint": key}
    labels = alert["labels"]
    return {
        "version": "4",
        "groupKey": f'{{}}:{{alertname="{document["rule"]}"}}',
        "truncatedAlerts": 0,
        "status": document["state"],
        "receiver": "lakelog",
        "groupLabels": {"alertname": document["rule"]},
        "commonLabels": labels,
        "commonAnnotations": alert["annotations"],
        "externalURL": document["link"].partition("/#/")[0],
        "alerts": [{"generatorURL": "", **alert, **status}],
    }


def text_body(notice: Notice) -> str:
    """Return it as a text of several lines, for a letter."""
    document, body = notice.document, notice.body
    pairs = [("rule", document["rule"]), *sorted(body["labels"].items())]
    pairs += [("state", document["state"]), ("severity", document["severity"])]
    pairs += [("since", document["since"]), ("value", document["value"])]
    pairs += [("reason", document.get("reason")), ("link", document["link"])]
    lines = [document["message"], ""]
    lines += [f"{name}: {value}" for name, value in pairs if value not in (None, "")]
    if document["samples"]:
        lines += ["", "Newest events:", *(f"  {sample}" for sample in document["samples"])]
    return "\n".join([*lines, "", f"notification {notice.id}", ""])
