"""Outcome models: how probable a failure, or another outcome, of a decision is.

`train_model` learns one from the decisions of a recipe and their outcomes, and says whether it is
better than guessing; `predict` applies it to decisions whose outcome is not known yet; `models`
are those of a state.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.outcomes.evaluation import BaselineGain, OutcomeEvaluation
    from lakelog.outcomes.model import OutcomeModel, find_model, models
    from lakelog.outcomes.prediction import Predictions, predict, prediction_events
    from lakelog.outcomes.training import train_model

__all__ = [
    "BaselineGain",
    "OutcomeEvaluation",
    "OutcomeModel",
    "Predictions",
    "find_model",
    "models",
    "predict",
    "prediction_events",
    "train_model",
]

__getattr__ = lazy_face(
    __name__,
    evaluation="BaselineGain OutcomeEvaluation",
    model="OutcomeModel find_model models",
    prediction="Predictions predict prediction_events",
    training="train_model",
)
