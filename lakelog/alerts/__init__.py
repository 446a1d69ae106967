"""Rules over the events of a lake, and who is told when one fires: see docs/alerts.md.

An `AlertRule` is kept in the lake. `evaluating` gives what asks rules and tells receivers, one
process at a time; `overview` says how rules, alerts and receivers stand. `RuleBook` adds, removes
and tries rules, and silences alerts.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.alerts.rounds import Evaluator, evaluate_when_free, evaluating
    from lakelog.alerts.rule import CLOCKS, SEVERITIES, AlertRule
    from lakelog.alerts.rulebook import RuleBook, glance, history, overview

__all__ = [
    "CLOCKS",
    "SEVERITIES",
    "AlertRule",
    "Evaluator",
    "RuleBook",
    "evaluate_when_free",
    "evaluating",
    "glance",
    "history",
    "overview",
]

__getattr__ = lazy_face(
    __name__,
    rounds="Evaluator evaluate_when_free evaluating",
    rule="CLOCKS SEVERITIES AlertRule",
    rulebook="RuleBook glance history overview",
)
