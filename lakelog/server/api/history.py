"""History: the moves of the branch, what separates two states, and going back."""

from __future__ import annotations

import dataclasses

from lakelog.history import Snapshot
from lakelog.lake import Lake
from lakelog.query import Finding
from lakelog.rollback import rollback as rollbacks
from lakelog.server.api.question import DashboardQuestion, cut
from lakelog.server.arrivals import RequestRefused

_BEHAVIOUR_MAX = 2_000_000
"""Of more events on one side the behaviour is not looked at: it takes a scan of both."""
_LISTED = 200
_MOVE = "number time op author message snapshot generation".split()
_STATE = "id time op message events bytes segments".split()


def moves(question: DashboardQuestion) -> dict[str, object]:
    """The moves of the branch, the newest first, and the tags."""
    entries = question.lake.log(question.number("limit", 300))
    return {
        "moves": [
            {name: cut(getattr(entry.move, name)) for name in _MOVE}
            | {name: getattr(entry, name) for name in ("events", "segments", "tags")}
            | {"time": entry.move.time / 1000}
            for entry in entries
        ],
        "tags": [
            {
                "name": tag.name,
                "time": tag.time / 1000,
                "snapshot": tag.snapshot,
                "message": cut(tag.message),
            }
            for tag in question.lake.tags()
        ],
    }


def settled(question: DashboardQuestion) -> dict[str, object]:
    """The parameters of a `diff` with snapshots for names, once the branches are settled: what may
    only read can compare those. Raises UnknownRef."""
    lake = question.lake
    refs = {"a": question.text("a"), "b": question.text("b") or lake.branch_name}
    for branch in {*refs.values()}.intersection(lake.branches()):
        (lake if branch == lake.branch_name else Lake(lake.store, branch)).settle()
    return {**question.query, **{name: lake.at(ref).id for name, ref in refs.items()}}


def diff(question: DashboardQuestion) -> dict[str, object]:
    """What separates the states `a` and `b`: numbers, types, and what changed in behaviour."""
    lake = question.lake
    difference = lake.diff(question.text("a"), question.text("b") or lake.branch_name)
    looked = sum(e.events for e in (*difference.added, *difference.removed))
    behaviour = difference.behaviour if looked <= _BEHAVIOUR_MAX else None
    types = difference.types
    return {
        "a": _described(difference.a),
        "b": _described(difference.b),
        "events": difference.events,
        "segments_added": len(difference.added),
        "segments_removed": len(difference.removed),
        "types": None
        if types is None
        else sorted(types.items(), key=lambda pair: -abs(pair[1]))[:_LISTED],
        "behaviour": None
        if behaviour is None
        else {
            "types": [*map(_finding, behaviour.types[:_LISTED])],
            "fields": [*map(_finding, behaviour.fields[:_LISTED])],
            "sources": [*map(_finding, behaviour.sources[:_LISTED])],
        },
    }


def _described(snapshot: Snapshot) -> dict[str, object]:
    described = {name: cut(getattr(snapshot, name)) for name in _STATE}
    return described | {"time": snapshot.time / 1000}


def _finding(finding: Finding) -> dict[str, object]:
    return {
        "change": finding.change,
        "name": cut(finding.name),
        "type": cut(finding.type),
        "shift": finding.shift,
    }


def preflight(question: DashboardQuestion) -> dict[str, object]:
    """What a rollback to the state `to` would do to events and cursors; nothing is changed."""
    plan = rollbacks.preview(question.lake, question.text("to"))
    return {
        "target": plan.target,
        "findings": [
            {name: cut(value) for name, value in dataclasses.asdict(finding).items()}
            for finding in plan.findings
        ],
        "problems": [cut(problem) for problem in plan.problems],
    }


def tag(question: DashboardQuestion) -> dict[str, object]:
    """Name the present state, or that of `ref`."""
    new_tag = question.lake.tag(
        question.member("name"), question.member("ref") or None, question.member("message")
    )
    return {"name": new_tag.name, "snapshot": new_tag.snapshot}


def rollback(question: DashboardQuestion) -> dict[str, object]:
    """Go back to the state `to`, which has to be the `target` of a preflight that was read."""
    target = question.member("to")
    if not target:
        raise RequestRefused(400, "'to' is the target of the preflight")
    name = question.member("name")
    result = rollbacks.rollback(
        question.lake,
        target,
        name=name if name != target[: Snapshot.SHORT] else "",
        why=question.member("why"),
    )
    return {
        "events": result.snapshot.events,
        "message": result.message,
        "safety": result.safety,
        "notes": result.notes,
    }


def undoable(question: DashboardQuestion) -> dict[str, object]:
    """The move that an undo would take back, and how many events came after it."""
    plan = rollbacks.preview_undo(question.lake, always=True)
    assert plan is not None
    assert plan.undone is not None
    described = {name: cut(getattr(plan.undone, name)) for name in _MOVE}
    return described | {"time": plan.undone.time / 1000, "later": plan.later}


def undo(question: DashboardQuestion) -> dict[str, object]:
    """Undo the last move that a user made; later events are kept on `to_branch` if it is given."""
    result = rollbacks.undo(
        question.lake, to_branch=question.member("to_branch") or None, why=question.member("why")
    )
    return {"events": result.snapshot.events, "message": result.message, "safety": result.safety}
