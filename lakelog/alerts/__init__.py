"""Rules over the events of a lake, and who is told when one fires: see docs/alerts.md.

An `AlertRule` is kept in the lake. `evaluating` gives what asks rules and tells receivers, one
process at a time; `overview` says how rules, alerts and receivers stand. `RuleBook` adds, removes
and tries rules, and silences alerts.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.alerts.rounds import Evaluator as Evaluator
    from lakelog.alerts.rounds import evaluate_when_free as evaluate_when_free
    from lakelog.alerts.rounds import evaluating as evaluating
    from lakelog.alerts.rule import CLOCKS as CLOCKS
    from lakelog.alerts.rule import SEVERITIES as SEVERITIES
    from lakelog.alerts.rule import AlertRule as AlertRule
    from lakelog.alerts.rulebook import RuleBook as RuleBook
    from lakelog.alerts.rulebook import glance as glance
    from lakelog.alerts.rulebook import history as history
    from lakelog.alerts.rulebook import overview as overview

__getattr__, __all__ = lazy_face(__name__)
