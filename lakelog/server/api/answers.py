"""What answers each question and change of the dashboard, and what an error is answered with."""

from __future__ import annotations

from collections.abc import Callable

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
from lakelog.server.api.question import DashboardQuestion
from lakelog.server.arrivals import RequestRefused
from lakelog.server.protocols.protocol import Answer

Answerer = Callable[[DashboardQuestion], dict[str, object]]
QUESTIONS: dict[str, Answerer] = {
    "about": about.about,
    "names": about.names,
    "overview": overview.overview,
    "storage": overview.storage,
    "standing": patterns.standing,
    "counts": counts.counts,
    "events": events.events,
    "event": events.event,
    "values": events.values,
    "traces": traces.traces,
    "trace": traces.trace,
    "moves": history.moves,
    "diff": history.diff,
    "sources": sources.sources,
    "files": sources.files,
    "quarantine": sources.quarantine,
    "alerts": alerts.alerts,
    "alerts/history": alerts.history,
    "patterns": patterns.patterns,
    "anomalies": patterns.anomalies,
}
"""Answered by processes of their own."""
OF_SERVER: dict[str, Answerer] = {
    "settings": about.settings,
    "machine": overview.machine,
    "preflight": history.preflight,
    "undo": history.undoable,
}
"""Answered by the server: what reads no events, and is about the server or publishes its tail."""
READ = QUESTIONS | OF_SERVER
CHANGE: dict[str, Answerer] = {
    "tag": history.tag,
    "rollback": history.rollback,
    "undo": history.undo,
    "alerts/add": alerts.add,
    "alerts/remove": alerts.remove,
    "alerts/test": alerts.trial,
    "alerts/silence": alerts.silence,
    "alerts/unsilence": alerts.end_silence,
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


def answered(answerer: Answerer, question: DashboardQuestion) -> Answer:
    """Answer a question; its mistakes have a status. Raises other errors of the lake."""
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
