"""The page: one row for each work, one column for each peer, whoever is most often first to the
left; a row in which lakelog is not first is bold and points to the reason below."""

from __future__ import annotations

from typing import Any

from benchmarks.peers import PEERS, RANKED, reasons
from benchmarks.peers.cited import CITED
from benchmarks.peers.rows import Figures, Got, Row, sections

IDLE = 1.0
"""A machine with a load above this does something else as well."""
EVEN = 4.0
"""A disk whose slowest hundredth of syncs takes so many times its middle one does so, too."""
TIE = 1.03
"""Figures that differ by less are the same: so much differs from one run to the next."""
_HEAD = """# Peers

Written by `make bench`; measure it anew with that, print it anew from `benchmarks/{results}` with
`python -m benchmarks.peers --table`. Commit {commit}, {when}, seed {seed}, a {scale} run.
{machine}. Versions: {versions}.

One column for each peer, those most often first to the left; the best of a row has a star, a row
in which lakelog is not first is **bold** and has its reason below. Figures less than 3 % apart
share the first place. A † says that the peer does not sync, so that what it answered can be lost;
a load of such a peer has the sync that we do for it in its time. `floor` is no peer: it is what the
disk takes for the bytes alone.
"""
_ROUGH = "\n**{why}: these figures show that everything runs, not how fast.**\n"


def page(figures: Figures, machine: dict[str, Any], scale: str) -> str:
    """The whole page as Markdown."""
    found = sections(figures)
    order = columns(found, figures)
    given: dict[str, int] = {}
    parts = [_head(figures, machine, scale)]
    for title, rows in found.items():
        if rows:
            parts.append(f"## {title}\n\n{_table(rows, order, figures, given)}\n")
    parts += [_reasons(given), _left_out(figures), _how(order), _cited()]
    return "\n".join(part for part in parts if part)


def columns(found: dict[str, list[Row]], figures: Figures) -> list[str]:
    """Peers by how often they are first, then by their place in the list; the floor last."""
    wins = dict.fromkeys(RANKED, 0)
    seen = set()
    for row in (row for rows in found.values() for row in rows):
        values = row.values(figures)
        seen |= values.keys()
        for peer in firsts(row, values):
            wins[peer] += 1
    ranked = sorted((p for p in RANKED if p in seen), key=lambda peer: -wins[peer])
    return [*ranked, *(["floor"] if "floor" in seen else [])]


def firsts(row: Row, values: dict[str, float]) -> set[str]:
    """Who is first in a row, with those as good as that."""
    ranked = {peer: v for peer, v in values.items() if peer != "floor"}
    if not ranked:
        return set()
    best = (max if row.most else min)(ranked.values())
    low, high = best / TIE, best * TIE
    return {peer for peer, v in ranked.items() if low <= v <= high}


def lost(row: Row, values: dict[str, float]) -> bool:
    """Whether lakelog could have been first in a row and is not."""
    return "lakelog" in values and "lakelog" not in firsts(row, values)


def _table(rows: list[Row], order: list[str], figures: Figures, given: dict[str, int]) -> str:
    shown = [p for p in order if any(p in row.values(figures) for row in rows)]
    heads = [PEERS[p].title + ("" if PEERS[p].synced else " †") for p in shown]
    lines = ["| what | | " + " | ".join(heads) + " |", "|---|---|" + "--:|" * len(shown)]
    for row in rows:
        values, title = row.values(figures), row.title.strip()
        best = firsts(row, values)
        cells = [_cell(values.get(p), p in best, _mark(row, p, figures)) for p in shown]
        indent = "– " if row.title.startswith(" ") else ""
        if lost(row, values):
            number = given.setdefault(reasons.of(row.key), len(given) + 1)
            title = f"**{indent}{title}** [{number}]"
            cells = [cell if cell == "" else f"**{cell}**" for cell in cells]
        else:
            title = indent + title
        lines.append(f"| {title} | {row.unit} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float | None, first: bool, mark: str) -> str:
    return "" if value is None else short(value) + mark + (" *" if first else "")


def _mark(row: Row, peer: str, figures: Figures) -> str:
    """What must be said of a figure: a load or a fill cut short, an answer unlike the others'."""
    got = figures[row.part].get(peer, {})
    if row.key.endswith("-rate") and got.get("count", got.get("events", 0)) < got.get("events", 0):
        return f" (cut at {short(got['count'])})"
    if row.key == "growth":
        return f" ({got['of']['100 by 1']['count']:,})" if got.get("of") else ""
    question = row.key.partition("-")[2]
    answers = {
        p: g["answers"].get(question)
        for p, g in figures[row.part].items()
        if g.get("answers") and g.get("count") == g["events"]
    }
    differs = peer in answers and "lakelog" in answers and answers[peer] != answers["lakelog"]
    return " (another answer)" if differs else ""


def short(value: float) -> str:
    """A figure in about three digits."""
    if value >= 1_000_000:
        return f"{value / 1e6:.2f} M"
    if value >= 10_000:
        return f"{value / 1000:.0f} k"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _head(figures: Figures, machine: dict[str, Any], scale: str) -> str:
    every = [got for held in figures.values() for got in held.values()]
    versions = {
        PEERS[peer].package: got["version"]
        for held in figures.values()
        for peer, got in held.items()
        if got.get("version") and peer not in ("lakelog", "floor")
    }
    said = ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))
    said += f", SQLite {machine['sqlite']}"
    made = (
        f"{machine['cores']} cores {machine['cpu']}, {machine['memory_gb']} GB, kernel"
        f" {machine['kernel']}, Python {machine['python']}"
    )
    loads = [got["load_before"] for got in every] or [0.0]
    spread = _spread(figures)
    why = "" if scale == "full" else f"A {scale} run"
    why = f"The disk stalled: its p99 was {spread:.1f} times its p50" if spread > EVEN else why
    why = "Other work ran beside" if max(loads) > IDLE else why
    rough = _ROUGH.format(why=why) if why else ""
    head = _HEAD.format(
        results="peers.json",
        commit=_all(every, "commit"),
        when=_all(every, "at", 10),
        seed=_all(every, "seed"),
        scale=scale,
        versions=said,
        machine=f"{made}; others kept {min(loads):g} to {max(loads):g} busy before it began",
    )
    return head + rough


def _spread(figures: Figures) -> float:
    """The slowest hundredth of the bare syncs of one thread by their middle one."""
    bare = figures.get("commits", {}).get("floor", {}).get("of", {})
    found = [of["p99"] / of["p50"] for name, of in bare.items() if name.endswith(" 1")]
    return max(found, default=0.0)


def _all(every: list[Got], name: str, digits: int = 99) -> str:
    return ", ".join(sorted({str(got[name])[:digits] for got in every}))


def _reasons(given: dict[str, int]) -> str:
    if not given:
        return ""
    lines = [f"{number}. {text}" for text, number in given.items()]
    return "## Where lakelog is not first\n\n" + "\n".join(lines) + "\n"


def _left_out(figures: Figures) -> str:
    lines = [
        f"- {PEERS[peer].title}, {name}: {got['error']}"
        for name, held in figures.items()
        for peer, got in held.items()
        if "error" in got
    ]
    return "## Left out\n\n" + "\n".join(lines) + "\n" if lines else ""


def _how(order: list[str]) -> str:
    lines = [
        f"- **{PEERS[p].title}**{'' if PEERS[p].synced else ' †'}: {PEERS[p].how}" for p in order
    ]
    return "## How each is used\n\n" + "\n".join(lines) + "\n"


def _cited() -> str:
    lines = ["| whose | figure | source |", "|---|---|---|"]
    lines += [f"| {whose} | {what} | {source} |" for whose, what, source in CITED]
    head = "## Published figures, not measured here\n\nOther machines, other events.\n\n"
    return head + "\n".join(lines) + "\n"
