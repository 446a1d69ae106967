"""The statement of FORMAT.md that outcome models rest on."""

from __future__ import annotations

import numpy as np

from lakelog.entries.entry import Record
from lakelog.moves.publication import Change, publish
from lakelog.outcomes import OutcomeModel, find_model, models
from tests.conftest import MakeLake

GAIN = {"name": "x", "brier": 0.25, "gain": 0.1, "low": 0.0, "high": 0.2}
NODES = [[0, -1, -1], [2.5, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1.5, -1.5]]
MEMBERS = {
    "outcome": "FAIL",
    "recipe": "",
    "snapshot": "s",
    "training_set": "t",
    "certificate": {"clean": True},
    "time": 1,
    "rows": {"train": 2},
    "features": [
        {"source": "column", "key": ["size"], "values": [], "fill": 1.0},
        {"source": "column", "key": ["source"], "values": ["a"], "fill": 0.0},
    ],
    "profiles": [{"edges": [1.0], "counts": [1, 1, 0]}, {"edges": [], "counts": [1, 1, 0]}],
    "importance": [0.1, 0.0],
    "scorer": {"form": "trees", "width": 4, "bias": 0.5, "trees": [NODES]},
    "calibration": [1.0, 0.0],
    "evaluation": {"rows": 2, "positives": 1, "brier": 0.2, "auc": 0.5}
    | {"majority": GAIN, "rule": GAIN},
}


def test_a_model_is_an_artifact_of_a_state(make_lake: MakeLake) -> None:
    """F6.24: the entry of a model has these members, means these probabilities, and is taken back
    by a rollback."""
    lake = make_lake()
    lake.append({"type": "x"})
    lake.tag("v1")
    entry = Record("artifact", "model/m", MEMBERS)
    publish(lake.store, "main", lambda _, __: Change("model", entries=(entry,)))
    model: OutcomeModel = find_model(lake, "m")
    assert model.entry() == entry
    matrix = np.array([[2.0, 0, 1, 0], [3.0, 0, 0, 1]])
    odds = np.log(1 / model.probabilities(matrix) - 1)
    assert np.allclose(odds, [-2.0, 1.0])
    lake.rollback("v1")
    assert models(lake) == []
    assert lake.verify().intact
