"""Settings: text a user may write, refused before it can make a lake nobody can open."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lakelog
from lakelog.errors import InvalidSetting
from lakelog.settings import DEFAULTS, NAMES, SEAL_CHOICES, Settings, parse, span_us
from tests.support.cli import run


@pytest.mark.parametrize(
    ("name", "value", "number"),
    [
        ("rotate_bytes", 16, 16),
        ("rotate_bytes", "16", 16),
        ("rotate_bytes", " 16 MB ", 16_000_000),
        ("rotate_bytes", "16mb", 16_000_000),
        ("rotate_bytes", "5kB", 5_000),
        ("rotate_bytes", "7b", 7),
        ("memory_bytes", "2GB", 2_000_000_000),
        ("segment_rows", "250k", 250_000),
        ("segment_rows", "1M", 1_000_000),
        ("rotate_seconds", "90", 90),
        ("threads", 0, 0),
        ("gc_grace_hours", 0, 0),
        ("history_days", "0", 0),
    ],
)
def test_a_number_may_be_text_with_a_unit(name: str, value: object, number: int) -> None:
    """Numbers are taken as they are, or as text with a decimal unit."""
    assert getattr(parse({name: value}), name) == number


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rotate_bytes", "-1"),
        ("rotate_bytes", -1),
        ("rotate_bytes", "1.5MB"),
        ("rotate_bytes", "16 MiB"),
        ("rotate_bytes", "many"),
        ("rotate_bytes", ""),
        ("rotate_bytes", None),
        ("rotate_bytes", True),
        ("rotate_bytes", 1.5),
        ("rotate_bytes", 0),
        ("segment_rows", "0"),
        ("rotate_seconds", 0),
        ("memory_bytes", "99999999999GB"),
        ("seal", "sometimes"),
        ("seal", None),
        ("seal", 1),
        ("rotate_seconds", "1m"),
        ("history_days", "30b"),
        ("gc_grace_hours", "1k"),
        ("threads", "1M"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(name: str, value: object) -> None:
    """A value of the wrong kind is refused with a line that names the setting."""
    with pytest.raises(InvalidSetting, match=name) as caught:
        parse({name: value})
    assert "\n" not in str(caught.value)


def test_an_unknown_setting_is_refused_with_the_known_ones() -> None:
    """A setting that does not exist is refused, and those that do are listed."""
    with pytest.raises(InvalidSetting, match=r"no setting 'rotate'.*rotate_bytes"):
        parse({"rotate": 1})


def test_pairs_are_laid_over_a_base() -> None:
    """Settings that are not named keep the value of the base."""
    base = Settings(rotate_events=7, seal="never")
    assert parse({"rotate_events": 8}, base) == dataclasses.replace(base, rotate_events=8)
    assert parse({}) == DEFAULTS


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "seal": st.sampled_from(SEAL_CHOICES),
            **{n: st.integers(1, 2**62) for n in NAMES if n != "seal"},
        },
    )
)
def test_what_differs_from_the_defaults_comes_back(pairs: dict[str, object]) -> None:
    """Settings written as the pairs that differ are read back as they were."""
    made = parse(pairs)
    assert parse(made.unlike()) == made
    assert made.unlike() == {n: v for n, v in pairs.items() if v != getattr(DEFAULTS, n)}


def test_there_are_at_most_a_dozen() -> None:
    """A user can read all settings at once, and each says what it is for."""
    assert len(NAMES) <= 12


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("30d", 30 * 86_400_000_000),
        ("12h", 12 * 3_600_000_000),
        ("15m", 900_000_000),
        ("90s", 90_000_000),
        ("5ms", 5_000),
        ("7us", 7),
        ("2w", 14 * 86_400_000_000),
        ("1.5h", 5_400_000_000),
        (" 1 d ", 86_400_000_000),
        ("0s", 0),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, micros: int) -> None:
    """Durations are written as 30d, 12h, 15m or 90s."""
    assert span_us(text) == micros


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1y", "1 month", "1h30m", "1,5h", "∞d"])
def test_a_wrong_duration_is_refused(text: str) -> None:
    """Anything else is no duration."""
    with pytest.raises(InvalidSetting, match="is not a duration"):
        span_us(text)


def test_a_lake_keeps_the_settings_it_was_made_with(home: Path) -> None:
    """Opening an existing lake with other settings changes nothing."""
    path = str(home / "lake")
    lakelog.open(path, settings={"rotate_events": 7})
    again = lakelog.open(path, settings={"rotate_events": 8})
    assert again.store.settings == Settings(rotate_events=7)


@pytest.mark.parametrize(
    "wrong",
    [
        Settings(segment_rows=0),
        Settings(seal="x"),
        Settings(rotate_bytes=-1),
        Settings(memory_bytes=8),
    ],
)
def test_a_lake_that_could_not_be_opened_again_is_not_made(home: Path, wrong: Settings) -> None:
    """Settings made without parse are checked too, before anything is written."""
    path = home / "lake"
    with pytest.raises(InvalidSetting):
        lakelog.open(str(path), settings=wrong)
    assert not path.exists()


def test_changed_settings_are_there_at_the_next_opening(lake: lakelog.Lake) -> None:
    """A change replaces lakelog.json whole and is seen by whoever opens the lake next."""
    lake.store.change_settings(parse({"gc_grace_hours": 1}, lake.store.settings))
    assert lakelog.open(lake.path).store.settings == Settings(seal="never", gc_grace_hours=1)


def test_changes_of_two_at_once_are_both_there(lake: lakelog.Lake) -> None:
    """Whoever changes one setting keeps what others have set since it opened the lake."""
    with lakelog.open(lake.path) as other:
        other.store.change_settings(parse({"threads": 1}, other.store.settings))
    lake.store.change_settings(parse({"gc_grace_hours": 1}, lake.store.settings))
    with lakelog.open(lake.path) as third:
        settings = third.store.settings
        assert (settings.threads, settings.gc_grace_hours, settings.seal) == (1, 1, "never")


def test_memory_that_answers_nothing_is_refused(lake: lakelog.Lake) -> None:
    """As 8 for 8GB is; a lake that has it, of an older lakelog, can be opened and changed."""
    with pytest.raises(InvalidSetting, match="8MB or more, or 0"):
        lake.store.change_settings(parse({"memory_bytes": 8}, lake.store.settings))
    lake.append({"type": "A"})
    lake.store.config.change(lambda body: {"settings": {"memory_bytes": 8}})
    said = run(lake.path, "search", "A", code=1).stderr
    assert said.count("ask of fewer events") == 1
    with lakelog.open(lake.path) as old:
        old.store.change_settings(parse({"memory_bytes": 0}, old.store.settings))
        assert old.sql("SELECT count(*) FROM events").fetchall() == [(1,)]
