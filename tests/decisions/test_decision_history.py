"""What recorded decisions teach, in each state of a lake, and of input that is no good."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import lakelog
from lakelog.cli import cli
from lakelog.decisions import CallableChallenger, DecisionHistory, compare, recommendation_event
from lakelog.decisions.calibration import ConfidenceSums, calibration
from lakelog.errors import InvalidSetting, QueryFailed
from tests.support import encrypted, protected
from tests.support.effort import share
from tests.support.requirements import need
from tests.support.typed_segments import retype

WORKS = {"timeout": {"retry": 0.8, "ask": 0.5}, "quota": {"retry": 0.2, "ask": 0.7}}
Event = dict[str, Any]


def decision(number: object, point: str = "repair", **details: object) -> Event:
    members = {"decision_id": f"d{number}", "decision_point": point, "chosen": "retry", **details}
    return {"type": "decision", "data": {"details": members}}


def outcome(number: object, **details: object) -> Event:
    return {"type": "outcome", "data": {"details": {"decision_id": f"d{number}", **details}}}


def repairs(count: int, seed: int = 1) -> list[Event]:
    """Decisions of a program that retries too often where a quota is used up."""
    rng, events = random.Random(seed), list[Event]()
    for number in range(count):
        failure, chosen = rng.choice([*WORKS]), rng.choices(["retry", "ask"], [7, 3])[0]
        confidence = round(rng.random(), 2)
        won = int(rng.random() < WORKS[failure][chosen])
        made = decision(number, chosen=chosen, failure=failure, confidence=confidence)
        events += [made, outcome(number, reward=won)]
    return events


def timed(events: list[Event]) -> list[Event]:
    return [
        {**event, "time": f"2026-09-{1 + n // 1440 % 28:02}T{n // 60 % 24:02}:{n % 60:02}:00Z"}
        for n, event in enumerate(events)
    ]


def test_what_is_recorded_has_no_protected_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recommendation stays when keys are destroyed, so it is made without their fields; one that
    asks for such a field by name is refused."""
    protected.keys_in(tmp_path, monkeypatch)
    events = timed(repairs(1500))
    for n, event in enumerate(events):
        details = event["data"]["details"]
        event["data"], event["subject"] = details, f"s{n // 2 % 300}"
        details["secret"] = protected.PLANTED + details.get("failure", "")
    with lakelog.open(tmp_path / "lake") as lake:
        lake.protect(["secret"])
        lake.append(events)
        assert DecisionHistory(lake).report("repair", members=("secret",)).contexts
        history = DecisionHistory(lake, keeps_sealed=True)
        finding = history.recommend("repair", {"failure": "quota"})
        assert finding.option == "ask"
        for ask in (
            lambda: history.recommend("repair", {"secret": "x"}),
            lambda: history.report("repair", members=("secret.deep",)),
            lambda: history.tune("repair", "secret"),
        ):
            with pytest.raises(InvalidSetting, match="protected field"):
                ask()
    by_secret = ["--context", f"secret={protected.PLANTED}quota"]
    for words, code in ((["--context", "failure=quota"], 0), (by_secret, 2), ([], 0)):
        result = run(tmp_path / "lake", "recommend", "repair", *words, "--record")
        assert result.exit_code == code, result.output
    with lakelog.open(tmp_path / "lake") as lake:
        lake.settle()
        assert lake.sql("FROM events WHERE type = 'RECOMMENDATION'").fetchall()
        # Which no outcome hangs on, and which differs in each event.
        with protected.without_keys(tmp_path):
            inputs: list[Event] = []
            compare(lake, CallableChallenger(lambda given: inputs.append(given) or "ask"))
            assert {*inputs[0]["context"]} == {"failure"}
    assert encrypted.found(tmp_path / "lake", [protected.PLANTED]) == []


def facts(lake: lakelog.Lake, ref: str = "") -> dict[str, tuple[int, int, float | None]]:
    """By option: decisions, those with an outcome, and their mean reward."""
    report = DecisionHistory(lake, ref).report("repair", members=("failure",))
    return {
        rate.option: (rate.decisions, rate.rated, rate.reward and round(rate.reward.mean, 9))
        for rate in report.options
    }


def model(events: list[Event]) -> dict[str, tuple[int, int, float | None]]:
    """The same in plain Python."""
    ended = {
        e["data"]["details"]["decision_id"]: e["data"]["details"].get("reward")
        for e in events
        if e["type"] == "outcome"
    }
    latest = {
        e["data"]["details"]["decision_id"]: e["data"]["details"]["chosen"]
        for e in events
        if e["type"] == "decision"
    }
    rewards: dict[str, list[float | None]] = {}
    for name, chosen in latest.items():
        rewards.setdefault(chosen, []).append(ended.get(name))
    return {
        chosen: (
            len(values),
            len(known := [value for value in values if value is not None]),
            round(sum(known) / len(known), 9) if len(known) > 1 else None,
        )
        for chosen, values in rewards.items()
    }


def states(home: Path, events: list[Event]) -> Iterator[tuple[lakelog.Lake, str, list[Event]]]:
    """A lake in one state after another, a ref of it, and the events of that."""
    half = len(events) // 2
    with lakelog.open(home / "lake") as lake:
        lake.append(events[:half])
        yield lake, "", events[:half]  # in the tail
        lake.tag("half")
        lake.append(events[half:])
        yield lake, "half", events[:half]
        yield lake, "", events
        retype(lake, None)
        lake.settle()
        yield lake, "", events
        lake.compact()
        yield lake, "", events
        yield lake, "half", events[:half]
        lake.branch("other")
        lake.rollback("half")
        yield lake, "", events[:half]
        with lakelog.open(home / "lake", branch="other") as other:
            yield other, "", events
        lake.append(events[half : half + 10])
        yield lake, "", events[: half + 10]


def test_outcomes_belong_to_their_decisions_in_all_states_of_a_lake(tmp_path: Path) -> None:
    """Late ones, several, none, and decisions that were written again, as plain Python has it."""
    rng = random.Random(4)
    events = repairs(60)
    events += [outcome(n, reward=rng.choice([0, 1])) for n in range(0, 60, 5)]
    events += [decision(n, chosen="ask", failure="quota") for n in range(3, 60, 9)]
    events += [decision(f"late{n}", failure="quota") for n in range(9)]
    events.insert(0, outcome("late3", reward=1))  # before its decision
    events = timed(events)
    for lake, ref, expected in states(tmp_path, events):
        assert facts(lake, ref) == model(expected)
        view = lake.at(ref) if ref else lake
        rows = view.sql(
            "SELECT chosen, count(*), count(reward) FROM decisions WHERE time IS NOT NULL"
            " GROUP BY 1"
        ).fetchall()
        assert {row[0]: row[1:] for row in rows} == {k: v[:2] for k, v in model(expected).items()}


def test_events_of_the_ai_logger_are_read_as_it_writes_them(tmp_path: Path) -> None:
    """Into a lake, and by a file that is ingested."""
    for path in (None, tmp_path / "ai.log"):
        home = tmp_path / ("file" if path else "direct")
        with lakelog.open(home) as lake:
            ai = lakelog.get_ai_logger(path, lake=None if path else lake)
            with ai.measure_operation("work"):
                for n in range(40):
                    made = ai.ai_decision(
                        "model", ["small", "large"], "small", 0.75, "cheap", plan="free"
                    )
                    if n % 4:
                        made.outcome("accepted" if n % 2 else "rejected")
            ai.ai_decision("model", ["small", "large"], "large", 0.9)
            assert ai.flush(30)
            if path:
                lake.ingest(path)
            (point,), total = DecisionHistory(lake).points()
            assert (point.point, point.decisions, point.rated, total) == ("model", 41, 30, 1)
            assert point.won.mean == pytest.approx(20 / 30)
            assert point.calibration
            assert point.calibration.error == pytest.approx(0.75 - 20 / 30)


@pytest.mark.parametrize("details", [None, "as agreed", {"cost": 3}, []])
def test_details_that_name_no_decision_are_members_like_others(
    tmp_path: Path, details: object
) -> None:
    """Other programs have a member of this name, too: what is beside it is the decision."""
    events = decision(1), outcome(1, reward=1)
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(e | {"data": e["data"]["details"] | {"details": details}} for e in events)
        (point,) = DecisionHistory(lake).points()[0]
        assert (point.point, point.decisions, point.rated) == ("repair", 1, 1)
        assert lake.sql("SELECT point, reward FROM decisions").fetchall() == [("repair", 1.0)]


def test_decisions_that_name_no_point_are_shown_as_they_are_listed(tmp_path: Path) -> None:
    """As one point without a name."""
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append([decision(1, decision_point=None), outcome(1, reward=1)])
        history = DecisionHistory(lake)
        (point,) = history.points()[0]
        assert history.report(point.point).rated == point.rated == 1


def test_words_of_outcomes_count_where_they_are_known(tmp_path: Path) -> None:
    """`success` and the like are 1 and 0; of other words --reward says what they are worth."""
    words = ["success", "failed", "thanked", "left", "3.5", "", True, None]
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append([decision(n) for n in range(len(words))])
        lake.append([outcome(n, outcome=word) for n, word in enumerate(words)])
        (rate,) = DecisionHistory(lake).report("repair").options
        assert (rate.decisions, rate.rated) == (8, 4)
        assert rate.reward
        assert rate.reward.mean == pytest.approx((1 + 0 + 3.5 + 1) / 4)
        reward = "(outcome = 'thanked')::INT"
        (rate,) = DecisionHistory(lake, reward=reward).report("repair").options
        assert (rate.rated, rate.reward and rate.reward.mean) == (7, pytest.approx(1 / 7))
        with pytest.raises(QueryFailed):
            DecisionHistory(lake, reward="no_such + 1").report("repair")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with a thousand decisions."""
    path = tmp_path_factory.mktemp("decisions") / "agent"
    with lakelog.open(path) as lake:
        lake.append(timed(repairs(1000, seed=2)))
    return path


def test_rates_regret_and_exploration_of_a_point(agent: Path) -> None:
    """By option and context, and what the best option of each context would have brought."""
    with lakelog.open(agent) as lake:
        report = DecisionHistory(lake).report("repair")
    assert report.members == ("failure",)
    assert len(report.contexts) == 4
    for rate in report.contexts:
        assert rate.won
        truth = WORKS[rate.context["failure"]][rate.option]
        assert rate.won.low < truth < rate.won.high
    assert report.regret.gain
    assert report.regret.gain.low < 0.18 < report.regret.gain.high
    assert report.calibration
    assert report.calibration.error > 5 * report.calibration.error_by_chance
    assert not report.exploration  # all options are known well enough


def test_an_option_with_few_outcomes_is_worth_exploring(tmp_path: Path) -> None:
    """Its interval reaches above the best one; one that is worse for certain is not."""
    events = []
    for number in range(400):
        chosen = "rare" if number % 80 == 0 else "bad" if number % 2 else "good"
        won = {"rare": number == 160, "bad": number % 10 == 1, "good": number % 10 < 7}[chosen]
        events += [decision(number, chosen=chosen), outcome(number, reward=int(won))]
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(events)
        report = DecisionHistory(lake).report("repair")
    assert [(e.rate.option, e.best) for e in report.exploration] == [("rare", "good")]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 5)])
def test_a_few_equal_outcomes_do_not_settle_an_option(
    tmp_path: Path, low: float, high: float
) -> None:
    """Two losses of two leave as much open as the share won says: Wilson's interval."""
    events = []
    for number in range(200):
        chosen = "rare" if number % 100 == 0 else "usual"
        reward = high if chosen == "usual" and number % 2 else low
        events += [decision(number, chosen=chosen), outcome(number, reward=reward)]
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(events)
        report = DecisionHistory(lake).report("repair")
    assert [(e.rate.option, e.best) for e in report.exploration] == [("rare", "usual")]
    (rare,) = (rate for rate in report.options if rate.option == "rare")
    assert rare.reward
    assert rare.won
    assert (rare.reward.mean, rare.reward.low) == (low, low)
    assert rare.reward.high == pytest.approx(low + (high - low) * rare.won.high)


def test_the_evidence_of_a_recommendation_can_be_run(agent: Path) -> None:
    """Its query gives the figures that the recommendation is of."""
    with lakelog.open(agent) as lake:
        finding = DecisionHistory(lake).recommend("repair", {"failure": "quota"})
        rows = {row[-4]: row[-3:] for row in lake.sql(finding.query).fetchall()}
    assert (finding.verdict, finding.option, finding.majority) == ("recommended", "ask", "retry")
    assert finding.gain
    assert finding.gain.low < 0.5 < finding.gain.high
    assert {o.option: (o.decisions, o.rated) for o in finding.options} == {
        option: row[:2] for option, row in rows.items()
    }


def test_recommendations_are_better_than_the_majority_or_none(tmp_path: Path) -> None:
    """Of generated logs with options that differ much, little and not at all."""
    rng, runs = random.Random(11), share(100)
    means = [{option: rng.choice([0.3, 0.5, 0.6]) for option in "abc"} for _ in range(runs)]
    recommended = 0
    with lakelog.open(tmp_path / "lake") as lake:
        for run, chances in enumerate(means):
            events = list[Event]()
            for number in range(rng.choice([40, 200, 600])):
                chosen = rng.choices("abc", [6, 3, 1])[0]
                key, won = f"{run}-{number}", int(rng.random() < chances[chosen])
                events += [decision(key, f"p{run}", chosen=chosen), outcome(key, reward=won)]
            lake.append(timed(events))
        for run, chances in enumerate(means):
            finding = DecisionHistory(lake).recommend(f"p{run}")
            assert finding.majority == "a"
            assert finding.verdict in ("recommended", "not enough evidence", "not enough overlap")
            if finding.option not in (None, "a"):
                assert chances[str(finding.option)] > chances["a"]
                recommended += 1
    assert recommended


def test_a_recommendation_adjusts_for_what_decided_the_choice(tmp_path: Path) -> None:
    """Simpson's paradox: `large` is better in both plans, and looks worse in all."""
    rng, events = random.Random(3), list[Event]()
    chances = {("easy", "small"): 0.8, ("easy", "large"): 0.95}
    chances |= {("hard", "small"): 0.1, ("hard", "large"): 0.35}
    for number in range(4000):
        task = rng.choice(["easy", "hard"])
        chosen = rng.choices(["small", "large"], [9, 1] if task == "easy" else [3, 7])[0]
        won = int(rng.random() < chances[task, chosen])
        events += [decision(number, chosen=chosen, task=task), outcome(number, reward=won)]
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(timed(events))
        report = DecisionHistory(lake).report("repair")
        won = {rate.option: rate.won.mean for rate in report.options if rate.won}
        assert won["large"] < won["small"]
        finding = DecisionHistory(lake).recommend("repair")
    assert (finding.option, finding.members) == ("large", ("task",))


def test_what_was_better_once_is_not_recommended(tmp_path: Path) -> None:
    """In the later decisions it has to be better, too."""
    rng, events = random.Random(5), list[Event]()
    for number in range(2000):
        chosen = rng.choices(["retry", "ask"], [6, 4])[0]
        chance = {"retry": 0.4, "ask": 0.9 if number < 1400 else 0.2}[chosen]
        won = int(rng.random() < chance)
        events += [decision(number, chosen=chosen), outcome(number, reward=won)]
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(timed(events))
        finding = DecisionHistory(lake).recommend("repair")
    assert (finding.verdict, finding.best) == ("not enough evidence", "ask")
    assert "later decisions" in finding.reason


def test_without_outcomes_nothing_is_recommended(tmp_path: Path) -> None:
    """Too few of an option, of all, or none."""
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(repairs(20))
        finding = DecisionHistory(lake).recommend("repair")
        assert (finding.verdict, finding.option) == ("not enough overlap", None)
        lake.append([decision("x", "bare")])
        finding = DecisionHistory(lake).recommend("bare")
        assert (finding.verdict, finding.option) == ("not enough overlap", None)
        assert DecisionHistory(lake).estimate("bare", "retry").verdict == "not enough overlap"
        assert DecisionHistory(lake).tune("bare", "size").verdict == "not enough evidence"


def test_of_a_context_that_never_was_nothing_is_known(agent: Path) -> None:
    with lakelog.open(agent) as lake:
        history = DecisionHistory(lake)
        for context in ({"failure": "flood"}, {"no such": "1"}):
            finding = history.recommend("repair", context)
            assert (finding.verdict, finding.option) == ("not enough evidence", None)
            assert (finding.context, finding.majority) == (context, "retry")
            assert finding.reason == "no decision was made in this context"
        with pytest.raises(InvalidSetting, match="no such decisions"):
            history.recommend("repare", {"failure": "quota"})


@pytest.mark.filterwarnings("error")
def test_outcomes_that_cannot_be_added_up_are_not_known(tmp_path: Path) -> None:
    """Their mean would be no number, and what is no number is not less than another."""
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(decision(n, chosen="ab"[n % 2]) for n in range(400))
        lake.append(outcome(n, reward=(1e308, -1e308, 0)[n % 3]) for n in range(400))
        finding = DecisionHistory(lake).recommend("repair")
        assert finding.option is None
        assert DecisionHistory(lake).estimate("repair", "a").recorded == 0


def test_policies_are_options_names_or_sql(agent: Path) -> None:
    """The best policy in SQL gains what the best one learnt does, and more than one option."""
    text = "CASE context ->> 'failure' WHEN 'quota' THEN 'ask' ELSE 'retry' END"
    with lakelog.open(agent) as lake:
        history = DecisionHistory(lake)
        values = {
            policy: history.estimate("repair", policy)
            for policy in ("ask", "majority", "uniform", "best", text, "'none'")
        }
        with pytest.raises(QueryFailed):
            history.estimate("repair", "worth")  # what came of a decision is not known before it
    gains = {policy: estimate.methods[-1].gain for policy, estimate in values.items()}
    assert gains[text]
    assert gains["best"]
    assert gains[text].mean == pytest.approx(gains["best"].mean, abs=0.01)
    assert gains[text].low < 0.18 < gains[text].high
    assert values[text].verdict == "win"
    assert values["'none'"].verdict == "not enough overlap"
    assert "never chosen" in values["'none'"].notes[0]


def tuned(count: int, best: float, rng: random.Random) -> list[Event]:
    events = []
    for number in range(count):
        size = rng.choice([1, 2, 4, 8, 16, 32])
        reward = 10 - abs(math.log2(size) - best) + rng.gauss(0, 1)
        size_now = 1 if number > count - 300 and rng.random() < 0.7 else size
        reward = 10 - abs(math.log2(size_now) - best) + rng.gauss(0, 1)
        events += [decision(number, "batch", size=size_now), outcome(number, reward=reward)]
    return events


def test_a_setting_is_tuned_by_measured_outcomes(tmp_path: Path) -> None:
    """Near the best value, if one is better for certain; and none where the setting is nothing."""
    rng = random.Random(8)
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(timed(tuned(1500, 3, rng)))
        finding = DecisionHistory(lake).tune("batch", "size")
        assert (finding.verdict, finding.current) == ("proposed", 1)
        assert finding.proposed in (4, 8, 16)
        assert finding.gain
        assert finding.gain.low > 0
        noise = [
            event
            for n in range(600)
            for event in (
                decision(f"n{n}", "noise", size=rng.randrange(50)),
                outcome(f"n{n}", reward=rng.gauss(0, 1)),
            )
        ]
        lake.append(timed(noise))
        finding = DecisionHistory(lake).tune("noise", "size")
        assert (finding.verdict, finding.proposed) == ("not enough evidence", None)
        words = DecisionHistory(lake).tune("batch", "no_such")
        assert words.reason == "0 values have outcomes; it takes 3"


def test_calibration_adds_up() -> None:
    """The parts of the Brier score, and no error but chance where confidences are right."""
    rng = random.Random(2)
    pairs = [(c := rng.random(), int(rng.random() < c)) for _ in range(20_000)]
    bins = [[pair for pair in pairs if min(int(pair[0] * 10), 9) == n] for n in range(10)]
    answer = calibration(
        ConfidenceSums(
            n,
            len(cells),
            sum(won for _, won in cells),
            sum(c for c, _ in cells),
            sum((c - won) ** 2 for c, won in cells),
        )
        for n, cells in enumerate(bins)
    )
    assert answer
    assert answer.error < 3 * answer.error_by_chance
    total = answer.reliability - answer.resolution + answer.uncertainty + answer.within
    assert total == pytest.approx(answer.brier)
    assert answer.brier == pytest.approx(1 / 6, abs=0.01)
    assert calibration([]) is None


def test_hostile_decisions_are_bounded_and_said(tmp_path: Path) -> None:
    """Confidences and rewards that are none, odd names, texts for numbers, no details."""
    odd = "');DROP TABLE x;--\n\x1b[31m\"$.{}%s'"
    events = [
        decision(1, odd, confidence=85, **{odd: "v", "a.b": "c"}),
        decision(2, odd, confidence="nan", propensity=-1, chosen=odd),
        decision(3, odd, confidence="high", options="none", chosen={"a": [1]}),
        decision(4, odd, confidence=0.5, propensity=0.5, chosen=None),
        {"type": "decision", "data": {"chosen": "bare"}},
        {"type": "decision", "message": "no data"},
        {"type": "decision", "data": {"details": [1, 2]}},
        *(outcome(n, reward=value) for n, value in ((1, 1e400), (2, "nan"), (3, "many"))),
        outcome(1, outcome="x" * 100_000),
        {"type": "outcome", "data": {"reward": 1}},
    ]
    with lakelog.open(tmp_path / "lake") as lake:
        assert DecisionHistory(lake).points() == ([], 0)
        lake.append(
            [json.loads(json.dumps(event).replace("Infinity", "1e999")) for event in events[1:]]
        )
        lake.append(events[0])
        points, total = DecisionHistory(lake).points()
        assert [(p.point, p.decisions, p.rated) for p in points] == [(odd, 3, 0), ("", 1, 0)]
        assert total == 2
        report = DecisionHistory(lake).report(odd, members=(odd, "a.b"))
        assert {"v", "null"} == {rate.context[odd] for rate in report.contexts}
        assert {"c", "null"} == {rate.context["a.b"] for rate in report.contexts}
        assert "1 confidences are not from 0 to 1" in report.notes[0]
        assert DecisionHistory(lake).report(odd, {odd: "v"}).decisions == 1
        with pytest.raises(InvalidSetting):
            DecisionHistory(lake).report("no such point")
        with pytest.raises(InvalidSetting):
            DecisionHistory(lake).report(odd, {"chosen": "v"})


def test_a_number_larger_than_any_float_is_no_fault(tmp_path: Path) -> None:
    """Neither in a report nor beside a challenger's answers."""
    events = [decision(number, chosen="ab"[number % 2], n=number) for number in range(100)]
    events[7] = decision(7, chosen="b", n=10**400)
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append([*events, *(outcome(number, reward=1) for number in range(100))])
        assert DecisionHistory(lake).report("repair").decisions == 100
        comparison = compare(lake, CallableChallenger(lambda _: "a"))
    assert (comparison.decisions, comparison.changes) == (100, 50)


def test_long_payloads_of_decisions_are_read(tmp_path: Path) -> None:
    prompt = "".join(random.Random(1).choices("abcdefg hi", k=10_000))
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(decision(number, prompt=f"{number} {prompt}") for number in range(2_000))
        lake.append(outcome(number, outcome="success") for number in range(2_000))
        report = DecisionHistory(lake).report("repair")
    assert report.decisions == report.rated == 2_000


def test_too_many_options_are_refused(tmp_path: Path) -> None:
    """Each decision another option: listed, and not compared."""
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append([decision(n, chosen=f"option {n}") for n in range(1100)])
        (point,), _ = DecisionHistory(lake).points()
        assert point.options == 1100
        with pytest.raises(InvalidSetting, match="more than 1,000 options"):
            DecisionHistory(lake).report("repair")


def test_missing_outcomes_that_depend_on_the_option_are_said(tmp_path: Path) -> None:
    """They may depend on the outcome as well."""
    events = repairs(400)
    events = [
        e
        for n, e in enumerate(events)
        if n % 4 != 1 or events[n - 1]["data"]["details"]["chosen"] == "ask"
    ]
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(events)
        (note,) = DecisionHistory(lake).report("repair").notes
    assert "'ask'" in note


def test_a_member_that_no_decision_has_is_said(tmp_path: Path) -> None:
    """As a name that is mistyped: without a word all decisions would be one context."""
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(repairs(40))
        report = DecisionHistory(lake).report("repair", members=("failure", "faliure"))
    assert report.notes[0] == "no decision has 'faliure': it tells no contexts apart"
    assert not any("'failure'" in note for note in report.notes)


def run(lake: Path, *args: str) -> Result:
    return CliRunner().invoke(cli, ["--lake", str(lake), "decisions", *args])


def test_verbs_print_what_python_returns(agent: Path) -> None:
    """As JSON, and as text for people."""
    listed = json.loads(run(agent, "--json").stdout)
    assert [row["point"] for row in listed] == ["repair"]
    shown = json.loads(run(agent, "show", "repair", "--json").stdout)
    assert {row["option"] for row in shown["options"]} == {"retry", "ask"}
    answers = {
        ("show", "repair"): "regret",
        ("recommend", "repair", "--context", "failure=quota"): "choose ask",
        ("estimate", "repair", "--policy", "best"): "policy best: win",
        ("explore", "repair"): "no option may be better",
        ("tune", "repair", "--setting", "chosen"): "not enough evidence",
    }
    for args, text in answers.items():
        answer = run(agent, *args, "--format", "table")
        assert text in answer.stdout, answer.output
    mistakes = (
        ("show", "other"),
        ("estimate", "repair", "--policy", "no_such"),
        ("recommend", "repair", "--context", "failure"),
        ("recommend", "repair", "--record", "--at", "main"),
    )
    for args in mistakes:
        answer = run(agent, *args)
        assert answer.exit_code
        assert len(answer.stderr.splitlines()) <= 4


def test_verbs_draw_what_they_say(agent: Path, tmp_path: Path) -> None:
    """A bar for each row, with its interval."""
    need("altair", "vl_convert")
    picture = tmp_path / "rates.svg"
    assert run(agent, "show", "repair", "--plot", str(picture)).exit_code == 0
    assert "failure=quota, ask" in picture.read_text("utf-8")


def test_findings_are_recorded_once(tmp_path: Path) -> None:
    """As events of type RECOMMENDATION; nothing is recorded without evidence."""
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(timed(repairs(1000)))
    for context in ("quota", "quota", "timeout"):
        run(tmp_path / "lake", "recommend", "repair", "--context", f"failure={context}", "--record")
    run(tmp_path / "lake", "tune", "repair", "--setting", "size", "--record")
    with lakelog.open(tmp_path / "lake") as lake:
        rows = lake.sql(
            "SELECT message, data ->> '$.option' FROM events WHERE type = 'RECOMMENDATION'"
            " ORDER BY message"
        ).fetchall()
        finding = DecisionHistory(lake).recommend("repair", {"failure": "quota"})
    assert [row[1] for row in rows] == ["ask", "retry"]
    assert recommendation_event(finding)["message"] == rows[0][0]


@pytest.mark.parametrize("words", [["--reward", "reward * 2"], ["--where", "seq >= 0"]])
def test_findings_of_other_questions_are_recorded_beside(tmp_path: Path, words: list[str]) -> None:
    """Another reward, or other decisions, though the same option is found."""
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(timed(repairs(1000)))
    asked = ["recommend", "repair", "--context", "failure=quota", "--record"]
    for question in ([], words, words):
        assert run(tmp_path / "lake", *asked, *question).exit_code == 0
    with lakelog.open(tmp_path / "lake") as lake:
        recorded = "SELECT data ->> '$.option' FROM events WHERE type = 'RECOMMENDATION'"
        assert lake.sql(recorded).fetchall() == [("ask",), ("ask",)]


def test_a_proposal_names_its_context(tmp_path: Path) -> None:
    """In what is printed and recorded: elsewhere another value may be right."""
    events = tuned(3000, 3, random.Random(8))
    for number, event in enumerate(events):
        event["data"]["details"]["gpu"] = f"g{number // 2 % 2}"
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(timed(events))
    contexts = [[], ["--context", "gpu=g0"], ["--context", "gpu=g1"]]
    for context in contexts:
        words = ["tune", "batch", "--setting", "size", *context, "--record", "--format", "table"]
        place = ", ".join(["batch", *context[1:]])
        assert run(tmp_path / "lake", *words).stdout.startswith(f"{place}, size: set ")
    with lakelog.open(tmp_path / "lake") as lake:
        recorded = "FROM events WHERE type = 'RECOMMENDATION' ORDER BY message"
        rows = lake.sql(f"SELECT data ->> '$.context', message {recorded}").fetchall()
    assert [row[0] for row in rows] == ['{"gpu":"g0"}', '{"gpu":"g1"}', "{}"]
    assert [row[1].split(":")[0] for row in rows] == ["batch, gpu=g0", "batch, gpu=g1", "batch"]
