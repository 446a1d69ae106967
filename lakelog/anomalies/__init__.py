"""Anomalies: values that are unusual for their series.

`score_rows` says how unusual each value of a series is, as a `NoveltyDetector` does; a score of
`THRESHOLD` or more is worth a look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.anomalies.novelty import SCORE, THRESHOLD, NoveltyDetector, score_rows

__all__ = ["SCORE", "THRESHOLD", "NoveltyDetector", "score_rows"]

__getattr__ = lazy_face(__name__, {"novelty": "SCORE THRESHOLD NoveltyDetector score_rows"})
