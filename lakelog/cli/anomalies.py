"""anomalies: what was unusual in a lake, and how unusual each value of a series is."""

from __future__ import annotations

import contextlib
import csv
import datetime
import io
import sys
from collections.abc import Iterator

import click

from lakelog import pictures
from lakelog.anomalies import (
    EVERY,
    FALSE_ALARMS,
    SCORE,
    THRESHOLD,
    AnomalyFinding,
    Incident,
    finding_events,
    finding_records,
    incidents,
    score_rows,
)
from lakelog.cli.app import App, state_option, verb_group
from lakelog.cli.arguments import require_times
from lakelog.cli.options import argument, flag, option
from lakelog.cli.render import terminal
from lakelog.cli.render.output import OUTPUT, PLOT, OutputTarget, emit_plot, emit_words, open_output
from lakelog.cli.render.tables import cell, fit
from lakelog.cli.render.terminal import many, paint
from lakelog.errors import AlreadyExists, InvalidSetting, UnknownRef
from lakelog.lake import Lake
from lakelog.libraries import alt

_FINDINGS, _PANELS = 8, 6
_SHAPE = 24
_DAY_US = 86_400_000_000


@verb_group(invoke_without_command=True)
def anomalies(
    app: App,
    since: str | None = option(
        "--since TIME", "Since TIME: a time, or 2h for two hours before the newest event."
    ),
    until: str | None = option("--until TIME", "Before TIME."),
    every: str = option("--every SPAN", "Count events by spans of this length.", shown=EVERY),
    false_alarms: float = option(
        "--false-alarms N", "How many a day may be by chance.", type=float, shown=FALSE_ALARMS
    ),
    ref: str | None = state_option("Those of a tag, branch, snapshot or time."),
    explain: bool = flag("--explain", "Show the query for the events of each finding."),
    record: bool = flag("--record", "Append each finding once, as an event of type ANOMALY."),
    tag: bool = flag("--tag", "Tag the state before each incident: before-YYYYMMDD-HHMM."),
    plot: str | None = PLOT,
    target: OutputTarget = OUTPUT,
) -> None:
    """List what was unusual in the last day of events.

    Rates by source and type, errors by source, numeric fields, what began without an
    end, and messages that are new are compared with what was usual in 14 days before.
    Findings that are close in time are one incident, and its first one may be the cause.
    """
    if record and ref:
        raise click.UsageError("--record and --at do not go together")
    if tag and ref:
        raise click.UsageError("--tag and --at do not go together")
    require_times(since, until)
    with app.open() as lake:
        state = lake.at(ref) if ref else lake
        if record or tag:
            state = lake.at(lake.settle().move.snapshot).without_protected_fields()
        incident_list = incidents(
            state, since=since, until=until, every=every, false_alarms=false_alarms
        )
        # Before anything is printed: a reader that closes the pipe must not prevent it.
        if record:
            lake.append(finding_events(incident_list))
        if tag:
            _tag(app, lake, incident_list)
    emit_plot(plot, lambda: _chart(incident_list))
    emit_words(
        finding_records(incident_list), target, lambda: "".join(_lines(incident_list, explain))
    )


def _tag(app: App, lake: Lake, incident_list: list[Incident]) -> None:
    """Tag the state that there was before each incident, where there was one."""
    for incident in incident_list:
        begin = datetime.datetime.fromtimestamp(incident.start_us / 1e6, datetime.UTC)
        name = f"before-{begin:%Y%m%d-%H%M}"
        try:
            lake.tag(name, begin.isoformat(), _described(incident.findings[0]))
        # The finding's first moment is before the first move where old logs were loaded afterwards.
        except UnknownRef:
            app.say(f"no state before {begin:%Y-%m-%d %H:%M}: the lake is younger")
        # A run of last night tagged it: the name is made of the time, so it is the same state.
        except AlreadyExists:
            continue
        else:
            app.say(f"tagged {name}")


def _lines(incident_list: list[Incident], explain: bool) -> Iterator[str]:
    """Each incident with its findings, for a terminal."""
    if not incident_list:
        yield "nothing unusual\n"
    width = terminal.width()
    for incident in incident_list:
        begin, end = (_clock(moment) for moment in (incident.start_us, incident.end_us))
        yield paint(f"{begin} to {end}\n", sys.stdout, bold=True)
        # A dict keeps the last one that is set, and in reverse that is the first of its series.
        first_of_series = {f.series: f for f in reversed(incident.findings)}
        findings = [f for f in incident.findings if first_of_series[f.series] is f]
        for finding in findings[:_FINDINGS]:
            line = f"  {_clock(finding.start_us)[11:]}  {cell(_described(finding))}"
            shape = _shape(finding)
            if shape and len(line) + 2 + len(shape) <= width:
                line += f"  {shape}"
            yield fit(line, width) + "\n"
            if explain:
                yield paint(f"         {cell(finding.query)}\n", sys.stdout, dim=True)
        if len(findings) > _FINDINGS:
            more = many(len(findings) - _FINDINGS, "more series", "more series")
            yield paint(f"  {more}; --json has all\n", sys.stdout, dim=True)


def _shape(finding: AnomalyFinding) -> str:
    """What the series did up to the end of a finding."""
    curve = finding.curve
    if curve is None:
        return ""
    # Cut at the finding: what came later would show the recovery, and not what was unusual.
    end = (finding.end_us - curve.start_us) // curve.length_us
    return pictures.sparkline(curve.values[max(0, end - _SHAPE) : end], _SHAPE)


def _chart(incident_list: list[Incident]) -> alt.VConcatChart:
    """The series of the strongest findings, from two days before, with the incidents marked."""
    findings = [f for incident in incident_list for f in incident.findings if f.curve]
    strongest: dict[str, AnomalyFinding] = {}
    for finding in sorted(findings, key=lambda f: -abs(f.deviations)):
        strongest.setdefault(finding.series, finding)
    if not strongest:
        raise InvalidSetting("nothing to draw: no series was unusual")
    # Two days show the daily rhythm that the finding departs from.
    start_us = min(incident.start_us for incident in incident_list) - 2 * _DAY_US
    panels = [
        [pictures.since(finding.curve, start_us)]
        for finding in list(strongest.values())[:_PANELS]
        if finding.curve
    ]
    spans = [(incident.start_us, incident.end_us) for incident in incident_list]
    return pictures.curves_chart(
        panels, f"{many(len(incident_list), 'incident')} (UTC); grey: expected", spans
    )


def _described(finding: AnomalyFinding) -> str:
    if finding.aspect == "pattern":
        return f"new message, {finding.observed:,.0f} times: {finding.series}"
    if finding.aspect == "sequence":
        return f"no {finding.series}"
    arrow = "↑" if finding.deviations > 0 else "↓"
    usual, observed = _figure(finding.expected), _figure(finding.observed)
    return f"{arrow} {finding.series}: {observed}, usually {usual}"


def _figure(number: float) -> str:
    return f"{number:,.0f}" if 1_000 <= number < 1e12 else f"{number:.3g}"


def _clock(moment_us: int) -> str:
    return f"{datetime.datetime.fromtimestamp(moment_us / 1e6, datetime.UTC):%Y-%m-%d %H:%M}"


@contextlib.contextmanager
def _csv_only(file: str) -> Iterator[None]:
    """Say in one line of a file that is no CSV in UTF-8 that it is none."""
    try:
        yield
    except (UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "reason", str(error))
        raise InvalidSetting(f"{file} is no CSV in UTF-8: {reason}") from None


@anomalies.verb()
def score(
    app: App,
    file: str = argument("FILE", type=click.Path(exists=True, dir_okay=False, allow_dash=True)),
    time_column: str = option("--time COLUMN", "The column of times.", shown="timestamp"),
    value_column: str = option("--value COLUMN", "The column of values.", shown="value"),
    output: str | None = option("-o, --output FILE", "Write to FILE atomically."),
) -> None:
    """Add a column anomaly_score to a series in CSV.

    The series has a column of times and one of values; scores are from 0 to 1.
    Each row is scored before the next is read. A score of 0.868 is worth a look.
    """
    with (
        _csv_only(file),
        click.open_file(file, encoding="utf-8-sig") as source,
        open_output(output) as out,
    ):
        reader = csv.DictReader(source)
        columns = list(reader.fieldnames or ())
        for column in (time_column, value_column):
            if column not in columns:
                names = ", ".join(map(cell, columns)) or "none"
                raise click.UsageError(f"{file} has no column {column}: it has {names}")
        # write_through and no close: open_output publishes the file atomically, and it owns the
        # stream.
        stream = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
        writer = csv.DictWriter(
            # A series that was scored before gets other scores, and no second column of them.
            stream,
            [*dict.fromkeys((*columns, SCORE))],
            lineterminator="\n",
            extrasaction="ignore",
        )
        writer.writeheader()
        count = findings = 0
        for row in score_rows(reader, time_column, value_column):
            writer.writerow(row)
            count += 1
            findings += float(row[SCORE]) >= THRESHOLD
        stream.detach()
    app.say(f"scored {many(count, 'row')}, {findings:,} of {THRESHOLD} or more")
