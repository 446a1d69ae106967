"""Which row goes where: dedupe, then sides, then the fence.

**Sides by group.** A group's number is the first 52 bits of SHA-256 over the family's name, the
seed and the group, as a part of 1; below `train` it is on train, below `train + validation` on
validation, else on test. So a group's side depends on nothing but its name: it is the same in
every export of the family, whatever else is in it. Without a group column each row's content is
its group.

**Stratified** groups are taken in the order of their first event, by the stratum of that event, in
blocks that hold each side as often as its part says; the hash only shuffles the block. Later events
leave earlier blocks as they are, so groups keep their sides while the lake grows.

**Duplicates on one side.** Where equal or near-equal rows would be on two sides, those on the side
of the earliest stay and the others are left out; without a group column they all join the earliest.

**Fence.** Rows of train and validation must be over before it, rows of test begin at it or later.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lakelog.errors import ExportRefused
from lakelog.lazy import Lazy
from lakelog.train.recipe import SIDES, Recipe
from lakelog.train.wording import counted

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]
else:
    Array = Any
    np = Lazy("numpy")

REASONS = ("exact", "near", "one_side", "fence", "balance", "budget")
"""Why a row was left out; its fate is -1, -2, ... in this order."""


@dataclass
class RowTable:
    """What is known of each row, as arrays of one length. Times are microseconds since 1970."""

    content: Array
    """Two 64-bit hashes a row of what makes rows equal."""
    unit: Array
    """The number of the row's group among `units`."""
    rank: Array
    """The row's place in the order of events."""
    time: Array
    until: Array
    tokens: Array
    fate: Array
    left_out: dict[str, int] = field(default_factory=dict)

    def drop(self, rows: Array, reason: str) -> None:
        """Leave rows out that were still in."""
        rows = rows[self.fate[rows] >= 0]
        self.fate[rows] = -1 - REASONS.index(reason)
        self.left_out[reason] = self.left_out.get(reason, 0) + len(rows)


def number_of(salt: str, unit: str) -> str:
    """SQL of a group's number below 1, of the SQL of the salt and of the group."""
    digest = f"sha256({salt} || chr(31) || {unit})"
    return f"('0x' || substr({digest}, 1, 13))::BIGINT / 4503599627370496"


def exact_kin(content: Array, rank: Array) -> Array:
    """Return for each row the earliest row of equal content."""
    if (rank[1:] >= rank[:-1]).all():
        order = np.argsort(content[:, 0], kind="stable")
    else:
        order = np.lexsort((rank, content[:, 1], content[:, 0]))
    ordered = content[order]
    new = np.ones(len(order), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = np.empty(len(order), np.int64)
    first[order] = order[np.flatnonzero(new)[np.cumsum(new) - 1]]
    return first


def earliest(kin: Array, rank: Array, last: bool = False) -> Array:
    """Return for each row the earliest (or latest) row of its kin, by rank."""
    order = np.lexsort((-rank if last else rank, kin))
    new = np.ones(len(order), bool)
    new[1:] = kin[order][1:] != kin[order][:-1]
    found = np.empty(len(order), np.int64)
    found[order] = order[np.flatnonzero(new)[np.cumsum(new) - 1]]
    return found


def dedupe(rows: RowTable, kin: Array, keep: str, reason: str) -> None:
    """Leave out all but one row of each kin."""
    alive = np.flatnonzero(rows.fate >= 0)
    keeper = earliest(kin[alive], rows.rank[alive], keep == "last")
    rows.drop(alive[keeper != np.arange(len(alive))], reason)


def sides_of(numbers: Array, recipe: Recipe) -> Array:
    """Return the side of each group's number: 0 train, 1 validation, 2 test."""
    first = recipe.split["train"]
    second = first + recipe.split["validation"]
    made: Array = (numbers >= first).astype(np.int8) + (numbers >= second - 1e-12)
    if not recipe.split["validation"]:
        made = np.where(numbers >= first, 2, 0)
    if not recipe.split["test"]:
        made = np.minimum(made, 1 if recipe.split["validation"] else 0)
    return made.astype(np.int8)


def stratified(strata: list[str | None], first: Array, recipe: Recipe) -> Array:
    """Return each group's side in blocks by stratum, groups taken in order of their first event."""
    pattern = _pattern(recipe)
    sides = np.empty(len(strata), np.int8)
    places: dict[str, int] = {}
    shuffled: dict[tuple[str, int], list[int]] = {}
    for group in np.argsort(first, kind="stable").tolist():
        stratum = strata[group] or ""
        place = places.get(stratum, 0)
        places[stratum] = place + 1
        block, slot = divmod(place, len(pattern))
        if slot == 0:
            shuffled = {k: v for k, v in shuffled.items() if k[0] != stratum}
            shuffled[stratum, block] = _shuffled(pattern, f"{recipe.salt}\x1f{stratum}\x1f{block}")
        sides[group] = shuffled[stratum, block][slot]
    return sides


def _pattern(recipe: Recipe) -> list[int]:
    """The shortest block, of at most 100, that holds each side as often as its part says."""
    parts = [recipe.split[side] for side in SIDES]
    for size in range(1, 101):
        counts = [round(part * size) for part in parts]
        if all(abs(c - p * size) < 1e-6 for c, p in zip(counts, parts, strict=True)):
            break
    else:
        counts[0] += 100 - sum(counts)
    return [side for side, count in enumerate(counts) for _ in range(count)]


def _shuffled(pattern: list[int], seed: str) -> list[int]:
    keys = [hashlib.sha256(f"{seed}\x1f{slot}".encode()).digest() for slot in range(len(pattern))]
    return [pattern[slot] for slot in sorted(range(len(pattern)), key=keys.__getitem__)]


def on_one_side(rows: RowTable, kin: Array, grouped: bool) -> None:
    """Keep each kin on the side of its earliest row."""
    alive = np.flatnonzero(rows.fate >= 0)
    leader = alive[earliest(kin[alive], rows.rank[alive])]
    if grouped:
        rows.drop(alive[rows.fate[alive] != rows.fate[leader]], "one_side")
    else:
        rows.fate[alive] = rows.fate[leader]


def fence(rows: RowTable, before_us: int) -> None:
    """Leave out what is on the wrong side of the fence."""
    early = (rows.fate >= 0) & (rows.fate < 2) & (rows.until >= before_us)
    late = (rows.fate == 2) & (rows.time < before_us)
    rows.drop(np.flatnonzero(early | late), "fence")


def by_time(rows: RowTable, numbers: Array, recipe: Recipe, before_us: int) -> Array:
    """Return sides by the fence alone: test from it on, the rest shared out by hash."""
    rest = recipe.split["train"] + recipe.split["validation"]
    share = recipe.split["train"] / rest if rest else 0.0
    sides = (
        np.where(numbers < share, 0, 1) if recipe.split["validation"] else np.zeros(len(numbers))
    )
    return np.where(rows.time >= before_us, 2, sides).astype(np.int8)


def require_met(rows: RowTable, recipe: Recipe) -> None:
    """Raise ExportRefused if a split that shall have rows has none."""
    for side in recipe.sides:
        if not (rows.fate == SIDES.index(side)).any():
            groups = len(np.unique(rows.unit))
            out = ", ".join(f"{n:,} by {reason}" for reason, n in rows.left_out.items() if n)
            raise ExportRefused(
                f"[split] {side} = {recipe.split[side]:g} cannot be met: none of"
                f" {counted(len(rows.fate), 'row')} in {counted(groups, 'group')} is in {side}"
                + (f" (left out: {out})" if out else "")
                + "; choose other parts or a finer group"
            )
