"""Receivers: each change once and in order, whatever fails; secrets are never shown."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lakelog.alerts import AlertRule, RuleBook, history, outbox, overview
from lakelog.alerts.notices import Notice
from lakelog.alerts.sinks import sink
from lakelog.alerts.sinks.known import parse
from lakelog.alerts.sinks.mail import Mail
from lakelog.errors import InvalidSetting
from tests.conftest import MakeLake
from tests.support.alert_flaps import faults, play
from tests.support.alert_lake import MINUTE, SECOND, AlertLake, watched
from tests.support.alert_receivers import Receiver, http_receiver, mail_receiver
from tests.support.effort import share
from tests.support.redis_server import Authority, free_port

FLAPS = share(100, 33)


@pytest.fixture
def alerts(make_lake: MakeLake) -> Iterator[AlertLake]:
    with watched(make_lake()) as lake:
        yield lake


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with http_receiver() as receiver:
        yield receiver


def note(alerts: AlertLake) -> str:
    return str(overview(alerts.lake)["rules"][0]["note"])


@pytest.mark.rounds
def test_each_change_is_told_once_though_the_process_is_killed(tmp_path: Path) -> None:
    """Before an answer, after it, at any time: what comes again has an id that was there."""
    with play(tmp_path, flaps=FLAPS, kills=FLAPS, seed=3) as (lake, web, mail, kills):
        assert kills
        assert not faults(lake, web, FLAPS, kills)
        assert not faults(lake, mail, FLAPS, kills)


def test_a_notification_says_all_and_keeps_its_id(alerts: AlertLake, hook: Receiver) -> None:
    """Our own form, with labels, samples and a link; the resolution names what it ends."""
    alerts.add(sinks=(hook.url,), labels={"team": "a"}, message="{value} of {source}, {team}")
    alerts.errors(2)
    alerts.round()
    alerts.round(20 * MINUTE)
    fired, resolved = hook.received
    assert fired.headers["idempotency-key"] == fired.id == fired.body["id"]
    assert fired.headers["path"] == "/hook/secret-path"
    assert fired.body["labels"] == {"team": "a", "source": "web"}
    assert fired.body["message"] == "2 of web, a"
    assert [line.split()[-1] for line in sorted(fired.body["samples"])] == ["0", "1"]
    assert fired.body["link"].startswith(
        "/#/explore?q=%28level%3E%3DERROR%29+source%3A%3Dweb&since="
    )
    assert (fired.body["state"], resolved.body["state"]) == ("firing", "resolved")
    assert fired.id.startswith(resolved.body["resolves"])
    assert resolved.body["fired"] == fired.body["since"]


def test_a_receiver_that_fails_is_tried_again_later_and_in_order(
    alerts: AlertLake, hook: Receiver
) -> None:
    """With the same id, after longer and longer; nothing overtakes, and others are not held up."""
    alerts.add(sinks=(hook.url, "log"), window=MINUTE)
    hook.mode = "503"
    alerts.errors(1)
    (line, problem) = sorted(alerts.round())
    assert "firing" in line
    assert problem == f"alert r: http://127.0.0.1:{hook.port}: HTTP 503"
    assert len(hook.received) == 1
    alerts.round()
    assert len(hook.received) == 1
    alerts.round(SECOND)
    alerts.round(SECOND)
    assert [one.headers["lakelog-attempt"] for one in hook.received] == ["1", "2"]
    alerts.round(2 * MINUTE)
    assert "HTTP 503" in note(alerts)
    hook.mode = "200"
    alerts.round(MINUTE)
    assert [one.body["state"] for one in hook.once()] == ["firing", "resolved"]
    assert not note(alerts)
    assert alerts.changes() == [("web", "firing"), ("web", "resolved")]


@pytest.mark.parametrize(("asked", "waited"), [("60", 60), ("86400", 300)])
def test_a_receiver_is_left_alone_as_long_as_it_asks(
    alerts: AlertLake, hook: Receiver, asked: str, waited: int
) -> None:
    """By Retry-After, but no longer than five minutes."""
    alerts.add(sinks=(hook.url,))
    hook.mode, hook.headers = "429", {"Retry-After": asked}
    alerts.errors(1)
    alerts.round()
    hook.mode = "200"
    alerts.round((waited - 1) * SECOND)
    assert len(hook.received) == 1
    alerts.round(SECOND)
    assert len(hook.received) == 2


def test_a_slow_receiver_leaves_time_for_rules_and_for_others(alerts: AlertLake) -> None:
    """It gets what waits over several rounds, in order; others have theirs with the first."""
    alerts.add(sinks=("command:sleep 1.2", "log"))
    for source in ("a", "b", "c"):
        alerts.errors(1, source)
    assert len(alerts.round()) == 3
    entries = history(alerts.lake)
    assert [e["to"] for e in entries if e["event"] == "delivery"].count("command:sleep") == 1
    alerts.round()
    alerts.round()
    assert overview(alerts.lake)["rules"][0]["receivers"][0]["delivered"] == 3


def test_a_receiver_that_never_takes_it_is_given_up(alerts: AlertLake, hook: Receiver) -> None:
    """After a day, or at once if it says that it never will; that is said."""
    alerts.add(sinks=(hook.url,), window=MINUTE)
    hook.mode = "400"
    alerts.errors(1)
    alerts.round()
    alerts.round(SECOND)
    assert len(hook.received) == 1
    hook.mode = "500"
    alerts.round(2 * MINUTE)
    alerts.round(25 * 60 * MINUTE)
    alerts.round(MINUTE)
    assert len(hook.received) == 3
    (receiver,) = overview(alerts.lake)["rules"][0]["receivers"]
    assert (receiver["given_up"], receiver["waiting"]) == (2, 0)
    outcomes = [e["outcome"] for e in history(alerts.lake) if e["event"] == "delivery"]
    assert outcomes == ["given up", "failed", "given up"]


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("slow", "timed out"),
        ("drip", "timed out"),
        ("echo", "no answer of HTTP"),
        ("redirect", "it redirects"),
        ("401", "HTTP 401"),
    ],
)
def test_whatever_a_server_does_a_delivery_ends(
    alerts: AlertLake, hook: Receiver, monkeypatch: pytest.MonkeyPatch, mode: str, reason: str
) -> None:
    """It is said without the address's path, which is often a secret."""
    monkeypatch.setattr("lakelog.alerts.sinks.webhook.SECONDS", 0.3)
    alerts.add(sinks=(hook.url,))
    hook.mode = mode
    alerts.errors(1)
    alerts.round()
    assert len(hook.received) == 1
    assert reason in note(alerts)
    assert "secret-path" not in note(alerts)


def test_a_receiver_is_named_by_an_erasure(alerts: AlertLake, hook: Receiver) -> None:
    """It may have got lines of events without an answer; its address is named without its path."""
    alerts.add(sinks=(hook.url,))
    alerts.errors(1)
    alerts.round()
    status = alerts.lake.erase(where="level = 'ERROR'", why="asked")
    # The event of the alert has some of the lines, too.
    assert [copy["place"] for copy in status.copies] == ["alert", "finding"]
    assert "127.0.0.1" in str(status.copies[0]["name"])
    assert "secret-path" not in str(status.copies[0])


def test_a_server_that_is_not_there_is_said(alerts: AlertLake) -> None:
    """Of either kind, each in one line."""
    port = free_port()
    sinks = (f"http://127.0.0.1:{port}/", f"mailto:a@b.org#server=127.0.0.1:{port}")
    alerts.add(sinks=(*sinks, "command:/not/there", "webhook:#url_env=NOT_SET"))
    alerts.errors(1)
    alerts.round()
    refused = "Connection refused"
    assert note(alerts) == (
        f"http://127.0.0.1:{port}: {refused};"
        f" mailto:a@b.org: 127.0.0.1:{port}: {refused};"
        " command:/not/there: No such file or directory;"
        " webhook at NOT_SET: the variable NOT_SET is not set"
    )


def test_a_letter_goes_by_starttls_with_a_password_that_nobody_sees(
    alerts: AlertLake, tmp_path: Path
) -> None:
    """The letter that it is over answers the one before; an error has no password."""
    authority = Authority(tmp_path / "ca", "test")
    secret = tmp_path / "secret"
    secret.write_text("pa55word\n")
    with mail_receiver(authority.issue("localhost")) as mail:
        options = f"server=localhost:{mail.port}&tls=starttls&ca_cert={authority.file}"
        login = f"user=lake&password_file={secret}&from=lake@example.org"
        alerts.add(sinks=(f"mailto:a@example.org,b@example.org#{options}&{login}",))
        mail.mode = "535"
        alerts.errors(2)
        alerts.round()
        assert "the user or password is wrong (535)" in note(alerts)
        mail.mode = "200"
        alerts.round(SECOND)
        alerts.round(20 * MINUTE)
    fired, resolved = mail.received
    assert fired.headers["subject"] == "[firing] r source=web"
    assert fired.headers["to"] == "a@example.org, b@example.org"
    assert fired.headers["message-id"] == f"<{fired.id}@lakelog.invalid>"
    assert resolved.headers["in-reply-to"] == fired.headers["message-id"]
    assert "boom 1" in fired.body
    everything = json.dumps([history(alerts.lake), overview(alerts.lake), alerts.lines])
    assert "pa55word" not in everything


def test_a_letter_is_not_sent_to_a_server_whose_certificate_is_another_s(
    alerts: AlertLake, tmp_path: Path
) -> None:
    """Nor is a password."""
    logins: list[str] = []
    with mail_receiver(Authority(tmp_path, "test").issue("localhost")) as mail:
        mail.hook = logins.append
        alerts.add(sinks=(f"mailto:a@b.org#server=localhost:{mail.port}&tls=starttls&user=a",))
        alerts.errors(1)
        alerts.round()
    assert "the certificate is not accepted" in note(alerts)
    assert not logins


def test_a_program_reads_json_and_is_ended(
    alerts: AlertLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a shell; one that fails or runs on is said, without its arguments."""
    monkeypatch.setattr("lakelog.alerts.sinks.known.SECONDS", 0.5)
    out = tmp_path / "out"
    code = f"import sys, os; open({str(out)!r}, 'a').write(os.environ['LAKELOG_NOTIFICATION'])"
    good = f'command:{sys.executable} -c "{code}; assert sys.stdin.read()"'
    alerts.add(sinks=(good, "command:sleep 77", 'command:sh -c "echo no disk >&2; exit 3"'))
    alerts.errors(1)
    alerts.round()
    assert "command:sleep: ran longer than 0.5 s" in note(alerts)
    assert "command:sh: ended with 3: no disk" in note(alerts)
    assert "77" not in note(alerts)
    (delivered,) = (e for e in history(alerts.lake) if e.get("outcome") == "delivered")
    assert out.read_text() == f"{delivered['change']}-{delivered['sink']}"


def test_alertmanager_s_forms_are_as_it_has_them(alerts: AlertLake, hook: Receiver) -> None:
    """What it sends to webhooks, and what its own API takes."""
    alerts.add(
        sinks=(f"{hook.url}#form=alertmanager", f"alertmanager+http://127.0.0.1:{hook.port}")
    )
    alerts.errors(1)
    alerts.round()
    key = overview(alerts.lake)["alerts"][0]["fingerprint"]
    alerts.round(20 * MINUTE)
    by_path: dict[str, list[Any]] = {}
    for one in hook.received:
        by_path.setdefault(one.headers["path"], []).append(one.body)
    fired, resolved = by_path["/hook/secret-path"]
    labels = {"alertname": "r", "severity": "warning", "source": "web"}
    assert (fired["version"], fired["status"], fired["commonLabels"]) == ("4", "firing", labels)
    assert resolved["alerts"][0]["status"] == "resolved"
    # By which receivers know the alert that is over.
    assert [one["alerts"][0]["fingerprint"] for one in (fired, resolved)] == [key, key]
    ((first,), (last,)) = by_path["/api/v2/alerts"]
    assert first["labels"] == last["labels"] == labels
    assert first["startsAt"] == last["startsAt"]
    assert first["endsAt"].startswith("9999")
    assert last["endsAt"] > last["startsAt"]


def test_what_waits_is_told_though_its_rule_is_removed(make_lake: MakeLake, hook: Receiver) -> None:
    """Also where the alert was over before, and nobody evaluated."""
    lake = make_lake()
    with watched(lake) as alerts:
        alerts.add(sinks=(hook.url,))
        alerts.errors(1)
        alerts.round()
        hook.mode = "503"
        alerts.round(20 * MINUTE)
    assert RuleBook(lake).remove("r") == 0
    hook.mode = "200"
    with watched(lake) as later:
        later.time = alerts.time
        later.round(SECOND)
    told = [one.body["state"] for one in hook.received if one.is_answered]
    assert told == ["firing", "resolved"]


def test_alertmanager_gets_names_of_labels_that_it_takes(alerts: AlertLake, hook: Receiver) -> None:
    """A column without a name of its own has that of its expression."""
    expression = "SELECT '{\"host\": \"a\"}'::JSON->>'host', 'b' AS \"2nd\", 'c' AS \"é.x\", 1 AS n"
    alerts.add(query=expression, sinks=(f"alertmanager+http://127.0.0.1:{hook.port}",))
    alerts.round()
    ((alert,),) = (one.body for one in hook.received)
    names = {"alertname", "severity", "_2nd", "__x"}
    assert names < alert["labels"].keys()
    assert all(re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name) for name in alert["labels"])
    assert {*alert["labels"].values()} == {"r", "warning", "a", "b", "c"}


def test_a_receiver_that_no_rule_has_any_more_is_given_up(
    alerts: AlertLake, hook: Receiver
) -> None:
    """What waits for it would else wait for ever."""
    alerts.add(sinks=(hook.url,))
    hook.mode = "503"
    alerts.errors(1)
    alerts.round()
    alerts.add(sinks=("log",))
    assert any(line.startswith("alert firing") for line in alerts.round(SECOND))
    deliveries = [e for e in history(alerts.lake) if e["event"] == "delivery"]
    assert [e["outcome"] for e in deliveries if e["to"] != "log"] == ["failed", "given up"]


def test_a_receiver_that_is_new_is_told_what_fires_already(
    alerts: AlertLake, hook: Receiver
) -> None:
    """Each hears once that it fires and once that it is over, by the id that it was sent."""
    alerts.add(sinks=("log",))
    alerts.errors(1)
    assert len(alerts.round()) == 1
    alerts.add(sinks=("log", hook.url))
    assert not alerts.round(SECOND) + alerts.round(MINUTE)
    alerts.round(20 * MINUTE)
    fired, resolved = hook.received
    assert (fired.body["state"], fired.body["reason"]) == ("firing", "its rule has other receivers")
    assert (resolved.body["state"], resolved.body["resolves"]) == (
        "resolved",
        fired.id.partition("-")[0],
    )
    assert [line.split()[1] for line in alerts.lines] == ["firing", "resolved"]
    first, *_, over = (e for e in history(alerts.lake) if e["event"] == "change")
    (log,) = (sink for sink in over["sinks"] if sink["to"] == "log")
    assert log["resolves"] == first["id"]


@pytest.mark.parametrize(
    "spelled",
    [
        "ftp://x",
        "http://user:pw@host/",
        "http://host/a b",
        "https://h/#nothing=1",
        "https://h/#form=xml",
        "mailto:nobody",
        "mailto:a@b.org#server=mail",
        "mailto:a@b.org#server=mail.example.org:25&tls=none",
        "command:",
        "command:'a",
        "webhook:https://h",
        "alertmanager+ftp://h",
    ],
)
def test_a_receiver_that_cannot_be_is_refused(spelled: str) -> None:
    """When the rule is added, without a word of what may be secret."""
    with pytest.raises(InvalidSetting) as caught:
        parse(spelled, print)
    assert "pw" not in str(caught.value).split()


def test_a_secret_is_read_where_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each attempt, so that it can be changed; what is missing is named by its place."""
    monkeypatch.setenv("TOKEN", "one")
    assert sink.secret({"token_env": "TOKEN"}, "token") == "one"
    file = tmp_path / "token"
    file.write_text("two\n")
    assert sink.secret({"token_file": str(file)}, "token") == "two"
    os.truncate(file, 0)
    for options in ({"token_file": str(file)}, {"token_file": f"{file}x"}, {"token_env": "NO"}):
        with pytest.raises(sink.DeliveryFailed, match=next(iter(options.values()))):
            sink.secret(options, "token")


def test_rules_from_afar_name_no_program_and_no_file(make_lake: MakeLake) -> None:
    """Who may change rules over the network could else run programs, or send files away."""
    book = RuleBook(make_lake())
    members = {"search": "a", "above": 1, "every": "30s", "for": "1m"}
    for spelled in ("command:true", "https://h/#token_file=/etc/passwd", "webhook:#url_env=HOME"):
        with pytest.raises(InvalidSetting, match="lakelog alerts add"):
            book.add_remote("a", {**members, "sinks": [spelled]}, replace=False)
    with pytest.raises(InvalidSetting, match="a number is needed"):
        book.add_remote("a", {**members, "above": "1"}, replace=False)
    book.add_remote("a", {**members, "sinks": ["log"]}, replace=False)
    assert (book.rule("a").every, book.rule("a").wait) == (30 * SECOND, MINUTE)


def test_a_test_notification_goes_to_each_receiver(make_lake: MakeLake, hook: Receiver) -> None:
    """It says that it is one, and nothing is stored."""
    lake = make_lake()
    book = RuleBook(lake)
    hook.mode = "500"
    rule = AlertRule("a", search="a", above=1, sinks=(hook.url, "log"))
    assert list(book.send_test(rule).values()) == [f"http://127.0.0.1:{hook.port}: HTTP 500", ""]
    assert hook.received[0].body["message"] == "This is a test: nothing is wrong."
    assert not history(lake)


def test_pauses_grow_to_five_minutes() -> None:
    """And are never shorter than a second."""
    assert [outbox.pause(n) // SECOND for n in (1, 2, 3, 9, 10, 500)] == [1, 2, 4, 256, 300, 300]


def test_a_letter_is_the_same_at_each_attempt(alerts: AlertLake) -> None:
    """So that a server that knows Message-IDs drops the second one."""
    alerts.add(sinks=("mailto:a@b.org#server=localhost:1",))
    alerts.errors(1)
    alerts.round()
    document = next(e for e in history(alerts.lake) if e["event"] == "change")
    mail = Mail("mailto:a@b.org")
    letters = [mail.letter(Notice("id-1", attempt, document)).as_bytes() for attempt in (1, 2)]
    assert letters[0] == letters[1]
