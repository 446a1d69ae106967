"""Exports load where people train: datasets, pyarrow, polars, pandas, DuckDB, a plain loader.

`datasets` and pandas are no dependencies of ours. Where they are not installed, a Python that has
them can be named in LAKELOG_DATASETS_PYTHON; without either their tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from lakelog import train
from lakelog.train.recipe_schema import SHAPES
from tests.support import trainsets
from tests.support.requirements import need
from tests.support.trainsets import lake_of, recipe

EVENTS = [
    *trainsets.notes(200),
    *(
        {
            "type": "AI_DECISION" if n % 2 else "COMPLETE",
            "subject": f"job{n // 2 % 40}",
            "time": f"2026-10-01T{n // 60:02d}:{n % 60:02d}:00Z",
            "data": {"options": ["a", "b"], "chosen": "a", "reward": 1.5},
        }
        for n in range(240)
    ),
    *(
        {
            "type": "chat",
            "subject": f"c{n // 2}",
            "time": f"2026-10-02T00:{n // 60:02d}:{n % 60:02d}Z",
            "data": {"role": "assistant" if n % 2 else "user", "content": text},
        }
        for n, text in enumerate(trainsets.texts(160, 8))
    ),
    *(
        {
            "type": "answer",
            "subject": f"p{n // 2}",
            "time": "2026-10-03T00:00:00Z",
            "data": {
                "prompt": f"p{n // 2} {text}" if n % 2 else f"p{n // 2}",
                "response": text,
                "score": n % 2,
                "chosen": text,
                "rejected": text + " not",
            },
        }
        for n, text in enumerate(trainsets.texts(160, 9))
    ),
]
RECIPES: dict[str, dict[str, Any]] = {
    "events": recipe("events", "SELECT * FROM events WHERE type = 'note'", shape={"data": "typed"}),
    "text": recipe("text", "SELECT * FROM events WHERE type = 'note'"),
    "classification": recipe(
        "classification", "SELECT * FROM events WHERE type = 'note'", shape={"label": "level"}
    ),
    "messages": recipe("messages", "SELECT * FROM events WHERE type = 'chat'"),
    "decision": recipe("decision", shape={"outcome": ["COMPLETE"], "reward": "data.reward"}),
    "preference": recipe(
        "preference",
        "SELECT * FROM events WHERE type = 'answer'",
        shape={"chosen": "data.chosen", "rejected": "data.rejected"},
    ),
    "sequence": recipe("sequence"),
}

LOADER = """
import json, os, sys
import datasets, pandas
datasets.disable_progress_bars()
found = {}
for path in sys.argv[1:]:
    loaded = datasets.load_dataset(path)
    streamed = datasets.load_dataset(path, split="train", streaming=True)
    files = [f"{path}/data/{name}" for name in os.listdir(f"{path}/data")]
    frames = sum(len(pandas.read_parquet(file)) for file in files)
    found[path] = {
        "rows": {side: len(loaded[side]) for side in loaded},
        "streamed": sum(1 for _ in streamed),
        "frames": frames,
        "columns": loaded["train"].column_names,
        "first": json.loads(json.dumps(loaded["train"][0], default=str)),
        "classes": {
            name: [feature.names, feature.int2str(loaded["train"][0][name])]
            for name, feature in loaded["train"].features.items()
            if isinstance(feature, datasets.ClassLabel)
        },
    }
print(json.dumps(found))
"""

TYPED = """SELECT subject, message, time::DATE AS day, [time::DATE] AS days, NULL AS nothing,
    level::ENUM('INFO', 'WARN', 'ERROR') AS level, {'seen': [NULL], 'at': time::TIMESTAMP_S} AS look
    FROM events WHERE type = 'note'"""


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of every shape."""
    home = tmp_path_factory.mktemp("load")
    with lake_of(home / "lake", EVENTS) as lake:
        for kind, made in RECIPES.items():
            train.export(lake, {**made, "card": {"title": 'A: "b"', "license": "mit"}}, home / kind)
        train.export(lake, recipe("events", TYPED), home / "typed")
    return home


def told(sets: Path, kind: str) -> dict[str, int]:
    manifest = json.loads((sets / kind / "manifest.json").read_text())
    return {side: split["rows"] for side, split in manifest["splits"].items()}


def interpreter() -> str:
    """A Python with datasets and pandas: this one, unless LAKELOG_DATASETS_PYTHON names another."""
    named = os.environ.get("LAKELOG_DATASETS_PYTHON")
    if named:
        return named
    need("datasets", "pandas")
    return sys.executable


def test_datasets_and_pandas_load_every_shape(sets: Path, tmp_path: Path) -> None:
    """load_dataset finds the splits and columns of the card, offline, at once and as a stream."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
    }
    paths = [str(sets / kind) for kind in (*SHAPES, "typed")]
    done = subprocess.run(
        [interpreter(), "-c", LOADER, *paths],
        env=environment,
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for kind in SHAPES:
        loaded, rows = found[str(sets / kind)], told(sets, kind)
        assert loaded["rows"] == rows, kind
        assert loaded["streamed"] == rows["train"]
        assert loaded["frames"] == sum(rows.values())
        file = next((sets / kind / "data").glob("train-*"))
        assert loaded["columns"] == pq.read_schema(file).names
    assert found[str(sets / "typed")]["rows"] == told(sets, "typed")
    names, first = found[str(sets / "classification")]["classes"]["label"]
    file = next((sets / "classification/data").glob("train-*"))
    labels = pq.read_table(file)["label"].to_pylist()
    assert set(labels) <= set(names)
    assert first == labels[0]
    messages = found[str(sets / "messages")]["first"]["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant"]


@pytest.mark.parametrize("kind", SHAPES)
def test_arrow_polars_and_duckdb_read_every_shape(sets: Path, kind: str) -> None:
    """Each reads the same rows and the same columns."""
    glob, rows = f"{sets}/{kind}/data/*.parquet", sum(told(sets, kind).values())
    arrow = pyarrow.dataset.dataset(sets / kind / "data", format="parquet")
    assert arrow.count_rows() == rows
    frame = polars.read_parquet(glob)
    assert len(frame) == rows
    assert frame.columns == arrow.schema.names
    asked = duckdb.sql(f"SELECT * FROM read_parquet('{glob}')")
    assert asked.columns == frame.columns
    assert len(asked.fetchall()) == rows


@pytest.mark.parametrize("kind", SHAPES)
def test_a_map_style_loader_gets_every_row_once(sets: Path, kind: str) -> None:
    """Indexing shuffled rows, batch by batch as a training loop does, gives each row once."""

    class Rows:
        def __init__(self, folder: Path) -> None:
            self.table = pyarrow.dataset.dataset(folder, format="parquet").to_table()

        def __len__(self) -> int:
            return self.table.num_rows

        def __getitem__(self, place: int) -> dict[str, Any]:
            return self.table.slice(place, 1).to_pylist()[0]

    loaded = Rows(sets / kind / "data")
    order = sorted(range(len(loaded)), key=lambda n: n * 7919 % 10007)
    batches = [[loaded[n] for n in order[at : at + 16]] for at in range(0, len(order), 16)]
    assert sum(map(len, batches)) == sum(told(sets, kind).values())
    assert {tuple(row) for batch in batches for row in batch} == {tuple(loaded[0])}


def test_types_are_what_the_shape_says(sets: Path) -> None:
    """Times are UTC microseconds, lists are lists, numbers are numbers."""
    kinds = {kind: pq.read_schema(next((sets / kind / "data").glob("train-*"))) for kind in SHAPES}
    assert str(kinds["events"].field("time").type) == "timestamp[us, tz=UTC]"
    assert str(kinds["events"].field("data").type).startswith("struct<n: ")
    assert str(kinds["sequence"].field("history").type.value_type) == "string"
    assert str(kinds["decision"].field("label_time").type) == "timestamp[us, tz=UTC]"
    names = [f.name for f in kinds["messages"].field("messages").type.value_type]
    assert names == ["role", "content", "name", "tool_calls", "tool_call_id"]
