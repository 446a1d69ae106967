"""Outcome models: learnt on one side of a cutoff, judged on the other, applied to what is open."""

from __future__ import annotations

import dataclasses
import datetime
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import lakelog
from lakelog import train
from lakelog.cli import cli
from lakelog.entries.entry import Record
from lakelog.erased import copies
from lakelog.errors import DamagedManifest, ExportRefused, InvalidRecipe, UnknownRef
from lakelog.moves.publication import Change, publish
from lakelog.outcomes import (
    OutcomeModel,
    find_model,
    models,
    predict,
    prediction_events,
    train_model,
    training,
)
from lakelog.outcomes.scoring import Calibration
from tests.support import encrypted, protected
from tests.support.requirements import need

need("sklearn")
START, COUNT, OPEN = 1_780_012_800, 2_000, 60
CUTOFF = datetime.datetime.fromtimestamp(START + COUNT * 300 * 0.7, datetime.UTC).isoformat()
SQL = "SELECT * FROM events"
LATE = "SELECT * REPLACE (if(type = 'FAIL' AND seq % 2 = 0, 'LATE', type) AS type) FROM events"


def recipe(sql: str = SQL, **shape: Any) -> dict[str, Any]:
    shape = {
        "kind": "decision",
        "decision": "START",
        "chosen": "type",
        "outcome": ["COMPLETE", "FAIL"],
        "keep": ["source", "data.size"],
        "window": "5h",
        **shape,
    }
    split = {"train": 0.4, "validation": 0.1, "test": 0.5, "before": CUTOFF}
    return {"name": "failing", "select": {"sql": sql}, "shape": shape, "split": split}


def test_a_model_has_no_protected_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays when keys are destroyed: neither a recipe that names such a field nor one whose SQL
    reads it makes a model of it, and earlier events of a subject have none."""
    protected.keys_in(tmp_path, monkeypatch)
    sql = "SELECT *, data->>'plan' AS plan FROM events"
    learnt = recipe(sql, keep=["source", "data.size", "plan"])
    with lakelog.open(tmp_path / "lake") as lake:
        lake.protect(["plan", "waited"])
        events = list(items(0, COUNT, COUNT - OPEN))
        for event in events:
            plan = f"{protected.PLANTED}{int(event['subject'][4:]) % 2}"
            event["data"] = {**event["data"], "plan": plan, "waited": 31.25}
        lake.append(events)
        with pytest.raises(InvalidRecipe, match=r"data\.plan is a protected field"):
            train_model(lake, recipe(keep=["source", "data.plan"]))
        model = train_model(lake, learnt)
        assert {feature.key for feature in model.features} >= {("source",), ("size",)}
        assert not [f for f in model.features if {"plan", "waited"} & {*f.key}]
        assert len(predict(lake, model).rows) == OPEN
    assert encrypted.found(tmp_path / "lake", [protected.PLANTED, "31.25"]) == []


def items(first: int, last: int, ended: int, scale: float = 1.0) -> Iterator[dict[str, Any]]:
    """Items that begin, and end well or not, by their source, size and earlier retries. What comes
    after the beginning tells the outcome, too: a note, and the outcome itself."""
    dice = random.Random(first)
    for number in range(first, last):
        time = START + number * 300
        shared = {"source": dice.choice(["alpha", "beta", "gamma"]), "subject": f"item{number}"}
        size, retries = dice.lognormvariate(5, 1), dice.randrange(3)
        odds = 3 * (shared["source"] == "gamma") + 3 * (size > 150) + 2 * retries - 5
        code = int(dice.random() < 1 / (1 + math.exp(-odds)))
        for retry in range(retries):
            yield {"type": "RETRY", "time": time - 90 + retry, **shared, "data": {"wait": retry}}
        yield {"type": "START", "time": time, **shared, "data": {"size": size * scale}}
        yield {"type": "NOTE", "time": time + 9, **shared, "data": {"code": code}}
        if number < ended:
            outcome = "FAIL" if code else "COMPLETE"
            yield {"type": outcome, "time": time + 60, **shared, "data": {"code": code}}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lakelog.Lake]:
    path = tmp_path_factory.mktemp("outcomes") / "lake"
    with lakelog.open(str(path)) as lake:
        lake.append(list(items(0, COUNT, COUNT - OPEN)))
        lake.tag("untrained")
        train_model(lake, recipe())
        yield lake


@pytest.fixture(scope="module")
def model(lake: lakelog.Lake) -> OutcomeModel:
    return find_model(lake, "failing")


def test_a_model_beats_the_majority_and_the_best_single_rule(model: OutcomeModel) -> None:
    evaluation = model.evaluation
    assert model.outcome == "FAIL"
    assert evaluation.majority.verdict == "better"
    assert evaluation.rule.verdict == "better"
    assert evaluation.brier < evaluation.rule.brier < evaluation.majority.brier
    assert model.explained()[0][0] == "size"
    assert model.certificate["clean"]


def test_of_many_decisions_those_of_some_subjects_teach(
    lake: lakelog.Lake, model: OutcomeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lake of any size is learnt from in bounded memory, and the recipe stays what it was."""
    monkeypatch.setattr(training, "DECISIONS_MAX", 1_100)
    smaller = train_model(lake, recipe(), name="smaller")
    some, all_rows = (sum(m.rows.values()) for m in (smaller, model))
    assert 0.4 * all_rows < some < 0.6 * all_rows
    assert smaller.recipe == model.recipe
    assert smaller.evaluation.majority.verdict == "better"
    lake.rollback(lake.log()[1].move.snapshot)


def test_subjects_in_a_member_of_payloads_teach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of them, where they have more decisions than are learnt from."""
    monkeypatch.setattr(training, "DECISIONS_MAX", 1_100)
    events = list(items(0, COUNT, COUNT))
    for event in events:
        event["data"] = {**event["data"], "item": {"id": event.pop("subject")}}
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(events)
        model = train_model(lake, recipe(by="data.item.id"))
    assert 400 < sum(model.rows.values()) < 1_200


def test_nothing_after_a_decision_is_a_feature(model: OutcomeModel) -> None:
    """The planted note and the outcome tell everything; neither is known when a model is asked."""
    names = {feature.name for feature in model.features}
    assert {"source", "size", "earlier RETRY"} <= names
    assert not [name for name in names if "code" in name or "NOTE" in name or "reward" in name]
    assert model.evaluation.brier > 0.05


def test_a_selection_that_looks_ahead_makes_no_model(lake: lakelog.Lake) -> None:
    ahead = (
        "SELECT *, lead(data->>'code', CASE WHEN type = 'START' THEN 1 ELSE 0 END) OVER"
        " (PARTITION BY subject ORDER BY time) AS ahead FROM events ORDER BY seq"
    )
    with pytest.raises(ExportRefused, match=r"leaks.*ahead"):
        train_model(lake, recipe(ahead, keep=["source", "ahead"]), name="ahead")
    assert [model.name for model in models(lake)] == ["failing"]


def test_open_decisions_get_the_probability_of_the_outcome(
    lake: lakelog.Lake, model: OutcomeModel
) -> None:
    answer = predict(lake, model)
    assert {row.subject for row in answer.rows} == {f"item{n}" for n in range(COUNT - OPEN, COUNT)}
    truth = dict(
        lake.sql("SELECT subject, (data->>'code')::INT FROM events WHERE type = 'NOTE'").fetchall()
    )
    likely, unlikely = answer.rows[:20], answer.rows[-20:]
    assert sum(truth[row.subject] for row in likely) > sum(truth[row.subject] for row in unlikely)
    assert answer.is_judged
    assert answer.drifted == []


def test_predictions_are_recorded_once(tmp_path: Path, model: OutcomeModel) -> None:
    with lakelog.open(str(tmp_path / "lake")) as lake:
        lake.append(list(items(0, 60, 0)))
        for _ in range(2):
            lake.append(prediction_events(model, predict(lake, model).rows))
        counted = lake.sql("SELECT count(*) FROM events WHERE type = 'PREDICTION'").fetchone()
        assert counted == (60,)
        # They are no part of what models learn from.
        assert len(predict(lake, model).rows) == 60


def test_a_model_that_is_calibrated_otherwise_is_another(model: OutcomeModel) -> None:
    """Its predictions are recorded beside those of the first one."""
    calibrated = dataclasses.replace(model, calibration=Calibration(0.5, 0.0))
    assert calibrated.id != model.id


def test_a_model_is_refused_where_a_feature_has_drifted(
    tmp_path: Path, model: OutcomeModel
) -> None:
    with lakelog.open(str(tmp_path / "lake")) as lake:
        lake.append(list(items(5_000, 5_060, 0, scale=40)))
        answer = predict(lake, model)
        assert [drift.feature for drift in answer.drifted] == ["size"]
        assert answer.rows == []
        assert len(predict(lake, model, despite_drift=True).rows) == 60


def test_few_decisions_say_nothing_of_drift(tmp_path: Path, model: OutcomeModel) -> None:
    with lakelog.open(str(tmp_path / "lake")) as lake:
        assert predict(lake, model).rows == []
        lake.append(list(items(0, 10, 0, scale=40)))
        answer = predict(lake, model)
        assert (len(answer.rows), answer.is_judged, answer.drifted) == (10, False, [])


def test_a_model_belongs_to_the_states_that_have_it(lake: lakelog.Lake) -> None:
    assert models(lake, "untrained") == []
    with pytest.raises(UnknownRef, match="failing"):
        find_model(lake, "failin")
    with pytest.raises(UnknownRef, match="predict list"):
        find_model(lake, "failing", "untrained")


def test_what_a_model_learnt_from_is_no_training_set(lake: lakelog.Lake) -> None:
    """Its files are gone again, so nobody is told to clean them; a tag keeps its state, by which an
    erasure names the model."""
    trained = find_model(lake, "failing")
    assert train.exports(lake) == []
    assert lake.sql("SELECT * FROM events WHERE source = 'lakelog'").fetchall() == []
    assert copies.listing(lake.store.paths) == []
    tags = {tag.name: tag.snapshot for tag in lake.store.refs.tags()}
    assert tags[f"model-{trained.training_set}"] == trained.snapshot


@pytest.mark.parametrize(
    ("shape", "split", "words"),
    [
        ({}, {"before": None}, "before"),
        ({"kind": "events"}, {}, "kind = 'decision'"),
        ({"sql": LATE, "outcome": ["COMPLETE", "FAIL", "LATE"]}, {}, "--outcome"),
    ],
    ids=["no cutoff", "another shape", "three outcomes"],
)
def test_a_recipe_without_what_a_model_needs_is_refused(
    lake: lakelog.Lake, shape: dict[str, Any], split: dict[str, Any], words: str
) -> None:
    asked = recipe(**shape)
    if shape.get("kind") == "events":
        asked["shape"] = {"kind": "events"}
    asked["split"] = {n: v for n, v in {**asked["split"], **split}.items() if v is not None}
    with pytest.raises((InvalidRecipe, ExportRefused), match=words):
        train_model(lake, asked, name="refused")


def test_one_outcome_is_none_to_choose(lake: lakelog.Lake) -> None:
    """Where all rows came out alike the line says so, and asks for no name of an outcome."""
    good = "SELECT * FROM events WHERE subject IN (SELECT subject FROM events WHERE type = 'FAIL')"
    with pytest.raises(ExportRefused, match=r"of all training rows is FAIL \([0-9]+\): a model"):
        train_model(lake, recipe(good), name="refused")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd.csv'",
        "SELECT *, getenv('HOME') AS home FROM events",
    ],
    ids=["reader", "file", "environment"],
)
def test_a_recipe_reads_the_lake_alone(lake: lakelog.Lake, sql: str) -> None:
    with pytest.raises(InvalidRecipe, match="select"):
        train_model(lake, recipe(sql), name="reader")


def _planted(lake: lakelog.Lake, model: OutcomeModel, **members: Any) -> None:
    """Publish a model with other members, as somebody could who made the lake."""
    entry = model.entry()
    changed = Record(entry.entry_type, entry.key, {**entry.members, **members})
    publish(lake.store, lake.branch_name, lambda _, __: Change("model", entries=(changed,)))


@pytest.mark.parametrize(
    "scorer",
    [
        {"form": "pickle", "data": "gASV"},
        {"form": "linear", "means": [0], "scales": [0], "weights": [1], "bias": 0},
        {"form": "trees", "width": 10**9, "bias": 0, "trees": []},
        {"form": "trees", "width": 2, "bias": 0, "trees": [[[0], [0.5], [0], [0], [0]]]},
        {"form": "trees", "width": 2, "bias": 0, "trees": [[[7], [0.5], [1], [2], [0]]]},
        {"form": "linear", "means": ["1"], "scales": [1], "weights": [1], "bias": 0},
    ],
    ids=["pickle", "scale of 0", "too wide", "a loop", "no such column", "texts"],
)
def test_a_hostile_model_is_only_refused(
    tmp_path: Path, model: OutcomeModel, scorer: dict[str, Any]
) -> None:
    with lakelog.open(str(tmp_path / "lake")) as lake:
        _planted(lake, model, scorer=scorer)
        with pytest.raises(DamagedManifest):
            find_model(lake, "failing")


def test_the_recipe_of_a_hostile_model_is_not_run(tmp_path: Path, model: OutcomeModel) -> None:
    with lakelog.open(str(tmp_path / "lake")) as lake:
        lake.append(list(items(0, 5, 0)))
        _planted(
            lake, model, recipe=model.recipe.replace("FROM events", "FROM read_text('/etc/*')")
        )
        with pytest.raises(InvalidRecipe, match="read_text"):
            predict(lake, find_model(lake, "failing"))


def test_the_verb_trains_lists_shows_and_applies(lake: lakelog.Lake, tmp_path: Path) -> None:
    def run(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(cli, ["--lake", lake.path, "predict", *words])
        assert result.exit_code == code, result.output
        return result.stdout or result.stderr

    shown = run("show", "failing")
    assert "better than the majority" in shown
    assert "goes by: size" in shown
    assert '"outcome":"FAIL"' in run("list", "--json")
    path = tmp_path / "again.toml"
    path.write_text(run("show", "failing", "--recipe"))
    assert "FAIL" in run("train", str(path), "--name", "again", "--outcome", "FAIL")
    assert run("again", "-n", "3", "--format", "csv").count("\n") == 4
    assert "no model 'gain'" in run("gain", code=1)
    assert "--record" in run("again", "--record", "--at", "untrained", code=2)
    lake.tag("known")
    run("train", str(path), "--name", "again", "--outcome", "COMPLETE")
    assert '"outcome":"COMPLETE"' in run("again", "-n", "1", "--json")
    # A state is answered by its own model, as `show --at` has it.
    assert '"outcome":"FAIL"' in run("again", "-n", "1", "--json", "--at", "known")
    assert "no model 'again'" in run("again", "--at", "untrained", code=1)
