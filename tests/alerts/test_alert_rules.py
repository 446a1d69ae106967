"""Rules: what fires, when, for how long; what is wrong with a question is bounded and said."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest

from lakelog.alerts import AlertRule, RuleBook, evaluating, history, overview
from lakelog.errors import (
    AlreadyExists,
    InvalidSetting,
    LakelogError,
    LakeReplaced,
    QueryFailed,
    UnknownRef,
)
from lakelog.views import LakeViews
from tests.conftest import MakeLake
from tests.support.alert_lake import MINUTE, SECOND, AlertLake, watched
from tests.support.cli import run


@pytest.fixture
def alerts(make_lake: MakeLake) -> Iterator[AlertLake]:
    with watched(make_lake()) as lake:
        yield lake


def test_an_alert_fires_once_and_is_resolved_once(alerts: AlertLake) -> None:
    """However often it is asked while it holds; it may fire again after that."""
    alerts.add(above=2)
    assert not alerts.round()
    alerts.errors(3)
    (line,) = alerts.round(MINUTE)
    assert line == "alert firing warning r source=web: value 3 > 2"
    assert not any(alerts.round(MINUTE) for _ in range(3))
    (line,) = alerts.round(5 * MINUTE)
    assert line.startswith("alert resolved warning r source=web")
    alerts.errors(4)
    assert len(alerts.round(MINUTE)) == 1
    assert alerts.changes() == [("web", "firing"), ("web", "resolved"), ("web", "firing")]


def test_labels_tell_alerts_apart(alerts: AlertLake) -> None:
    """Each source has an alert of its own."""
    alerts.add(above=1)
    alerts.errors(2, "web")
    alerts.errors(1, "db")
    alerts.round()
    alerts.errors(2, "db")
    alerts.round(MINUTE)
    assert alerts.changes() == [("web", "firing"), ("db", "firing")]


def test_an_alert_is_one_line_of_a_log(alerts: AlertLake) -> None:
    """Whatever its events are named."""
    alerts.add()
    alerts.errors(1, "web\nalert firing critical disk\x1b[2J")
    lines = alerts.round()
    assert lines == [
        "alert firing warning r source=web↵alert firing critical disk\\x1b[2J: value 1 > 0"
    ]


def test_a_share_of_nothing_fires_and_stops_no_other_rule(alerts: AlertLake) -> None:
    """An infinite value is told as such: the rules behind it are asked all the same."""
    counts = "count(*) FILTER (level = 'ERROR') / count(*) FILTER (type = 'request')"
    share = f"SELECT {counts} AS value FROM events WHERE time >= $since"
    alerts.add("a", query=share, above=0.5)
    alerts.add("b")
    alerts.errors(1)
    assert sorted(alerts.round()) == [
        "alert firing warning a: value inf > 0.5",
        "alert firing warning b source=web: value 1 > 0",
    ]
    assert len(alerts.round(10 * MINUTE)) == 2


def test_it_fires_after_it_held_for_long_enough(alerts: AlertLake) -> None:
    """A row that goes away before that tells nobody; the time that it waited is none of firing."""
    alerts.add(wait=2 * MINUTE, window=MINUTE)
    alerts.errors(1)
    assert not alerts.round()
    assert not alerts.round(MINUTE + SECOND)
    assert alerts.changes() == [("web", "pending"), ("web", "resolved")]
    for _ in range(2):
        alerts.errors(1, ago=-MINUTE + SECOND)
        assert not alerts.round(MINUTE)
    alerts.errors(1, ago=-MINUTE + SECOND)
    assert len(alerts.round(MINUTE)) == 1
    assert alerts.changes()[2:] == [("web", "pending"), ("web", "firing")]
    *_, fired = (entry for entry in history(alerts.lake) if entry["event"] == "change")
    assert fired["since"] == fired["time"]


def test_a_rule_that_is_replaced_counts_as_new(alerts: AlertLake) -> None:
    """It is asked at once, and its rows wait from the beginning."""
    alerts.add(wait=2 * MINUTE, every=MINUTE)
    alerts.errors(3)
    for _ in range(2):
        assert not alerts.round(MINUTE)
    alerts.add(wait=2 * MINUTE, every=MINUTE, above=2)
    assert not alerts.round(SECOND)
    assert not alerts.round(MINUTE)
    assert len(alerts.round(MINUTE)) == 1
    alerts.add(above=3)
    assert len(alerts.round(SECOND)) == 1


@pytest.mark.parametrize(("wait", "rounds"), [(10, 5), (2, 1), (1, 1)])
def test_a_gap_alone_does_not_make_an_alert_fire(alerts: AlertLake, wait: int, rounds: int) -> None:
    """Of a machine that slept nobody knows whether the condition held, however short the wait."""
    alerts.add(wait=wait * MINUTE, window=MINUTE)
    alerts.errors(1)
    alerts.round()
    alerts.time += 60 * MINUTE
    alerts.errors(1)
    assert not alerts.round()
    assert "59 evaluations were missed" in overview(alerts.lake)["rules"][0]["note"]
    for _ in range(rounds):
        alerts.time += MINUTE
        alerts.errors(1)
        lines = alerts.round()
    assert len(lines) == 1
    alerts.round(2 * MINUTE)
    assert "1 evaluation was missed" in overview(alerts.lake)["rules"][0]["note"]


def test_a_clock_that_goes_back_stops_no_rule(alerts: AlertLake) -> None:
    """It is asked at once, and what counts towards `for` is not more for it."""
    alerts.add(wait=2 * MINUTE)
    alerts.errors(1)
    alerts.round()
    alerts.time -= 120 * MINUTE
    alerts.errors(1)
    assert not alerts.round()
    assert not alerts.round(MINUTE)
    assert len(alerts.round(MINUTE)) == 1


def test_events_of_missed_evaluations_are_looked_at(alerts: AlertLake) -> None:
    """The question after a gap begins where the one before it ended."""
    alerts.add(window=MINUTE)
    alerts.round()
    alerts.errors(1, ago=-10 * MINUTE)
    (line,) = alerts.round(60 * MINUTE)
    assert line.startswith("alert firing")


def test_a_rule_by_the_log_s_clock_judges_old_lines(alerts: AlertLake) -> None:
    """Where a log lags, now is the time of its newest event."""
    alerts.add("wall", window=MINUTE)
    alerts.add("log", window=MINUTE, clock="log")
    alerts.errors(1, ago=500 * MINUTE)
    assert [line.split()[3] for line in alerts.round()] == ["log"]


def test_a_clock_that_was_ahead_stops_no_rule_by_the_log_s_clock(alerts: AlertLake) -> None:
    """Now is the time of the newest event that is not in the future."""
    alerts.add("log", window=MINUTE, clock="log")
    alerts.errors(1, ago=500 * MINUTE)
    alerts.errors(1, "clock", ago=-10_000 * MINUTE)
    assert alerts.round() == ["alert firing warning log source=web: value 1 > 0"]


def test_rules_do_not_see_what_alerts_append(alerts: AlertLake) -> None:
    """A rule over all events does not fire because it fired, nor because another did."""
    alerts.add("other")
    alerts.add("all", query="SELECT count(*) AS value FROM events", above=1)
    alerts.add("own", query="SELECT type FROM events WHERE source = 'lakelog'")
    alerts.add("views", view="rates", value="events", above=0)
    alerts.errors(1)
    for _ in range(3):
        alerts.round(MINUTE)
    assert alerts.changes() == [("web", "firing"), ("web", "firing")]


def test_a_view_is_compared_with_a_threshold(alerts: AlertLake) -> None:
    """A kept view is asked for the rule's window."""
    alerts.add("failed", view="errors", value="failures", above=1)
    failure = {"type": "FAIL", "source": "etl", "data": {"error": "disk"}}
    alerts.lake.append([{**failure, "time": alerts.time / 1e6 - 1}] * 2)
    (line,) = alerts.round()
    assert line == "alert firing warning failed error=disk: value 2 > 1"
    assert len(alerts.round(10 * MINUTE)) == 1


def test_nobody_hears_of_a_silenced_alert_until_the_silence_ends(alerts: AlertLake) -> None:
    """Who heard that an alert fires hears that it is over, silenced or not."""
    alerts.add(window=10 * MINUTE)
    book = RuleBook(alerts.lake)
    silence = book.silence(["rule=r", "source=~we.", "severity!=critical"], 3650 * 1440 * MINUTE)
    alerts.time = silence.start
    alerts.errors(1, "web")
    alerts.errors(1, "database")
    (line,) = alerts.round()
    assert "source=database" in line
    assert not alerts.round(MINUTE)
    book.end_silence(silence.id)
    (line,) = alerts.round(MINUTE)
    assert "firing" in line
    assert "source=web" in line
    book.silence(["source=web"], 3650 * 1440 * MINUTE)
    assert len(alerts.round(20 * MINUTE)) == 2


def test_a_silence_of_a_clock_that_is_ahead_begins_at_once(alerts: AlertLake) -> None:
    """Another machine may have made it, or the clock was set back since."""
    alerts.add()
    alerts.time -= 59 * MINUTE
    RuleBook(alerts.lake).silence(["source=web"], MINUTE)
    alerts.errors(1, "web")
    alerts.errors(1, "db")
    (line,) = alerts.round()
    assert "source=db" in line


def test_the_pattern_of_a_silence_takes_linear_time(alerts: AlertLake) -> None:
    """A pattern for which Python would take years holds up no alert; what RE2 lacks is refused."""
    alerts.add(window=10 * MINUTE)
    book = RuleBook(alerts.lake)
    alerts.time = book.silence(["source=~(a+)+"], 3650 * 1440 * MINUTE).start
    alerts.errors(1, "a" * 60 + "b")
    alerts.errors(1, "a" * 60)
    (line,) = alerts.round()
    assert "aab" in line
    with pytest.raises(InvalidSetting, match=r"'\(\?=a\)' is no regular expression of RE2"):
        book.silence(["source=~(?=a)"], MINUTE)


def test_the_message_the_samples_and_the_link_say_which_events(alerts: AlertLake) -> None:
    """The five newest events of the alert's own labels, whether it is a search or SQL."""
    query = """SELECT source, data->>'host' AS host, count(*) AS n FROM events
        WHERE level = 'ERROR' AND time >= $since GROUP BY ALL"""
    rule = AlertRule("r", query=query, above=1, message="{n} on {host}: {value} of {source}")
    for host in ("a", "b"):
        event = {"type": "x", "source": "w 1", "level": "ERROR", "data": {"host": host}}
        alerts.lake.append([{**event, "message": f"{host}{n}"} for n in range(7)])
    alerts.lake.append({"type": "x", "source": "w 1", "level": "INFO", "message": "fine"})
    documents = RuleBook(alerts.lake).trial(rule, "http://lake").documents
    assert [d["message"] for d in documents] == ["{n} on a: 7 of w 1", "{n} on b: 7 of w 1"]
    for host, document in zip("ab", documents, strict=True):
        assert len(document["samples"]) == 5
        assert all(f" {host}" in sample for sample in document["samples"])
    assert documents[0]["link"].startswith("http://lake/#/explore?q=source%3A%3D%22w+1%22&since=")


@pytest.mark.parametrize("by", [(), ("source",)], ids=["all", "source"])
def test_samples_of_an_alert_without_a_label_are_of_events_without_it(
    alerts: AlertLake, by: tuple[str, ...]
) -> None:
    """And not of all that the rule counts; what is selected besides tells no alerts apart."""
    alerts.lake.append([{"type": "x", "level": "ERROR", "message": m} for m in ("n1", "n2")])
    alerts.lake.append([{"type": "x", "level": "ERROR", "source": "web", "message": "w"}] * 3)
    counted = "SELECT source, type, count(*) AS value FROM events WHERE level = 'ERROR'"
    rule = AlertRule("sql", query=f"{counted} GROUP BY ALL", above=0, labels_by=by)
    search = AlertRule("search", search="level>=ERROR", above=0, labels_by=("source",))
    for asked in (rule, search):
        documents = RuleBook(alerts.lake).trial(asked, "http://lake").documents
        samples = {d["labels"].get("source"): d["samples"] for d in documents}
        assert [sample.split()[2] for sample in sorted(samples[None])] == ["n1", "n2"]
        assert len(samples["web"]) == 3
    link = next(d["link"] for d in documents if not d["labels"].get("source"))
    query = parse_qs(urlparse(link).fragment.partition("?")[2])["q"][0]
    assert len(alerts.lake.search(query).fetchall()) == 2


BAD = {
    "SELEC 1": "syntax error",
    "SELECT 1; SELECT 2": "one SELECT",
    "COPY events TO 'x'": "one SELECT",
    "SELECT * FROM 'secret.csv'": "is a file",
    "SELECT * FROM read_text('/etc/passwd')": "reads something else",
    "SELECT getvariable('x') AS a": "only reads",
    "SELECT $x AS a": "no parameter",
    "SELECT nothing FROM events": "nothing",
    "SELECT range AS r FROM range(5000)": "more than 1,000 rows",
    "WITH RECURSIVE t AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM t) SELECT max(a) FROM t": (
        "ran longer than 0.3 s"
    ),
    "SELECT string_agg(repeat('x', 1000000), '') AS a FROM range(5000)": "[Mm]emory|longer",
    "SELECT 'text' AS value FROM range(1)": "no number",
}


@pytest.mark.parametrize("query", BAD, ids=range(len(BAD)))
def test_a_bad_question_is_not_kept(make_lake: MakeLake, query: str) -> None:
    """It is tried first, and what is wrong is one line."""
    book = RuleBook(make_lake())
    rule = AlertRule("bad", query=query, above=1, timeout=300_000)
    with pytest.raises(LakelogError, match=BAD[query]) as caught:
        book.add(rule)
    assert "\n" not in str(caught.value)
    assert not book.rules()


def test_a_question_that_fails_later_is_said_and_others_go_on(alerts: AlertLake) -> None:
    """Where it cannot be answered no alert changes; the next answer looks at the gap, too."""
    LakeViews(alerts.lake).create(
        "mine", "SELECT source, 1 AS value FROM events WHERE level = 'ERROR'"
    )
    alerts.add("a", view="mine", above=0)
    alerts.add("b")
    alerts.errors(1)
    assert len(alerts.round()) == 2
    LakeViews(alerts.lake).drop("mine")
    (line,) = alerts.round(MINUTE)
    assert line.startswith("alert a: no view 'mine'")
    assert not alerts.round(MINUTE)
    rules = {rule["name"]: rule for rule in overview(alerts.lake)["rules"]}
    assert rules["a"]["state"] == "error"
    assert "no view 'mine'" in rules["a"]["note"]
    assert rules["b"]["state"] == "firing"
    assert alerts.changes() == [("web", "firing"), ("web", "firing")]


def test_a_question_without_a_time_is_remarked(make_lake: MakeLake) -> None:
    """It would read more with each day."""
    book = RuleBook(make_lake())
    unbounded = AlertRule("a", query="SELECT count(*) AS value FROM events", above=1)
    assert "reads all events" in book.add(unbounded)
    bounded = AlertRule("b", query=f"{unbounded.query} WHERE time > $since", above=1)
    assert not book.add(bounded)


def test_wrong_members_are_refused(make_lake: MakeLake) -> None:
    """Each in one line that says which."""
    book = RuleBook(make_lake())
    for members, reason in (
        ({"search": "a"}, "from which value on"),
        ({"search": "a", "query": "SELECT 1"}, "one of them"),
        ({"search": "a", "above": 1, "below": 2}, "not both"),
        ({"search": "a", "above": float("inf")}, "finite"),
        ({"search": "a", "below": float("nan")}, "finite"),
        ({"search": "a", "above": 1, "severity": "bad"}, "severity"),
        ({"search": "a", "above": 1, "every": 1}, "every"),
        ({"search": "a", "above": 1, "sinks": ("ftp://x",)}, "a receiver is log"),
    ):
        with pytest.raises(InvalidSetting, match=reason):
            book.add(AlertRule("a", **members))
    with pytest.raises(InvalidSetting, match="no name"):
        book.add(AlertRule("a b", search="a", above=1))
    book.add(AlertRule("a", search="a", above=1))
    with pytest.raises(AlreadyExists, match="--replace"):
        book.add(AlertRule("a", search="a", above=1))
    with pytest.raises(UnknownRef, match="did you mean 'a'"):
        book.rule("A")
    with pytest.raises(QueryFailed):
        book.trial(AlertRule("b", query="SELECT oops"))
    for matchers, span in (([], MINUTE), (["rule=a"], 0), (["rule=a"], 10**18)):
        with pytest.raises(InvalidSetting, match="100 years"):
            book.silence(matchers, span)


def test_a_removed_rule_resolves_what_was_told(alerts: AlertLake) -> None:
    """Then nothing of it is left."""
    alerts.add()
    alerts.errors(1)
    alerts.round()
    assert RuleBook(alerts.lake).remove("r") == 1
    assert overview(alerts.lake)["rules"] == []
    (line,) = alerts.round()
    assert line.startswith("alert resolved")
    alerts.round()
    assert not overview(alerts.lake)["alerts"]
    state = alerts.lake.store.state("main")
    assert not list(alerts.lake.store.manifests.records(state, "alert"))


def test_a_rule_that_is_removed_while_it_is_asked_leaves_no_alert(make_lake: MakeLake) -> None:
    """What it fired meanwhile is over with the next round."""
    lake = make_lake()
    lines = list[str]()

    def say(line: str) -> None:
        if not lines:
            RuleBook(lake).remove("b")
        lines.append(line)

    with evaluating(lake, say, threading.Event()) as evaluator:
        assert evaluator is not None
        LakeViews(lake).create("mine", "SELECT 1 AS value")
        for name in "ab":
            RuleBook(lake).add(AlertRule(name, view="mine", above=0))
        LakeViews(lake).drop("mine")
        RuleBook(lake).add(AlertRule("b", query="SELECT 1 AS value"), replace=True)
        evaluator.round()
        evaluator.round()
        evaluator.round()
    assert [line.split(":")[0] for line in lines] == [
        "alert a",
        "alert firing warning b",
        "alert resolved warning b",
    ]
    assert not overview(lake)["alerts"]


def test_events_that_only_look_like_those_of_alerts_change_nothing(alerts: AlertLake) -> None:
    """Whoever may append may append them."""
    alerts.add()
    for data in (None, "text", [1], {}, {"number": "x"}, {"number": 9, "rule": "r", "labels": 1}):
        for name in ("lakelog.alert", "lakelog.alert.delivery"):
            alerts.lake.append({"type": name, "source": "lakelog", "data": data})
    alerts.errors(1)
    assert len(alerts.round()) == 1
    assert overview(alerts.lake)["rules"][0]["firing"] == 1
    assert alerts.changes() == [("web", "firing")]


@pytest.mark.parametrize(
    ("members", "is_resolved"),
    [
        ({"value": 3}, True),
        ({"labels": {"source": 5}}, True),
        ({"value": "high"}, False),
        ({"time": "today"}, False),
        ({"since": "0001-01-01T00:00:00+14:00"}, False),
        ({"number": -1}, False),
        ({"number": 1 << 53}, True),
        ({"number": (1 << 63) - 1}, False),
        ({"number": (1 << 64) - 1}, False),
        ({"sinks": [{"id": "a"}]}, False),
        ({"sinks": [{"id": [], "to": "log"}]}, False),
        ({"sinks": [{"id": "a", "to": {}}]}, False),
    ],
)
def test_changes_that_others_wrote_end_no_evaluation(
    alerts: AlertLake, members: dict[str, object], is_resolved: bool
) -> None:
    """Programs that an export went through write 3.0 as 3; what is malformed is ignored."""
    rule = alerts.add(message="{value} of {source}")
    alerts.errors(1, "db")
    (document,) = RuleBook(alerts.lake).trial(rule).documents
    event = {"type": "lakelog.alert", "source": "lakelog", "subject": "r"}
    alerts.lake.append({**event, "data": {**document, "id": "other", **members}})
    alerts.round(10 * MINUTE)
    resolved = [e for e in history(alerts.lake) if e.get("resolves") == "other"]
    assert len(resolved) == is_resolved
    # Who evaluates next knows what was told since.
    alerts.errors(1)
    alerts.round(MINUTE)
    assert overview(alerts.lake)["rules"][0]["firing"] == 1
    assert not alerts.round()


def test_a_quiet_rule_has_its_history_beside_a_busy_one(alerts: AlertLake) -> None:
    """The newest changes of a rule, however many others came after them."""
    alerts.add("quiet")
    alerts.errors(1)
    alerts.round()
    alerts.add("busy", query="SELECT range AS n FROM range(60)", labels_by=("n",))
    alerts.round()
    assert {entry["rule"] for entry in history(alerts.lake, 50)} == {"busy"}
    entries = history(alerts.lake, 2, "quiet")
    assert [(e["rule"], e["event"]) for e in entries] == [
        ("quiet", "change"),
        ("quiet", "delivery"),
    ]


def test_one_process_at_a_time_evaluates(make_lake: MakeLake) -> None:
    """A second one, such as of cron, is told so, and the first goes on."""
    lake = make_lake()
    with watched(lake) as alerts:
        alerts.add()
        alerts.errors(1)
        with evaluating(lake, print, threading.Event()) as other:
            assert other is None
        assert overview(lake)["evaluated"]
        assert len(alerts.round()) == 1
    assert not overview(lake)["evaluated"]
    with evaluating(lake, print, threading.Event()) as other:
        assert other is not None


def test_a_process_whose_lock_was_deleted_gives_way(make_lake: MakeLake) -> None:
    """The cache may be deleted at any time; of two processes one goes on."""
    lake = make_lake()
    with watched(lake) as alerts:
        alerts.add()
        shutil.rmtree(f"{lake.path}/cache/alerts")
        with watched(lake) as other:
            for each in (alerts, other):
                each.errors(1)
            assert not alerts.round()
            assert len(other.round()) == 1


@pytest.mark.parametrize("is_sealed", [False, True])
def test_alerts_are_refused_in_a_restored_backup(
    alerts: AlertLake, tmp_path: Path, is_sealed: bool
) -> None:
    """It may lack what was told: nobody would be told of what fires there."""
    alerts.add()
    alerts.errors(1)
    alerts.lake.backup(tmp_path / "copy")
    assert len(alerts.round()) == 1
    if is_sealed:
        alerts.lake.settle()
    # All but its cache, by which a process sees that it does not evaluate alone.
    shutil.rmtree(tmp_path / "copy" / "cache", ignore_errors=True)
    for entry in Path(alerts.lake.path).iterdir():
        if entry.is_file():
            entry.unlink()
        elif entry.name != "cache":
            shutil.rmtree(entry)
    shutil.copytree(tmp_path / "copy", alerts.lake.path, dirs_exist_ok=True)
    with pytest.raises(LakeReplaced):
        alerts.round(MINUTE)


@pytest.mark.parametrize("is_restarted", [False, True])
def test_what_was_told_is_not_unsaid_by_a_rollback(make_lake: MakeLake, is_restarted: bool) -> None:
    """Receivers hear that an alert is over whose rows are gone, hear nothing again of one whose
    rows are still there, and of the first again when an undo brings its rows back."""
    lake = make_lake()
    with contextlib.ExitStack() as stack:
        alerts = stack.enter_context(watched(lake))
        alerts.add(window=60 * MINUTE)
        alerts.errors(1, "stays")
        lake.tag("before")
        alerts.errors(1, "goes")
        assert len(alerts.round()) == 2
        time, new = alerts.time, {"type": "x", "source": "new", "level": "ERROR"}
        for step, told in (
            (lambda: lake.rollback("before"), [("goes", "resolved")]),
            (lambda: lake.append(new), [("new", "firing")]),
            (lambda: lake.undo(force=True), [("goes", "firing"), ("new", "resolved")]),
            (lambda: lake.rollback("before"), [("goes", "resolved")]),
        ):
            step()
            if is_restarted:
                stack.close()
                alerts = stack.enter_context(watched(lake))
            time += MINUTE
            alerts.time = time
            lines = alerts.round()
            assert sorted(map(_told, lines)) == told
            assert not alerts.round()


@pytest.mark.damaged
def test_a_state_whose_rows_are_gone_hides_no_other(make_lake: MakeLake) -> None:
    """Of the states that rollbacks left, each says what was told as far as it can be read."""
    lake, keys = make_lake(), list[set[str]]()
    with watched(lake) as alerts:
        alerts.add(window=60 * MINUTE)
        for source in ("gone", "there"):
            lake.tag(f"before-{source}")
            alerts.errors(1, source)
            alerts.round(MINUTE)
            lake.settle()
            entries = lake.store.manifests.segments(lake.store.state("main"), "events")
            keys.append({entry.key for entry in entries})
            lake.rollback(f"before-{source}")
        time = alerts.time
    for key in keys[0] - keys[1]:
        os.remove(lake.store.paths.object("segments", key))
    with watched(lake) as alerts:
        alerts.time = time + MINUTE
        assert ("there", "resolved") in map(_told, alerts.round())


def test_an_alert_ends_whose_rule_a_rollback_takes_back(alerts: AlertLake) -> None:
    """As one does whose rule is removed, though no state has the rule any more."""
    alerts.lake.tag("before")
    alerts.add()
    alerts.errors(2)
    assert len(alerts.round()) == 1
    alerts.lake.rollback("before")
    assert list(map(_told, alerts.round())) == [("web", "resolved")]
    count = alerts.lake.count()
    assert not alerts.round(MINUTE)
    assert not overview(alerts.lake)["alerts"]
    assert alerts.lake.count() == count


def _told(line: str) -> tuple[str, str]:
    """The source and the state that a line of `log` says."""
    _, state, _, _, label = line.split(":")[0].split()
    return label.removeprefix("source="), state


def test_an_alert_whose_event_was_erased_is_told_and_stored_no_more(alerts: AlertLake) -> None:
    """What evaluates has its labels in memory, and would write them into the lake again."""
    alerts.add()
    alerts.errors(1, source="ada")
    alerts.round()
    assert alerts.changes() == [("ada", "firing")]
    where = "source = 'ada' OR data->'labels'->>'source' = 'ada'"
    run(alerts.lake.path, "erase", "--where", where, "--why", "a request", "--yes")
    assert not alerts.round(10 * MINUTE)
    assert alerts.changes() == []
