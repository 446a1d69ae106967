"""The table of a run: what was to be verified, what was, what fired, what was wrong."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.report import machine
from tests.torture.run import Result

HEADS = ("row", "what is verified", "target", "done", "fired", "skipped", "wrong", "s")
WIDTHS = (9, 24, 7, 7, 7, 7, 5, 4)


def table(results: list[Result]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        _line(HEADS),
        _line(tuple("-" * (w - 1) + (":" if i > 1 else "-") for i, w in enumerate(WIDTHS))),
    ]
    for result in results:
        tally = result.tally
        lines.append(
            _line(
                (
                    result.row.name,
                    result.row.what,
                    f"{result.target:,}",
                    "skipped" if result.skipped else f"{tally.done:,}",
                    f"{tally.fired:,}",
                    f"{tally.skipped:,}",
                    f"{len(result.findings)}",
                    f"{result.seconds:.0f}",
                )
            )
        )
    return "\n".join(lines)


def notes(results: list[Result]) -> str:
    """Return what rows have to say, one line each: what was skipped first."""
    lines = [f"SKIPPED {r.row.name}: {r.skipped}" for r in results if r.skipped]
    for result in results:
        said = ", ".join(f"{text} {count:,}" for text, count in sorted(result.tally.notes.items()))
        if said:
            lines.append(f"{result.row.name}: {said}")
    return "\n".join(lines)


def findings(results: list[Result]) -> str:
    """Return every finding: seed, commit, how to play it again, and the error."""
    commit = machine()["commit"]
    return "\n".join(
        f"\n{f.row}: WRONG with seed {f.seed}, case {f.number}, commit {commit}\n"
        f"replay: {f.replay}\n{f.text}"
        for result in results
        for f in result.findings
    )


def heading(seed: int) -> str:
    """Return commit, machine and how to play a row again."""
    host = machine()
    return (
        f"commit {host['commit']}, {host['cores']} cores {host['cpu']}, kernel {host['kernel']},"
        f" Python {host['python']}, load {host['load'][0]}\n"
        f"replay a row: python -m tests.torture ROW --seed {seed}"
    )


def save(results: list[Result], path: Path) -> None:
    """Write the machine and every row as JSON."""
    rows = [
        {
            "row": r.row.name,
            "what": r.row.what,
            "target": r.target,
            "done": r.tally.done,
            "fired": r.tally.fired,
            "skipped": r.tally.skipped,
            "why_skipped": r.skipped,
            "wrong": [{"replay": f.replay, "error": f.text} for f in r.findings],
            "seconds": round(r.seconds, 1),
            "notes": r.tally.notes,
            "seed": r.seed,
            "replay": f"python -m tests.torture {r.row.name} --seed {r.seed}",
        }
        for r in results
    ]
    path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


def _line(texts: tuple[str, ...]) -> str:
    cells = [
        text.ljust(width) if index < 2 else text.rjust(width)
        for index, (text, width) in enumerate(zip(texts, WIDTHS, strict=True))
    ]
    return "|" + "|".join(cells) + "|"
