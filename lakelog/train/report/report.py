"""The quality report of an export: report.md with its plots, and report.html in one file.

Bar charts are SVG, written by hand: no scripts, no fonts, readable in light and dark.
"""

from __future__ import annotations

from html import escape

from lakelog.train import losses, tokenizer
from lakelog.train.recipe import SPLITS
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
        charts["lengths"] = bars("Rows by tokens", rows[filled[0] : filled[-1] + 1])
    if quality["balance"]:
        values = list(quality["balance"]["values"].items())
        charts["balance"] = bars(f"Rows by {quality['balance']['column']}", values)
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
            escaped = ([cell.replace("|", "\\|") for cell in row] for row in table[1])
            lines += [f"| {' | '.join(row)} |" for row in escaped]
            lines.append("")
    for chart in charts:
        lines += [f"![{chart}]({chart}.svg)", ""]
    lines += ["## Samples", ""]
    for sample in manifest["quality"]["samples"]:
        # A fence inside a sample would end the code block.
        lines += ["```json", sample.replace("```", "'''"), "```", ""]
    return "\n".join(lines)


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


_WIDTH, _ROW, _LEFT, _RIGHT = 640, 22, 170, 70
_COLOURS = {"train": "#4477aa", "validation": "#ddaa33", "test": "#bb5566"}
_SHORT = 24


def bars(title: str, rows: list[tuple[str, dict[str, int]]]) -> str:
    """Return horizontal bars, each divided by split."""
    longest = max((sum(by_split.values()) for _, by_split in rows), default=0) or 1
    height = 34 + _ROW * len(rows) + 24
    # One scale for all bars, so that they can be compared by length.
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    elements = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}"'
        f' height="{height}" role="img" aria-label="{escape(title)}"'
        ' font-family="sans-serif" font-size="12" fill="#808080">',
        f'<text x="8" y="18" font-size="14">{escape(title)}</text>',
    ]
    for place, (name, by_split) in enumerate(rows):
        top, bar_end = 30 + place * _ROW, float(_LEFT)
        # SVG does not wrap text; a long name would run into the bar.
        short = name if len(name) <= _SHORT else name[: _SHORT - 1] + "…"
        elements.append(
            f'<text x="{_LEFT - 8}" y="{top + 14}" text-anchor="end">{escape(short)}</text>'
        )
        for split, count in by_split.items():
            wide = count * scale
            elements.append(
                f'<rect x="{bar_end:.1f}" y="{top}" width="{wide:.1f}" height="{_ROW - 6}"'
                f' fill="{_COLOURS.get(split, "#66ccee")}">'
                f"<title>{escape(split)}: {count:,}</title></rect>"
            )
            bar_end += wide
        elements.append(
            f'<text x="{bar_end + 6:.1f}" y="{top + 14}">{sum(by_split.values()):,}</text>'
        )
    elements += _legend({split for _, by_split in rows for split in by_split}, height - 10)
    return "\n".join([*elements, "</svg>"]) + "\n"


def _legend(splits: set[str], y: int) -> list[str]:
    elements, x = [], _LEFT
    for split in _COLOURS:
        if split in splits:
            elements.append(
                f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{_COLOURS[split]}"/>'
            )
            elements.append(f'<text x="{x + 15}" y="{y}">{split}</text>')
            x += 100
    return elements


_TOLERANCE = 0.5
"""By how much of its own part a split may miss it."""
_ROWS = 10
"""A split that misses its part by fewer rows is not worth a warning."""


def warnings(manifest: JsonMap) -> list[str]:
    """Return a sentence for each split whose size is far from its part in the recipe.

    Shares are met on average over groups: one large group, few groups, a temporal cutoff, or
    duplicates that must share a split shift the sizes. The export succeeds with a warning.
    """
    splits, settings = manifest["splits"], manifest["recipe"]["split"]
    if settings["before"] is not None and settings["group"] is None:
        # The cutoff alone decides what is in test; parts are those of the rows before it.
        splits = {split: s for split, s in splits.items() if split != "test"}
    shares = {split: settings[split] for split in SPLITS if split in splits and settings[split] > 0}
    rows = sum(splits[split]["rows"] for split in shares)
    shares_total = sum(shares.values())
    lopsided = []
    for split, share in shares.items():
        target, actual = share / shares_total * rows, splits[split]["rows"]
        if abs(actual - target) > max(_TOLERANCE * target, _ROWS):
            lopsided.append(
                f"{split} has {actual:,} of {rows:,} rows ({_percent(actual / rows)}); the recipe"
                f" asks for {_percent(share / shares_total)}: {_cause(settings)}"
            )
    return lopsided


def _percent(share: float) -> str:
    return f"{share:.1%}".replace(".0%", "%")


def _cause(settings: JsonMap) -> str:
    """What may have moved the sizes, and what to do about it."""
    if settings["before"] is not None and settings["group"] is not None:
        return "rows on the wrong side of the cutoff are left out; move [split] before"
    if settings["group"] is not None:
        return f"groups of {settings['group']} differ in size, or are few; choose a finer group"
    return "many rows are duplicates, or there are few rows"
