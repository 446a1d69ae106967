"""Training a model: the set of a recipe, features of its train rows alone, and a test in time.

The set is that of `lakelog train export`: no group is on both sides, test begins at a cutoff before
which every training row and its outcome end, and a certificate says what leaks were looked for in
the finished files. With a leak there is no model.

A logistic regression and boosted trees are fitted to the rows of train; the one with the smaller
Brier score on the rows of validation is taken. What is kept of them are the parameters that
scikit-learn documents, so that a model is applied without it.
"""

from __future__ import annotations

import collections
import contextlib
import glob
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lakelog import train
from lakelog.disk import disk
from lakelog.erased import copies
from lakelog.errors import ExportRefused, InvalidRecipe, MissingPackage
from lakelog.lake import Lake
from lakelog.libraries import Booleans, Floats, Integers, np, pa, pq
from lakelog.outcomes.drift import profile_of
from lakelog.outcomes.evaluation import evaluate, importance, single_rule
from lakelog.outcomes.features import DecisionRow, choose_features, columns_of, matrix_of
from lakelog.outcomes.model import OutcomeModel, require_lake_alone, require_name, save
from lakelog.outcomes.scoring import Calibration, DecisionTree, LinearScorer, Scorer, TreeScorer
from lakelog.runtime.lazy import Lazy
from lakelog.sql import identifier, literal, member_paths
from lakelog.train import Recipe, TrainingExport

NO_OUTCOME = "none"
_MEMORY = "/dev/shm"
"""A file system that has its files in memory."""
ROWS_MAX = 50_000
"""Rows of a split that are learnt from or tested on, the latest."""
_BATCH_ROWS = 2_048
DECISIONS_MAX = 2 * ROWS_MAX
"""Decisions that are exported to learn from: of more, those of some of the subjects."""
POSITIVES_MIN = 20
"""Rows with the outcome, and without it, that train and test need."""


class SplitFiles:
    """The latest rows of a split, of a set that is in the order of their times. They are read anew
    each time: as Python has them, with what came before each, they take gigabytes."""

    def __init__(self, path: str, split: str) -> None:
        self._paths = sorted(glob.glob(f"{glob.escape(path)}/data/{split}-*.parquet"))
        self._total: int = sum(pq.read_metadata(path).num_rows for path in self._paths)

    def __len__(self) -> int:
        return min(self._total, ROWS_MAX)

    def __iter__(self) -> Iterator[DecisionRow]:
        for batch in self._batches(None):
            yield from batch.to_pylist()

    def names(self) -> list[str]:
        """The columns."""
        return [*pq.read_schema(self._paths[0]).names]

    def texts(self, name: str) -> list[str | None]:
        """The values of one column, as text."""
        values = (value for batch in self._batches([name]) for value in batch[name].to_pylist())
        return [None if value is None else str(value) for value in values]

    def _batches(self, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
        skipped = self._total - len(self)
        for path in self._paths:
            with pq.ParquetFile(path) as parquet:
                for batch in parquet.iter_batches(_BATCH_ROWS, columns=columns):
                    yield batch.slice(skipped)
                    skipped = max(skipped - len(batch), 0)


@dataclass(frozen=True)
class SplitRows:
    """The rows of a split as features have them."""

    columns: list[Floats]
    outcomes: Booleans
    groups: Integers


def train_model(
    lake: Lake, recipe: object, name: str | None = None, outcome: str | None = None
) -> OutcomeModel:
    """Train, test and save a model of the decisions of a recipe: of the shape `decision`, and with
    a temporal cutoff (`[split] before`). `outcome` is the type of the outcome event whose
    probability is learnt, by default the rarer of two.

    Raises InvalidRecipe, InvalidName, MissingPackage, and ExportRefused where the set leaks or has
    too few outcomes.
    """
    checked = train.load(recipe)
    name = name or checked.name
    require_name(name)
    _require_kind(checked)
    _require_plain(lake, checked)
    require_lake_alone(lake, checked)
    require_library()
    with _scratch(lake) as path:
        sampled = _sampled(lake, checked)
        # A model stays in the lake, with categories and ranges of values, when keys are destroyed.
        training_set = train.export(lake, sampled, path, model=name)
        if not training_set.certificate.clean:
            leaks = "; ".join(leak.words for leak in training_set.certificate.leaks)
            raise ExportRefused(f"{checked.where}: the set leaks, so there is no model: {leaks}")
        splits = {split: SplitFiles(training_set.path, split) for split in training_set.rows}
        model = _train_model(training_set, checked, splits, name, outcome)
    save(lake, model)
    return model


@contextlib.contextmanager
def _scratch(lake: Lake) -> Iterator[str]:
    """A path for the set to learn from, of which nothing is left, nor a note for erasures."""
    with contextlib.ExitStack() as stack:
        folder = tempfile.TemporaryDirectory(prefix="lakelog-predict-", dir=_folder(lake))
        path = f"{folder.name}/set"
        stack.callback(copies.CopyNote.of("training set", path).file(lake.store.paths).remove)
        stack.enter_context(folder)
        yield path


def _folder(lake: Lake) -> str | None:
    """Where the rows to learn from may be for a while, the usual folder if None. Raises
    ExportRefused."""
    if not lake.store.paths.is_sealed:
        return None
    # What is sealed in the lake must not be plain on a disk, where a killed process leaves it.
    if os.access(_MEMORY, os.W_OK):
        return _MEMORY
    raise ExportRefused(f"the lake at {lake.path} is encrypted, and there is no {_MEMORY} here")


def _require_kind(recipe: Recipe) -> None:
    if recipe.kind != "decision":
        raise InvalidRecipe(
            f"{recipe.where}: a model needs [shape] kind = 'decision', not {recipe.kind!r}"
        )
    if recipe.split["before"] is None:
        raise InvalidRecipe(
            f"{recipe.where}: a model is tested on what came later: set [split] before to a time"
        )


def _require_plain(lake: Lake, recipe: Recipe) -> None:
    """Refuse to learn from a protected field that a recipe names, which a model never sees."""
    protection, shape = lake.store.paths.protection, recipe.shape
    for path in (*(shape["keep"] or ()), shape["chosen"], shape["options"]):
        column, _, member = (path or "").partition(".")
        if column == "data" and protection and protection.covers(shape["decision"], member):
            raise InvalidRecipe(
                f"{recipe.where}: {path} is a protected field, and a model keeps words of what it"
                " learns: leave it out"
            )


def _sampled(lake: Lake, recipe: Recipe) -> Recipe:
    """The recipe, of some of the subjects where all have more decisions than are learnt from."""
    query, ref = recipe.select["sql"].strip().rstrip(";"), recipe.select["at"]
    state = lake.at(ref) if ref else lake
    decides = f"type = {literal(recipe.shape['decision'])}"
    count = state.sql(f"SELECT count(*) FROM ({query}\n) WHERE {decides}").fetchone()
    portions = -(-(count or (0,))[0] // DECISIONS_MAX)
    if portions <= 1:
        return recipe
    column, _, path = recipe.shape["by"].partition(".")
    subject = identifier(column)
    if path:
        members = (f"{subject} ->> {place}" for place in member_paths(path))
        subject = f"coalesce({', '.join(members)})"
    query = f"SELECT * FROM ({query}\n) WHERE md5_number(({subject})::VARCHAR) % {portions} = 0"
    return replace(recipe, select={**recipe.select, "sql": query})


def _train_model(
    training_set: TrainingExport,
    recipe: Recipe,
    splits: dict[str, SplitFiles],
    name: str,
    outcome: str | None,
) -> OutcomeModel:
    """Learn from the train rows of a set, and judge the model by its test rows."""
    # What is known of a decision is chosen from the train rows alone, and looked up in the others:
    # a choice that had seen the test rows would flatter the model.
    outcome = _chosen(splits["train"], recipe, outcome)
    features, columns = choose_features(splits["train"], splits["train"].names())
    if not features:
        raise ExportRefused(
            f"{recipe.where}: nothing is known before a decision: name columns in [shape] keep"
        )
    train_rows = _split(columns, splits["train"], recipe, outcome)
    validation, test = (
        _split(columns_of(features, splits[split]), splits[split], recipe, outcome)
        for split in ("validation", "test")
    )
    # Validation may lack one outcome: it only chooses between scorers and calibrates.
    for split, its_rows in (("train", train_rows), ("test", test)):
        _require_both(split, its_rows.outcomes, outcome, recipe)
    scorer, calibration = fit(
        (matrix_of(features, train_rows.columns), train_rows.outcomes),
        (matrix_of(features, validation.columns), validation.outcomes),
    )

    def score(columns: Sequence[Floats]) -> Floats:
        return calibration.probabilities(scorer.log_odds(matrix_of(features, columns)))

    rule = single_rule(features, train_rows.columns, train_rows.outcomes)
    evaluation = evaluate(
        score(test.columns),
        test.outcomes,
        test.groups,
        float(train_rows.outcomes.mean()),
        rule.probabilities(test.columns),
        rule.description,
    )
    return OutcomeModel(
        name=name,
        outcome=outcome,
        recipe=recipe.text,
        snapshot=training_set.snapshot,
        training_set=training_set.id,
        certificate=training_set.certificate.record(),
        time=disk.now_us(),
        rows={split: len(its_rows) for split, its_rows in splits.items()},
        features=features,
        profiles=tuple(
            profile_of(feature, column)
            for feature, column in zip(features, train_rows.columns, strict=True)
        ),
        importance=tuple(importance(score, test.columns, test.outcomes)),
        scorer=scorer,
        calibration=calibration,
        evaluation=evaluation,
    )


def _chosen(rows: SplitFiles, recipe: Recipe, outcome: str | None) -> str:
    """The outcome to learn."""
    counts = collections.Counter(_outcomes(rows))
    ordered = sorted(counts, key=lambda key: (counts[key], key))
    if outcome is not None and outcome in counts:
        return outcome
    listing = ", ".join(f"{key} ({counts[key]:,})" for key in reversed(ordered))
    if outcome is not None:
        raise ExportRefused(f"no training row has the outcome {outcome!r}: there are {listing}")
    if len(ordered) == 1:
        raise ExportRefused(
            f"{recipe.where}: the outcome of all training rows is {listing}: a model needs rows of"
            " another one, too; select more events, or name more outcomes in [shape] outcome"
        )
    if len(ordered) != 2:
        raise ExportRefused(f"{recipe.where}: say which --outcome is to be predicted: {listing}")
    return ordered[0]


def _outcomes(rows: SplitFiles) -> list[str]:
    return [NO_OUTCOME if value is None else value for value in rows.texts("outcome")]


def _split(columns: list[Floats], rows: SplitFiles, recipe: Recipe, outcome: str) -> SplitRows:
    group = recipe.split["group"]
    name = "subject" if group in (None, recipe.shape["by"]) else group.rpartition(".")[2]
    _, groups = np.unique(
        [json.dumps(str(value)) for value in rows.texts(name)], return_inverse=True
    )
    outcomes = np.array([value == outcome for value in _outcomes(rows)], dtype=bool)
    return SplitRows(columns, outcomes, groups)


def _require_both(split: str, outcomes: Booleans, outcome: str, recipe: Recipe) -> None:
    positives = int(outcomes.sum())
    if min(positives, len(outcomes) - positives) < POSITIVES_MIN:
        raise ExportRefused(
            f"{recipe.where}: {split} has {positives:,} of {len(outcomes):,} rows with {outcome}:"
            f" a model needs {POSITIVES_MIN} with it and {POSITIVES_MIN} without"
        )


ensemble: Any = Lazy("sklearn.ensemble")
linear_model: Any = Lazy("sklearn.linear_model")

_TREES, _DEPTH, _RATE, _LEAF_ROWS = 60, 3, 0.1, 20
_CALIBRATION_MIN = 20
"""Rows with and without the outcome that a calibration needs."""


def require_library() -> None:
    """Raise MissingPackage where scikit-learn is not installed."""
    with MissingPackage.unless("analysis", "training a model needs scikit-learn"):
        _ = linear_model.LogisticRegression


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
    column: Floats = log_odds[:, None]
    model.fit(column, outcomes)
    slope = float(model.coef_[0][0])
    # Validation of a model that tells nothing may turn it around by chance.
    return Calibration(slope, float(model.intercept_[0])) if slope > 0 else Calibration()
