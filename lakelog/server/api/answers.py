"""What answers each question and change of the dashboard, and what an error is answered with.

The modules of the answers are loaded by the first question: most are answered by other processes,
and a server starts sooner without them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import orjson

from lakelog.errors import (
    AlreadyExists,
    Damaged,
    InvalidName,
    InvalidSearch,
    InvalidSetting,
    InvalidView,
    LakelogError,
    NotAllowed,
    NothingToUndo,
    QueryFailed,
    RollbackRefused,
    SnapshotGone,
    UnknownRef,
    WouldDropEvents,
)
from lakelog.runtime.lazy import Lazy
from lakelog.server.api.question import DashboardQuestion
from lakelog.server.arrivals import RequestRefused
from lakelog.server.protocols.protocol import Answer

if TYPE_CHECKING:
    from lakelog.server.api import (
        about,
        alerts,
        counts,
        events,
        history,
        overview,
        patterns,
        sources,
        traces,
    )
else:
    about = Lazy("lakelog.server.api.about")
    alerts = Lazy("lakelog.server.api.alerts")
    counts = Lazy("lakelog.server.api.counts")
    events = Lazy("lakelog.server.api.events")
    history = Lazy("lakelog.server.api.history")
    overview = Lazy("lakelog.server.api.overview")
    patterns = Lazy("lakelog.server.api.patterns")
    sources = Lazy("lakelog.server.api.sources")
    traces = Lazy("lakelog.server.api.traces")

Answerer = Callable[[DashboardQuestion], dict[str, object]]
AnswererLoader = Callable[[], Answerer]
QUESTIONS: dict[str, AnswererLoader] = {
    "about": lambda: about.about,
    "names": lambda: about.names,
    "overview": lambda: overview.overview,
    "storage": lambda: overview.storage,
    "standing": lambda: patterns.standing,
    "counts": lambda: counts.counts,
    "events": lambda: events.events,
    "event": lambda: events.event,
    "values": lambda: events.values,
    "traces": lambda: traces.traces,
    "trace": lambda: traces.trace,
    "moves": lambda: history.moves,
    "diff": lambda: history.diff,
    "sources": lambda: sources.sources,
    "files": lambda: sources.files,
    "quarantine": lambda: sources.quarantine,
    "alerts": lambda: alerts.alerts,
    "alerts/history": lambda: alerts.history,
    "patterns": lambda: patterns.patterns,
    "anomalies": lambda: patterns.anomalies,
}
"""Answered by processes of their own."""
OF_SERVER: dict[str, AnswererLoader] = {
    "settings": lambda: about.settings,
    "machine": lambda: overview.machine,
    "preflight": lambda: history.preflight,
    "undo": lambda: history.undoable,
}
"""Answered by the server: what reads no events, and is about the server or publishes its tail."""
READ = QUESTIONS | OF_SERVER
PINNED: dict[str, AnswererLoader] = {"diff": lambda: history.settled}
"""Gives the parameters of a question with snapshots for names, once the branches are settled: done
by the server, as the process that answers may only read."""
CHANGE: dict[str, AnswererLoader] = {
    "tag": lambda: history.tag,
    "rollback": lambda: history.rollback,
    "undo": lambda: history.undo,
    "alerts/add": lambda: alerts.add,
    "alerts/remove": lambda: alerts.remove,
    "alerts/test": lambda: alerts.trial,
    "alerts/silence": lambda: alerts.silence,
    "alerts/unsilence": lambda: alerts.end_silence,
}
_STATUS: dict[type[LakelogError], int] = {
    UnknownRef: 404,
    SnapshotGone: 410,
    AlreadyExists: 409,
    WouldDropEvents: 409,
    NothingToUndo: 409,
    RollbackRefused: 409,
    NotAllowed: 403,
    InvalidName: 400,
    InvalidSearch: 400,
    InvalidSetting: 400,
    InvalidView: 400,
    QueryFailed: 400,
    Damaged: 500,
}


def answered(load: AnswererLoader, question: DashboardQuestion) -> Answer:
    """Answer a question; its mistakes have a status. Raises other errors of the lake."""
    answerer = load()
    try:
        # Encoded here: a list of many rows would hold up the loop of the server.
        content = orjson.dumps(answerer(question), default=str, option=orjson.OPT_NON_STR_KEYS)
    except KeyboardInterrupt:  # so the engine ends where it is cancelled
        return Answer(499, {"error": "cancelled"})
    except RequestRefused as error:
        return Answer(error.status, {"error": error.reason}, error.headers)
    except LakelogError as error:
        status = next((s for t, s in _STATUS.items() if isinstance(error, t)), None)
        if status is None:
            raise
        return Answer(status, {"error": str(error)})
    return Answer(200, content)
