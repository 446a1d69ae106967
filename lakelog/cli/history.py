"""log, show, diff: list, describe and compare the states of a lake."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import click

from lakelog.cli import exits
from lakelog.cli.app import App, complete_ref, verb
from lakelog.cli.options import argument, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit, emit_record
from lakelog.cli.render.tables import ROWS_MAX, Count, cell, clock, fit, second
from lakelog.cli.render.terminal import many, size, width
from lakelog.entries import SegmentEntry
from lakelog.history import Diff, HistoryEntry, Snapshot
from lakelog.maintain import Stats
from lakelog.query import Behaviour, Finding
from lakelog.render import dumps, micros, payload

_LOG = ("move", "time", "op", "events", "segments", "snapshot", "tags", "author", "message")
_SNAPSHOT = tuple("id time author op message events bytes segments quarantined parent".split())
_NAMES_SHOWN = _FINDINGS_SHOWN = 12
_SAFETY = "before-rollback-2"
SMALL = 1_000_000
"""So many events are looked through for their behaviour without being asked to."""


@verb()
def log(
    app: App,
    limit: int | None = option("-n N", "List at most the newest N.", type=click.IntRange(min=0)),
    target: OutputTarget = OUTPUT,
) -> None:
    """List the moves of the branch, newest first.

    A move is one numbered step: publishing, a rollback, an undo. @N names the state it made.
    """
    # A table shows ROWS_MAX rows; one more lets it say that there are others, without reading a
    # long history.
    if limit is None and target.format == "table":
        limit = ROWS_MAX + 1
    with app.open() as lake:
        entries = lake.log(limit)
    table = [_log_row(e) for e in entries]
    emit([_log_record(e) for e in entries], target, table, _LOG)


@verb()
def show(
    app: App, ref: str | None = argument(shell_complete=complete_ref), target: OutputTarget = OUTPUT
) -> None:
    """Describe one state of the lake: who made it, when, and what it holds.

    Without REF, the newest published state of the branch.
    """
    with app.open() as lake:
        # By its ref and not the open lake: what waits to be published belongs to no state yet.
        pinned = lake.at(ref or app.branch)
        state, counts = pinned.snapshot(), pinned.stats()
        tags = [t.name for t in lake.store.refs.tags() if t.snapshot == state.id]
    record = {
        **snapshot_record(state),
        "tags": tags,
        "types": counts.types,
        "first_event": micros(counts.time[0]) if counts.time else None,
        "last_event": micros(counts.time[1]) if counts.time else None,
    }
    emit_record(record, target, lambda: "\n".join(_panel(state, tags, counts)) + "\n")


@verb()
def diff(
    app: App,
    a: str = argument(shell_complete=complete_ref),
    b: str | None = argument(shell_complete=complete_ref),
    exit_code: bool = flag("--exit-code", "Exit with 3 if the states differ."),
    with_behaviour: bool | None = option(
        "--behaviour/--no-behaviour",
        "What changed in types, fields of data and sources; it reads the events. On by default if"
        f" the states hold at most {SMALL:,} events together.",
        default=None,
    ),
    target: OutputTarget = OUTPUT,
) -> None:
    """Compare states A and B: events by type, segments, and behaviour.

    Without B, A is compared with the branch as it is now. Behaviour is compared on the
    events that only one of the states has, or on all events of a state that has none of its
    own.
    """
    with app.open() as lake:
        comparison = lake.diff(a, b or app.branch)
        differs = bool(comparison.added or comparison.removed)
        small = comparison.a.events + comparison.b.events <= SMALL
        # Types and segments come from manifests at once, but behaviour reads the events: only by
        # request where they are many.
        reads_events = small if with_behaviour is None else with_behaviour
        behaviour = comparison.behaviour if differs and reads_events else None
    record = {
        "a": snapshot_record(comparison.a),
        "b": snapshot_record(comparison.b),
        "differs": differs,
        "events": comparison.events,
        "types": comparison.types,
        "added": [_segment_record(e) for e in comparison.added],
        "removed": [_segment_record(e) for e in comparison.removed],
        "behaviour": None if behaviour is None else behaviour_record(behaviour),
    }
    lines = [
        *_diff_lines(comparison),
        *(behaviour_lines(behaviour) if behaviour is not None else ()),
    ]
    if differs and behaviour is None and with_behaviour is None:
        # Left out by size and not by request: without a word nobody would know that there is more.
        lines.append("\n--behaviour says what changed in types, fields and sources")
    emit_record(record, target, lambda: "\n".join(lines) + "\n")
    # After the output, because the exit ends the verb.
    exits.exit_if(exit_code and differs, exits.WRONG)


def snapshot_record(state: Snapshot) -> dict[str, object]:
    """Return a snapshot as an object."""
    record = {name: getattr(state, name) for name in _SNAPSHOT}
    return record | {"time": micros(state.time), "parent": state.parent or None}


def _log_record(entry: HistoryEntry) -> dict[str, object]:
    move = entry.move
    moved_at = micros(move.time) if move.time else None
    place = move.number, moved_at, move.op, entry.events, entry.segments, move.snapshot or None
    values = *place, list(entry.tags), move.author, move.message
    return dict(zip(_LOG, values, strict=True))


def _log_row(entry: HistoryEntry) -> dict[str, object]:
    move = entry.move
    # Safety tags are long, and there is one at most moves before a rollback: --json has them.
    # Who looks for one knows the rollback, whose own line names it.
    tags = "".join(f"[{t}] " for t in entry.tags if not t.startswith(_SAFETY))
    return {
        "move": f"@{move.number}",
        "time": second(move.time) if move.time else None,
        "op": move.op,
        "events": None if entry.events is None else Count(entry.events),
        "snapshot": move.snapshot[: Snapshot.SHORT] or None,
        "message": f"{tags}{move.message}",
    }


def _panel(state: Snapshot, tags: list[str], counts: Stats) -> Iterator[str]:
    yield f"snapshot {state.id}"
    yield f"  {'created':<12}{clock(state.time)} by {cell(state.author)}, {state.op}"
    if state.message:
        yield f"  {'message':<12}{cell(state.message)}"
    if tags:
        yield f"  {'tags':<12}{', '.join(map(cell, tags))}"
    size_note = f"{size(state.bytes)} in {many(state.segments, 'segment')}"
    yield f"  {'events':<12}{state.events:,}; {size_note}"
    if counts.time:
        yield f"  {'time':<12}{clock(counts.time[0])} to {clock(counts.time[1])}"
    if state.quarantined:
        yield f"  {'quarantine':<12}{many(state.quarantined, 'line')}"
    if state.parent:
        yield f"  {'parent':<12}{state.parent[: Snapshot.SHORT]}"
    yield from _types({name: f"{count:,}" for name, count in counts.types.items()})
    if counts.uncounted:
        yield f"  and {many(counts.uncounted, 'event')} in segments with too many types to list"


def _diff_lines(comparison: Diff) -> Iterator[str]:
    for mark, state in (("a", comparison.a), ("b", comparison.b)):
        message = cell(state.message or state.op)
        line = f"{mark}  {state.short}  {clock(state.time)}  {state.events:>11,} events  {message}"
        yield fit(line, width())
    if not comparison.added and not comparison.removed:
        # Equal segments are equal events: a segment's name is the hash of its bytes.
        yield "\nthe two states are equal: they have the same segments"
        return
    yield f"\n  {'events':<12}{comparison.events:+,}"
    yield f"  {'segments':<12}{_sum(comparison.added, '+')}, {_sum(comparison.removed, '-')}"
    if comparison.types is None:
        yield "  too many types to list"
    elif comparison.types:
        yield from _types({name: f"{count:+,}" for name, count in comparison.types.items()})
    elif not comparison.events:
        yield "  same number of events of each type: compacted, or rows were replaced"


def _types(counts: dict[str, str]) -> Iterator[str]:
    if counts:
        yield ""
    for name, count in list(counts.items())[:_NAMES_SHOWN]:
        yield f"  {cell(name)[:40]:<40}{count:>14}"
    if len(counts) > _NAMES_SHOWN:
        yield f"  and {len(counts) - _NAMES_SHOWN:,} more types; --json has them"


def _sum(entries: tuple[SegmentEntry, ...], sign: str) -> str:
    return f"{sign}{len(entries):,} ({sign}{size(sum(e.bytes for e in entries))})"


def _segment_record(entry: SegmentEntry) -> dict[str, object]:
    return {
        "segment": entry.key,
        "kind": entry.kind,
        "events": entry.events,
        "bytes": entry.bytes,
        "time": [micros(t) for t in entry.time],
    }


def behaviour_record(behaviour: Behaviour) -> dict[str, Any]:
    """Return the changes as an object; times as ISO 8601, data as nested JSON."""
    record = dataclasses.asdict(behaviour)
    for totals in (record["before"], record["after"]):
        totals["time"] = totals["time"] and [micros(t) for t in totals["time"]]
    for finding in (*record["types"], *record["fields"], *record["sources"]):
        example = finding["example"]
        # The payload as JSON and not as a string of JSON, as in all other output.
        finding["example"] = example and {**example, "data": payload(example["data"])}
    return record


def behaviour_lines(behaviour: Behaviour) -> Iterator[str]:
    """Yield the changes as text, an example below each."""
    sides = (
        f"{'all ' if totals['whole'] else ''}{many(totals['events'], 'event')} {label}"
        for totals, label in ((behaviour.before, "of a"), (behaviour.after, "of b"))
    )
    yield f"\nbehaviour: {' against '.join(sides)}"
    if not behaviour:
        yield "  no new or vanished types, fields or sources, no shifts"
    for title, findings in (
        ("types", behaviour.types),
        ("fields", behaviour.fields),
        ("sources", behaviour.sources),
    ):
        if findings:
            yield f"\n  {title}"
        for finding in findings[:_FINDINGS_SHOWN]:
            yield fit(f"    {_words(finding)}", width())
            if finding.example is not None:
                yield fit(f"      {_example(finding.example)}", width())
        if len(findings) > _FINDINGS_SHOWN:
            yield f"    and {len(findings) - _FINDINGS_SHOWN:,} more; --json has them"


def _words(finding: Finding) -> str:
    """Return a finding as a phrase."""
    name = f"{cell(finding.type)}: {cell(finding.name)}" if finding.type else cell(finding.name)
    sign = {"new": "+", "vanished": "-"}.get(finding.change, "~")
    return f"{sign} {name}{':' if sign == '~' else ','} {finding.shift}"


def _example(event: dict[str, Any]) -> str:
    """One event in a line."""
    moment = clock(int(event["time"].timestamp() * 1e6))
    facts = [event[k] for k in ("type", "source", "subject", "message") if event[k]]
    data = dumps(payload(event["data"])).decode() if event["data"] else ""
    return " ".join([moment, *map(cell, facts), cell(data)])
