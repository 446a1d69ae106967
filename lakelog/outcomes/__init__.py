"""Outcome models: how probable a failure, or another outcome, of a decision is.

`train_model` learns one from the decisions of a recipe and their outcomes, and says whether it is
better than guessing; `predict` applies it to decisions whose outcome is not known yet; `models`
are those of a state.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.outcomes.evaluation import BaselineGain as BaselineGain
    from lakelog.outcomes.evaluation import OutcomeEvaluation as OutcomeEvaluation
    from lakelog.outcomes.model import OutcomeModel as OutcomeModel
    from lakelog.outcomes.model import find_model as find_model
    from lakelog.outcomes.model import models as models
    from lakelog.outcomes.prediction import Predictions as Predictions
    from lakelog.outcomes.prediction import predict as predict
    from lakelog.outcomes.prediction import prediction_events as prediction_events
    from lakelog.outcomes.training import train_model as train_model

__getattr__, __all__ = lazy_face(__name__)
