"""Applying a model: decisions without an outcome, each with the probability of one."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lakelog import train
from lakelog.lake import Lake
from lakelog.libraries import Floats, np
from lakelog.outcomes.drift import ROWS_MIN, Drift, drifts
from lakelog.outcomes.features import columns_of, matrix_of
from lakelog.outcomes.model import OutcomeModel, require_lake_alone

TYPE = "PREDICTION"
"""The type of events that predictions are recorded as."""
ROWS_MAX = 1_000_000


@dataclass(frozen=True)
class Prediction:
    """A decision without an outcome: its subject and time, the event's number, what was chosen, and
    the probability of the model's outcome."""

    subject: str
    time: datetime.datetime
    seq: int
    choice: str
    probability: float


@dataclass(frozen=True)
class Predictions:
    """What a model says of the decisions of a state, the most probable first. `drifted` are
    features that are not as they were in training; where there are any, `rows` is empty unless that
    was asked for. `is_judged` is whether there were enough decisions to say so."""

    rows: list[Prediction]
    drifted: list[Drift]
    is_judged: bool


def predict(
    lake: Lake, model: OutcomeModel, ref: str | None = None, *, despite_drift: bool = False
) -> Predictions:
    """Apply a model to the decisions that have no outcome yet, of the present state or that of a
    tag, branch, snapshot or time.

    Raises InvalidRecipe for a recipe that reads something else than the lake, ExportRefused.
    """
    recipe = train.load(model.recipe)
    require_lake_alone(lake, recipe)
    rows: list[Prediction] = []
    blocks: list[list[Floats]] = []
    for batch in train.undecided(lake, recipe, ref, keeps_sealed=True):  # as in training
        batch_rows = batch.to_pylist()
        columns = columns_of(model.features, batch_rows)
        blocks.append(columns)
        probabilities = model.probabilities(matrix_of(model.features, columns))
        rows += [
            Prediction(row["subject"], row["time"], row["__at"], row["chosen"], probability)
            for row, probability in zip(batch_rows, probabilities.tolist(), strict=True)
        ]
    if not rows:
        return Predictions([], [], False)
    columns = [np.concatenate(column) for column in zip(*blocks, strict=True)]
    drifted = drifts(model.features, model.profiles, columns)
    if drifted and not despite_drift:
        rows = []
    return Predictions(
        sorted(rows, key=lambda row: (-row.probability, row.seq)),
        drifted,
        len(columns[0]) >= ROWS_MIN,
    )


def prediction_events(model: OutcomeModel, rows: Iterable[Prediction]) -> list[dict[str, Any]]:
    """Return predictions as events of type PREDICTION. Their ids are the same however often a model
    is applied, so that each is stored once."""
    return [
        {
            "type": TYPE,
            "source": "lakelog predict",
            "id": hashlib.blake2b(
                f"{model.id} {row.subject} {row.seq}".encode(), digest_size=12
            ).hexdigest(),
            # That of the decision: a later one would end the windows of open decisions.
            "time": row.time,
            "message": f"{row.subject}: {model.outcome} {row.probability:.1%}",
            # Without a subject: models learn from the subject's history.
            "data": {
                "model": model.name,
                "model_id": model.id,
                "subject": row.subject,
                "decision": row.seq,
                "outcome": model.outcome,
                "probability": row.probability,
            },
        }
        for row in rows
    ]
