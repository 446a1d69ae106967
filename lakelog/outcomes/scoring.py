"""Scorers: what turns a row of numbers into a probability. They are data and no code.

A `LinearScorer` is a logistic regression, a `TreeScorer` boosted decision trees; both give
log-odds, which `Calibration` turns into probabilities. Their parameters are lists of numbers in
JSON, read here with every number checked: a lake may come from anywhere, and a model of it must not
be able to do more than be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lakelog.libraries import Floats, Integers, np
from lakelog.values import JsonObject

LEAF = -1
TREES_MAX, NODES_MAX, WIDTH_MAX = 200, 127, 5_000
_LARGEST = 1e30


@dataclass(frozen=True)
class LinearScorer:
    """Log-odds are `bias` and the sum of `weights` times the columns, after subtracting `means` and
    dividing by `scales`."""

    means: Floats
    scales: Floats
    weights: Floats
    bias: float

    @property
    def width(self) -> int:
        """How many columns it reads."""
        return len(self.weights)

    def log_odds(self, matrix: Floats) -> Floats:
        """Return the log-odds of each row."""
        odds: Floats = ((matrix - self.means) / self.scales) @ self.weights + self.bias
        return odds

    def members(self) -> JsonObject:
        """The parameters as JSON."""
        arrays = {"means": self.means, "scales": self.scales, "weights": self.weights}
        return {
            "form": "linear",
            "bias": self.bias,
            **{name: array.tolist() for name, array in arrays.items()},
        }

    @classmethod
    def from_members(cls, members: JsonObject) -> LinearScorer:
        """Return the scorer of JSON. Raises KeyError, TypeError or ValueError."""
        means, scales, weights = (_numbers(members[n]) for n in ("means", "scales", "weights"))
        if not 0 < len(weights) <= WIDTH_MAX or not len(means) == len(scales) == len(weights):
            raise ValueError("as many means and scales as weights")
        if (scales <= 0).any():
            raise ValueError("a scale is above 0")
        return cls(means, scales, weights, float(_numbers([members["bias"]])[0]))


@dataclass(frozen=True)
class DecisionTree:
    """Nodes by their number, the root first: the column that one compares, or LEAF; a row goes
    `left` if its value is at most the threshold, else `right`; `value` is what a leaf adds."""

    column: Integers
    threshold: Floats
    left: Integers
    right: Integers
    value: Floats

    def values(self, matrix: np.ndarray) -> Floats:
        """Return the value of the leaf that each row comes to."""
        rows = np.arange(len(matrix))
        nodes = np.zeros(len(matrix), np.int64)
        # A child has a larger number than its parent, so this ends.
        while (inner := self.column[nodes] != LEAF).any():
            at, of_row = nodes[inner], rows[inner]
            goes_left = matrix[of_row, self.column[at]] <= self.threshold[at]
            nodes[inner] = np.where(goes_left, self.left[at], self.right[at])
        leaf_values: Floats = self.value[nodes]
        return leaf_values

    def members(self) -> list[list[float]]:
        """The nodes as JSON: a list for each attribute."""
        arrays = (self.column, self.threshold, self.left, self.right, self.value)
        return [array.tolist() for array in arrays]

    @classmethod
    def from_members(cls, members: Any, width: int) -> DecisionTree:
        """Return the tree of JSON that reads as many columns as `width`. Raises TypeError or
        ValueError."""
        column, threshold, left, right, value = (_numbers(numbers) for numbers in members)
        count = len(column)
        if not 0 < count <= NODES_MAX or any(
            len(a) != count for a in (threshold, left, right, value)
        ):
            raise ValueError("a tree has as many thresholds, children and values as nodes")
        nodes = np.arange(count)
        inner = column != LEAF
        if ((column < LEAF) | (column >= width)).any():
            raise ValueError("a tree compares columns that there are")
        for child in (left[inner], right[inner]):
            if ((child <= nodes[inner]) | (child >= count)).any():
                raise ValueError("a child comes after its parent")
        integers = (array.astype(np.int64) for array in (column, left, right))
        columns, lefts, rights = integers
        return cls(columns, threshold, lefts, rights, value)


@dataclass(frozen=True)
class TreeScorer:
    """Log-odds are `bias` and the sum of the trees' values."""

    trees: tuple[DecisionTree, ...]
    width: int
    bias: float

    def log_odds(self, matrix: Floats) -> Floats:
        """Return the log-odds of each row."""
        single = matrix.astype(np.float32)
        odds = np.full(len(matrix), self.bias)
        for tree in self.trees:
            odds += tree.values(single)
        return odds

    def members(self) -> JsonObject:
        """The parameters as JSON."""
        trees = [tree.members() for tree in self.trees]
        return {"form": "trees", "bias": self.bias, "width": self.width, "trees": trees}

    @classmethod
    def from_members(cls, members: JsonObject) -> TreeScorer:
        """Return the scorer of JSON. Raises KeyError, TypeError or ValueError."""
        width, trees = members["width"], members["trees"]
        if not isinstance(width, int) or not 0 < width <= WIDTH_MAX or len(trees) > TREES_MAX:
            raise ValueError("too many trees or columns")
        bias = float(_numbers([members["bias"]])[0])
        return cls(tuple(DecisionTree.from_members(t, width) for t in trees), width, bias)


Scorer = LinearScorer | TreeScorer
_FORMS: dict[str, type[LinearScorer] | type[TreeScorer]] = {
    "linear": LinearScorer,
    "trees": TreeScorer,
}


@dataclass(frozen=True)
class Calibration:
    """Turns log-odds into probabilities: the logistic function of slope times log-odds plus shift
    (Platt, 1999)."""

    slope: float = 1.0
    shift: float = 0.0

    def probabilities(self, log_odds: Floats) -> Floats:
        """Return a probability for each of some log-odds."""
        scaled = np.clip(self.slope * log_odds + self.shift, -30.0, 30.0)
        probabilities: Floats = 1.0 / (1.0 + np.exp(-scaled))
        return probabilities


def scorer_of(members: JsonObject) -> Scorer:
    """Return the scorer of JSON. Raises KeyError, TypeError or ValueError where it is none."""
    return _FORMS[members["form"]].from_members(members)


def calibration_of(members: Sequence[float]) -> Calibration:
    """Return the calibration of JSON. Raises TypeError or ValueError where it is none."""
    slope, shift = _numbers(members).tolist()
    return Calibration(slope, shift)


def _numbers(values: Any) -> Floats:
    if not isinstance(values, list) or any(type(value) not in (int, float) for value in values):
        raise TypeError("a list of numbers")
    array = np.array(values, dtype=np.float64)
    if not (np.abs(array) <= _LARGEST).all():
        raise ValueError("numbers are finite")
    return array
