"""Training sets: the rate of an export against `datasets`, near dedupe, and planted leaks.

`datasets` is no dependency: name a Python that has it in LAKELOG_DATASETS_PYTHON, or the export is
measured without a peer.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lakelog
import lakelog.train
from benchmarks import gen, measure
from benchmarks.measure import Scale, child, directory
from benchmarks.report import Row, Target

NOTES = "SELECT * FROM events WHERE type = 'note'"
EXPORT = {
    "select": {"sql": "SELECT * FROM events WHERE type <> 'train.export'"},
    "shape": {"kind": "events"},
    "split": {"group": "subject"},
    "dedupe": {"exact": True},
    "redact": {"kinds": "all"},
}
_EXPORT = f"""
import lakelog, lakelog.train
lake = lakelog.open(sys.argv[1])
made = lakelog.train.export(lake, {EXPORT!r}, sys.argv[2])
result = sum(made.rows.values())
"""
_NEAR = """
import pyarrow as pa, numpy as np
from lakelog.train import cluster
table = pa.ipc.open_file(pa.memory_map(sys.argv[1])).read_all()["t"].combine_chunks()
began = time.perf_counter()
made = cluster.clusters(lambda: (table.slice(i, 16384) for i in range(0, len(table), 16384)), 0.8)
pairs = np.load(sys.argv[2])
hit = int((made.roots[pairs[:, 0]] == made.roots[pairs[:, 1]]).sum())
result = [hit / max(len(pairs), 1), hit / max(made.duplicates, 1)]
"""


def events(scale: Scale) -> list[Row]:
    """Events by group, exact dedupe and every redaction rule; the same by map and filter."""
    with directory() as root:
        path = root / "events.jsonl"
        gen.write(scale.bulk, path)
        with lakelog.open(str(root / "lake")) as lake:
            lake.ingest(str(path))
            lake.settle()
            lake.sql("SELECT * FROM events").write_parquet(str(root / "events.parquet"))
        rounds = [_export(root) for _ in range(min(scale.rounds, 3))]
        rates = [scale.bulk / took for took, _ in rounds]
        peers = _peer(root, scale.bulk)
        rows = [
            Row("train events, all rules", "rows/s", rates, [], Target(">=", 200_000, "figure")),
            Row("  memory", "MB", [mb for _, mb in rounds], [], Target("<=", 1000, "figure")),
        ]
        if peers:
            rows.append(Row("  to datasets map/filter", "rows/s", rates, peers, Target(">=", 5)))
        return rows


def _export(root: Path) -> tuple[float, float]:
    shutil.rmtree(root / "out", ignore_errors=True)
    done = child(_EXPORT, str(root / "lake"), str(root / "out"))
    return done.inside, done.peak


def _peer(root: Path, count: int) -> list[float]:
    python = os.environ.get("LAKELOG_DATASETS_PYTHON")
    if not python:
        return []
    names = Path(lakelog.__file__).parent / "train" / "names.txt"
    module = "benchmarks.peers.datasets"
    command = [python, "-m", module, str(root / "events.parquet"), str(names), str(root / "hf")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        cwd=measure.ROOT,
        env={**os.environ, "PYTHONPATH": str(measure.ROOT)},
    )
    return [count / float(done.stdout.split()[-1])]


def near(scale: Scale) -> list[Row]:
    """Near dedupe of texts of 20 to 200 words with planted pairs at an index of 0.8."""
    import numpy as np
    import pyarrow as pa

    with directory() as root:
        texts, pairs = _planted(scale.bulk, 20_000)
        with pa.OSFile(str(root / "t.arrow"), "wb") as file:
            table = pa.table({"t": texts})
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
        np.save(root / "pairs.npy", np.array(pairs))
        done = child(_NEAR, str(root / "t.arrow"), str(root / "pairs.npy"))
        recall, precision = done.result
        return [
            Row(
                "near dedupe",
                "texts/s",
                [scale.bulk / done.inside],
                [],
                Target(">=", 20_000, "figure"),
            ),
            Row("  recall at 0.8", "", [recall], [], Target(">=", 0.95, "figure")),
            Row("  precision", "", [precision], [], Target(">=", 0.95, "figure")),
            Row("  memory", "MB", [done.peak]),
        ]


def _planted(count: int, vocabulary: int) -> tuple[Any, list[tuple[int, int]]]:
    """Texts of random words; one in twenty is followed by one at an index just above 0.8."""
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng(1)
    words = np.array([f"w{n:x}" for n in range(vocabulary)])
    made: list[str] = []
    pairs = []
    for length, plant in zip(rng.integers(20, 201, count), rng.random(count) < 0.05, strict=True):
        said = rng.integers(0, vocabulary, length)
        made.append(" ".join(words[said]))
        kinds = np.unique(said)
        if plant and len(kinds) >= 9:
            gone = rng.choice(kinds, len(kinds) // 9, replace=False)
            other = np.where(np.isin(said, gone), (said + vocabulary // 2) % vocabulary, said)
            pairs.append((len(made) - 1, len(made)))
            made.append(" ".join(words[other]))
        if len(made) >= count:
            break
    return pa.array(made), pairs


def leaks(scale: Scale) -> list[Row]:
    """Planted leaks of every kind, all found; clean sets raise none."""
    from tests.support import planted_leaks as planting
    from tests.support import trainsets

    many = 200 if scale.bulk >= 1_000_000 else 8
    with directory() as root:
        base, found = _sets(root), 0
        kinds = [*planting.PLANTS, "across", "label"]
        for number in range(many):
            kind, rng = kinds[number % len(kinds)], random.Random(number)
            path = root / "planted"
            shutil.rmtree(path, ignore_errors=True)
            source = {"label": "c", "across": "b"}.get(kind, "a")
            shutil.copytree(base / source, path)
            found += _is_found(kind, path, base, rng, planting)
        clean = 0
        for seed in range(many // 4):
            with trainsets.lake_of(root / f"l{seed}", trainsets.notes(300, 90, seed)) as lake:
                shape = [{"kind": "text"}, {"kind": "events"}][seed % 2]
                made = {"select": {"sql": NOTES}, "shape": shape, "split": {"group": "subject"}}
                done = lakelog.train.export(lake, made, str(root / f"o{seed}"))
                clean += done.certificate.clean
            shutil.rmtree(root / f"l{seed}")
        return [
            Row(
                "planted leaks found",
                "",
                [found / many],
                [],
                Target(">=", 1, "figure"),
                note=f"{many} planted",
            ),
            Row(
                "  clean sets that stay clean",
                "",
                [clean / (many // 4)],
                [],
                Target(">=", 1, "figure"),
                note=f"{many // 4} sets",
            ),
        ]


def _sets(root: Path) -> Path:
    from tests.support import trainsets
    from tests.support.leaky_sets import FENCE

    with trainsets.lake_of(root / "lake", trainsets.notes(400, 120)) as lake:
        made = trainsets.recipe("text", NOTES, shape={"keep": ["level"]}, split=FENCE)
        lakelog.train.export(lake, made, str(root / "a"))
        lake.append(trainsets.notes(200, 120, seed=3, first=400))
        lakelog.train.export(lake, made, str(root / "b"))
        shape = {"label": "level", "keep": ["data.tag"]}
        labelled = trainsets.recipe("classification", NOTES, shape=shape)
        lakelog.train.export(lake, labelled, str(root / "c"))
    return root


def _is_found(kind: str, path: Path, base: Path, rng: random.Random, planting: Any) -> bool:
    from tests.support.trainsets import rewrite

    plants: dict[str, Callable[[Path, random.Random], None]] = planting.PLANTS
    if kind in plants:
        plants[kind](path, rng)
        return kind in planting.kinds(path)
    if kind == "label":
        for side in ("train", "validation", "test"):
            rewrite(path, side, lambda rows: [planting.told(row, "tag") for row in rows])
        return "label" in planting.kinds(path)
    row = planting.any_row(base / "a", "train", rng)
    mine = planting.any_row(path, "test", rng)
    rewrite(path, "test", lambda _: [{**mine, "text": row["text"], "subject": row["subject"]}])
    return {"exact", "group"} <= planting.kinds(path, base / "a")


def rebuilds(scale: Scale) -> list[Row]:
    """Rebuilds after more data, rollback, compaction, retention and gc: the same bytes."""
    from tests.support import trainsets

    many, same = (20 if scale.bulk >= 1_000_000 else 2), 0
    with directory() as root:
        for seed in range(many):
            folder = root / f"r{seed}"
            folder.mkdir()
            settings: dict[str, object] = {"gc_grace_hours": 0, "history_days": 0}
            with lakelog.open(str(folder / "lake"), settings=settings) as lake:
                for start in range(0, 400, 100):
                    lake.append(trainsets.notes(100, seed=seed * 10 + start, first=start))
                    lake.settle()
                lake.tag("before")
                kind = ("text", "events", "sequence")[seed % 3]
                made = trainsets.recipe(kind, NOTES, split={"group": "subject"})
                lakelog.train.export(lake, made, str(folder / "out"))
                lake.append(trainsets.notes(300, seed=seed + 900, first=400))
                lake.compact()
                lake.rollback("before")
                lake.retention("1h", apply=True)
                lake.compact()
                lake.gc()
                same += lakelog.train.rebuild(lake, str(folder / "out")).same
            shutil.rmtree(folder)
    return [
        Row(
            "rebuilds with the same bytes",
            "",
            [same / many],
            [],
            Target(">=", 1, "figure"),
            note=f"{many} rebuilds",
        )
    ]


def lookahead(scale: Scale) -> list[Row]:
    """Random histories of decisions against a plain reading of the rule."""
    from tests.support import decision_histories as histories
    from tests.support.trainsets import lake_of, recipe, rows

    wanted_cases = 10_000 if scale.bulk >= 1_000_000 else 200
    cases = right = 0
    shape = {"outcome": ["COMPLETE", "FAIL"], "window": "10m", "history": 5, "keep": ["data.r"]}
    for seed in _seeds():
        if cases >= wanted_cases:
            break
        with directory() as root:
            happened = histories.history(seed, 150)
            with lake_of(root / "lake", happened) as lake:
                lakelog.train.export(
                    lake, recipe("decision", shape=shape, split={"train": 1.0}), str(root / "out")
                )
            wanted = histories.expected(happened, 600, 5)
            cases += len(wanted)
            right += sum(_as_expected(row, wanted) for row in rows(root / "out"))
    return [
        Row(
            "decisions that know what they may",
            "",
            [right / cases],
            [],
            Target(">=", 1, "figure"),
            note=f"{cases} cases",
        )
    ]


def _seeds() -> Iterator[int]:
    yield from range(100, 200)


def _as_expected(row: dict[str, Any], wanted: dict[Any, Any]) -> bool:
    import json

    context = [json.loads(e["data"])["r"] for e in row["context"]]
    return bool((row["outcome"], row["label_time"], context) == wanted.get(int(row["r"])))
