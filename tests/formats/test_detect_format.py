"""Which format a file has: the short way to the surest one gives what asking all of them gives."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lakelog.formats.format import Format
from lakelog.formats.registry import FORMATS
from tests.support.effort import share
from tests.support.samples import lines_of

TEXTS = ("access", "syslog", "logfmt", "applog")
LINES = [
    *(line.encode() for name in TEXTS for line in lines_of(name)),
    b'{"a":1}',
    b'{"time":"2026-01-01T00:00:00Z","level":"info","msg":"x"}',
    b'{"a":',
    b"[",
    b"{",
    b'{"log":"x\\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}',
    b'{"specversion":"1.0","id":"1","source":"s","type":"t"}',
    b'{"index":{}}',
    b'[{"resourceLogs":[]}]',
    b'{"resourceLogs":[',
    b'{"Records":[',
    b"a,b,c",
    b"1,2,3",
    b"2026-01-01T00:00:00Z|TYPE|c|s|i|{}",
    b"CEF:0|v|p|1|c|n|5|a=b",
    b"#separator \\x09",
    b"",
    b"2026-01-01T00:00:00Z stdout F words",
    b"words",
    b"\x00\x01",
    b"\xff\xfe",
]


def highest(part: bytes) -> tuple[str, float]:
    """The first format of the highest score, by asking all of them."""
    sure = FORMATS.scores(part)
    name = max(sure, key=sure.__getitem__)
    return name, sure[name]


@settings(max_examples=share(300), deadline=None)
@example([b"words", *LINES[:3]])
@example([b'{"a":1}'] * 3)
@given(st.lists(st.sampled_from(LINES), max_size=8) | st.sampled_from(LINES).map(lambda x: [x] * 5))
def test_short_way_finds_highest_score(lines: list[bytes]) -> None:
    """What is not asked could not have won, nor could it by being named earlier."""
    part = b"\n".join([*lines, b""])
    form, sure = FORMATS.surest(part)
    assert (form.NAME, sure) == highest(part)


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda f: f.NAME)
def test_limits_and_means_hold(form: Format) -> None:
    """No format is surer than its `surest`, and one that goes `by_line` gives the mean of its
    lines."""
    alone = [form.sniff([line]) for line in LINES]
    assert max(alone) <= form.traits.surest
    if form.traits.by_line:
        full = [sure for sure, line in zip(alone, LINES, strict=True) if line.strip()]
        whole = form.sniff(LINES)
        assert whole == pytest.approx(sum(full) / len(full))


def test_a_level_where_a_host_would_stand_is_no_syslog() -> None:
    """`TIME LEVEL name: text` fits the layout of syslog files by chance."""
    levels = ["INFO", "ERROR", "WARN"] * 4
    own = b"".join(b"2026-03-01T11:00:00Z %b worker: done\n" % level.encode() for level in levels)
    form = FORMATS.detect(own, own, "app.log")
    assert form.NAME != "syslog"
    event = form.parse(own.splitlines()[1])
    assert isinstance(event, dict)
    assert event["level"] == "ERROR"
    syslog = own.replace(b"INFO", b"info-host").replace(b"ERROR", b"db1").replace(b"WARN", b"db2")
    assert FORMATS.detect(syslog, syslog, "app.log").NAME == "syslog"


NOVA = "2017-05-16 00:00:04.500 2931 INFO nova.compute.manager [req-1 - - - - -] n"
OSLO = "2017-05-16 00:00:05.500 2931 ERROR nova.x Traceback (most recent call last):"
SPRING = "2023-10-11 22:14:15.123  INFO 12 --- [main] c.e.Foo : n"
BAN = "2023-10-11 22:14:15,123 fail2ban.actions [77]: NOTICE [sshd] Ban 192.0.2.1"
BIND = "11-Oct-2023 22:14:15.123 general: info: running"
RSYSLOG = "2026-11-29T13:56:25.988606+00:00 vm sshd[123]: Accepted publickey for ada"
FOREIGN = {
    "openstack": (NOVA, OSLO),
    "spring": (SPRING, "2023-10-11 22:14:15.123 Hibernate: select 1"),
    "fail2ban": (BAN, "2023-10-11 22:14:15,123 fail2ban.actions.action: ERROR  iptables failed"),
    "bind": (BIND, "11-Oct-2023 22:14:15.123 running"),
    "syslog": (RSYSLOG, "2026-11-29T13:56:26.988606+00:00 vm -- MARK --"),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("at", [0, 7, 49])
def test_one_foreign_line_changes_no_format(name: str, at: int) -> None:
    """A file stays one of its program, though a line of it tells no more than its time."""
    own, foreign = FOREIGN[name]
    lines = [own] * 220
    lines[at] = foreign
    data = "".join(f"{line}\n" for line in lines).encode()
    assert name == FORMATS.detect(data, data, "x.log").NAME
    data = f"{foreign}\n{foreign}\n{own}\n".encode()
    assert FORMATS.detect(data, data, "x.log").NAME == "applog"
