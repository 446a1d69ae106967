"""Recorded decisions: what they teach, and what a new version would have decided.

A `DecisionHistory` lists the points at which is decided, and says how each option does, what a
policy would have been worth, which option or setting is better; `recommendation_event` makes an
event of that. `compare` gives a challenger (`CommandChallenger`, `CallableChallenger`) the inputs
that a `Question` selects, and returns a `DecisionComparison` of its answers with the recorded ones.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.decisions.challengers import CallableChallenger, CommandChallenger
    from lakelog.decisions.comparison import (
        ContextGain,
        DecisionComparison,
        Question,
        compare,
        export_pairs,
    )
    from lakelog.decisions.history import DecisionHistory, recommendation_event
    from lakelog.decisions.intervals import Interval
    from lakelog.decisions.offpolicy import EFFECTIVE_MIN
    from lakelog.decisions.recorded_answers import Recorded

__all__ = [
    "EFFECTIVE_MIN",
    "CallableChallenger",
    "CommandChallenger",
    "ContextGain",
    "DecisionComparison",
    "DecisionHistory",
    "Interval",
    "Question",
    "Recorded",
    "compare",
    "export_pairs",
    "recommendation_event",
]

__getattr__ = lazy_face(
    __name__,
    challengers="CallableChallenger CommandChallenger",
    comparison="DecisionComparison ContextGain Question compare export_pairs",
    history="DecisionHistory recommendation_event",
    intervals="Interval",
    offpolicy="EFFECTIVE_MIN",
    recorded_answers="Recorded",
)
