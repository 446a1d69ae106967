"""Changes in behaviour, as text and as JSON; part of diff."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from lakelog.cli.render.tables import cell
from lakelog.cli.render.terminal import many, width
from lakelog.query.behaviour import Behaviour, Finding
from lakelog.render.values import clock, dumps, micros, payload

_SHOWN = 12


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
        for finding in findings[:_SHOWN]:
            yield _cut(f"    {_words(finding)}")
            if finding.example is not None:
                yield _cut(f"      {_example(finding.example)}")
        if len(findings) > _SHOWN:
            yield f"    and {len(findings) - _SHOWN:,} more; --json has them"


def _words(finding: Finding) -> str:
    """Return a finding as a phrase."""
    name, detail = cell(finding.name), finding.detail
    if finding.type:
        name = f"{cell(finding.type)}: {name}"
    if finding.change == "new":
        return f"+ {name}, in {many(finding.after, 'event')}"
    if finding.change == "vanished":
        return f"- {name}, in {many(finding.before, 'event')} before"
    if finding.change == "changed":
        kinds = (" or ".join(detail[f"kinds_{moment}"]) for moment in ("before", "after"))
        return f"~ {name}: {' -> '.join(kinds)}, in {many(detail['other'], 'event')}"
    if finding.change == "rate":
        rates = (f"{detail[f'rate_{moment}']:,.1f}" for moment in ("before", "after"))
        return f"~ {name}: {' -> '.join(rates)} events an hour"
    shares = (f"{detail[f'failed_{moment}']:.1%}" for moment in ("before", "after"))
    return f"~ {name}: {' -> '.join(shares)} of {detail['outcomes_after']:,} failed"


def _example(event: dict[str, Any]) -> str:
    """One event in a line."""
    moment = clock(int(event["time"].timestamp() * 1e6))
    facts = [event[k] for k in ("type", "source", "subject", "message") if event[k]]
    data = dumps(payload(event["data"])).decode() if event["data"] else ""
    return " ".join([moment, *map(cell, facts), cell(data)])


def _cut(line: str) -> str:
    return line if len(line) <= width() else f"{line[: width() - 1]}…"
