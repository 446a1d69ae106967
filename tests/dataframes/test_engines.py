"""Other engines have exactly the rows of a state: Polars, Dask, Ray, Daft and Spark."""

from __future__ import annotations

import contextlib
import json
import pickle
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import lakelog
from lakelog import dataframes
from lakelog.errors import ExportRefused, QueryFailed
from lakelog.open_tables import publish_iceberg
from tests.support import encrypted, engine_rows, lakes, protected, table_shops
from tests.support.effort import share
from tests.support.requirements import need
from tests.support.tree import ROOT

ENGINES = {
    "polars": ["polars"],
    "dask": ["dask", "pandas"],
    "daft": ["daft"],
    "daft on ray": ["daft", "ray"],
    "ray": ["ray", "pandas"],
    "spark": ["pyspark", "java"],
}


def orders(count: int, start: int) -> list[dict[str, Any]]:
    """Events whose payloads drift: other members, other kinds, none."""
    return [
        {
            "type": f"T{n % 3}",
            "level": "INFO" if n % 2 else None,
            "subject": f"s{n % 7}",
            "message": f"order {n}",
            "data": {"n": n, "x": n / 7, "nest": {"a": [1, n, None], "ok": n % 2 == 0}}
            if n < 300
            else {"n": str(n), "new": [{"é": n}]},
        }
        for n in range(start, start + count)
    ]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lakelog.Lake]:
    """A lake with typed, plain and rolled back segments, and a tail."""
    with lakes.opened(str(tmp_path_factory.mktemp("engines") / "lake")) as lake:
        lake.append(lakes.EXOTIC)
        lake.append(orders(300, 0))
        lake.settle()
        lake.compact()
        lake.tag("compacted")
        lake.append(orders(50, 300))
        lake.settle()
        lake.rollback("compacted")
        lake.append(orders(40, 400))
        lake.settle()
        lake.tag("both")
        lake.append(orders(30, 500))
        lake.settle()
        lake.append([*orders(2, 600), {"type": "T1", "data": {"tail": 1.5}}])
        yield lake


def expected(lake: lakelog.Lake, ref: str, where: str = "true") -> pa.Table:
    """The rows of a state by SQL, in order of seq; "" is the branch with its tail."""
    state = lake.at(ref) if ref else lake
    return state.sql(f"FROM events WHERE {where} ORDER BY seq").to_arrow_table()


def assert_are_rows_of(lake: lakelog.Lake, ref: str, tables: engine_rows.Tables) -> None:
    """Require what an engine has read of a state."""
    assert_same(tables[0], expected(lake, ref))
    wanted = expected(lake, ref, engine_rows.WHERE).select(["seq", "subject"])
    assert_same(tables[1], wanted)


def assert_same(rows: pa.Table, wanted: pa.Table) -> None:
    """Require the same rows, value by value, in any order and in the engine's own types."""
    rows = rows.select(wanted.column_names).cast(wanted.schema).sort_by("seq")
    assert rows.num_rows == wanted.num_rows
    for name in wanted.column_names:
        assert rows[name].equals(wanted[name]), name


@pytest.mark.parametrize("engine", ["polars", "dask", "daft"])
@pytest.mark.parametrize("ref", ["", "compacted", "both"])
def test_engines_have_the_rows_of_a_state(lake: lakelog.Lake, engine: str, ref: str) -> None:
    """Every value of every row is that of SQL, with the tail only in the branch itself."""
    need(*ENGINES[engine])
    assert_are_rows_of(lake, ref, engine_rows.READERS[engine](lake.at(ref) if ref else lake))


@pytest.mark.parametrize("engine", ["ray", "spark", "daft on ray"])
def test_clusters_have_the_rows_of_a_state(lake: lakelog.Lake, engine: str, tmp_path: Path) -> None:
    """The same of engines that start processes, from a process of its own."""
    need(*ENGINES[engine])
    with engine_rows.reader(engine, lake.path, tmp_path) as read:
        for ref in ("both", ""):
            assert_are_rows_of(lake, ref, read(ref))


@pytest.mark.thorough
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_have_the_rows_of_every_state(tmp_path: Path, engine: str) -> None:
    """The same of a lake with branches that is changed at random, and of what it was."""
    need(*ENGINES[engine])
    chance, tags = random.Random(8), ["start"]
    with contextlib.ExitStack() as stack:
        path = str(tmp_path / "lake")
        branches = [stack.enter_context(lakes.opened(path, segment_bytes=9000))]
        branches[0].append([*lakes.EXOTIC, *table_shops.orders(5)])
        branches[0].settle()
        branches[0].tag("start")
        read = stack.enter_context(engine_rows.reader(engine, path, tmp_path))
        for nr in range(share(50)):
            if nr and len(branches) < 3 and chance.random() < 0.2:
                branches.append(stack.enter_context(chance.choice(branches).branch(f"b{nr}")))
            lake = chance.choice(branches)
            table_shops.change(lake, chance, nr, tags)
            ref = chance.choice(tags) if chance.random() < 0.2 else ""
            assert_are_rows_of(lake, ref, read(ref, lake.branch_name))


def test_an_empty_lake_has_the_columns(tmp_path: Path) -> None:
    """A lake without events gives a table of the columns of events, of their types."""
    need("polars")
    with lakes.opened(str(tmp_path / "lake")) as lake:
        frame = lake.to_polars().collect()
        assert frame.columns == lake.sql("FROM events").columns
        assert frame.height == 0
        lake.append({"type": "first"})
        assert lake.to_polars().collect().get_column("type").to_list() == ["first"]


def test_polars_reads_what_a_query_needs(lake: lakelog.Lake) -> None:
    """Columns and conditions reach the reader of files; payloads are restored if asked for."""
    polars = need_polars()
    query = lake.at("compacted").to_polars().filter(polars.col("type") == "T1").select("subject")
    plan = query.explain()
    assert "PROJECT 2/14 COLUMNS" in plan
    assert 'SELECTION: col("type") == "T1"' in plan.replace("[(", "").replace(")]", "")


def need_polars() -> Any:
    """The module, or the test is skipped."""
    need("polars")
    import polars

    return polars


def test_a_frame_stays_at_its_state(tmp_path: Path) -> None:
    """What is appended, compacted or rolled back later does not reach a frame that exists."""
    need("polars")
    with lakes.opened(str(tmp_path / "lake")) as lake:
        lake.append(orders(20, 0))
        frame = lake.to_polars()
        lake.append(orders(20, 20))
        lake.settle()
        lake.compact()
        payloads = frame.sort("seq").collect().get_column("data").to_list()
        assert [json.loads(text)["n"] for text in payloads] == [*range(20)]


@pytest.mark.parametrize(
    ("module", "package"),
    [("polars", "'lakelog[polars]'"), ("dask", "'lakelog[dask]'"), ("daft", "daft")],
)
def test_a_missing_engine_is_named(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch, module: str, package: str
) -> None:
    """Without the engine's package, one line says what to install."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(QueryFailed, match=re.escape(f"needs {module}: pip install {package}")):
        getattr(lake, f"to_{module}")()


@pytest.mark.parametrize("engine", ["polars", "dask", "daft"])
def test_encrypted_lakes_are_opened_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """The rows are those of SQL, and no file of the lake has a word of them in plain text."""
    need(*ENGINES[engine])
    with lakelog.open(encrypted.create(tmp_path / "lake", monkeypatch)) as lake:
        lake.append(orders(210, 0))
        lake.compact()
        lake.append(orders(30, 210))
        lake.settle()
        lake.tag("both")
        lake.append(orders(10, 400))
        for ref in ("both", ""):
            state = lake.at(ref) if ref else lake
            assert_are_rows_of(lake, ref, engine_rows.READERS[engine](state))
    assert not encrypted.found(tmp_path, ["order 7", "order 215", "order 405"])


def test_polars_counts_and_cuts_encrypted_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A count needs no column, and a head reads no more than it needs."""
    polars = need_polars()
    with lakelog.open(encrypted.create(tmp_path / "lake", monkeypatch)) as lake:
        lake.append(orders(20, 0))
        assert lake.to_polars().select(polars.len()).collect().item() == 20
        head = lake.to_polars().head(3).filter(polars.col("type") == "T1").collect()
        assert head.get_column("seq").to_list() == [1]


def test_another_process_opens_with_its_own_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker gets a share without any key, and finds the key of the lake itself."""
    with lakelog.open(encrypted.create(tmp_path / "lake", monkeypatch)) as lake:
        lake.append(orders(20, 0))
        lake.settle()
        share = pickle.dumps(dataframes.scan_of(lake._session))
    program = "import sys, pickle, lakelog.dataframes.event_scan as e;"
    program += "print(e.read_rows(pickle.load(sys.stdin.buffer)).num_rows)"
    run = [sys.executable, "-c", program]
    answer = subprocess.run(run, input=share, capture_output=True, check=True, cwd=ROOT)
    assert answer.stdout == b"20\n"


def test_tables_of_encrypted_lakes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would have plain text on disk unasked is refused, in one line that says what to do."""
    with lakelog.open(encrypted.create(tmp_path / "lake", monkeypatch)) as lake:
        lake.append({"type": "secret"})
        for engine, method in (("ray", lake.to_ray), ("spark", lambda: lake.to_spark(None))):
            monkeypatch.setattr("lakelog.dataframes.event_scan.find_spec", lambda _: True)
            with pytest.raises(ExportRefused, match=f"to_{engine}.*is encrypted.*lakelog export"):
                method()
        with pytest.raises(ExportRefused, match="publish rows of it with a query"):
            publish_iceberg(lake, "logs.events", catalog="none")


def test_open_fields_are_refused_where_rows_go_to_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no erasure would reach is not written unasked; without the fields a state is given."""
    protected.keys_in(tmp_path, monkeypatch)
    monkeypatch.setattr("lakelog.dataframes.event_scan.find_spec", lambda _: True)
    with lakelog.open(tmp_path / "lake") as lake:
        lake.protect(["mail"])
        lake.append({"type": "A", "subject": "ada", "data": {"mail": protected.PLANTED}})
        lake.settle()
        for engine, method in (("ray", lake.to_ray), ("spark", lambda: lake.to_spark(None))):
            with pytest.raises(ExportRefused, match=rf"to_{engine}.*without_protected_fields\(\)"):
                method()
        sealed = dataframes.scan_of(lake.at("main").without_protected_fields()._session)
        assert (sealed.rows, sealed.opens_fields) == (1, False)
