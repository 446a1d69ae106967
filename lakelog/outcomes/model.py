"""Outcome models in the manifest of a lake (FORMAT.md F6.24): data that is checked when it is read.

A model is an artifact of a state, so that it travels with the lake, and a rollback takes it back.
Its recipe is SQL that somebody wrote; it is run only while it reads the lake and nothing else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from lakelog.engine.syntax import SyntaxFault, parse
from lakelog.engine.volatility import FunctionCall
from lakelog.entries import Record
from lakelog.errors import InvalidName, InvalidRecipe, InvalidSetting, UnknownRef
from lakelog.lake import Lake
from lakelog.libraries import Floats
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.outcomes.drift import FeatureProfile
from lakelog.outcomes.evaluation import BaselineGain, OutcomeEvaluation
from lakelog.outcomes.features import SOURCES, Feature
from lakelog.outcomes.scoring import Calibration, Scorer, calibration_of, scorer_of
from lakelog.runtime.closest import did_you_mean
from lakelog.store import Store
from lakelog.train import Recipe
from lakelog.values import JsonObject

WHAT, PREFIX = "artifact", "model/"
BYTES_MAX = 400_000
"""Bytes of a model as JSON."""
_RESERVED = frozenset(("train", "list", "show", "apply"))
_FEATURES_MAX = 200


@dataclass(frozen=True)
class OutcomeModel:
    """A model: `outcome` is the type of the outcome event whose probability it gives, or `none` for
    no outcome within the window. `recipe` is TOML; `snapshot` and `training_set` say what it was
    learnt from, `certificate` what leaks were looked for. `importance` is how much the Brier score
    grows without a feature. `time` is in us."""

    name: str
    outcome: str
    recipe: str
    snapshot: str
    training_set: str
    certificate: JsonObject
    time: int
    rows: dict[str, int]
    features: tuple[Feature, ...]
    profiles: tuple[FeatureProfile, ...]
    importance: tuple[float, ...]
    scorer: Scorer
    calibration: Calibration
    evaluation: OutcomeEvaluation

    @property
    def id(self) -> str:
        """16 hex digits of all that decides what the model says."""
        scored = self.scorer.members(), [self.calibration.slope, self.calibration.shift]
        members = [self.outcome, self.recipe, *scored, self._features()]
        return hashlib.sha256(orjson.dumps(members)).hexdigest()[:16]

    @property
    def form(self) -> str:
        """What kind of scorer it has, for people."""
        is_linear = self.scorer.members()["form"] == "linear"
        return "logistic regression" if is_linear else "boosted trees"

    def explained(self) -> list[tuple[str, float]]:
        """Return the features that matter with their importance, the largest first."""
        pairs = zip(self.features, self.importance, strict=True)
        growths = [(feature.name, growth) for feature, growth in pairs if growth > 0]
        return sorted(growths, key=lambda pair: -pair[1])

    def probabilities(self, matrix: Floats) -> Floats:
        """Return the probability of the outcome for each row of a matrix of the features."""
        return self.calibration.probabilities(self.scorer.log_odds(matrix))

    def entry(self) -> Record:
        """The manifest entry of the model. Raises InvalidSetting where it would be too large."""
        members = {
            "outcome": self.outcome,
            "recipe": self.recipe,
            "snapshot": self.snapshot,
            "training_set": self.training_set,
            "certificate": self.certificate,
            "time": self.time,
            "rows": self.rows,
            "features": self._features(),
            "profiles": [dataclasses.asdict(profile) for profile in self.profiles],
            "importance": list(self.importance),
            "scorer": self.scorer.members(),
            "calibration": [self.calibration.slope, self.calibration.shift],
            "evaluation": dataclasses.asdict(self.evaluation),
        }
        plain: JsonObject = orjson.loads(orjson.dumps(members))
        if len(orjson.dumps(plain)) > BYTES_MAX:
            raise InvalidSetting(f"model {self.name!r} is too large: let the recipe keep less")
        return Record(WHAT, PREFIX + self.name, plain)

    def _features(self) -> list[JsonObject]:
        return [dataclasses.asdict(feature) for feature in self.features]

    @classmethod
    def from_entry(cls, record: Record) -> OutcomeModel:
        """Return the model that an entry holds. Raises KeyError, AttributeError, TypeError or
        ValueError where it is malformed."""
        m = record.members
        if len(orjson.dumps(m)) > BYTES_MAX or len(m["features"]) > _FEATURES_MAX:
            raise ValueError("a model is smaller")
        features = tuple(_feature(members) for members in m["features"])
        scorer = scorer_of(m["scorer"])
        if scorer.width != sum(feature.width for feature in features):
            raise ValueError("the scorer reads other columns")
        profiles = tuple(_profile(members) for members in m["profiles"])
        importance = tuple(map(float, m["importance"]))
        if not len(profiles) == len(importance) == len(features):
            raise ValueError("each feature has a profile and an importance")
        texts = {n: _text(m[n]) for n in ("outcome", "recipe", "snapshot", "training_set")}
        return cls(
            name=record.key.removeprefix(PREFIX),
            certificate=dict(m["certificate"]),
            time=int(m["time"]),
            rows={_text(split): int(rows) for split, rows in m["rows"].items()},
            features=features,
            profiles=profiles,
            importance=importance,
            scorer=scorer,
            calibration=calibration_of(m["calibration"]),
            evaluation=_evaluation(m["evaluation"]),
            **texts,
        )


def require_name(name: str) -> None:
    """Raise InvalidName for a name that a model cannot have."""
    if not name or len(name) > 60 or name in _RESERVED or not name.isprintable() or name[0] == "-":
        raise InvalidName(f"{name!r} is no name of a model: choose another with --name")


def save(lake: Lake, model: OutcomeModel) -> None:
    """Publish a model, in place of one of its name."""
    entry = model.entry()
    publish(
        lake.store,
        lake.branch_name,
        lambda _, __: Change("model", f"train {model.name}", entries=(entry,)),
    )


def models(lake: Lake, ref: str | None = None) -> list[OutcomeModel]:
    """Return the models of the present state, or of a tag, branch, snapshot or time, by their
    names. Raises UnknownRef, and DamagedManifest for one that is malformed."""
    store, state = _state(lake, ref)
    return sorted(_read(store, state), key=lambda model: model.name)


def find_model(lake: Lake, name: str, ref: str | None = None) -> OutcomeModel:
    """Return the model of a name, of the present state or of an earlier one. Raises UnknownRef,
    DamagedManifest."""
    store, state = _state(lake, ref)
    record = store.manifests.find(state, WHAT, PREFIX + name)
    if record is None:
        near = did_you_mean(name, [model.name for model in _read(store, state)])
        raise UnknownRef(f"no model {name!r}: {near or 'see `lakelog predict list`'}")
    return next(_read(store, state, record.key))


def _state(lake: Lake, ref: str | None) -> tuple[Store, Manifest]:
    digest = (
        lake.store.refs.head(lake.branch_name).move.snapshot if ref is None else lake.at(ref).id
    )
    return lake.store, lake.store.manifests.load(digest)


def _read(store: Store, state: Manifest, key: str = "") -> Iterator[OutcomeModel]:
    def decoded(record: Record) -> list[OutcomeModel]:
        is_wanted = record.key == key if key else record.key.startswith(PREFIX)
        return [OutcomeModel.from_entry(record)] if is_wanted else []

    return itertools.chain.from_iterable(store.manifests.read_records(state, WHAT, decoded))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text")
    return value


def _feature(members: JsonObject) -> Feature:
    source = members["source"]
    if source not in SOURCES:
        raise ValueError("a known source")
    key, values = (tuple(map(_text, members[name])) for name in ("key", "values"))
    if len(key) != {"column": 1, "count": 1, "field": 2}.get(source, 0):
        raise ValueError("as many names as the source needs")
    return Feature(source, key, values, float(members["fill"]))


def _profile(members: JsonObject) -> FeatureProfile:
    edges, counts = tuple(map(float, members["edges"])), tuple(map(int, members["counts"]))
    return FeatureProfile(edges, counts)


def _evaluation(members: JsonObject) -> OutcomeEvaluation:
    compared = {name: BaselineGain(**members[name]) for name in ("majority", "rule")}
    return OutcomeEvaluation(**{**members, **compared})


def require_lake_alone(lake: Lake, recipe: Recipe) -> None:
    """Raise InvalidRecipe where the query of a recipe reads a file or a server, asks about the
    process, or has an effect."""
    # A model may have come with a lake from anywhere: a file that its SQL names would be read where
    # the model is applied.
    try:
        tree = parse(lake.engine().cursor(), recipe.select["sql"])
    except SyntaxFault as fault:
        raise InvalidRecipe(f"{recipe.where}: [select] sql: {fault}") from None
    if reason := FunctionCall.first_foreign(tree):
        raise InvalidRecipe(f"{recipe.where}: [select] sql of a model: {reason}")
