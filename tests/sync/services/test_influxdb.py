"""InfluxDB as a target: our strict server as 1.x and 2.x, and InfluxDB 1.x itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lakelog.errors import InvalidSetting, SyncRefused, Unreachable
from tests.support.cli import run
from tests.support.influx_server import (
    InfluxPlace,
    InfluxServer,
    RealInflux,
    parse_line,
    real_influx,
)
from tests.support.lakes import copied, opened
from tests.support.strict_server import killed_at, nth, running
from tests.support.sync_places import PASSWORD, Faulty, expected, forked, kill, synced
from tests.support.target_suite import CHANGES, POINTS, REWOUND, add, lose, rewind

NASTY = [
    "plain",
    "a b,c=d",
    'q"uo"te',
    "back\\slash",
    "end\\",
    "end\\\\",
    "back\\ space\\,comma\\=",
    "new\nline",
    "čeština 🎙",
    "'; DROP",
    " ",
    "#",
    "\\n",
    '\\"',
]


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let retries not wait."""
    monkeypatch.setattr("lakelog.clients.connection.pause", lambda attempt: 0.001)


@pytest.fixture(params=["", "?org=acme"], ids=["v1", "v2"])
def place(request: pytest.FixtureRequest) -> Iterator[InfluxPlace]:
    with running(InfluxServer()) as server:
        yield InfluxPlace(server, request.param)


@pytest.fixture(scope="module")
def influx() -> Iterator[RealInflux]:
    with real_influx() as server:
        yield server


@pytest.fixture
def real(influx: RealInflux) -> InfluxPlace:
    for name in ("events", "lakelog_sync"):
        influx.ask(f'DROP MEASUREMENT "{name}"')
    return InfluxPlace(influx)


@pytest.fixture
def path(home: Path) -> str:
    """A lake of three segments, the first one tagged."""
    return copied(three_of_a_server, home)


def three_of_a_server(path: str) -> None:
    add(path, "a", 40, source="app server")
    with opened(path) as lake:
        lake.tag("base")
    for name in "bc":
        add(path, name, 40)


def check(path: str, place: InfluxPlace) -> None:
    result = synced(path, place.url)
    assert place.rows() == expected(path)
    assert result.total == len(place.rows())
    assert synced(path, place.url).commits == 0


@pytest.mark.matrix
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(1, 27, 2))
def test_crash_recovery_at_each_request_of_a_back_fill(
    path: str, place: InfluxPlace, number: int, moment: str
) -> None:
    """Then the lake is rolled back: of what the batch wrote nothing is left over."""
    assert killed_at(place.server, number, moment, lambda: synced(path, place.url))
    rewind(path)
    check(path, place)


@pytest.mark.matrix
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(4, 18, 2))
def test_crash_recovery_at_each_request_of_a_rewind(
    path: str, place: InfluxPlace, number: int, moment: str
) -> None:
    """Then the rollback is undone: what the batch had deleted is there again."""
    synced(path, place.url)
    rewind(path)
    assert killed_at(place.server, number, moment, lambda: synced(path, place.url))
    with opened(path) as lake:
        lake.undo(force=True)
    check(path, place)


@pytest.mark.matrix
@pytest.mark.parametrize("fault", ["drop", "lose", "half", "503"])
@pytest.mark.parametrize("number", [2, 5, 8, 10, 12, 14])
def test_retry_after_a_fault(path: str, place: InfluxPlace, fault: str, number: int) -> None:
    synced(path, place.url)
    rewind(path)
    place.server.fault = nth(number, fault)
    synced(path, place.url)
    check(path, place)


@pytest.mark.matrix
@pytest.mark.parametrize("change", ["add", "rewind", "undo", "compact", "retention", "dedupe"])
def test_incremental(path: str, place: InfluxPlace, change: str) -> None:
    synced(path, place.url)
    CHANGES[change](path)
    check(path, place)


# --- InfluxDB itself ------------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize(("method", "moment", "number"), POINTS)
def test_crash_recovery_with_influxdb(
    path: str, real: InfluxPlace, method: str, moment: str, number: int
) -> None:
    target = Faulty(real.target(), method, moment, number, kill)
    assert forked(lambda: synced(path, target)) == -9
    rewind(path)
    check(path, real)


@pytest.mark.matrix
@pytest.mark.parametrize(("method", "moment", "number"), REWOUND)
def test_lost_connection_in_a_rewind_with_influxdb(
    path: str, real: InfluxPlace, method: str, moment: str, number: int
) -> None:
    synced(path, real.url)
    rewind(path)
    target = Faulty(real.target(), method, moment, number, lose)
    synced(path, target)
    assert target.has_struck
    check(path, real)


@pytest.mark.matrix
@pytest.mark.parametrize("change", ["add", "rewind", "undo", "compact", "retention", "dedupe"])
def test_incremental_with_influxdb(path: str, real: InfluxPlace, change: str) -> None:
    synced(path, real.url)
    CHANGES[change](path)
    check(path, real)


@pytest.mark.matrix
@pytest.mark.parametrize("method", ["begin", "write", "commit"])
def test_crash_recovery_of_influxdb(path: str, real: InfluxPlace, method: str) -> None:
    """Killed and started again in the middle."""

    def crash(_: Any) -> None:
        real.server.kill()
        real.server.start()

    synced(path, Faulty(real.target(), method, "after", 2, crash))
    check(path, real)


def nasty(path: str) -> None:
    with opened(path) as lake:
        for n, text in enumerate(NASTY):
            lake.append({"type": text, "source": text, "message": text, "data": {text: n}})


def test_values_are_exact_with_influxdb(home: Path, real: InfluxPlace) -> None:
    """Fields exactly; in tags what the protocol cannot express is replaced."""
    path = str(home / "lake")
    nasty(path)
    synced(path, real.url)
    for found, wanted in zip(real.rows(), expected(path), strict=True):
        assert found[3:] == wanted[3:]
        assert _replaced(found[1]) == _replaced(wanted[1])


def test_values_are_exact(home: Path, place: InfluxPlace) -> None:
    path = str(home / "lake")
    nasty(path)
    synced(path, place.url)
    for found, wanted in zip(place.rows(), expected(path), strict=True):
        assert found[3:] == wanted[3:]
        assert _replaced(found[1]) == _replaced(wanted[1])


def _replaced(text: str) -> str:
    return text.replace("\\", "\u29f5").replace("\n", "\ufffd")


def test_numbers_and_booleans(path: str, place: InfluxPlace) -> None:
    query = """SELECT time, 'a' AS k, seq % 2 = 0 AS even, seq / 4.0::DOUBLE AS quarter,
        CASE seq WHEN 3 THEN 'nan'::DOUBLE WHEN 4 THEN '-inf'::DOUBLE ELSE 1e300 END AS wide
        FROM events"""
    synced(path, f"{place.url}{'&' if '?' in place.url else '?'}tags=k", query=query)
    points = {v["seq"]: (k, v) for k, v in place.server.points.items() if k[0] == "events"}
    assert {key[1] for key, _ in points.values()} == {(("k", "a"),)}
    assert points[6][1] == {"seq": 6, "even": True, "quarter": 1.5, "wide": 1e300}
    assert "wide" not in points[3][1]
    assert "wide" not in points[4][1]


# --- what InfluxDB cannot do -----------------------------------------------------------------


@pytest.mark.parametrize("is_fine", [False, True])
def test_events_that_would_be_one_point_are_refused(
    home: Path, place: InfluxPlace, is_fine: bool
) -> None:
    """More than 1,000 events of one second and the same tags need ?resolution=s."""
    path = str(home / "lake")
    with opened(path) as lake:
        lake.append([{"time": 1_770_000_000, "type": "t", "message": str(i)} for i in range(1500)])
    if is_fine:
        synced(path, f"{place.url}{'&' if '?' in place.url else '?'}resolution=s")
        assert place.rows() == expected(path)
        return
    with pytest.raises(SyncRefused, match="events 0 and 1000 have one time and the same tags"):
        synced(path, place.url)
    assert place.rows() == []


def test_time_that_influxdb_does_not_have(path: str, place: InfluxPlace) -> None:
    with opened(path) as lake:
        lake.append({"type": "OLD", "time": "0001-01-01T00:00:00Z"})
    with pytest.raises(SyncRefused, match="event 120 has no time between 1677 and 2262"):
        synced(path, place.url)
    assert len(place.rows()) % 40 == 0


def test_field_of_another_type(path: str, real: InfluxPlace) -> None:
    """The line names the event, the field and the type; earlier batches stay."""
    query = "SELECT time, type, seq AS n FROM events"
    synced(path, real.url, table="other", query=query)
    real.server.ask('DELETE FROM "lakelog_sync"')
    with pytest.raises(SyncRefused, match="rows that no sync wrote"):
        synced(path, real.url, table="other", query=query)
    real.server.ask('DELETE FROM "other"')
    wrong = "SELECT time, type, message AS n FROM events"
    with pytest.raises(SyncRefused, match=r"event 0: .*field .*n.*type.*change or leave") as caught:
        synced(path, real.url, table="other", query=wrong)
    assert "\n" not in str(caught.value)
    real.server.ask('DROP MEASUREMENT "other"')


def test_too_large_request_is_divided(path: str) -> None:
    with running(InfluxServer(bytes_max=2500)) as server:
        check(path, InfluxPlace(server))


def test_write_only_token(path: str, place: InfluxPlace) -> None:
    place.server.is_write_only = True
    with pytest.raises(SyncRefused, match="a sync reads how far it is: use a token"):
        synced(path, place.url)


def test_bucket_that_is_not_there(path: str, real: InfluxPlace) -> None:
    with pytest.raises(SyncRefused, match="database not found"):
        synced(path, real.url.replace("/events", "/nope"))


def test_secrets_are_in_no_output(
    path: str, place: InfluxPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.server.login = f"Token {PASSWORD}"
    done = run(path, "sync", place.url, "--once", code=1)
    assert "HTTP 401" in done.stderr
    url = f"{place.url}{'&' if '?' in place.url else '?'}token={PASSWORD}"
    done = run(path, "sync", url, "--once")
    assert PASSWORD not in done.stdout + done.stderr
    assert PASSWORD not in run(path, "sync", "status", url).stdout
    monkeypatch.setenv("INFLUX_TOKEN", PASSWORD)
    check(path, place)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("influxdb://127.0.0.1:8086", "looks like influxdb://HOST:8086/BUCKET"),
        ("influxdb://127.0.0.1/b?resolution=h", "resolution of a target is one of us, ms, s"),
        ("influxdb://127.0.0.1/b?tags=seq", "seq cannot be a tag"),
        ("influxdb://127.0.0.1/b?bucket=x", "its options are org"),
        ("influxdb://127.0.0.1:1/b", "Connection refused"),
    ],
)
def test_mistakes_are_one_line(path: str, url: str, words: str) -> None:
    with pytest.raises((InvalidSetting, SyncRefused, Unreachable), match=words) as caught:
        synced(path, url, retries=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["#c", "a\\"])
def test_measurement_whose_lines_would_be_dropped(path: str, place: InfluxPlace, name: str) -> None:
    """A line that begins with # is a comment: the server accepts it, and stores nothing."""
    with pytest.raises(InvalidSetting, match="cannot be a measurement"):
        synced(path, place.url, table=name)


def test_mapping_without_a_time(path: str, place: InfluxPlace) -> None:
    with pytest.raises(SyncRefused, match="a point has a time: name a column"):
        synced(path, place.url, query="SELECT seq, type FROM events")


@pytest.mark.parametrize(
    "line",
    [
        "m,a= x=1i 1",
        "m x=1 2 3",
        'm x="a 1',
        "m,a=b\\ x=1i 1",
        "m x=nan 1",
        "m x=1i",
        "m,a=1,a=2 x=1 1",
    ],
)
def test_strict_server_sees_a_wrong_line(line: str) -> None:
    with pytest.raises(AssertionError):
        parse_line(line)
