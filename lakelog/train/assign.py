"""Assigning rows to splits: deduplication, group split, temporal cutoff, budgets.

**Group split.** A group's number is the first 52 bits of SHA-256 over the family's name, the seed
and the group, as a fraction of 1; below `train` the group is in train, below `train + validation`
in validation, else in test. A group's split therefore depends on its name alone: it is the same in
every export of the family, whatever else is in it. Without a group column each row's content is
its group.

**Stratified** groups are taken in the order of their first event, by the stratum of that event, in
blocks that contain each split in proportion to its share; the hash only shuffles the block. Later
events do not change earlier blocks, so groups keep their splits while the lake grows.

**Duplicates share a split.** Where equal or near-equal rows would be in two splits, those in the
split of the earliest stay and the others are left out; without a group column they all join it.

**Temporal cutoff.** Rows of train and validation end before it, rows of test begin at or after it.

**Budgets** leave out rows in the order of their content hashes, so the same rows stay every time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from lakelog.errors import ExportRefused
from lakelog.libraries import np
from lakelog.train.recipe import SPLITS, Recipe
from lakelog.train.tables import Array, quantity

REASONS = ("exact", "near", "one_side", "fence", "balance", "budget")
"""Why a row was left out; its split is -1, -2, ... in this order."""


@dataclass
class RowTable:
    """The split keys of all rows, as arrays of one length. Times are microseconds since 1970."""

    content: Array
    """Two 64-bit hashes per row of the content that makes rows equal."""
    unit: Array
    """The number of the row's group among `units`."""
    rank: Array
    """The row's place in the order of events."""
    time: Array
    until: Array
    tokens: Array
    split: Array
    """0 train, 1 validation, 2 test; negative where the row is left out, see `REASONS`."""
    left_out: dict[str, int] = field(default_factory=dict)

    def drop(self, rows: Array, reason: str) -> None:
        """Leave out those of the rows that are still in a split."""
        # A row counts under the first reason only, so that the reasons add up to the rows left out.
        rows = rows[self.split[rows] >= 0]
        self.split[rows] = -1 - REASONS.index(reason)
        self.left_out[reason] = self.left_out.get(reason, 0) + len(rows)


def number_of(salt: str, unit: str) -> str:
    """SQL of a group's number below 1, given the SQL of the salt and of the group."""
    # 13 hex digits are 52 bits: a double holds them exactly, so SQL and numpy compare equal
    # numbers. The form is fixed: changing it would move groups between splits of existing families.
    digest = f"sha256({salt} || chr(31) || {unit})"
    return f"('0x' || substr({digest}, 1, 13))::BIGINT / 4503599627370496"


def exact_duplicates_of(content: Array, rank: Array) -> Array:
    """Return for each row the earliest row of equal content."""
    # If rows are in rank order, as they mostly are, a stable sort by one hash suffices.
    if (rank[1:] >= rank[:-1]).all():
        order = np.argsort(content[:, 0], kind="stable")
    else:
        order = np.lexsort((rank, content[:, 1], content[:, 0]))
    ordered = content[order]
    # Both hashes are compared, so rows that collide in the first one stay apart (at worst a
    # duplicate is missed when collisions interleave).
    return _firsts(order, (ordered[1:] != ordered[:-1]).any(axis=1))


def earliest(duplicate_of: Array, rank: Array, is_latest: bool = False) -> Array:
    """Return for each row the earliest (or latest) row of its duplicates, by rank."""
    order = np.lexsort((-rank if is_latest else rank, duplicate_of))
    return _firsts(order, np.diff(duplicate_of[order]) != 0)


def _firsts(order: Array, changes: Array) -> Array:
    """For each row the first one of its run in an order; `changes` are where new runs begin."""
    new = np.append(True, changes) if len(order) else np.zeros(0, bool)
    first = np.empty(len(order), np.int64)
    first[order] = order[np.flatnonzero(new)[np.cumsum(new) - 1]]
    return first


def dedupe(rows: RowTable, duplicate_of: Array, keep: str, reason: str) -> None:
    """Leave out all but one of each set of duplicates, and count the others under `reason`.

    `duplicate_of` has for each row the number of its set; `keep` is `last`, or anything else for
    the first by rank. Rows that were left out before do not stand for others.
    """
    alive = np.flatnonzero(rows.split >= 0)
    keeper = earliest(duplicate_of[alive], rows.rank[alive], keep == "last")
    rows.drop(alive[keeper != np.arange(len(alive))], reason)


def splits_of(numbers: Array, recipe: Recipe) -> Array:
    """Return the split of each group's number: 0 train, 1 validation, 2 test."""
    train_end = recipe.split["train"]
    validation_end = train_end + recipe.split["validation"]
    # The sum of two decimal shares has a rounding error, which the tolerance absorbs.
    splits: Array = (numbers >= train_end).astype(np.int8) + (numbers >= validation_end - 1e-12)
    # A share of 0 must get no group at all, whatever rounding does at the boundaries.
    if not recipe.split["validation"]:
        splits = np.where(numbers >= train_end, 2, 0)
    if not recipe.split["test"]:
        splits = np.minimum(splits, 1 if recipe.split["validation"] else 0)
    return splits.astype(np.int8)


def stratified_splits(strata: list[str | None], order: list[int], recipe: Recipe) -> Array:
    """Return each group's split in blocks by stratum; `order` is that of the groups' first
    events."""
    pattern = _pattern(recipe)
    splits = np.empty(len(strata), np.int8)
    places: dict[str, int] = {}
    shuffled: dict[tuple[str, int], list[int]] = {}
    # The order of first events never changes for old groups, which makes the assignment stable
    # while the lake grows.
    for group in order:
        stratum = strata[group] or ""
        place = places.get(stratum, 0)
        places[stratum] = place + 1
        block, slot = divmod(place, len(pattern))
        if slot == 0:
            shuffled = {k: v for k, v in shuffled.items() if k[0] != stratum}
            shuffled[stratum, block] = _shuffle(pattern, f"{recipe.salt}\x1f{stratum}\x1f{block}")
        splits[group] = shuffled[stratum, block][slot]
    return splits


def _pattern(recipe: Recipe) -> list[int]:
    """The shortest block, of at most 100, that contains each split in proportion to its share."""
    shares = [recipe.split[split] for split in SPLITS]
    for size in range(1, 101):
        counts = [round(share * size) for share in shares]
        if all(abs(c - p * size) < 1e-6 for c, p in zip(counts, shares, strict=True)):
            break
    else:
        # Shares with more than two decimals have no exact block of 100; the rounding error goes
        # to train.
        counts[0] += 100 - sum(counts)
    return [split for split, count in enumerate(counts) for _ in range(count)]


def _shuffle(pattern: list[int], seed: str) -> list[int]:
    keys = [hashlib.sha256(f"{seed}\x1f{slot}".encode()).digest() for slot in range(len(pattern))]
    return [pattern[slot] for slot in sorted(range(len(pattern)), key=keys.__getitem__)]


def splits_before(rows: RowTable, earlier: Array, earlier_splits: Array) -> Array:
    """Return the split of each row in an earlier set of the same recipe, by that of any row of its
    group there, whose content hashes are `earlier`; -1 where the set has none of the group."""
    split_of = dict(zip(map(tuple, earlier.tolist()), earlier_splits.tolist(), strict=True))
    by_unit = np.full(int(rows.unit.max(initial=-1)) + 1, -1, np.int8)
    for unit, content in zip(rows.unit.tolist(), map(tuple, rows.content.tolist()), strict=True):
        if content in split_of:
            by_unit[unit] = split_of[content]
    splits: Array = by_unit[rows.unit]
    return splits


def keep_in_one_split(rows: RowTable, duplicate_of: Array, is_grouped: bool) -> None:
    """Keep each set of duplicates in the split of its earliest row."""
    alive = np.flatnonzero(rows.split >= 0)
    leader = alive[earliest(duplicate_of[alive], rows.rank[alive])]
    if is_grouped:
        # Moving the row would take it away from its group or across the cutoff, so it is dropped.
        rows.drop(alive[rows.split[alive] != rows.split[leader]], "one_side")
    else:
        rows.split[alive] = rows.split[leader]


def apply_cutoff(rows: RowTable, before_us: int) -> None:
    """Leave out rows on the wrong side of the temporal cutoff."""
    # `until` for training rows: a label that is known only after the cutoff would leak the future.
    early = (rows.split >= 0) & (rows.split < 2) & (rows.until >= before_us)
    late = (rows.split == 2) & (rows.time < before_us)
    rows.drop(np.flatnonzero(early | late), "fence")


def splits_by_time(rows: RowTable, numbers: Array, recipe: Recipe, before_us: int) -> Array:
    """Return splits by the cutoff alone: test from it on, the rest divided by hash."""
    # The share of test is ignored: the cutoff decides its size, and the others are rescaled to 1.
    training_share = recipe.split["train"] + recipe.split["validation"]
    share = recipe.split["train"] / training_share if training_share else 0.0
    splits = (
        np.where(numbers < share, 0, 1) if recipe.split["validation"] else np.zeros(len(numbers))
    )
    return np.where(rows.time >= before_us, 2, splits).astype(np.int8)


def require_rows(rows: RowTable, recipe: Recipe) -> None:
    """Raise ExportRefused if a split that must have rows has none."""
    for split in recipe.splits:
        if not (rows.split == SPLITS.index(split)).any():
            # The number of groups and the reasons for omissions are what a user needs to see why a
            # split is empty: usually there are fewer groups than splits.
            groups = len(np.unique(rows.unit))
            out = ", ".join(f"{n:,} by {reason}" for reason, n in rows.left_out.items() if n)
            raise ExportRefused(
                f"[split] {split} = {recipe.split[split]:g} cannot be met: none of"
                f" {quantity(len(rows.split), 'row')} in {quantity(groups, 'group')} is in {split}"
                + (f" (left out: {out})" if out else "")
                + "; choose other parts or a finer group"
            )


def balance(rows: RowTable, values: Array) -> None:
    """Keep as many rows of each value, in each split, as the rarest value there has."""
    for split in range(3):
        alive = _in_hash_order(rows, split)
        distinct, counts = np.unique(values[alive], return_counts=True)
        if len(distinct) < 2:
            continue
        order = np.argsort(values[alive], kind="stable")
        place = np.arange(len(alive)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows.drop(alive[order[place >= counts.min()]], "balance")


def limit(rows: RowTable, most_rows: int | None, most_tokens: int | None) -> None:
    """Keep at most so many rows and tokens; every split is cut by the same fraction."""
    total = int((rows.split >= 0).sum())
    tokens = int(rows.tokens[rows.split >= 0].sum())
    share = min(
        1.0,
        most_rows / total if most_rows and total else 1.0,
        most_tokens / tokens if most_tokens and tokens else 1.0,
    )
    if share >= 1.0:
        return
    # Each split is cut by itself: a cut over all rows would change the proportions of the splits.
    for split in range(3):
        alive = _in_hash_order(rows, split)
        count = int(len(alive) * share)
        if most_tokens is not None:
            budget = int(rows.tokens[alive].sum() * share)
            count = min(count, int(np.searchsorted(np.cumsum(rows.tokens[alive]), budget, "right")))
        rows.drop(alive[count:], "budget")


def _in_hash_order(rows: RowTable, split: int) -> Array:
    """The rows of a split in the order of their hashes."""
    alive = np.flatnonzero(rows.split == split)
    # The content hash is independent of time and position, so the same rows survive in each
    # rebuild; the row number breaks ties of equal rows.
    ordered: Array = alive[np.lexsort((alive, rows.content[alive, 1]))]
    return ordered
