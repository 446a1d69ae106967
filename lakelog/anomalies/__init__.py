"""Anomalies: what is unusual in a lake, and values that are unusual for their series.

`incidents` are findings that belong together, each with the query that shows it; `finding_records`
and `finding_events` make rows and events of them. `score_rows` says how unusual each value of a
series is, as a `NoveltyDetector` does; a score of `THRESHOLD` or more is worth a look.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.anomalies.findings import EVERY as EVERY
    from lakelog.anomalies.findings import FALSE_ALARMS as FALSE_ALARMS
    from lakelog.anomalies.findings import AnomalyFinding as AnomalyFinding
    from lakelog.anomalies.findings import Incident as Incident
    from lakelog.anomalies.findings import finding_events as finding_events
    from lakelog.anomalies.findings import finding_records as finding_records
    from lakelog.anomalies.findings import incidents as incidents
    from lakelog.anomalies.novelty import SCORE as SCORE
    from lakelog.anomalies.novelty import THRESHOLD as THRESHOLD
    from lakelog.anomalies.novelty import NoveltyDetector as NoveltyDetector
    from lakelog.anomalies.novelty import score_rows as score_rows

__getattr__, __all__ = lazy_face(__name__)
