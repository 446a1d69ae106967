"""anomalies: how unusual each value of a series is."""

from __future__ import annotations

import csv
import io

import click

from lakelog.anomalies import SCORE, THRESHOLD, score_rows
from lakelog.cli.app import App, verb_group
from lakelog.cli.options import argument, option
from lakelog.cli.render.output import open_output
from lakelog.cli.render.terminal import many


@verb_group("""
    lakelog anomalies score latency.csv -o scored.csv
    lakelog anomalies score - < latency.csv
""")
def anomalies() -> None:
    """Find values that are unusual for their series."""


@anomalies.verb(f"""
    lakelog anomalies score latency.csv -o scored.csv
    lakelog anomalies score cpu.csv --time at --value percent
    lakelog sql "FROM read_csv('scored.csv') WHERE {SCORE} >= {THRESHOLD}"
""")
def score(
    app: App,
    file: str = argument("FILE", type=click.Path(exists=True, dir_okay=False, allow_dash=True)),
    time_column: str = option("--time COLUMN", "The column of times.", shown="timestamp"),
    value_column: str = option("--value COLUMN", "The column of values.", shown="value"),
    output: str | None = option(
        "-o, --output FILE", "Write to FILE atomically.", type=click.Path()
    ),
) -> None:
    """Add a column anomaly_score to a series in CSV.

    The series has a column of times and one of values; scores are from 0 to 1.
    Each row is scored before the next is read. A score of 0.868 is worth a look.
    """
    with click.open_file(file, encoding="utf-8-sig") as source, open_output(output) as out:
        reader = csv.DictReader(source)
        columns = list(reader.fieldnames or ())
        for column in (time_column, value_column):
            if column not in columns:
                raise click.UsageError(
                    f"{file} has no column {column}: it has {', '.join(columns)}"
                )
        stream = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
        writer = csv.DictWriter(
            stream, [*columns, SCORE], lineterminator="\n", extrasaction="ignore"
        )
        writer.writeheader()
        count = findings = 0
        for row in score_rows(reader, time_column, value_column):
            writer.writerow(row)
            count += 1
            findings += float(row[SCORE]) >= THRESHOLD
        stream.detach()
    app.say(f"scored {many(count, 'row')}, {findings:,} of {THRESHOLD} or more")
