"""Times that name no zone are of the zone of their source, in the engine as in the exact rule."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import lakelog
from lakelog.audit.audit import audit
from lakelog.errors import InvalidSetting
from lakelog.formats import local_time
from lakelog.formats.registry import FORMATS
from lakelog.ingest.transform import FEW, Transformer
from lakelog.lines.pieces import Chunk
from lakelog.values import parse_time, to_micros

MakeLake = Callable[..., lakelog.Lake]
BERLIN = "Europe/Berlin"
NIGHTS = ("2026-03-29", "2026-10-25", "2026-07-01", "1985-09-29", "2006-10-29", "2027-01-15")
"""Nights in which clocks change, one of them a minute after midnight, and others, one of another
rule, one of a year for which a government may have decided something else since."""
LINES = {
    "applog": "{} ERROR db: lost",
    "jsonl": '{{"time": "{}", "type": "a"}}',
    "logfmt": 'time="{}" level=info msg=x',
    "csv": "{},b",
}


def moments() -> list[datetime]:
    """Every ten minutes of some nights."""
    days = [datetime.fromisoformat(day) for day in NIGHTS]
    return [day + timedelta(minutes=10 * n) for day in days for n in range(6 * 24)]


@pytest.mark.parametrize(
    ("name", "spelling"),
    [(name, "%Y-%m-%d %H:%M:%S") for name in LINES]
    + [
        (name, "%Y%m%d%H%M%S" + fraction)
        for name in LINES
        for fraction in ("", "000", ".0")
        if name != "applog"
    ],
)
@pytest.mark.parametrize(
    "zone", [BERLIN, "America/St_Johns", "America/Vancouver", "+05:30", "-03:00"]
)
def test_both_ways_of_reading_agree_where_clocks_change(
    make_lake: MakeLake, name: str, zone: str, spelling: str
) -> None:
    """In the hour that is there twice or not at all, the engine and the exact rule agree."""
    lake = make_lake()
    texts = [LINES[name].format(moment.strftime(spelling)) for moment in moments()]
    texts = ["time,b", *texts] if name == "csv" else texts
    data = "".join(f"{text}\n" for text in texts).encode()
    form = FORMATS.specialize(FORMATS.by_name(FORMATS.in_zone(name, zone)), data)
    assert len(texts) > FEW
    whole = Transformer(lake.engine, form, "o").run(Chunk(data, 0), final=True)
    wanted = [parse_time(str(moment), local_time.zone_of(zone)) for moment in moments()]
    assert [t.astimezone(UTC) for t in whole.table["time"].to_pylist()] == wanted
    few = Transformer(lake.engine, form, "o").run(Chunk(data[:2000], 0), final=True)
    got = [t.astimezone(UTC) for t in few.table["time"].to_pylist()]
    assert len(got) > 10
    assert got[:-1] == wanted[: len(got) - 1]


@pytest.mark.parametrize("seed", range(4))
def test_any_zone_is_as_the_engine_has_it(make_lake: MakeLake, seed: int) -> None:
    """At random moments, and around them by the minute, whatever tables the system has."""
    dice, cursor = random.Random(seed), make_lake().engine()
    query = "SELECT name FROM pg_timezone_names() WHERE contains(name, '/') ORDER BY 1"
    names = [name for (name,) in cursor.execute(query).fetchall() if not name.startswith("Etc/")]
    for name in dice.sample(names, 3):
        begins = [datetime(dice.randint(1, 9999), 1, 1) for _ in range(2)]
        begins += [datetime(dice.randint(1880, 2040), dice.randint(1, 12), 1) for _ in range(3)]
        texts = [
            str(begin + timedelta(seconds=30 * dice.randrange(80_000)))
            for begin in begins
            for _ in range(50)
        ]
        cursor.execute(f"SET TimeZone = '{name}'")
        query = "SELECT epoch_us(unnest($1::VARCHAR[])::TIMESTAMPTZ)"
        wanted = [micros for (micros,) in cursor.execute(query, [texts]).fetchall()]
        zone = local_time.zone_of(name)
        assert [to_micros(parse_time(text, zone)) for text in texts] == wanted, name


def test_a_zone_stays_with_the_file(make_lake: MakeLake, tmp_path: Path) -> None:
    """What was read in a zone is counted in it by audit, and grows in it."""
    lake, path = make_lake(), tmp_path / "app.log"
    path.write_text("2026-07-01 12:00:00 INFO a: one\n")
    lake.ingest(str(path), format=f"applog@{BERLIN}")
    with path.open("a") as file:
        file.write("2026-07-01T12:00:01Z INFO a: two\n")
    lake.ingest(str(path), format=f"applog@{BERLIN}")
    times = lake.sql("SELECT time AT TIME ZONE 'UTC' FROM events ORDER BY position").fetchall()
    assert [str(t) for (t,) in times] == ["2026-07-01 10:00:00", "2026-07-01 12:00:01"]
    done = audit(lake.store, "main", lake.engine, [str(path)])
    assert [(f.lines, f.wrong, f.format) for f in done.files] == [(2, 0, f"applog@{BERLIN}")]


@pytest.mark.parametrize("zone", ["CET", "Mars/Olympus", "+25:00", "../etc/passwd", "", "a/\x00"])
def test_a_zone_that_is_none_is_refused(zone: str) -> None:
    """Abbreviations, unknown names and offsets that cannot be are refused in one line."""
    with pytest.raises(InvalidSetting, match="write Europe/Berlin, UTC or"):
        local_time.zone_of(zone)


def test_formats_without_times_to_be_told_have_no_zone() -> None:
    """UTC, requests of _bulk and a LogFormat are called as ever."""
    assert FORMATS.in_zone("applog", "UTC") == "applog"
    assert FORMATS.in_zone("bulk", BERLIN) == "bulk"
    assert FORMATS.in_zone("access:%h %t", BERLIN) == "access:%h %t"
    assert FORMATS.in_zone("applog@UTC", "+02:00") == "applog@+02:00"


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "bulk"])
def test_zone_changes_nothing_but_times(name: str) -> None:
    """A format in a zone recognises, cuts and reads lines as the format itself does."""
    form, zoned = FORMATS[name], FORMATS.by_name(f"{name}@Europe/Berlin")
    assert replace(zoned.traits, zone="") == form.traits
    members = ("about", "QUERY", "heads", "complete", "places")
    assert [getattr(zoned, m) for m in members] == [getattr(form, m) for m in members]
    lines = [b'{"a":1}', b"", b"2026-01-01T00:00:00Z stdout F words", b"words"]
    assert zoned.sniff(lines) == form.sniff(lines)
