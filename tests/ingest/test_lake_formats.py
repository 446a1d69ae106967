"""Formats that a lake keeps: for which files, through growth, rollback, replay and audit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.audit.audit import audit
from lakelog.collect.watch import Watcher
from lakelog.errors import AlreadyExists, InvalidSetting, UnknownRef
from lakelog.formats.definition import FormatDefinition
from lakelog.ingest.definitions import LakeFormat
from lakelog.ingest.quarantine import Quarantine
from tests.support.kept_formats import PATTERN, ROWS, TEXT, rows

MakeLake = Callable[..., lakelog.Lake]
SHOP = FormatDefinition(
    PATTERN, begins=r"\d{4}-", zone="Europe/Berlin", levels=(("SCHWER", "ERROR"),), name="shop"
)


def keep(lake: lakelog.Lake, form: FormatDefinition = SHOP, *globs: str, **rest: Any) -> None:
    """Add a format for some files."""
    overwrite = rest.pop("overwrite", False)
    made = LakeFormat(form, globs, **rest)
    made.add(lake.store, lake.branch_name, overwrite=overwrite)


def bad(lake: lakelog.Lake) -> list[str]:
    """Why lines are in quarantine."""
    return [r for (r,) in lake.sql("SELECT reason FROM quarantine ORDER BY position").fetchall()]


def faults(lake: lakelog.Lake, *paths: Path, **rest: Any) -> list[tuple[int, int, str]]:
    """What an audit counts: lines, faults and the format of each file."""
    done = audit(lake.store, "main", lake.engine, list(map(str, paths)), **rest)
    return [(f.lines, f.wrong, f.format) for f in done.files]


def test_files_of_a_name_are_read_by_their_format(make_lake: MakeLake, tmp_path: Path) -> None:
    """A file that fits the glob is read by the pattern, another is not; audit agrees."""
    lake = make_lake()
    keep(lake, SHOP, "shop*.log")
    (tmp_path / "shop-1.log").write_text(TEXT)
    (tmp_path / "other.log").write_text(f"2026-06-30 12:00:00 INFO [x] other\n{TEXT}")
    lake.ingest(str(tmp_path / "shop-1.log"))
    assert rows(lake) == ROWS
    assert bad(lake) == ["the pattern does not fit the line"]
    report = lake.ingest(str(tmp_path / "other.log"))
    assert report.files[0].format == "applog"
    assert faults(lake, tmp_path / "shop-1.log") == [(4, 0, "shop")]


@pytest.mark.parametrize(
    ("glob", "path", "fits"),
    [
        ("shop.log", "/var/log/shop.log", True),
        ("shop.log", "/var/log/shop.log.1", True),
        ("shop.log", "/var/log/shop.log-20260101.gz", True),
        ("shop.log", "/x/ashop.log", False),
        ("/var/log/*", "/var/log/a", True),
        ("/var/log/*", "/srv/log/a", False),
        ("shop/*.log", "/srv/shop/a.log.zst", True),
        ("shop/*.log", "/srv/myshop/a.log", False),
        ("*.log", "/srv/shop/a.log.2", True),
        ("*.log", "/srv/a.LOG", False),
    ],
)
def test_globs_fit_names_paths_and_rotated_copies(glob: str, path: str, fits: bool) -> None:
    """A glob without a slash is of the name, one with a slash of the path."""
    assert bool(LakeFormat(SHOP, (glob,)).rank(path, None)) is fits


def test_the_closest_format_is_taken() -> None:
    """A source goes before any glob, and a longer glob before a shorter one."""
    formats = {
        form.name: form
        for form in (
            LakeFormat(FormatDefinition("%{WORD:a}", name="all"), ("*",)),
            LakeFormat(FormatDefinition("%{WORD:a}", name="logs"), ("*.log",)),
            LakeFormat(FormatDefinition("%{WORD:a}", name="web"), (), ("web",)),
            LakeFormat(FormatDefinition("%{WORD:a}", name="asked")),
        )
    }

    def name(path: str, label: str | None) -> str:
        found = LakeFormat.find(formats, path, label)
        return found.name if found else ""

    assert [name("a.log", "web"), name("a.log", "x"), name("a", None)] == ["web", "logs", "all"]
    assert LakeFormat.find({}, "a", None) is None


def test_growth_and_watching_go_on_in_the_format(make_lake: MakeLake, tmp_path: Path) -> None:
    """What comes later is read in it, by ingest and by watch, one record by one."""
    lake, logs = make_lake(), tmp_path / "logs"
    logs.mkdir()
    keep(lake, SHOP, "*.log")
    path = logs / "shop.log"
    path.write_text(TEXT)
    watcher = Watcher(lake, [str(logs)])
    watcher.round(final=True)
    with path.open("a") as file:
        file.write("2026-07-01 12:00:04 INFO [web] again\n and again\n")
    watcher.round(final=True)
    watcher.close()
    assert rows(lake) == [*ROWS, ("2026-07-01 10:00:04", "INFO", "web", "again\n and again")]
    assert faults(lake, path) == [(5, 0, "shop")]


def test_a_watcher_takes_a_format_that_is_added_later(make_lake: MakeLake, tmp_path: Path) -> None:
    """A format that is added while a watcher runs is for what it reads next."""
    lake, logs = make_lake(), tmp_path / "logs"
    logs.mkdir()
    watcher = Watcher(lake, [str(logs)])
    (logs / "a.log").write_text("one WARN\n")
    watcher.round(final=True)
    keep(lake, FormatDefinition("%{WORD:word} %{WORD:level}", name="mine"), "*.log")
    with (logs / "a.log").open("a") as file:
        file.write("two ERROR\n")
    (logs / "b.log").write_text("three INFO\n")
    watcher.round(final=True)
    watcher.close()
    found = lake.sql("SELECT data->>'word', level FROM events ORDER BY 1").fetchall()
    assert found == [("three", "INFO"), ("two", "ERROR"), (None, None)]
    assert {f[2] for f in faults(lake, logs / "a.log", logs / "b.log")} == {"mine"}
    assert sum(f[1] for f in faults(lake, logs / "a.log", logs / "b.log")) == 0


def test_audit_is_right_after_the_format_changed(make_lake: MakeLake, tmp_path: Path) -> None:
    """The cursor holds what the file was read by, whatever the lake says of the name now."""
    lake, path = make_lake(), tmp_path / "shop.log"
    keep(lake, SHOP, "*.log")
    path.write_text(TEXT * 3)
    lake.ingest(str(path))
    keep(lake, FormatDefinition("%{WORD:a}", name="shop"), "*.log", overwrite=True)
    assert faults(lake, path) == [(12, 0, "shop")]
    LakeFormat.remove(lake.store, "main", "shop")
    assert faults(lake, path) == [(12, 0, "shop")]
    with path.open("a") as file:
        file.write("2026-07-01 12:00:05 WARN x: by its looks\n")
    assert lake.ingest(str(path)).files[0].format == "applog"
    assert [(f[0], f[1]) for f in faults(lake, path)] == [(13, 0)]


def test_a_lost_or_doubled_record_is_found(make_lake: MakeLake, tmp_path: Path) -> None:
    """audit names lines of a user's format that are missing."""
    lake, path = make_lake(), tmp_path / "shop.log"
    path.write_text(TEXT)
    lake.ingest(str(path), format=SHOP.spelled())
    assert faults(lake, path) == [(4, 0, "shop")]
    Quarantine(lake.store, "main").drop()
    assert faults(lake, path) == [(4, 1, "shop")]


def test_a_file_is_read_by_its_source(make_lake: MakeLake, tmp_path: Path) -> None:
    """A format for a --source is for files that come with it."""
    lake, path = make_lake(), tmp_path / "x"
    keep(lake, SHOP, sources=("mine",))
    path.write_text(TEXT)
    lake.ingest(str(path), source="mine")
    assert rows(lake) == ROWS
    assert faults(lake, path, label="mine") == [(4, 0, "shop")]


def test_a_zone_alone_leaves_the_format_to_lakelog(make_lake: MakeLake, tmp_path: Path) -> None:
    """A definition may say nothing but the zone; a change of it goes for what comes."""
    lake, path = make_lake(), tmp_path / "app.log"
    keep(lake, FormatDefinition(zone="Europe/Berlin", name="berlin"), "*.log")
    line = "2026-07-01 12:00:00 INFO a: " + "x" * 5000 + "\n"
    path.write_text(line)
    assert lake.ingest(str(path)).files[0].format == "applog@Europe/Berlin"
    keep(lake, FormatDefinition(zone="+09:00", name="berlin"), "*.log", overwrite=True)
    with path.open("a") as file:
        file.write(line)
    lake.ingest(str(path))
    assert [row[0] for row in rows(lake)] == ["2026-07-01 10:00:00", "2026-07-01 03:00:00"]
    assert [(f[0], f[1]) for f in faults(lake, path)] == [(2, 0)]


def test_a_rollback_keeps_the_present_formats(make_lake: MakeLake, tmp_path: Path) -> None:
    """After a wrong ingest: add a format, go back, ingest again; an undo keeps formats too."""
    lake, path = make_lake(), tmp_path / "shop.log"
    path.write_text(TEXT)
    keep(lake, FormatDefinition("%{WORD:a}", name="old"))
    lake.tag("before")
    lake.ingest(str(path))
    keep(lake, SHOP, "shop.log")
    LakeFormat.remove(lake.store, "main", "old")
    lake.rollback("before")
    assert list(LakeFormat.present(lake.store, "main")) == ["shop"]
    assert lake.count() == 0
    lake.ingest(str(path))
    assert rows(lake) == ROWS
    keep(lake, FormatDefinition("%{WORD:a}", name="late"))
    lake.undo(force=True)
    assert sorted(LakeFormat.present(lake.store, "main")) == ["late", "shop"]
    assert lake.count() == 4  # what the wrong ingest had made
    state = lake.store.manifests.load(lake.store.refs.tag("before").snapshot)
    assert list(LakeFormat.of_state(lake.store, state)) == ["old"]
    assert lake.verify().intact


def test_a_rollback_without_formats_is_of_the_state_itself(make_lake: MakeLake) -> None:
    """Where the formats are the same, no other state is made."""
    lake = make_lake()
    keep(lake)
    tag = lake.tag("t")
    lake.append({"type": "a"})
    assert lake.rollback("t").id == tag.snapshot


def test_replay_reads_by_the_present_format(make_lake: MakeLake, tmp_path: Path) -> None:
    """Lines that a pattern refused are tried again by a better one of its name, or for the file."""
    lake, path = make_lake(), tmp_path / "shop.log"
    path.write_text(TEXT)
    lake.ingest(str(path), format=SHOP.spelled())
    keep(lake)
    assert Quarantine(lake.store, "main").replay(lake.engine).stored == 0
    better = FormatDefinition(r"%{TIMESTAMP_ISO8601:time} %{GREEDYDATA:message}", name="shop")
    keep(lake, better, overwrite=True)
    assert Quarantine(lake.store, "main").replay(lake.engine, dry_run=True).stored == 1
    keep(lake, better, "shop.log", overwrite=True)
    assert Quarantine(lake.store, "main").replay(lake.engine).stored == 1
    assert bad(lake) == []
    assert ("2026-07-01 12:00:02", None, None, "no brackets") in rows(lake)
    assert [(f[0], f[1]) for f in faults(lake, path)] == [(4, 0)]


def test_a_copy_of_the_lake_has_its_formats(make_lake: MakeLake, tmp_path: Path) -> None:
    """They are in the lake and nowhere else: on another machine files are read the same."""
    lake, path = make_lake(), tmp_path / "shop.log"
    keep(lake, SHOP, "shop.log")
    lake.close()
    shutil.copytree(lake.path, tmp_path / "copy")
    path.write_text(TEXT)
    with lakelog.open(str(tmp_path / "copy"), create=False) as copy:
        copy.ingest(str(path))
        assert rows(copy) == ROWS


def test_names_that_cannot_be_are_refused(make_lake: MakeLake) -> None:
    """A format's name is new, no other's, and of letters; one that is not there is said to be."""
    lake = make_lake()
    keep(lake)
    with pytest.raises(AlreadyExists, match="--replace it"):
        keep(lake)
    for name in ("applog", "csv", "", "A b", "-x", "a" * 80):
        with pytest.raises(InvalidSetting, match="cannot name a format"):
            keep(lake, FormatDefinition("%{WORD:a}", name=name))
    with pytest.raises(InvalidSetting, match="says nothing"):
        keep(lake, FormatDefinition(name="nothing"))
    with pytest.raises(InvalidSetting, match="go with a pattern"):
        keep(lake, FormatDefinition(begins="x", format="applog", name="x"))
    with pytest.raises(InvalidSetting, match=r"did you mean 'applog'\?"):
        keep(lake, FormatDefinition(format="aplog", name="x"))
    with pytest.raises(UnknownRef, match="formats list"):
        LakeFormat.remove(lake.store, "main", "x")
    with pytest.raises(UnknownRef, match="is a built-in format"):
        LakeFormat.remove(lake.store, "main", "applog")
    with pytest.raises(InvalidSetting, match="this lake's own: shop"):
        lake.ingest("none", format="shoop")


def test_a_dry_run_reads_by_the_format(make_lake: MakeLake, tmp_path: Path) -> None:
    """What a dry run counts is what an ingest would store."""
    lake, path = make_lake(), tmp_path / "shop.log"
    keep(lake, SHOP, "shop.log")
    path.write_text(TEXT)
    report = lake.ingest(str(path), dry_run=True)
    assert (report.events, report.quarantined, report.files[0].format) == (3, 1, "shop")
    assert lake.count() == 0
