"""Lakes that are published as tables of Iceberg and of Delta, and what their tables have."""

from __future__ import annotations

import copy
import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa

from lakelog.lake import Lake
from lakelog.open_tables import PublishResult, TableSource, publish_delta, publish_iceberg
from tests.support import delta_rows, iceberg_rows, lakes

TABLE = "logs.events"
SHOPS = {"iceberg": ["pyiceberg", "sqlalchemy"], "delta": ["deltalake"]}
"""The packages that each needs."""


class Shop:
    """A lake and a catalog beside it."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder, self.engines, self.name = folder, list[str](), TABLE
        (folder / "tables").mkdir(parents=True)
        self.lake = lakes.opened(str(folder / "lake"), **settings)
        self.properties = {
            "type": "sql",
            "uri": f"sqlite:///{folder}/catalog.db",
            "warehouse": f"file://{folder}/tables",
        }

    def of_branch(self, branch: str) -> Shop:
        """Start a branch, which has a table of its own beside that of the lake."""
        shop = copy.copy(self)
        shop.lake, shop.name = self.lake.branch(branch), f"logs.{branch}"
        return shop

    def publish(self, table: str = "", **source: Any) -> PublishResult:
        """Bring the table to the present state, or to another one."""
        source_of = TableSource(**source)
        return publish_iceberg(
            self.lake, table or self.name, source_of, catalog="shop", properties=self.properties
        )

    def table(self, name: str = "") -> Any:
        """The table, as it is in the catalog."""
        from pyiceberg.catalog import load_catalog

        with load_catalog("shop", **self.properties) as catalog:
            return catalog.load_table(name or self.name)

    def loader(self) -> tuple[Any, str]:
        """What of the library loads a table: a class and the name of its method."""
        from pyiceberg.catalog.sql import SqlCatalog

        return SqlCatalog, "load_table"

    def written(self) -> int:
        """Bytes below the warehouse."""
        files = [Path(root, name) for root, _, names in os.walk(self.folder) for name in names]
        return sum(f.stat().st_size for f in files if "tables" in f.parts)

    def keys(self) -> list[str]:
        """The names of the files of the table."""
        return [task.file.file_path.rpartition("/")[2] for task in self.table().scan().plan_files()]

    def arrow(self, name: str = "") -> pa.Table:
        """The rows of the table."""
        return self.table(name).scan().to_arrow()

    def commits(self) -> list[str]:
        """The states of its commits, the oldest first."""
        return [s.summary.additional_properties["lakelog.state"] for s in self.table().snapshots()]

    def rows(self, engine: str) -> iceberg_rows.Rows:
        """The rows of the table as values, as an engine reads them."""
        return iceberg_rows.of_table(self.table(), engine)


class DeltaShop(Shop):
    """A lake and a folder of Delta tables beside it."""

    def publish(self, table: str = "", **source: Any) -> PublishResult:
        """Bring the table to the present state, or to another one."""
        folder = f"{self.folder}/tables/{table or self.name}"
        return publish_delta(self.lake, folder, TableSource(**source))

    def table(self, name: str = "") -> Any:
        """The table, as it is in its folder."""
        from deltalake import DeltaTable

        return DeltaTable(f"{self.folder}/tables/{name or self.name}")

    def loader(self) -> tuple[Any, str]:
        """What of the library loads a table: a class and the name of its method."""
        from deltalake import DeltaTable

        return DeltaTable, "__init__"

    def keys(self) -> list[str]:
        """The names of the files of the table."""
        return [path.rpartition("/")[2] for path in self.table().file_uris()]

    def arrow(self, name: str = "") -> pa.Table:
        """The rows of the table."""
        return self.table(name).to_pyarrow_table()

    def commits(self) -> list[str]:
        """The states of its commits, the oldest first."""
        history = self.table().history()
        return [commit["lakelog.state"] for commit in history if "lakelog.state" in commit][::-1]

    def rows(self, engine: str) -> iceberg_rows.Rows:
        """The rows of the table as values, as an engine reads them."""
        return delta_rows.of_table(self.table(), "deltalake" if engine == "pyiceberg" else engine)


def shop_of(name: str, folder: Path, **settings: object) -> Shop:
    """Return a lake with tables of a format."""
    return (Shop if name == "iceberg" else DeltaShop)(folder, **settings)


DRIFTS = 6


def orders(count: int, drift: int = 0, start: int = 0) -> list[dict[str, Any]]:
    """Events whose payloads have other members with each drift."""
    payloads: list[dict[str, Any]] = [
        {"n": 1, "x": 0.5, "nest": {"a": [1, 2], "ok": True}},
        {"n": "one", "new.x": [{"é": 1}], "x": 1.25},
        {"n": 2, "x": 1, "nest": {"a": ["b"], "deep": {"c": None, "d": 3}}},
        {"n": [1.5, None], "N": 7, "m": {"k": "v"}},
        {"n": 2**63, "x": 2**53 + 1, "N": 10**40, "m": {"k": 19.99, "j": -0.1, "i": 1.5e300}},
        {"n": None, "é 🎙": {"ž": "\0\U0001f600"}, "x": "2026-02-28T23:59:59.1+05:30", "m": {}},
    ]
    return [
        {
            "type": f"T{n % 3}",
            "subject": f"s{n}" if n % 4 else None,
            "message": f"order {n}",
            "data": {**payloads[drift % DRIFTS], "nr": n} if n % 5 else None,
        }
        for n in range(start, start + count)
    ]


def assert_table_is(shop: Shop, ref: str = "") -> None:
    """Require the table's rows to be those of a state, in every value."""
    wanted = iceberg_rows.of_lake(shop.lake, ref or shop.lake.branch_name)
    assert shop.rows("pyiceberg") == wanted
    for engine in shop.engines:
        rows = shop.rows(engine)
        if engine == "chdb":
            rows, wanted = map(iceberg_rows.without_empty, (rows, wanted))
        assert rows == wanted, engine


def change(lake: Lake, chance: random.Random, nr: int, tags: list[str]) -> None:
    """Change a branch of a lake at random, for the time number `nr`; a tag may be added."""
    for _ in range(chance.randrange(1, 4)):
        step = chance.choice("append append repeat settle compact rollback retain erase".split())
        if step == "append":
            lake.append(orders(chance.randrange(1, 30), chance.randrange(DRIFTS), nr * 100))
        elif step == "repeat":
            ids = [{"type": "T1", "id": f"i{chance.randrange(9)}", "data": nr} for _ in range(3)]
            lake.append(ids)
        elif step == "settle":
            lake.settle()
        elif step == "compact":
            lake.compact()
        elif step == "rollback" and chance.random() < 0.4:
            lake.rollback(chance.choice(tags))
        elif step == "retain":
            lake.append({"type": "OLD", "time": "2001-01-01T00:00:00Z", "data": {"n": nr}})
            lake.retention("365d", apply=True)
        elif step == "erase":
            lake.erase(subject=f"s{chance.randrange(nr * 100 + 30)}", why="asked")
    if chance.random() < 0.3:
        tags.append(f"t{nr}")
        lake.tag(tags[-1])


def follow(shop: Shop, chance: random.Random, states: int) -> None:
    """Change branches of a lake at random, and publish one so many times, in every state."""
    tags, shops = ["start"], [shop]
    shop.lake.append([*lakes.EXOTIC, *orders(5)])
    shop.lake.settle()
    shop.lake.tag("start")
    for nr in range(states):
        if nr and len(shops) < 3 and chance.random() < 0.2:
            shops.append(chance.choice(shops).of_branch(f"b{nr}"))
        shop = chance.choice(shops)
        change(shop.lake, chance, nr, tags)
        past = chance.choice(tags) if chance.random() < 0.2 else None
        shop.publish(ref=past)
        assert_table_is(shop, past or "")
    for branch in shops[1:]:
        branch.lake.close()
