"""train: training sets from the lake, with splits that cannot leak and the proof of it."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import time
from typing import Any

import click

import lakelog.train as sets
from lakelog.cli import exits
from lakelog.cli.app import App, verb_group
from lakelog.cli.options import ON, argument, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit, emit_record, write_new
from lakelog.cli.render.terminal import many
from lakelog.render import QueryResult


@verb_group()
def train() -> None:
    """Build training sets whose splits cannot leak, and check that they do not.

    A recipe says which rows, in which shape, and how they are split. An export
    is a directory laid out for the Hugging Face hub, with a leak certificate, a
    quality report, and a manifest from which it can be rebuilt.
    """


@train.verb()
def init(
    app: App,
    kind: str = argument("SHAPE", type=click.Choice(sets.Recipe.SHAPES), default="text"),
    out: str | None = option("-o, --output FILE", "Write it to FILE."),
) -> None:
    """Print a commented recipe for a shape.

    SHAPE is events, text, classification, messages, decision, preference or
    sequence; text by default.
    """
    # An export is named by its recipe's file: it will be looked for under that name.
    name = os.path.splitext(os.path.basename(out))[0] if out and out != "-" else kind
    recipe_text = sets.Recipe.template(kind, name)
    if out is None or out == "-":
        click.echo(recipe_text, nl=False)
        return
    write_new(out, recipe_text, "name another file")
    app.say(f"wrote {out}; next: lakelog train export {out} -o {name}/")


@train.verb()
def export(
    app: App,
    recipe: str = argument("RECIPE.toml", type=click.Path()),
    out: str = option(
        "-o, --output DIR",
        "A new or empty directory; it appears complete or not at all.",
        required=True,
    ),
    as_json: bool = flag("--json", "Print what was built as JSON."),
    workers: str | None = ON,
) -> None:
    """Build a training set from a recipe.

    Exits with 3 if leaks are found in the finished files. The files are kept, and
    certificate.json lists the leaks.
    """
    started = time.monotonic()
    with app.open() as lake, app.progress("train", "s") as progress:
        result = sets.export(
            lake,
            recipe,
            out,
            progress=lambda note: progress(_seconds(started), note=note),
            workers=workers,
        )
    record = {
        "path": out,
        "id": result.id,
        "snapshot": result.snapshot,
        "rows": result.rows,
        "left_out": result.manifest["left_out"],
        "losses": result.manifest["losses"],
        "redacted": result.manifest["redaction"]["found"],
        "warnings": result.warnings,
        "clean": result.certificate.clean,
    }
    splits = ", ".join(f"{split} {n:,}" for split, n in result.rows.items())
    app.say(f"{out}: {many(sum(result.rows.values()), 'row')} ({splits})")
    # What is not in the set is said as loudly as what is: rows that vanish silently are a wrong
    # set.
    for action, counts in (("left out", "left_out"), ("redacted", "redacted")):
        counted = ", ".join(f"{n:,} {why}" for why, n in record[counts].items() if n)
        if counted:
            app.say(f"{action}: {counted}")
    if result.not_kept:
        app.say(f"not kept: {result.not_kept}")
    for warning in result.warnings:
        app.say(f"warning: {warning}")
    if as_json:
        emit_record(record, OutputTarget("json"), lambda: "")
    # Last, because a leak ends the verb with its exit code.
    for leak in result.certificate.leaks:
        app.say(f"leak ({leak.kind}): {leak.words}")
    exits.exit_if(not result.certificate.clean, exits.WRONG)
    app.say("no leak found")


def _seconds(started: float) -> int:
    return int(time.monotonic() - started)


@train.verb()
def check(
    app: App,
    path: str = argument("DIR"),
    against: str | None = option(
        "--against DIR2",
        "Compare train here with validation and test there, and vice versa.",
        type=click.Path(),
    ),
    target: OutputTarget = OUTPUT,
) -> None:
    """Look for leaks in the files of an export; no lake is needed.

    Leaks are equal or nearly equal rows in two splits, groups in two splits, rows on the
    wrong side of the cutoff, columns that reveal the label, and modified files. Exits with
    3 on a leak.
    """
    # No total is known before the files have been read.
    with app.progress("checking") as progress:
        progress(0)
        certificate = sets.check(path, against)
    record = {"path": path, "against": against, **certificate.record()}
    emit_record(record, target, lambda: _words_of(certificate))
    exits.exit_if(not certificate.clean, exits.WRONG)


def _words_of(certificate: sets.Certificate) -> str:
    width = max(map(len, certificate.checks))
    lines = []
    for name, description in certificate.checks.items():
        leaked = [leak.words for leak in certificate.leaks if leak.kind == name]
        finding = "; ".join(leaked) or ("none" if not description.startswith("not ") else "")
        # `not checked` says itself why nothing was found.
        lines.append(f"{name:{width}}  {description}{finding and f': {finding}'}")
    count = len(certificate.leaks) - certificate.file_findings
    total = many(count, "leak") if count else "no leak found"
    if certificate.file_findings:
        total += f", but {many(certificate.file_findings, 'finding')} about files and manifest"
    return "\n".join([*lines, total, ""])


@train.verb()
def rebuild(
    app: App,
    path: str = argument("DIR"),
    out: str | None = option("--keep DIR2", "Keep the rebuilt export in DIR2.", type=click.Path()),
    logical: bool = flag("--logical", "Compare rows by digests, not files by bytes."),
    erased: bool = flag("--erased", "Make it again, in its place, without what was erased."),
    target: OutputTarget = OUTPUT,
) -> None:
    """Rebuild an export from its snapshot and compare the two.

    With the same library versions the files are identical; otherwise the versions that
    differ are listed, and rows are compared. Exits with 3 if the two differ.
    With --erased the set is replaced by one without the rows of `lakelog erase`.
    """
    if erased and (out or logical):
        raise click.UsageError("--erased makes the set again in its place: give no --keep")
    started = time.monotonic()
    with app.open() as lake, app.progress("rebuild", "s") as progress:
        result = sets.rebuild(
            lake,
            path,
            out,
            logical=logical,
            erased=erased,
            progress=lambda note: progress(_seconds(started), note=note),
        )
    emit_record(dataclasses.asdict(result), target, lambda: _words_of_rebuild(result))
    # A set that was made again without erased rows differs on purpose.
    exits.exit_if(not (result.same or erased), exits.WRONG)


def _words_of_rebuild(result: sets.RebuildResult) -> str:
    if result.erased:
        return f"made {result.path} again without what {', '.join(result.erased)} erased\n"
    lines = [
        f"{name} was {previous} and is {current}"
        for name, (previous, current) in result.versions.items()
    ]
    lines += [f"{name} differs" for name in result.differing]
    lines += [
        f"rows of {split}: {'the same' if same else 'not the same'}"
        for split, same in result.logical.items()
    ]
    lines.append("the same" if result.same else "not the same bytes")
    if result.not_erased:
        lines.append(
            f"{many(len(result.not_erased), 'erasure')} came after it was made:"
            f" `lakelog train rebuild --erased {shlex.quote(result.path)}` makes it again without"
        )
    return "\n".join(lines) + "\n"


@train.verb()
def list_(app: App, target: OutputTarget = OUTPUT) -> None:
    """List the exports of this lake, oldest first.

    Those whose files are gone are listed too, and marked. A terminal shows what fits 80
    columns; --json gives all: also name, snapshot, and `here`, false for those gone.
    """
    with app.open() as lake:
        rows = [_export_record(facts) for facts in sets.exports(lake)]
    columns = ["export", "name", "shape", "created", "rows", "clean", "snapshot", "path", "here"]
    # Eighty columns have no room for all: the id and the path can be copied, the rest is in JSON.
    brief = ["export", "shape", "created", "rows", "clean", "path"]
    table = [{name: row[name] for name in brief} for row in rows]
    for row, full in zip(table, rows, strict=True):
        row["created"] = f"{row['created'][:16]}Z".replace("T", " ")
        row["path"] = "gone: " * (not full["here"]) + os.path.relpath(row["path"])
    emit(rows, target, QueryResult.of_records(table, brief), columns)


def _export_record(facts: dict[str, Any]) -> dict[str, Any]:
    names = ("export", "name", "shape", "created")
    record = {name: facts[name] for name in names}
    record["rows"], record["clean"] = sum(facts["rows"].values()), facts["clean"]
    record["snapshot"], record["path"] = facts["snapshot"][:12], facts["path"]
    record["here"] = facts["here"]
    return record


@train.verb()
def diff(
    app: App,
    a: str = argument("DIR"),
    b: str = argument("DIR2", type=click.Path()),
    target: OutputTarget = OUTPUT,
) -> None:
    """Compare two exports: recipes, rows, groups that changed splits."""
    comparison = sets.diff(a, b)
    before, after = comparison.snapshots

    # Put together only where a person reads it.
    def described() -> str:
        lines = [
            "the same snapshot" if before == after else f"snapshot {before[:12]}, then {after[:12]}"
        ]
        lines += [
            f"{k}: {json.dumps(x)}, then {json.dumps(y)}" for k, (x, y) in comparison.recipe.items()
        ]
        lines += [
            f"{split}: {x:,} rows, then {y:,}"
            for split, (x, y) in comparison.rows.items()
            if x or y
        ]
        lines.append(f"{comparison.added:,} rows came, {comparison.removed:,} went")
        lines.append(f"{many(comparison.moved, 'group')} changed splits")
        return "\n".join(lines) + "\n"

    emit_record(dataclasses.asdict(comparison), target, described)


@train.verb()
def where(app: App, wanted: str = argument("EVENT|SUBJECT"), target: OutputTarget = OUTPUT) -> None:
    """List the exports that hold an event or a subject.

    An event is named by its id or its seq. Rows are counted by split.
    """
    with app.open() as lake:
        holdings = sets.where(lake, wanted)
    columns = ["export", "name", "train", "validation", "test", "path"]
    rows = [
        {
            "export": holding.export,
            "name": holding.name,
            # Unknown and not 0: without the files nobody can say.
            **{s: None if holding.rows is None else holding.rows.get(s, 0) for s in columns[2:5]},
            "path": holding.path
            if holding.rows is not None
            else f"{holding.path} (files are gone)",
        }
        for holding in holdings
    ]
    emit(rows, target, columns=columns)
