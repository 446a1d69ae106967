"""Recorded decisions put to a new version of the code, prompt or model: a challenger.

`compare` gives a challenger (`CommandChallenger`, `CallableChallenger`) the inputs that a
`Question` selects, and returns a `DecisionComparison` of its answers with the recorded ones.
"""

from __future__ import annotations

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
    from lakelog.decisions.estimate import EFFECTIVE_MIN, Interval
    from lakelog.decisions.records import Recorded

__all__ = [
    "EFFECTIVE_MIN",
    "CallableChallenger",
    "CommandChallenger",
    "ContextGain",
    "DecisionComparison",
    "Interval",
    "Question",
    "Recorded",
    "compare",
    "export_pairs",
]

__getattr__ = lazy_face(
    __name__,
    {
        "challengers": "CallableChallenger CommandChallenger",
        "comparison": "DecisionComparison ContextGain Question compare export_pairs",
        "estimate": "EFFECTIVE_MIN Interval",
        "records": "Recorded",
    },
)
