"""Delta tables share the files of a lake, keep to their columns, and are committed to once."""

from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lakelog.errors import ExportRefused, Unreachable
from lakelog.open_tables import publish_delta, publishing
from tests.support import encrypted, protected
from tests.support.effort import share
from tests.support.requirements import need
from tests.support.table_shops import TABLE, DeltaShop, assert_table_is, follow, orders

need("deltalake")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[DeltaShop]:
    """A lake with a folder of tables."""
    made = DeltaShop(tmp_path)
    yield made
    made.lake.close()


def last_commit(shop: DeltaShop) -> list[dict[str, Any]]:
    """The actions of the newest commit."""
    table = shop.table()
    log = Path(table.table_uri.removeprefix("file://"), "_delta_log", f"{table.version():020}.json")
    return [json.loads(line) for line in log.read_text().splitlines()]


def folder(shop: DeltaShop) -> Path:
    """The directory of the table."""
    return shop.folder / "tables" / TABLE


def test_files_are_second_names_of_segments(shop: DeltaShop) -> None:
    """Nothing is copied on one file system, and readers find the files below the table."""
    shop.lake.append(orders(30))
    result = shop.publish()
    assert (result.added, result.copied, result.copied_bytes) == (1, 0, 0)
    [name] = shop.keys()
    assert (folder(shop) / name).samefile(shop.folder / "lake" / "segments" / name[:2] / name)


def test_tables_never_have_protected_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their older versions would keep them, and those that are copied would stay as they are when
    a key is destroyed, as the state is the same."""
    protected.keys_in(tmp_path, monkeypatch)
    shop = DeltaShop(tmp_path)
    shop.lake.protect(protected.FIELDS)
    protected.append(shop.lake, range(20))
    by_query = "SELECT subject, data->>'plan' AS plan, data->>'email' AS email FROM events"
    shop.publish("all")
    shop.publish("type", type="SIGNUP")
    shop.publish("query", query=by_query)
    assert [shop.arrow(name).num_rows for name in ("all", "type", "query")] == [20] * 3
    columns = shop.arrow("query").to_pydict()
    assert (set(columns["plan"]), set(columns["email"])) == ({"pro"}, {None})
    assert encrypted.found(tmp_path / "tables", [protected.PLANTED]) == []
    shop.lake.close()


def test_segments_with_a_second_name_stay_verified(shop: DeltaShop) -> None:
    """A query need not read all of them again; but one that was changed is read."""
    shop.lake.append(orders(30))
    shop.publish()
    store = shop.lake.store
    [name] = shop.keys()
    key = name.removesuffix(".parquet")
    path = store.paths.object("segments", key)
    assert store.verified.holds(key, path)
    os.utime(path)
    store.verified.renew("segments", [key])
    assert not store.verified.holds(key, path)


def test_segments_are_copied_where_no_link_can_be(
    shop: DeltaShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table on another file system gets copies, byte for byte, with their columns."""
    link = os.link

    def refuse(source: str, target: str) -> None:
        if str(target).startswith(f"{shop.folder}/tables/"):
            raise OSError(errno.EXDEV, "another file system")
        link(source, target)

    monkeypatch.setattr(os, "link", refuse)
    shop.lake.append(orders(30))
    result = shop.publish()
    assert (result.added, result.copied) == (1, 1)
    assert shop.table().schema().fields[-1].name == "fields"
    assert_table_is(shop)


def test_members_of_another_type_have_another_column(shop: DeltaShop) -> None:
    """A column keeps its type; a segment with another one under its name is copied."""
    shop.lake.append(orders(20))
    assert shop.publish().copied == 0
    before = {field.name for field in shop.arrow().schema.field("fields").type}
    shop.lake.append(orders(20, 1, 20))
    assert shop.publish().copied == 1
    assert shop.arrow()["fields"].null_count < 40
    names = {field.name for field in shop.arrow().schema.field("fields").type}
    assert names > before
    assert "n_2" in names
    assert_table_is(shop)


def test_names_that_delta_refuses_are_other_names(shop: DeltaShop) -> None:
    """A member whose name has a blank has a column without one."""
    shop.lake.append([{"type": "A", "data": {"a b": n, "l": [{"x": n}]}} for n in range(20)])
    assert shop.publish().copied == 1
    assert [f.name for f in shop.arrow().schema.field("fields").type] == ["a_b", "l"]
    assert_table_is(shop)


def test_compaction_changes_no_row(shop: DeltaShop) -> None:
    """Who follows the table is told that the file of a compaction has no new rows."""
    for start in (0, 20):
        shop.lake.append(orders(20, 0, start))
        shop.lake.settle()
    shop.lake.tag("raw")
    assert shop.publish(ref="raw").added == 2
    assert shop.publish().removed == 2
    changes = [a[kind]["dataChange"] for a in last_commit(shop) for kind in a if "Info" not in kind]
    assert changes == [False, False, False]
    assert_table_is(shop)
    shop.lake.append(orders(20, 0, 40))
    shop.publish()
    assert any(a["add"]["dataChange"] for a in last_commit(shop) if "add" in a)


def test_erased_rows_leave_the_folder(shop: DeltaShop) -> None:
    """No older version keeps a file that an erasure rewrote, nor does the log name its subject."""
    shop.lake.append(orders(30))
    shop.publish()
    [name] = shop.keys()
    shop.lake.erase(subject="s1", why="asked")
    shop.publish()
    assert not (folder(shop) / name).exists()
    log = "".join(file.read_text() for file in (folder(shop) / "_delta_log").glob("*.json"))
    assert '"s1"' not in log


def test_the_log_of_copied_rows_names_no_subject(shop: DeltaShop) -> None:
    """It keeps for good what it says, also after a vacuum has deleted erased rows."""
    shop.lake.append([{"type": "A", "subject": "ada-lovelace", "data": {"n": 1}}])
    shop.publish(type="A")
    assert shop.arrow()["subject"].to_pylist() == ["ada-lovelace"]
    assert "ada-lovelace" not in "".join(map(json.dumps, last_commit(shop)))


def test_maintenance_of_others_is_let_be(shop: DeltaShop) -> None:
    """A vacuum changes nothing, and after a restore the table is brought to the state again."""
    shop.lake.append(orders(20))
    shop.publish()
    first = shop.table().version()
    shop.lake.append(orders(20, 0, 20))
    shop.publish()
    shop.table().vacuum(0, enforce_retention_duration=False, dry_run=False)
    assert not shop.publish().is_new
    shop.lake.compact()
    assert_table_is(shop)
    shop.publish("logs.other")
    table = shop.table("logs.other")
    shop.lake.append(orders(20, 0, 40))
    shop.publish("logs.other")
    shop.table("logs.other").restore(table.version())
    assert shop.publish("logs.other").added == 1
    assert shop.arrow("logs.other").num_rows == 60
    assert first < shop.table().version()


def test_foreign_tables_are_refused(shop: DeltaShop) -> None:
    """A table of something else, or that another program changed, is left alone, in one line."""
    from deltalake import write_deltalake

    shop.lake.append(orders(10))
    shop.publish()
    with pytest.raises(ExportRefused, match="is not a table of this lake, branch and query"):
        shop.publish(type="T1")
    write_deltalake(shop.table(), shop.arrow().slice(0, 1), mode="append")
    shop.lake.append(orders(10, 0, 10))
    with pytest.raises(ExportRefused, match="newest commit was not made by lakelog"):
        shop.publish()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("INTERVAL 1 DAY", r"Interval\(MonthDayNano\)"),
        ("[TIMESTAMP_NS '2026-01-01']", "nanoseconds"),
    ],
)
def test_types_that_delta_lacks_are_refused(shop: DeltaShop, value: str, words: str) -> None:
    """One line says what to do, and no table is begun that nobody can read."""
    with pytest.raises(ExportRefused, match=rf"^[^\n]*{words}[^\n]*: cast what .* VARCHAR\)$"):
        shop.publish(query=f"SELECT {value} AS x")
    assert not folder(shop).exists()


def test_arrays_of_a_fixed_length_are_lists(shop: DeltaShop) -> None:
    """Such as embeddings: other readers expect what the table says, also within other types."""
    arrays = "[1, 2]::FLOAT[2] AS a, {'e': [[3]::FLOAT[1]]} AS s, MAP {'k': [4]::FLOAT[1]} AS m"
    shop.publish(query=f"SELECT 1 AS n, {arrays} UNION ALL SELECT 2, NULL, NULL, NULL")
    files = list(folder(shop).rglob("*.parquet"))
    assert files
    assert not any("fixed_size_list" in str(pq.read_schema(file)) for file in files)
    rows = shop.arrow().sort_by("n").to_pylist()
    assert (rows[0]["a"], rows[0]["s"], rows[1]["a"]) == ([1.0, 2.0], {"e": [[3.0]]}, None)
    assert shop.arrow().sort_by("n")["m"].to_pylist() == [[("k", [4.0])], None]


@pytest.mark.parametrize("target", ["{}/file", "foo://bucket/table"], ids=["file", "scheme"])
def test_failing_storage_is_one_line(shop: DeltaShop, target: str) -> None:
    """What storage says comes as one line that names the table, and nothing is tagged."""
    (shop.folder / "file").touch()
    shop.lake.append(orders(3))
    with pytest.raises((Unreachable, ExportRefused), match=r"^Delta table ") as caught:
        publish_delta(shop.lake, target.format(shop.folder))
    assert "\n" not in str(caught.value)
    assert shop.lake.tags() == []


def test_what_storage_says_has_no_colours() -> None:
    """Libraries write for terminals; a log gets their words alone."""
    said = "Generic error: \x1b[31mno\nsuch\x1b[0m \x1b[1;4mhost\x1b[0m"
    with (
        pytest.raises(Unreachable, match=r"^Delta table t: Generic error: no such host$"),
        publishing.one_line("Delta table t", "deltalake", "delta"),
    ):
        raise OSError(said)


class Killed(BaseException):
    """The end of a process, as nobody catches it."""


@pytest.mark.parametrize("fault", ["killed before", "killed after", "lost answer", "other first"])
def test_a_commit_is_made_once(
    shop: DeltaShop, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """A kill around the commit, a lost answer and another publisher all leave one commit."""
    from deltalake import DeltaTable
    from deltalake.exceptions import CommitFailedError

    shop.lake.append(orders(10))
    commit, turns = DeltaTable.create_write_transaction, [fault]

    def failing(table: Any, *arguments: Any, **options: Any) -> None:
        now = turns.pop() if turns else ""
        if now == "killed before":
            raise Killed
        if now == "other first":
            assert shop.publish().is_new
        commit(table, *arguments, **options)
        if now == "killed after":
            raise Killed
        if now == "lost answer":
            raise CommitFailedError("no answer")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", failing)
    try:
        is_new = shop.publish().is_new
    except Killed:
        is_new = shop.publish().is_new
    assert is_new == (fault == "killed before")
    assert len(shop.commits()) == 1
    assert_table_is(shop)


@pytest.mark.thorough
@pytest.mark.parametrize("engine", ["pyarrow", "polars", "daft"])
def test_engines_agree_on_the_table(tmp_path: Path, engine: str) -> None:
    """The table as another engine reads it is the state, whatever happens to the lake."""
    need(engine)
    shop = DeltaShop(tmp_path, segment_bytes=9_000)
    shop.engines = [engine]
    follow(shop, random.Random(8), share(50))
    shop.lake.close()
