"""The quality report of an export: report.md with its plots, and report.html in one file."""

from __future__ import annotations

from html import escape

from lakelog.train import losses, tokenizer
from lakelog.train.report import plots
from lakelog.train.report.quality import DRIFTED
from lakelog.train.tables import JsonMap

_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:720px;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{padding:2px 10px;border-bottom:1px solid #8884;"
    "text-align:left}.n{text-align:right}pre{white-space:pre-wrap;background:#8881;padding:8px}"
)
ReportTable = tuple[list[str], list[list[str]]]
ReportSection = tuple[str, str, ReportTable | None]
"""A title, its words, and a table."""


def texts(manifest: JsonMap, certificate: JsonMap) -> dict[str, str]:
    """Return report.md, report.html and the plots, by file name."""
    charts = _charts(manifest["quality"])
    sections = _sections(manifest, certificate)
    return {
        **{f"{name}.svg": svg for name, svg in charts.items()},
        "report.md": _markdown(manifest, sections, list(charts)),
        "report.html": _html(manifest, sections, charts),
    }


def _charts(quality: JsonMap) -> dict[str, str]:
    charts = {}
    edges, counts = quality["lengths"]["edges"], quality["lengths"]["counts"]
    rows = []
    for place, low in enumerate(edges):
        by_split = {split: n[place] for split, n in counts.items() if n[place]}
        high = edges[place + 1] - 1 if place + 1 < len(edges) else None
        name = f"{low:,} or more" if high is None else f"{low:,} to {high:,}"
        rows.append((name, by_split))
    # Empty bins at both ends are cut off; those in between stay, or the axis would jump.
    filled = [place for place, (_, by_split) in enumerate(rows) if by_split]
    if filled:
        charts["lengths"] = plots.bars("Rows by tokens", rows[filled[0] : filled[-1] + 1])
    if quality["balance"]:
        values = list(quality["balance"]["values"].items())
        charts["balance"] = plots.bars(f"Rows by {quality['balance']['column']}", values)
    return charts


def _sections(manifest: JsonMap, certificate: JsonMap) -> list[ReportSection]:
    """Title, words and table of each section."""
    quality, splits = manifest["quality"], manifest["splits"]
    rows = sum(s["rows"] for s in splits.values())
    split_rows = [
        [split, f"{s['rows']:,}", f"{s['rows'] / max(rows, 1):.1%}", f"{s['tokens']:,}"]
        for split, s in splits.items()
    ]
    checks = [
        [name, description, _findings(certificate, name)]
        for name, description in certificate["checks"].items()
    ]
    left_out = [[why, f"{n:,}"] for why, n in manifest["left_out"].items()]
    not_kept = [[losses.WORDS.get(why, why), f"{n:,}"] for why, n in manifest["losses"].items()]
    redacted = [[target, f"{n:,}"] for target, n in manifest["redaction"]["found"].items()]
    missing = [[n, f"{c:,}", f"{c / max(rows, 1):.1%}"] for n, c in quality["missing"].items()]
    # One list of sections for Markdown and HTML, so that both always say the same.
    drifts = [
        [name, f"{value:.3f}", "drifted" if value > DRIFTED else "alike"]
        for name, value in quality["drift"].items()
    ]
    before = manifest["previous"]["id"] if manifest["previous"] else ""
    tokens = f"tokens ({tokenizer.words(manifest)})"
    drift_words = (
        f"Population stability index against export {before}."
        if before
        else "This is the first export of its family."
    )
    return [
        ("Splits", "", (["split", "rows", "part", tokens], split_rows)),
        ("Leaks", "", (["check", "what", "found"], checks)),
        _section("Duplicates and other rows left out", "None.", ["why", "rows"], left_out),
        _section("What could not be kept", "Everything was kept.", ["what", "count"], not_kept),
        _section("Redacted", "Nothing was looked for.", ["kind", "replaced"], redacted),
        _section("Missing values", "None.", ["column", "rows", "part"], missing),
        ("Drift", drift_words, (["what", "index", ""], drifts) if drifts else None),
    ]


def _section(title: str, without: str, head: list[str], rows: list[list[str]]) -> ReportSection:
    """A section with a table of the rows, or with what to say without any."""
    return (title, "", (head, rows)) if rows else (title, without, None)


def _findings(certificate: JsonMap, name: str) -> str:
    descriptions = [leak["words"] for leak in certificate["leaks"] if leak["kind"] == name]
    return "; ".join(descriptions) or "nothing"


def _markdown(manifest: JsonMap, sections: list[ReportSection], charts: list[str]) -> str:
    lines = [f"# Quality of {manifest['name']}", "", f"Snapshot `{manifest['snapshot']}`.", ""]
    for title, intro, table in sections:
        lines += [f"## {title}", ""]
        if intro:
            lines += [intro, ""]
        if table:
            lines += [f"| {' | '.join(table[0])} |", "|" + "---|" * len(table[0])]
            lines += [f"| {' | '.join(map(_cell, row))} |" for row in table[1]]
            lines.append("")
    for chart in charts:
        lines += [f"![{chart}]({chart}.svg)", ""]
    lines += ["## Samples", ""]
    for sample in manifest["quality"]["samples"]:
        # A fence inside a sample would end the code block.
        lines += ["```json", sample.replace("```", "'''"), "```", ""]
    return "\n".join(lines)


def _cell(value: str) -> str:
    return value.replace("|", "\\|")


def _grid(head: list[str], rows: list[list[str]]) -> str:
    """A table whose columns of figures stand to the right."""
    columns = zip(head, *rows, strict=True)
    figures = [bool(rows) and all(c[:1].isdigit() for c in cells) for _, *cells in columns]
    marks = [' class="n"' if figure else "" for figure in figures]

    def line(tag: str, cells: list[str]) -> str:
        tagged = (f"<{tag}{mark}>{escape(c)}</{tag}>" for mark, c in zip(marks, cells, strict=True))
        return f"<tr>{''.join(tagged)}</tr>"

    body = "".join(line("td", row) for row in rows)
    return f"<table>{line('th', head)}{body}</table>"


def _html(manifest: JsonMap, sections: list[ReportSection], charts: dict[str, str]) -> str:
    name = escape(manifest["name"])
    elements = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        f"<title>Quality of {name}</title><style>{_STYLE}</style>",
        f"<h1>Quality of {name}</h1><p>Snapshot <code>{manifest['snapshot']}</code>.</p>",
    ]
    for title, intro, table in sections:
        elements.append(f"<h2>{escape(title)}</h2>")
        if intro:
            elements.append(f"<p>{escape(intro)}</p>")
        if table:
            elements.append(_grid(*table))
    elements += charts.values()
    elements.append("<h2>Samples</h2>")
    elements += [f"<pre>{escape(sample)}</pre>" for sample in manifest["quality"]["samples"]]
    return "\n".join([*elements, "</html>"]) + "\n"
