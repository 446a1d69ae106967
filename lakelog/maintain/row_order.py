"""The order in which a sorted segment has its rows: what is asked for together stands together."""

from __future__ import annotations

import contextlib

from lakelog import arrays
from lakelog.entries import SegmentEntry
from lakelog.errors import DamagedSegment
from lakelog.libraries import np, pa, pc
from lakelog.maintain.payloads import read_segment
from lakelog.segments import SegmentEncoder
from lakelog.store import Store

_ROW_GROUP_BYTES = 32_000_000
_TARGETS = 4
"""Where subjects are common, segments have so many times the usual rows, for each that is opened
takes as long as thousands of rows. Of twice as many targets a subject is read a third faster, and a
few minutes of all events half as fast."""
CLUSTER = 16_384
"""Rows of a cluster, and of a page then. With half as many, a segment is 4 % larger, and a subject
is read a quarter faster."""


def targets(store: Store, entries: list[SegmentEntry]) -> int:
    """Return how many times the usual rows a segment is to have, by the subjects of a large one."""
    events = [entry for entry in entries if entry.kind == "events" and entry.subject]
    if not events:
        return 1
    largest = max(events, key=lambda entry: entry.events)
    with contextlib.suppress(DamagedSegment):  # which is told when it is merged
        table, _ = read_segment(store, largest, lambda segment: segment.read_stored(["subject"]))
        return _TARGETS if has_common_subjects(table) else 1
    return 1


def row_group(table: pa.Table) -> int:
    """Return the rows of a row group: fewer where they are long, as there are several copies."""
    fitting = int(_ROW_GROUP_BYTES * len(table) // max(table.nbytes, 1))
    return max(1, min(SegmentEncoder.ROW_GROUP, fitting))


def has_common_subjects(table: pa.Table) -> bool:
    """Whether most rows have a subject that several have, so that they gain by clusters."""
    subjects = table["subject"]
    count, distinct = len(subjects) - subjects.null_count, pc.count_distinct(subjects).as_py()
    return bool(count * 2 > len(subjects) and distinct * 2 < count)


def sort_order(table: pa.Table, step: int, cluster: int | None = None) -> pa.Array:
    """Return the order of rows by type, time and seq, cut into row groups of `step`, of which each
    is by type and seq; or that by subject and seq, cut into clusters, of which each is so as well.

    Statistics of row groups so say most about times. Within one, what came together stays together:
    neighbours of one origin compress better than neighbours in time.
    """
    type_rank, places = _ranks(table["type"]), np.arange(len(table))
    time, seq = (arrays.numbers(table[name].cast("int64")) for name in ("time", "seq"))
    group = np.zeros(len(seq), dtype=np.int64)
    if cluster is not None:
        # By subject over all: then statistics of row groups say most about subjects.
        group[np.lexsort((seq, _ranks(table["subject"])))] = places // cluster
    elif len(seq) > step:
        group[np.lexsort((seq, time, type_rank))] = places // step
    return arrays.integers(np.lexsort((seq, type_rank, group)))


def _ranks(texts: pa.ChunkedArray) -> np.ndarray:
    """Return the place of each text among the distinct ones, by their bytes; that of null is last.
    Sorting numbers is many times faster than comparing texts."""
    distinct = pc.unique(texts)
    ranks = np.empty(len(distinct), dtype=np.int32)
    ranks[arrays.numbers(pc.sort_indices(distinct))] = np.arange(len(distinct), dtype=np.int32)
    numbers: np.ndarray = ranks[arrays.numbers(pc.index_in(texts, distinct).cast("int64"))]
    return numbers
