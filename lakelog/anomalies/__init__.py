"""Anomalies: what is unusual in a lake, and values that are unusual for their series.

`incidents` are findings that belong together, each with the query that shows it; `finding_records`
and `finding_events` make rows and events of them. `score_rows` says how unusual each value of a
series is, as a `NoveltyDetector` does; a score of `THRESHOLD` or more is worth a look.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.anomalies.findings import (
        EVERY,
        FALSE_ALARMS,
        AnomalyFinding,
        Incident,
        finding_events,
        finding_records,
        incidents,
    )
    from lakelog.anomalies.novelty import SCORE, THRESHOLD, NoveltyDetector, score_rows

__all__ = [
    "EVERY",
    "FALSE_ALARMS",
    "SCORE",
    "THRESHOLD",
    "AnomalyFinding",
    "Incident",
    "NoveltyDetector",
    "finding_events",
    "finding_records",
    "incidents",
    "score_rows",
]

__getattr__ = lazy_face(
    __name__,
    findings="EVERY FALSE_ALARMS AnomalyFinding Incident finding_events finding_records incidents",
    novelty="SCORE THRESHOLD NoveltyDetector score_rows",
)
