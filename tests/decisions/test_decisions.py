"""Recorded decisions put to a challenger: what changes, and what that would have been worth."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import lakelog
import lakelog.train as train
from lakelog.cli import cli
from lakelog.decisions import (
    CallableChallenger,
    CommandChallenger,
    DecisionComparison,
    DecisionHistory,
    Question,
    Recorded,
    compare,
    export_pairs,
)
from lakelog.errors import InvalidSetting, LakelogError, QueryFailed
from tests.support.effort import share

RUNS = int(os.environ.get("LAKELOG_DECISION_RUNS", share(100)))
SUCCESS = {"timeout": {"retry": 0.8, "ask": 0.5}, "quota": {"retry": 0.2, "ask": 0.7}}
BETTER = {"timeout": "retry", "quota": "ask"}


def better(recorded: dict[str, Any]) -> str:
    return BETTER[recorded["context"]["failure"]]


def generated(
    count: int, seed: int, *, has_propensity: bool = False
) -> tuple[list[dict[str, Any]], float]:
    """Decisions of a policy that retries too often, and what the better one gains in truth."""
    rng, generated_events, gain = random.Random(seed), list[dict[str, Any]](), 0.0
    for number in range(count):
        failure = rng.choice(["timeout", "quota"])
        retries = 0.7 if failure == "timeout" else 0.6
        chosen = "retry" if rng.random() < retries else "ask"
        chances = SUCCESS[failure]
        gain += chances[BETTER[failure]] - chances[chosen]
        members: dict[str, Any] = {
            "decision_id": f"{seed}-{number}",
            "failure": failure,
            "chosen": chosen,
        }
        members |= {"options": ["retry", "ask"], "decision_point": "repair"}
        if has_propensity:
            members["propensity"] = retries if chosen == "retry" else 1 - retries
        event = {"type": "decision", "subject": f"s{rng.randrange(count // 2)}", "data": members}
        reward = float(rng.random() < chances[chosen])
        outcome = {"decision_id": f"{seed}-{number}", "outcome": "done", "reward": reward}
        generated_events += [
            event,
            {"type": "outcome", "subject": event["subject"], "data": outcome},
        ]
    return generated_events, gain / count


@pytest.fixture
def lake(home: Path) -> Iterator[lakelog.Lake]:
    with lakelog.open(home / "lake") as lake:
        lake.append(generated(600, 1)[0])
        yield lake


def gain_of(lake: lakelog.Lake, question: Question | None = None) -> DecisionComparison:
    return compare(lake, CallableChallenger(better), question or Question(by=("failure",)))


@pytest.mark.parametrize("has_propensity", [True, False])
def test_a_better_policy_is_found_with_an_interval_that_holds_the_truth(
    home: Path, has_propensity: bool
) -> None:
    """In 93 of 100 runs at least: by propensities, and by matched contexts."""
    held = found = 0
    for seed in range(RUNS):
        events, truth = generated(400, seed, has_propensity=has_propensity)
        with lakelog.open(home / f"lake-{seed}") as lake:
            lake.append(events)
            comparison = gain_of(lake)
        assert comparison.has_propensities is has_propensity
        gain = comparison.overall.gain
        assert gain is not None
        held += gain.low <= truth <= gain.high
        found += comparison.overall.verdict == "win"
    assert held >= RUNS - max(7 * RUNS // 100, 1)
    assert found >= RUNS - max(RUNS // 100, 1)


def test_a_propensity_is_read_as_by_the_estimate_of_a_policy(home: Path) -> None:
    """As text, or by its other name where this one is empty."""
    events = generated(40, 1, has_propensity=True)[0]
    for members in (event["data"] for event in events[::2]):
        members["probability"] = str(members["propensity"])
        members["propensity"] = None
    with lakelog.open(home / "lake") as lake:
        lake.append(events)
        assert gain_of(lake).has_propensities
        assert DecisionHistory(lake).estimate("repair", "ask").has_propensities


def test_a_decision_without_an_outcome_needs_no_propensity(home: Path) -> None:
    """Neither here nor by the estimate of a policy: it weighs nothing."""
    events = [
        event
        for n in range(40)
        for event in (
            {
                "type": "decision",
                "data": {"decision_id": f"{n}", "chosen": "ab"[n % 2], "propensity": 0.5},
            },
            {"type": "outcome", "data": {"decision_id": f"{n}", "reward": n % 2}},
        )
    ]
    with lakelog.open(home / "lake") as lake:
        lake.append([*events, {"type": "decision", "data": {"decision_id": "x", "chosen": "a"}}])
        estimate = DecisionHistory(lake).estimate("", "b")
        comparison = compare(lake, CallableChallenger(lambda _: "b"))
    assert comparison.has_propensities
    assert estimate.has_propensities


def test_agreements_changes_wins_and_losses_are_counted(lake: lakelog.Lake) -> None:
    """By hand, and by context."""
    comparison = gain_of(lake)
    rows = lake.sql(
        "SELECT data->>'failure', data->>'chosen' FROM events WHERE type = 'decision'"
    ).fetchall()
    changes = sum(BETTER[failure] != chosen for failure, chosen in rows)
    assert (comparison.decisions, comparison.rated, comparison.changes) == (600, 600, changes)
    assert comparison.agreements.low < comparison.agreements.mean < comparison.agreements.high
    assert (comparison.wins, comparison.losses) == (changes, 0)
    assert {each.context for each in comparison.contexts} == {"timeout", "quota"}
    assert sum(each.decisions for each in comparison.contexts) == 600
    worse = compare(
        lake,
        CallableChallenger(lambda i: "ask" if better(i) == "retry" else "retry"),
        Question(by=("failure",)),
    )
    assert (worse.wins, worse.overall.verdict) == (0, "loss")
    assert worse.changes == comparison.decisions - changes


def test_the_same_answers_gain_nothing(lake: lakelog.Lake) -> None:
    """Exactly, and without an interval of doubt: every outcome is known."""
    chosen = dict(lake.sql("SELECT decision_id, chosen FROM decisions").fetchall())
    comparison = compare(lake, CallableChallenger(lambda i: {"chosen": chosen[i["id"]]}))
    assert (comparison.changes, comparison.pairs) == (0, ())
    gain = comparison.overall.gain
    assert gain is not None
    assert (gain.mean, gain.low, gain.high) == pytest.approx((0, 0, 0))


def test_values_with_commas_make_no_context_of_two(home: Path) -> None:
    """Nor does a number and its text."""
    pairs = [("a, b", "c"), ("a", "b, c"), (1, "c"), ("1", "c")]
    with lakelog.open(home / "lake") as lake:
        lake.append(
            {"type": "decision", "data": {"decision_id": f"{n}", "chosen": "x", "p": p, "q": q}}
            for n, (p, q) in enumerate(pairs * 5)
        )
        comparison = compare(lake, CallableChallenger(lambda _: "x"), Question(by=("p", "q")))
    assert sorted((c.context, c.decisions) for c in comparison.contexts) == [
        *[("1, c", 5)] * 2,
        *[("a, b, c", 5)] * 2,
    ]


@pytest.mark.parametrize("name", ["plan", "user.tier", "a.b", "context.plan"])
def test_members_are_found_where_the_history_of_decisions_finds_them(home: Path, name: str) -> None:
    """By name or path, also within the context that a decision itself names."""
    with lakelog.open(home / "lake") as lake:
        for plan in ("free", "paid", "free"):
            context = {"plan": plan, "user": {"tier": plan}}
            data = {"chosen": "x", "a.b": plan, "context": context}
            lake.append({"type": "decision", "data": data})
        report = DecisionHistory(lake).report("", members=(name,))
        comparison = compare(lake, CallableChallenger(lambda _: "x"), Question(by=(name,)))
    wanted = {rate.context[name]: rate.decisions for rate in report.contexts}
    assert {c.context: c.decisions for c in comparison.contexts} == wanted == {"free": 2, "paid": 1}


def test_a_member_that_no_decision_has_is_refused(tmp_path: Path) -> None:
    """As a name that is mistyped, before anybody is asked: all would be one context."""
    asked = list[object]()
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(generated(20, 1)[0])
        with pytest.raises(InvalidSetting, match="none of the decisions has 'faliure'"):
            compare(lake, CallableChallenger(asked.append), Question(by=("failure", "faliure")))
    assert asked == []


def test_one_long_answer_takes_its_own_room_only(home: Path) -> None:
    """An array of texts that were all as long as the longest would take 9 GB."""
    with lakelog.open(home / "lake") as lake:
        lake.append(
            event
            for number in range(2_000)
            for chosen in ("long" * 150_000 if number == 7 else "short",)
            for event in (
                {"type": "decision", "data": {"decision_id": f"{number}", "chosen": chosen}},
                {"type": "outcome", "data": {"decision_id": f"{number}", "reward": 1}},
            )
        )
        comparison = compare(lake, CallableChallenger(lambda _: "short"))
    assert (comparison.changes, comparison.rated) == (1, 2_000)
    assert comparison.overall.verdict == "undecided"


def test_without_overlap_nothing_is_claimed(lake: lakelog.Lake) -> None:
    """An answer that was never recorded, and contexts that never repeat."""
    comparison = compare(lake, CallableChallenger(lambda _: "new"), Question(by=("failure",)))
    assert comparison.overall.gain is None
    assert comparison.overall.verdict == "not enough overlap"
    assert (comparison.overall.left_out, comparison.pairs) == (600, ())
    assert gain_of(lake, Question(by=("id",))).overall.gain is None


def test_a_challenger_sees_no_answer_and_nothing_of_the_outcome(lake: lakelog.Lake) -> None:
    """Only what was known before the decision."""
    inputs: list[dict[str, Any]] = []
    compare(lake, CallableChallenger(lambda i: inputs.append(i)))
    assert len(inputs) == 600
    names = {"id", "point", "time", "subject", "message", "options", "context"}
    assert {frozenset(i) for i in inputs} == {frozenset(names)}
    assert {frozenset(i["context"]) for i in inputs} == {frozenset({"failure"})}


def test_pairs_name_their_events_and_become_a_training_set(lake: lakelog.Lake, home: Path) -> None:
    """Columns are those of a training set of preferences; each pair is of a change."""
    comparison = gain_of(lake)
    export_pairs(lake, comparison, home / "pairs.jsonl")
    pairs = [json.loads(line) for line in (home / "pairs.jsonl").read_text().splitlines()]
    assert len(pairs) == comparison.changes
    for pair in pairs:
        failure = json.loads(pair["prompt"])["context"]["failure"]
        assert (pair["chosen"], pair["rejected"]) == (BETTER[failure], pair["recorded"])
        assert pair["chosen_score"] > pair["rejected_score"]
    recorded = lake.sql("SELECT seq, data->>'decision_id' FROM events").fetchall()
    assert {(pair["seq"], pair["event_id"]) for pair in pairs} <= set(recorded)
    with lakelog.open(home / "pairs") as pairs_lake:
        pairs_lake.append([{"type": "pair", "data": pair} for pair in pairs])
        recipe = {
            "select": {"sql": "SELECT * FROM events"},
            "shape": {"kind": "preference"}
            | {name: f"data.{name}" for name in ("prompt", "chosen", "rejected")},
            "dedupe": {"near": False},
        }
        assert sum(train.export(pairs_lake, recipe, str(home / "set")).rows.values()) > 0


def test_calls_of_models_are_compared_by_the_outcome_of_their_trace(home: Path) -> None:
    """The prompt is the input, what the model said is the answer."""
    with lakelog.open(home / "lake") as lake:
        for number in range(80):
            trace, text = f"{number:032x}", "good" if number % 2 else "bad"
            message = {"role": "assistant", "parts": [{"type": "text", "content": text}]}
            attributes = {
                "gen_ai.request.model": "m",
                "gen_ai.input.messages": [{"role": "user", "parts": []}],
                "gen_ai.output.messages": [message],
            }
            decision = {"decision_id": f"d{number}", "chosen": "m", "traceId": trace}
            outcome = {"decision_id": f"d{number}", "reward": float(text == "good")}
            lake.append(
                [
                    {"type": "span", "data": {"traceId": trace, "attributes": attributes}},
                    {"type": "decision", "data": decision},
                    {"type": "outcome", "data": outcome},
                ]
            )
        question = Question(recorded=Recorded.CALLS)
        comparison = compare(lake, CallableChallenger(lambda _: "good"), question)
    assert (comparison.decisions, comparison.rated, comparison.changes) == (80, 80, 40)
    assert comparison.overall.verdict == "win"
    assert {(pair["chosen"], pair["rejected"]) for pair in comparison.pairs} == {("good", "bad")}


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("exit 3", "ended with 3 after 0 of 600 answers"),
        ("cat > /dev/null; exit 4", "ended with 4 after 0"),
        ("head -n 5", "wrote 5 answers to 600 inputs: one line for each"),
        ("cat; echo 1", "wrote more answers than the 600 inputs"),
        ("echo nonsense; cat > /dev/null", "wrote line 1, which is not JSON: 'nonsense'"),
        ("sleep 100 & sleep 100", "wrote nothing for 0.3 seconds"),
        ("no-such-command-here", "ended with 127"),
    ],
)
def test_a_command_that_fails_is_one_clear_line(
    lake: lakelog.Lake, command: str, complaint: str
) -> None:
    """And nothing of it is left running."""
    start = time.monotonic()
    with pytest.raises(LakelogError, match=complaint) as caught:
        compare(lake, CommandChallenger(command, 0.3))
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 9


def test_what_cannot_be_compared_is_said(lake: lakelog.Lake, home: Path) -> None:
    """Nothing recorded, and a reward that is no SQL."""
    with pytest.raises(InvalidSetting, match="no calls are recorded"):
        compare(lake, CallableChallenger(better), Question(recorded=Recorded.CALLS))
    with pytest.raises(QueryFailed):
        gain_of(lake, Question(reward="no_such_column"))


Run = Callable[..., Result]


@pytest.fixture
def run(lake: lakelog.Lake) -> Run:
    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(
            cli, ["--lake", lake.path, "replay", *arguments], env={"COLUMNS": "80"}
        )

    return invoke


def test_the_verb_prints_80_columns_or_json(run: Run, home: Path) -> None:
    """And writes pairs where it is asked to."""
    program = (
        'import json, sys\nfor line in sys.stdin:\n    failure = json.loads(line)["context"]'
        '["failure"]\n    print(json.dumps("retry" if failure == "timeout" else "ask"))\n'
    )
    (home / "new.py").write_text(program)
    against = ("--against", f"python3 {home}/new.py", "--by", "failure")
    shown = run(*against)
    assert shown.exit_code == 0, shown.output
    assert max(map(len, shown.output.splitlines())) <= 80
    assert "win" in shown.output
    assert "Assumed" in shown.output
    result = run(*against, "--json", "--pairs", str(home / "p.parquet"))
    record = json.loads(result.stdout)
    assert record["wins"] == record["changes"] == record["pairs"]
    assert (home / "p.parquet").stat().st_size > 0
    refused = run("--by", "failure")
    assert refused.exit_code == 2
    assert "go with --against" in refused.output
    for pace in (("--rate", "1"), ("--speed", "10x")):
        assert run(*against, *pace).exit_code == 2
