"""Bytes per event in segments, as loaded and compacted, by column; and real logs against zstd.

Name a directory of logs in LAKELOG_LOGS: every file of it (and of the directories in it, together)
of more than LOG_MIN bytes is compared with what `zstd -19 --long=27` makes of the same bytes, as
compacted and at its smallest, which is zstd 19 too.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import zstandard

import lakelog
from benchmarks import gen
from benchmarks.measure import Scale, directory
from benchmarks.report import Row, Target

LOADED, COMPACTED, LOGS = 22.0, 15.5, 0.8
LOG_MIN = 1_000_000
"""Below this, what a Parquet file needs besides its columns would be most of what is measured."""
_LEAST = 0.05
"""Bytes per event from which a column has a row of its own."""


def columns(scale: Scale) -> list[Row]:
    """Load events and compact them; say how many bytes an event takes in each column."""
    with directory() as root:
        gen.write(scale.bulk, root / "events.jsonl")
        with lakelog.open(str(root / "lake")) as lake:
            lake.ingest(str(root / "events.jsonl"))
            lake.settle()
            rows = _by_column("as loaded", lake, LOADED)
            lake.compact()
            rows += _by_column("compacted", lake, COMPACTED)
            lake.compact(smallest=True)
            each = _sizes(lake)[0] / lake.count()
            return [*rows, Row("bytes of an event, at its smallest", "B", [each])]


def logs(scale: Scale) -> list[Row]:
    """Compare the segments of real logs with what zstd makes of their text."""
    named = os.environ.get("LAKELOG_LOGS")
    if not named:
        return [Row("real logs / zstd -19", "", [], note="LAKELOG_LOGS?")]
    rows, segments, least, packed = [], 0, 0, 0
    for name, files in _sources(Path(named)):
        (ours, smallest), theirs = _stored(files), _compressed(files)
        rows.append(Row(name[:31], "B", [smallest], [theirs]))
        segments, least, packed = segments + ours, least + smallest, packed + theirs
    return [
        *rows,
        Row("compacted / zstd -19", "B", [segments], [packed]),
        Row("real logs / zstd -19", "B", [least], [packed], Target("<=", LOGS)),
    ]


def _by_column(state: str, lake: lakelog.Lake, limit: float) -> list[Row]:
    total, parts = _sizes(lake)
    events = lake.count()
    first = Row(f"bytes of an event, {state}", "B", [total / events], target=_at_most(limit))
    shares = [(name, size / events) for name, size in parts.most_common()]
    rest = sum(share for _, share in shares if share < _LEAST)
    own = [Row(f"  {name}", "B", [share]) for name, share in shares if share >= _LEAST]
    return [first, *own, Row("  other columns", "B", [rest])]


def _at_most(limit: float) -> Target:
    return Target("<=", limit, "figure")


def _sizes(lake: lakelog.Lake) -> tuple[int, Counter[str]]:
    """Return the bytes of the live segments, and of each column; the rest as `footers`."""
    store, parts = lake.store, Counter[str]()
    state = store.manifests.load(store.refs.head("main").move.snapshot)
    entries = store.manifests.segments(state)
    for entry in entries:
        footer = pq.read_metadata(store.paths.object("segments", entry.key))
        groups = map(footer.row_group, range(footer.num_row_groups))
        chunks = [group.column(n) for group in groups for n in range(group.num_columns)]
        for chunk in chunks:
            parts[chunk.path_in_schema] += chunk.total_compressed_size
        parts["footers"] += entry.bytes - sum(chunk.total_compressed_size for chunk in chunks)
    return sum(entry.bytes for entry in entries), parts


def _sources(root: Path) -> list[tuple[str, list[Path]]]:
    """Return the logs below a directory: each that is large enough by itself, the others of one
    directory together if they are."""
    found = []
    for folder in sorted([root, *(path for path in root.iterdir() if path.is_dir())]):
        files = sorted(folder.glob("*") if folder == root else folder.rglob("*"))
        sizes = {file: file.stat().st_size for file in files if file.is_file()}
        found += [(file.name, [file]) for file, size in sizes.items() if size > LOG_MIN]
        small = [file for file, size in sizes.items() if size <= LOG_MIN]
        if sum(sizes[file] for file in small) > LOG_MIN:
            found.append((folder.name, small))
    return found


def _stored(files: list[Path]) -> tuple[int, int]:
    """Return the bytes of the segments, compacted and at their smallest."""
    with directory() as root, lakelog.open(str(root / "lake")) as lake:
        lake.ingest([str(file) for file in files])
        lake.settle()
        lake.compact()
        compacted = _sizes(lake)[0]
        lake.compact(smallest=True)
        return compacted, _sizes(lake)[0]


def _compressed(files: list[Path]) -> int:
    strongest = zstandard.ZstdCompressionParameters.from_level(19, window_log=27, enable_ldm=True)
    text = b"".join(file.read_bytes() for file in files)
    return len(zstandard.ZstdCompressor(compression_params=strongest).compress(text))
