"""Recorded decisions: what they teach, and what a new version would have decided.

A `DecisionHistory` lists the points at which is decided, and says how each option does, what a
policy would have been worth, which option or setting is better; `recommendation_event` makes an
event of that. `compare` gives a challenger (`CommandChallenger`, `CallableChallenger`) the inputs
that a `Question` selects, and returns a `DecisionComparison` of its answers with the recorded ones.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.decisions.challengers import CallableChallenger as CallableChallenger
    from lakelog.decisions.challengers import CommandChallenger as CommandChallenger
    from lakelog.decisions.comparison import ContextGain as ContextGain
    from lakelog.decisions.comparison import DecisionComparison as DecisionComparison
    from lakelog.decisions.comparison import Question as Question
    from lakelog.decisions.comparison import compare as compare
    from lakelog.decisions.comparison import export_pairs as export_pairs
    from lakelog.decisions.history import DecisionHistory as DecisionHistory
    from lakelog.decisions.history import recommendation_event as recommendation_event
    from lakelog.decisions.intervals import Interval as Interval
    from lakelog.decisions.offpolicy import EFFECTIVE_MIN as EFFECTIVE_MIN
    from lakelog.decisions.recorded_answers import Recorded as Recorded

__getattr__, __all__ = lazy_face(__name__)
