"""Provenance: an export can be made again, is known to the lake, and pins its snapshot."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import lakelog
from lakelog import train
from lakelog.cli import cli
from lakelog.errors import ExportRefused
from lakelog.train import provenance
from tests.support.trainsets import lake_of, notes, recipe, rewrite, rows

NOTES = "SELECT * FROM events WHERE type = 'note'"
TEXT = recipe("text", NOTES, split={"group": "subject"}, redact={"kinds": "all"})


def test_a_set_of_another_branch_has_its_newest_events(home: Path) -> None:
    """Those that were appended to it and are not sealed, too, from whichever branch one looks."""
    made_of = recipe("text", split={"group": "subject"})
    made_of["select"]["at"] = "other"
    with lake_of(home / "lake", notes(40)) as lake:
        with lake.branch("other") as other:
            other.append(notes(40, first=40, seed=2))
        exported = train.export(lake, made_of, str(home / "out"))
        assert sum(exported.rows.values()) == 80
        assert train.rebuild(lake, str(home / "out")).same


def test_the_same_bytes_after_all_that_can_happen(home: Path) -> None:
    """After more data, rollback, compaction, retention and gc a rebuild gives the same bytes."""
    lake = lakelog.open(str(home / "lake"), settings={"gc_grace_hours": 0, "history_days": 0})
    with lake:
        for start in range(0, 400, 100):
            lake.append(notes(100, seed=start, first=start))
            lake.settle()
        lake.tag("before")
        for kind in ("events", "text", "sequence"):
            train.export(lake, recipe(kind, NOTES, split={"group": "subject"}), home / kind)
        lake.append(notes(500, seed=9, first=400))
        lake.compact()
        lake.rollback("before")
        lake.retention("1h", apply=True)
        lake.append(notes(50, seed=10))
        lake.compact()
        lake.gc()
        for kind in ("events", "text", "sequence"):
            made = train.rebuild(lake, str(home / kind))
            assert made.same, made
            assert made.differing == ()


@pytest.mark.parametrize(
    "query",
    [
        f"{NOTES} ORDER BY level DESC LIMIT 700",
        f"{NOTES} ORDER BY ALL",
        "SELECT subject, list(message) AS message, sum(seq / 7) AS s FROM events GROUP BY ALL",
        "SELECT subject, row_number() OVER (PARTITION BY subject) AS n, message FROM events",
        "SELECT DISTINCT ON (message) subject, message FROM events",
        "FROM (SELECT subject, level FROM events) UNION ALL FROM (SELECT subject, level FROM"
        " events) ORDER BY level",
        f"{NOTES} QUALIFY row_number() OVER (PARTITION BY subject ORDER BY level) = 1",
        f"{NOTES} AND seq IN (SELECT first(seq) FROM events GROUP BY subject)",
        f"{NOTES} AND seq % 7 > 0 AND message IN (SELECT message FROM events)",
        "SELECT subject, message FROM events TABLESAMPLE bernoulli(50%) REPEATABLE (7)",
    ],
)
def test_another_number_of_threads_gives_the_same_bytes(home: Path, query: str) -> None:
    """Also where what comes first among equals, or the order of a sum, would hang on them."""
    wanted = recipe("events", query, split={"group": "subject"})
    with lakelog.open(str(home / "lake"), settings={"threads": 4}) as lake:
        for start in range(0, 4_000, 1_000):
            lake.append(notes(1_000, seed=start, first=start))
            lake.settle()
        train.export(lake, wanted, home / "out")
    with lakelog.open(str(home / "lake"), settings={"threads": 2}) as lake:
        assert train.rebuild(lake, str(home / "out")).same


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT * FROM events WHERE time > now() - INTERVAL 7 DAY", r"now\(\) gives other rows"),
        ("SELECT * FROM events ORDER BY random() LIMIT 9", r"random\(\) gives other rows"),
        ("SELECT * FROM events USING SAMPLE 10%", "a sample without REPEATABLE gives other rows"),
    ],
)
def test_a_query_that_changes_by_itself_is_refused(home: Path, query: str, reason: str) -> None:
    """Its set could never be rebuilt."""
    with lake_of(home / "lake", notes(20)) as lake, pytest.raises(ExportRefused, match=reason):
        train.export(lake, recipe("events", query), home / "out")


def test_an_export_pins_its_snapshot(home: Path) -> None:
    """gc keeps what an export was made of, and rebuild knows it, while its tag is there."""
    from lakelog import history

    lake = lakelog.open(str(home / "lake"), settings={"gc_grace_hours": 0, "history_days": 0})
    with lake:
        lake.append(notes(200))
        lake.settle()
        made = train.export(lake, TEXT, home / "out")
        lake.retention("1us", apply=True)
        for _ in range(110):
            lake.snapshot("on and on")
        lake.compact()
        lake.gc()
        assert train.rebuild(lake, str(home / "out")).same
        history.delete_tag(lake.store, provenance.TAG + made.id)
        lake.gc()
        with pytest.raises(ExportRefused, match="this lake knows no such export"):
            train.rebuild(lake, str(home / "out"))


@pytest.mark.thorough
def test_a_rebuild_says_what_differs(home: Path) -> None:
    """Changed rows differ by bytes and by row digests; equal rows in other bytes only by bytes."""
    with lake_of(home / "lake", notes(200)) as lake:
        train.export(lake, TEXT, home / "out")
        rewrite(home / "out", "test", lambda found: found[::-1])
        manifest = json.loads((home / "out/manifest.json").read_text())
        name = next(n for n in manifest["files"] if n.startswith("data/test"))
        manifest["files"][name]["sha256"] = "0" * 64
        provenance.write(str(home / "out"), manifest)
        plain = train.rebuild(lake, str(home / "out"))
        assert not plain.same
        assert plain.differing == (name,)
        assert all(plain.logical.values())
        assert train.rebuild(lake, str(home / "out"), logical=True).same
        rewrite(home / "out", "test", lambda found: found[1:])
        assert train.rebuild(lake, str(home / "out"), logical=True).logical["test"] is False


def test_other_versions_are_named(home: Path) -> None:
    """A manifest of other library versions is rebuilt, and told so."""
    with lake_of(home / "lake", notes(200)) as lake:
        train.export(lake, TEXT, home / "out")
        manifest = json.loads((home / "out/manifest.json").read_text())
        manifest["versions"]["pyarrow"] = "1.0"
        provenance.write(str(home / "out"), manifest)
        assert train.rebuild(lake, str(home / "out")).versions["pyarrow"][0] == "1.0"


def test_another_key_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pseudonyms are made again only with the key they were made with."""
    made = recipe("text", NOTES, redact={"kinds": "all", "mode": "pseudonym", "key_env": "THE_KEY"})
    monkeypatch.setenv("THE_KEY", "one")
    with lake_of(home / "lake", notes(100)) as lake:
        train.export(lake, made, home / "out")
        assert train.rebuild(lake, str(home / "out")).same
        monkeypatch.setenv("THE_KEY", "two")
        with pytest.raises(ExportRefused, match="another key"):
            train.rebuild(lake, str(home / "out"))
    told = "".join(p.read_text() for p in (home / "out").glob("*.json"))
    assert '"one"' not in told


def test_the_lake_knows_its_exports(home: Path) -> None:
    """An export is an event; it is listed, also after a rollback and when its files are gone."""
    run = CliRunner()
    with lake_of(home / "lake", notes(200)) as lake:
        lake.tag("before")
        made = train.export(lake, TEXT, home / "out")
        query = "SELECT data->>'$.export' FROM events WHERE type = 'lakelog.train'"
        assert lake.sql(query).fetchall() == [(made.id,)]
        lake.rollback("before")
        assert [e["export"] for e in train.exports(lake)] == [made.id]
    os.rename(home / "out", home / "gone")
    done = run.invoke(cli, ["--lake", str(home / "lake"), "train", "list", "--json"])
    (listed,) = json.loads(done.stdout)
    assert (listed["export"], listed["here"]) == (made.id, False)
    shown = run.invoke(cli, ["--lake", str(home / "lake"), "train", "list", "--format", "table"])
    assert made.id in shown.stdout
    assert "gone: " in shown.stdout


def test_where_finds_events_and_subjects(home: Path) -> None:
    """An id, a seq or a subject leads to the exports, and splits, that contain it."""
    events = [{**event, "id": f"e{n}"} for n, event in enumerate(notes(200))]
    with lake_of(home / "lake", events) as lake:
        train.export(lake, TEXT, home / "out")
        row = next(r for r in rows(home / "out", "test"))
        (held,) = train.where(lake, row["subject"])
        wanted = sum(r["subject"] == row["subject"] for r in rows(home / "out"))
        assert held.rows == {"test": wanted}
        number, ident = lake.sql(
            "SELECT seq, id FROM events WHERE message = $m", {"m": row["text"]}
        ).fetchall()[0]
        assert train.where(lake, ident)[0].rows == {"test": 1}
        assert train.where(lake, str(number))[0].rows == {"test": 1}
        assert train.where(lake, "nobody") == []


def test_lineage_has_the_rows_of_the_data(home: Path) -> None:
    """Row for row and row group for row group lineage names the events of the data files."""
    with lake_of(home / "lake", notes(200)) as lake:
        train.export(lake, TEXT, home / "out")
        texts = dict(lake.sql("SELECT seq, message FROM events").fetchall())
    for data in (home / "out/data").glob("*.parquet"):
        lineage = home / "out/lineage" / data.name
        sizes = [
            [m.row_group(n).num_rows for n in range(m.num_row_groups)]
            for m in map(pq.read_metadata, (data, lineage))
        ]
        assert sizes[0] == sizes[1]
        found = pq.read_table(lineage)["events"].to_pylist()
        assert [texts[seq] for (seq,) in found] == pq.read_table(data)["text"].to_pylist()


@pytest.mark.thorough
def test_diff_tells_recipe_and_rows(home: Path) -> None:
    """What separates two exports is told by keys, rows and moved groups."""
    with lake_of(home / "lake", notes(200)) as lake:
        train.export(lake, TEXT, home / "a")
        lake.append(notes(100, seed=4, first=200))
        train.export(lake, {**TEXT, "dedupe": {"exact": True}}, home / "b")
        train.export(lake, {**TEXT, "split": {"group": "subject", "seed": 2}}, home / "c")
    made = train.diff(str(home / "a"), str(home / "b"))
    assert made.recipe == {"dedupe.exact": (False, True)}
    assert (made.added, made.removed, made.moved) == (100, 0, 0)
    assert train.diff(str(home / "a"), str(home / "c")).moved > 0


@pytest.mark.thorough
def test_the_verbs_work_together(home: Path) -> None:
    """init, export, check, rebuild, list, diff and where from the command line."""
    run = CliRunner()
    lake_of(home / "lake", notes(300)).close()

    def lakelog_(*words: str) -> str:
        done = run.invoke(cli, ["--lake", f"{home}/lake", "train", *words])
        assert done.exit_code == 0, done.output
        return done.output

    lakelog_("init", "text", "-o", f"{home}/r.toml")
    assert "no leak found" in lakelog_("export", f"{home}/r.toml", "-o", f"{home}/out")
    lakelog_("check", f"{home}/out")
    assert json.loads(lakelog_("rebuild", f"{home}/out", "--json"))["same"]
    assert json.loads(lakelog_("list", "--json"))[0]["rows"] == 300
    assert json.loads(lakelog_("diff", f"{home}/out", f"{home}/out", "--json"))["moved"] == 0
    assert json.loads(lakelog_("where", "user1", "--json"))[0]["name"] == "r"
    report = (home / "out/report.html").read_text()
    assert "<svg" in report
    assert "Leaks" in report


@pytest.mark.parametrize("size", [60, 70_000], ids=["at once", "on the way"])
def test_a_row_that_the_query_cannot_read_is_refused(home: Path, size: int) -> None:
    """Whether the first rows fail or later ones, the line names the recipe and the value, and
    nothing is left."""
    query = "SELECT subject, message::INT AS n FROM events"
    events = [{"type": "n", "subject": f"s{n}", "message": str(n)} for n in range(size)]
    with lake_of(home / "lake", [*events, {"type": "n", "subject": "t", "message": "ten"}]) as lake:
        with pytest.raises(ExportRefused, match=r"recipe: \[select\] sql: .* 'ten'"):
            train.export(lake, recipe("events", query), home / "out")
        assert train.exports(lake) == []
    assert [path.name for path in home.iterdir()] == ["lake"]
