"""What a notification shows of the events behind an alert: five of them, and a link to all.

A search says itself which events it counts. Of SQL that is one SELECT from `events`, its WHERE is
taken with the labels of the alert; other questions have no samples, unless their rule says which.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from urllib.parse import urlencode

from lakelog.alerts.question import RuleQueries, values_of
from lakelog.alerts.rule import AlertRule
from lakelog.engine.syntax import Node, SyntaxFault, sql_of
from lakelog.errors import LakelogError
from lakelog.query import Query
from lakelog.render import micros
from lakelog.sql import identifier, literal

COUNT = 5
SECONDS = 5.0
_LENGTH_MAX = 500
_LABEL = "lakelog_label_"
# Labels of other columns have no field in a search.
_COLUMNS = frozenset("type category source subject level".split())
_LINE = f"""SELECT time, level, source, coalesce(message, type) AS message,
    left(data, {_LENGTH_MAX}) AS data"""
_PLAIN = re.compile(r"[\w.-]+")


def samples(
    queries: RuleQueries, rule: AlertRule, labels: Mapping[str, str], since: int, until: int
) -> list[str]:
    """Return the newest events of an alert, one line each; none where it is not known which."""
    try:
        source = _source(queries, rule, labels)
        if not source:
            return []
        # Newest first, as those made it fire.
        query = f"{_LINE} FROM ({source}) ORDER BY time DESC LIMIT {COUNT}"
        _, rows = queries.rows(query, values_of(since, until), SECONDS, COUNT)
    except LakelogError:  # an alert without samples is better than none
        return []
    return [_line(row) for row in rows]


def link(rule: AlertRule, labels: Mapping[str, str], since: int, until: int, site: str) -> str:
    """Return where the events of an alert are shown: a page of the server at `site`."""
    terms = [f"({rule.search})"] if rule.search else []
    terms += [f"{n}:={_term(v)}" for n, v in sorted(labels.items()) if n in _COLUMNS]
    terms += [f"-{n}:*" for n in rule.labels_by if _is_null(n, labels)]
    places = {"q": " ".join(terms), "since": micros(since), "until": micros(until)}
    return f"{site.rstrip('/')}/#/explore?{urlencode({n: v for n, v in places.items() if v})}"


def _source(queries: RuleQueries, rule: AlertRule, labels: Mapping[str, str]) -> str:
    """Return SQL for the events of an alert, or nothing where that is not known."""
    if rule.samples or rule.search:
        # What its author says of the samples comes first.
        condition = rule.samples or rule.condition()
        conditions = ["time >= $since AND time <= $now"]
        # Of labels that are no columns, the rule itself may say what they are of.
        equal = [n for n in labels if n in _COLUMNS]
        conditions += [f"{identifier(n)} = {literal(labels[n])}" for n in equal]
        conditions += [f"{identifier(n)} IS NULL" for n in rule.labels_by if _is_null(n, labels)]
        return f"SELECT * FROM events WHERE (\n{condition}\n) AND {' AND '.join(conditions)}"
    return "" if rule.view else _of_select(queries, rule, labels)


def _of_select(queries: RuleQueries, rule: AlertRule, labels: Mapping[str, str]) -> str:
    try:
        # The tree is shared with the cache of parsed statements.
        tree = copy.deepcopy(queries.tree(rule.sql()))
        star = queries.tree("SELECT * FROM events")["statements"][0]["node"]["select_list"]
        node = tree["statements"][0]["node"]
        if node.get("type") != "SELECT_NODE" or not Query.is_events(node["from_table"]):
            return ""
        names, columns = [], list[Node]()
        for number, item in enumerate(node["select_list"]):
            # A label is an expression of the SELECT, and holds for each of its rows.
            if (name := _name(item)) in labels:
                names.append(f"{_LABEL}{number} = {literal(labels[name])}")
            elif (
                name in (rule.labels_by or (name,))
                and item["class"] == "COLUMN_REF"
                and _is_null(item["column_names"][-1], labels)
            ):
                names.append(f"{_LABEL}{number} IS NULL")
            else:
                continue
            columns.append({**item, "alias": f"{_LABEL}{number}"})
        node["select_list"] = [*columns, *star]
        # Without grouping, the rows that were counted are left.
        node |= {"group_expressions": [], "group_sets": [], "having": None, "modifiers": []}
        node |= {"qualify": None, "aggregate_handling": "STANDARD_HANDLING"}
        rows = sql_of(queries.cursor(), tree)
    except (SyntaxFault, KeyError, IndexError):
        return ""
    return f"SELECT * FROM ({rows}) WHERE {' AND '.join(names) or 'true'}"


def _is_null(column: str, labels: Mapping[str, str]) -> bool:
    """Whether an alert is of events without a value in a column that tells its rule's apart."""
    return column in _COLUMNS and column not in labels


def _name(item: Node) -> str:
    return str(item.get("alias") or (item.get("column_names") or [""])[-1])


def _term(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    # The syntax of searches has quotes and backslashes.
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _line(row: tuple[object, ...]) -> str:
    time, *cells = row
    fields = (" ".join(str(cell).split()) for cell in cells if cell not in (None, ""))
    # ISO with milliseconds, as the table of events shows times.
    moment = time.isoformat(timespec="milliseconds") if hasattr(time, "isoformat") else str(time)
    return " ".join((moment.replace("+00:00", "Z"), *fields))[:_LENGTH_MAX]
