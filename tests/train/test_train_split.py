"""Group splits, stratification, temporal cutoffs, deduplication and budgets."""

from __future__ import annotations

import collections
import functools
import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from lakelog import train
from lakelog.errors import ExportRefused
from lakelog.train import scratch
from tests.support import trainsets
from tests.support.trainsets import lake_of, notes, recipe, rows

NOTES = "SELECT * FROM events WHERE type = 'note'"
GROUPED = {"group": "subject"}


def splits(path: Path, column: str = "subject") -> dict[str, str]:
    """Return the split of each group; every group is in exactly one."""
    found: dict[str, set[str]] = collections.defaultdict(set)
    for row in rows(path):
        found[row[column]].add(row["side"])
    assert all(len(s) == 1 for s in found.values())
    return {group: s.pop() for group, s in found.items()}


@pytest.mark.parametrize("stratify", [None, "level"])
def test_a_group_keeps_its_split_while_the_lake_grows(home: Path, stratify: str | None) -> None:
    """Groups are in one split, the same one after more data and more groups."""
    split = {**GROUPED, **({"stratify": stratify} if stratify else {})}
    with lake_of(home / "lake", notes(300, 60)) as lake:
        train.export(lake, recipe("text", NOTES, split=split), home / "a")
        lake.append(notes(900, 200, seed=5, first=300))
        train.export(lake, recipe("text", NOTES, split=split), home / "b")
    before, after = splits(home / "a"), splits(home / "b")
    assert len(after) > len(before)
    assert all(after[group] == side for group, side in before.items())
    assert train.check(str(home / "b"), str(home / "a")).clean


ITEMS = """SELECT seq, unnest((data->'items')::VARCHAR[]) AS item, level FROM events"""


def test_strata_that_are_null_and_groups_that_begin_together_keep_their_split(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group is of the stratum of its first row, also a null one; groups whose first rows are of
    one event have an order of their own, on a machine with other processors, too."""
    rng = random.Random(4)
    levels = [rng.choice(["INFO", "ERROR", None]) for _ in range(80)]
    events = [
        {"type": "note", "level": level, "data": {"items": [f"{n}-{item}" for item in "abc"]}}
        for n, level in enumerate(levels)
    ]
    later = [{**event, "level": "WARN"} for event in reversed(events)]
    later += [{"type": "note", "data": {"items": [f"new-{n}"]}} for n in range(1_000)]
    wanted = recipe("events", ITEMS, split={"group": "item", "stratify": "level"})
    with lake_of(home / "lake", events) as lake:
        for name, threads, new in (("a", 2, later), ("b", 1, [])):
            engine = functools.partial(scratch.connect, threads=threads)
            monkeypatch.setattr("lakelog.train.trainingset.scratch.connect", engine)
            train.export(lake, wanted, home / name)
            lake.append(new)
    before, after = splits(home / "a", "item"), splits(home / "b", "item")
    assert len(before) == 240
    assert {item: after[item] for item in before} == before


def test_the_group_that_a_leak_of_spellings_asks_for_has_none(home: Path) -> None:
    """Case, spaces and Unicode form: the advice mends all of them."""
    names = [f"Zoë {n}" for n in range(60)]
    spellings = [*names, *map(str.upper, names), *(f" {name}" for name in names)]
    spellings += [unicodedata.normalize("NFD", name) for name in names]
    query, split = "SELECT subject, message FROM events", {"group": "subject"}
    with lake_of(home / "lake", []) as lake:
        lake.append({"type": "note", "subject": name, "message": name} for name in spellings)
        (leak,) = train.export(
            lake, recipe("events", query, split=split), home / "a"
        ).certificate.leaks
        advice = leak.words.partition("; select ")[2].partition(" as the group")[0]
        mended = recipe("events", query.replace("subject", f"{advice} AS subject"), split=split)
        assert train.export(lake, mended, home / "b").certificate.clean


def test_a_fence_before_1970_is_exact(home: Path) -> None:
    """To its fraction of a second."""
    events = [
        {"type": "note", "message": f"note {n}", "time": f"1969-12-31T23:59:5{n / 100:.2f}Z"}
        for n in range(100, 1_000)
    ]
    with lake_of(home / "lake", events) as lake:
        made = train.export(
            lake, recipe("text", NOTES, split={"before": "1969-12-31T23:59:58.5Z"}), home / "out"
        )
    assert made.certificate.clean
    tested = {row["text"] for row in rows(home / "out") if row["side"] == "test"}
    assert tested == {f"note {n}" for n in range(850, 1_000)}


def test_another_seed_or_family_is_another_split(home: Path) -> None:
    """The salt is the family's name and the seed."""
    with lake_of(home / "lake", notes(600, 300)) as lake:
        for name, more in (("a", {}), ("b", {"seed": 1})):
            train.export(lake, recipe("text", NOTES, split={**GROUPED, **more}), home / name)
        train.export(lake, recipe("text", NOTES, name="other", split=GROUPED), home / "c")
    assert splits(home / "a") != splits(home / "b")
    assert splits(home / "a") != splits(home / "c")


def test_strata_have_their_shares_in_every_split(home: Path) -> None:
    """Each split has its share of the groups of every stratum, to within one block."""
    events = [
        {
            "type": "note",
            "subject": f"g{n}",
            "level": "INFO" if n % 10 else "ERROR",
            "message": text,
        }
        for n, text in enumerate(trainsets.texts(500))
    ]
    split = {**GROUPED, "stratify": "level", "train": 0.6, "validation": 0.2, "test": 0.2}
    with lake_of(home / "lake", events) as lake:
        train.export(lake, recipe("text", NOTES, split=split), home / "out")
    counts = collections.Counter((row["level"], row["side"]) for row in rows(home / "out"))
    assert [counts["ERROR", s] for s in ("train", "validation", "test")] == [30, 10, 10]
    assert [counts["INFO", s] for s in ("train", "validation", "test")] == [270, 90, 90]


@pytest.mark.parametrize("group", [None, "subject"])
def test_a_fence_keeps_the_future_in_test(home: Path, group: str | None) -> None:
    """Train and validation end before the fence, test begins at it; with groups both hold."""
    split: dict[str, Any] = {"before": "2026-09-01T05:00:00Z", "group": group}
    split = {key: value for key, value in split.items() if value}
    with lake_of(home / "lake", notes(600, 60)) as lake:
        made = train.export(lake, recipe("text", NOTES, split=split), home / "out")
    for row in rows(home / "out"):
        assert (row["side"] == "test") == (row["time"].hour >= 5)
    if group:
        splits(home / "out")
        assert made.manifest["left_out"]["fence"] > 0
    else:
        assert sum(made.rows.values()) == 600


def near(text: str, word: str) -> str:
    return " ".join([word, *text.split(" ")[1:]])


def test_near_duplicates_share_a_split_without_dedupe(home: Path) -> None:
    """Texts of other groups that are nearly equal never straddle a split, asked for or not."""
    texts = trainsets.texts(200)
    events = [
        {"type": "note", "subject": f"u{n}-{k}", "message": said}
        for n, text in enumerate(texts)
        for k, said in enumerate((text, near(text, "other")))
    ]
    with lake_of(home / "lake", events) as lake:
        made = train.export(lake, recipe("text", NOTES, split=GROUPED), home / "out")
        loose = train.export(lake, recipe("text", NOTES), home / "loose")
    assert made.certificate.clean
    assert made.manifest["left_out"]["one_side"] > 20
    assert loose.certificate.clean
    assert sum(loose.rows.values()) == 400


@pytest.mark.parametrize(("keep", "kept"), [("first", 0), ("last", 2)])
def test_dedupe_keeps_the_first_or_last(home: Path, keep: str, kept: int) -> None:
    """Exact and near duplicates leave one row each, the first or the last event of them."""
    texts = trainsets.texts(100)
    events = [
        {"type": "note", "source": f"{k}", "message": t}
        for k in range(3)
        for t in ([near(t, "other") for t in texts] if k == 1 else texts)
    ]
    made = recipe(
        "text", NOTES, shape={"keep": ["source"]}, dedupe={"near": 0.8, "exact": True, "keep": keep}
    )
    with lake_of(home / "lake", events) as lake:
        done = train.export(lake, made, home / "out")
    found = rows(home / "out")
    assert len(found) == 100
    assert {row["source"] for row in found} == {str(kept)}
    assert done.manifest["left_out"] == {"exact": 100, "near": 100}


def test_exact_dedupe_by_columns(home: Path) -> None:
    """A list of columns says what makes rows equal."""
    events = [{"type": "t", "subject": "a", "message": "m", "data": {"n": n}} for n in range(5)]
    events.append({"type": "t", "subject": "b", "message": "m"})
    made = recipe("events", dedupe={"exact": ["subject", "message"]}, split={"train": 1.0})
    with lake_of(home / "lake", events) as lake:
        train.export(lake, made, home / "out")
    assert sorted(row["subject"] for row in rows(home / "out")) == ["a", "b"]


def test_a_budget_is_kept(home: Path) -> None:
    """Rows and tokens stay below their budgets, and a balanced column has equal counts."""
    with lake_of(home / "lake", notes(400)) as lake:
        shape = {"keep": ["level"]}
        budgets = {"r": {"rows": 90}, "t": {"tokens": 2000}, "b": {"balance": "level"}}
        for name, budget in budgets.items():
            train.export(lake, recipe("text", NOTES, shape=shape, budget=budget), home / name)
    assert 80 <= len(rows(home / "r")) <= 90
    assert sum(-(-len(row["text"]) // 4) for row in rows(home / "t")) <= 2000
    for side in ("train", "validation", "test"):
        counts = collections.Counter(row["level"] for row in rows(home / "b", side))
        assert len(set(counts.values())) == 1


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (recipe("text", "SELECT * FROM events WHERE false"), "no row of the selection fits"),
        (recipe("text", "SELECT * FROM nowhere"), "[select] sql"),
        (recipe("text", NOTES, split={"group": "user"}), "no column 'user'; it has time"),
        (recipe("text", "SELECT * FROM events", split=GROUPED), "1 of 101 rows have no subject"),
        (recipe("text", NOTES, split={"group": "type"}), "cannot be met"),
        (recipe("text", NOTES, split={"before": "2030-01-01"}), "test = 0.1 cannot be met"),
        (
            recipe("events", "SELECT message FROM events", split={"before": "2026-09-02"}),
            "add the column time",
        ),
        (recipe("text", NOTES, budget={"balance": "nope"}), "no column 'nope'"),
        (recipe("text", NOTES, shape={"text": "data.x.y"}), "no row of the selection fits"),
        (recipe("text", NOTES, dedupe={"exact": ["nope"]}), "[dedupe] exact: no column 'nope'"),
        ({"select": {"sql": NOTES, "at": "v9"}, "shape": {"kind": "text"}}, "[select] at = 'v9'"),
        (
            recipe(
                "text", NOTES, redact={"kinds": "all", "mode": "pseudonym", "key_env": "NO_KEY"}
            ),
            "the variable NO_KEY is not set",
        ),
    ],
)
def test_what_cannot_be_met_is_one_line_and_leaves_nothing(
    home: Path, made: dict[str, Any], words: str
) -> None:
    """Each mistake is told in one line; no directory appears."""
    with (
        lake_of(
            home / "lake", [*notes(100), {"type": "odd", "message": "lonely words here"}]
        ) as lake,
        pytest.raises(ExportRefused) as raised,
    ):
        train.export(lake, made, home / "out")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert [p.name for p in home.iterdir()] == ["lake"]


def test_a_directory_in_use_is_refused(home: Path) -> None:
    """An export never writes over another one."""
    with lake_of(home / "lake", notes(100)) as lake:
        train.export(lake, recipe("text", NOTES), home / "out")
        with pytest.raises(ExportRefused, match="is in use"):
            train.export(lake, recipe("text", NOTES), home / "out")


def test_a_group_may_be_a_path(home: Path) -> None:
    """A group inside the payload becomes a column, so that a check finds it again."""
    split = {"group": "data.tag", "train": 0.5, "test": 0.5}
    with lake_of(home / "lake", notes(100)) as lake:
        for kind in ("text", "events"):
            made = train.export(lake, recipe(kind, NOTES, split=split), home / kind)
            assert made.manifest["roles"]["group"] == "tag"
            assert set(splits(home / kind, "tag")) == set("abc")


def test_crowds_of_alike_texts_are_parted_cleanly(home: Path) -> None:
    """With a tiny vocabulary, where buckets are crowded, the certificate is clean all the same."""
    rng = random.Random(3)
    events = [
        {"type": "note", "subject": f"u{n}", "message": " ".join(rng.choices("abcdefghijkl", k=7))}
        for n in range(3000)
    ]
    with lake_of(home / "lake", events) as lake:
        made = train.export(lake, recipe("text", NOTES, split=GROUPED), home / "out")
    assert made.manifest["near"]["crowded"] > 0
    assert made.certificate.leaks == ()
    assert train.check(str(home / "out")).clean


def test_a_split_names_a_column_of_rows_of_several_events(home: Path) -> None:
    """A path that is kept is such a column; of any other one the recipe's key is named."""
    events = [
        {
            "type": "ab"[n % 2],
            "subject": f"s{n // 10}",
            "source": "x",
            "time": f"2026-01-01T{n // 60:02d}:{n % 60:02d}:00Z",
        }
        | {"data": {"options": ["a"], "chosen": "a", "kind": "kl"[n // 10 % 2]}}
        for n in range(600)
    ]
    decision = {"decision": "a", "outcome": ["b"], "options": "data.options"}
    decision |= {"chosen": "data.chosen", "window": "1h", "keep": ["data.kind"]}
    split = {"train": 0.6, "validation": 0.2, "test": 0.2}
    with lake_of(home / "lake", events) as lake:
        by_kind = recipe("decision", shape=decision, split={**split, "stratify": "data.kind"})
        train.export(lake, by_kind, home / "by-kind")
        assert {row["kind"] for row in rows(home / "by-kind")} == {"k", "l"}
        for kind, shape in (("decision", decision), ("sequence", {})):
            for key in ("group", "stratify"):
                by_source = recipe(kind, shape=shape, split={**split, key: "source"})
                with pytest.raises(ExportRefused, match=rf"\[split\] {key}: .* column 'source'"):
                    train.export(lake, by_source, home / "out")
