"""Fitting a scorer with scikit-learn, and calibrating it on rows that it has not seen.

A logistic regression and boosted trees are fitted to the rows of train; the one with the smaller
Brier score on the rows of validation is taken. What is kept of them are the parameters that
scikit-learn documents, so that a model is applied without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lakelog.errors import MissingPackage
from lakelog.libraries import np
from lakelog.outcomes.scoring import Calibration, DecisionTree, LinearScorer, Scorer, TreeScorer
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import numpy.typing as npt

    from lakelog.outcomes.evaluation import Booleans
    from lakelog.outcomes.scoring import Floats
ensemble: Any = Lazy("sklearn.ensemble")
linear_model: Any = Lazy("sklearn.linear_model")

_TREES, _DEPTH, _RATE, _LEAF_ROWS = 60, 3, 0.1, 20
_CALIBRATION_MIN = 20
"""Rows with and without the outcome that a calibration needs."""


def require_library() -> None:
    """Raise MissingPackage where scikit-learn is not installed."""
    try:
        _ = linear_model.LogisticRegression
    except ImportError:
        raise MissingPackage(
            "training a model needs scikit-learn: pip install 'lakelog[analysis]'"
        ) from None


def fit(
    train: tuple[Floats, Booleans], validation: tuple[Floats, Booleans]
) -> tuple[Scorer, Calibration]:
    """Return the better scorer for matrices and outcomes of train and validation, calibrated.

    Both outcomes have to be among those of train."""
    scorers: Sequence[Scorer] = (_linear(*train), _trees(*train))
    # Without rows of validation, those of train decide: trees would always fit them better.
    if not len(validation[1]):
        return scorers[0], Calibration()
    calibrated = [
        (scorer, _calibration(scorer.log_odds(validation[0]), validation[1])) for scorer in scorers
    ]
    return min(calibrated, key=lambda pair: _brier(pair[0], pair[1], *validation))


def _brier(scorer: Scorer, calibration: Calibration, matrix: Floats, outcomes: Booleans) -> float:
    probabilities = calibration.probabilities(scorer.log_odds(matrix))
    return float(((probabilities - outcomes) ** 2).mean())


def _linear(matrix: Floats, outcomes: Booleans) -> LinearScorer:
    means, scales = matrix.mean(axis=0), matrix.std(axis=0)
    scales = np.where(scales > 1e-12, scales, 1.0)
    model = linear_model.LogisticRegression(C=1.0, max_iter=1_000)
    model.fit((matrix - means) / scales, outcomes)
    return LinearScorer(means, scales, model.coef_[0].astype(float), float(model.intercept_[0]))


def _trees(matrix: Floats, outcomes: Booleans) -> TreeScorer:
    model = ensemble.GradientBoostingClassifier(
        n_estimators=_TREES,
        max_depth=_DEPTH,
        learning_rate=_RATE,
        min_samples_leaf=_LEAF_ROWS,
        max_features="sqrt" if matrix.shape[1] > 40 else None,
        random_state=1,
    )
    model.fit(matrix, outcomes)
    share = float(outcomes.mean())
    bias = float(np.log(share / (1 - share)))
    trees = tuple(_tree(estimator.tree_) for estimator in model.estimators_[:, 0])
    return TreeScorer(trees, matrix.shape[1], bias)


def _tree(nodes: Any) -> DecisionTree:
    leaf = nodes.children_left == -1
    return DecisionTree(
        np.where(leaf, -1, nodes.feature).astype(np.int64),
        np.where(leaf, 0.0, nodes.threshold),
        np.where(leaf, 0, nodes.children_left).astype(np.int64),
        np.where(leaf, 0, nodes.children_right).astype(np.int64),
        np.where(leaf, nodes.value[:, 0, 0] * _RATE, 0.0),
    )


def _calibration(log_odds: Floats, outcomes: Booleans) -> Calibration:
    positives = int(outcomes.sum())
    if min(positives, len(outcomes) - positives) < _CALIBRATION_MIN:
        return Calibration()
    model = linear_model.LogisticRegression(C=1e6)
    column: npt.NDArray[np.float64] = log_odds[:, None]
    model.fit(column, outcomes)
    slope = float(model.coef_[0][0])
    # Validation of a model that tells nothing may turn it around by chance.
    return Calibration(slope, float(model.intercept_[0])) if slope > 0 else Calibration()
