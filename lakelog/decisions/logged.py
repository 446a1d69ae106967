"""The decisions of one point as columns of numbers, and the members that make up their context."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from lakelog.decisions.decision_rows import ANSWERS, DecisionRows, details_of, member
from lakelog.decisions.intervals import ranks
from lakelog.decisions.offpolicy import LoggedChoices, scale_of
from lakelog.errors import InvalidSetting
from lakelog.libraries import Booleans, Floats, Integers, np, pa
from lakelog.sql import identifier

SIZE_MAX = 2_000_000
"""Decisions that are looked at, the newest ones."""
OPTIONS_MAX, CELLS_MAX = 1_000, 20_000
_SAMPLE, _DETAILS_MAX = 5_000, 20_000
_MEMBERS_MAX, _VALUES_MAX, _CONTEXTS_MAX, _CONTEXT_SIZE = 3, 12, 100, 30
UNSAID = "null"


@dataclass(frozen=True)
class PointLog:
    """The decisions of a point, in the order of time. `contexts` are numbers of `context_values`,
    which have a value for each of `members`; `options` are numbers of `option_names`. Rewards and
    confidences are NaN where they are not known, `settings` and `targets` (numbers of options, -1
    for one that was never chosen) None unless asked for; `times` are in microseconds. `left_out`
    older decisions are not among them."""

    members: tuple[str, ...]
    context_values: tuple[tuple[str, ...], ...]
    option_names: tuple[str, ...]
    contexts: Integers
    options: Integers
    rewards: Floats
    confidences: Floats
    propensities: Floats
    clusters: Integers
    times: Integers
    settings: Floats | None
    targets: Integers | None
    left_out: int

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def rated(self) -> Booleans:
        """Decisions whose outcome is known."""
        mask: Booleans = ~np.isnan(self.rewards)
        return mask

    @property
    def has_propensities(self) -> bool:
        """Whether all decisions with an outcome say how likely their option was."""
        propensities = self.propensities[self.rated]
        return bool(len(propensities)) and bool(((propensities > 0) & (propensities <= 1)).all())

    def choices(self) -> LoggedChoices:
        """The decisions whose outcome is known."""
        rated = self.rated
        return LoggedChoices(
            self.contexts[rated],
            self.options[rated],
            self.rewards[rated],
            ranks(self.clusters[rated]),
            self.propensities[rated] if self.has_propensities else None,
            max(len(self.option_names), 1),
            scale_of(self.rewards[rated]),
        )

    def context(self, number: int) -> dict[str, str]:
        """A context by its number: each member with its value."""
        return dict(zip(self.members, self.context_values[number], strict=True))


@dataclass(frozen=True)
class PointColumns:
    """What is read besides: members of the context, a numeric setting, and a policy in SQL."""

    members: tuple[str, ...] = ()
    setting: str | None = None
    policy: str | None = None


def read(rows: DecisionRows, columns: PointColumns) -> PointLog:
    """Return the decisions of a point. Raises InvalidSetting for too many options or contexts,
    QueryFailed."""
    selected = {
        "cluster": "hash(coalesce(subject, decision_id, place::VARCHAR))",
        "time": "epoch_us(time)",
        "seq": "(place % 9223372036854775808)::BIGINT",
        **{name: name for name in ("worth", "confidence", "propensity", "chosen")},
        **{f"m{n}": member(name) for n, name in enumerate(columns.members)},
    }
    if columns.setting is not None:
        value = "chosen" if columns.setting == "chosen" else member(columns.setting)
        selected["setting"] = f"TRY_CAST({value} AS DOUBLE)"
    oldest, left_out = _beginning(rows)
    # A policy sees what was known before the decision; all else has names that it cannot know.
    hidden = {name: identifier(f"lakelog.{name}") for name in selected}
    inner = ", ".join(f"{value} AS {hidden[name]}" for name, value in selected.items())
    outer = ", ".join(f"{hidden[name]} AS {name}" for name in selected)
    if columns.policy is not None:
        # At the beginning, for it may use what has a name before it.
        outer = f"(\n{columns.policy}\n)::VARCHAR AS target, {outer}"
    reader = rows.ask(
        f"""SELECT {outer} FROM (SELECT details AS context, options, subject, source, time, {inner}
        FROM decided WHERE epoch_us(time) >= {oldest})"""
    )
    return _Reading(columns).of(reader.to_arrow_reader(100_000), left_out)


def _beginning(rows: DecisionRows) -> tuple[int, int]:
    """Since when decisions are looked at, and how many are older."""
    count, oldest = rows.ask("SELECT count(*), epoch_us(min(time)) FROM made").fetchall()[0]
    if count <= SIZE_MAX:
        return oldest or 0, 0
    # Approximate: an exact quantile would sort the times of all decisions.
    share = 1 - SIZE_MAX / count
    oldest, left_out = rows.ask(
        f"""SELECT any_value(oldest), count(*) FILTER (epoch_us(time) < oldest) FROM made,
        (SELECT approx_quantile(epoch_us(time), {share}) AS oldest FROM made)"""
    ).fetchall()[0]
    return oldest, left_out


class NoDecisions(InvalidSetting):
    """Raised where no decision is of the point, or of the context, that was asked for."""


class _Reading:
    """Numbers texts while batches come, so that none of them is kept."""

    def __init__(self, columns: PointColumns) -> None:
        self._columns = columns
        self._options, self._contexts = _Numbering(OPTIONS_MAX), _Numbering(CELLS_MAX)
        self._targets = _Numbering(OPTIONS_MAX)
        self._batches: dict[str, list[np.ndarray]] = {}

    def of(self, reader: pa.RecordBatchReader, left_out: int) -> PointLog:
        for batch in reader:
            self._add(batch)
        numbers = {name: np.concatenate(arrays) for name, arrays in self._batches.items()}
        if not numbers:
            raise NoDecisions("no such decisions: `lakelog decisions` lists the points")
        if len(self._options.values) * len(self._contexts.values) > CELLS_MAX:
            raise _too_many(CELLS_MAX)
        # The engine's threads bring batches in any order.
        order = np.lexsort((numbers.pop("seq"), numbers["time"]))
        numbers = {name: column[order] for name, column in numbers.items()}
        # Numbers follow the order of batches, which threads decide: by name, answers repeat
        # exactly.
        names, options = _sorted(self._options.values, numbers["option"])
        values, contexts = _sorted(self._contexts.values, numbers["context"])
        return PointLog(
            members=self._columns.members,
            context_values=values,
            option_names=tuple(name for (name,) in names),
            contexts=contexts,
            options=options,
            rewards=numbers["worth"],
            confidences=numbers["confidence"],
            propensities=numbers["propensity"],
            clusters=ranks(numbers["cluster"]),
            times=numbers["time"],
            settings=numbers.get("setting"),
            targets=self._numbers_of_targets(numbers.get("target"), names),
            left_out=left_out,
        )

    def _numbers_of_targets(
        self, targets: Integers | None, names: tuple[tuple[str, ...], ...]
    ) -> Integers | None:
        if targets is None:
            return None
        places = {name: number for number, name in enumerate(names)}
        options = [places.get(name, -1) for name in self._targets.values]
        return np.array(options, dtype=np.int64)[targets]

    def _add(self, batch: pa.RecordBatch) -> None:
        for name in ("worth", "confidence", "propensity", "setting"):
            if name in batch.schema.names:
                numbers = batch[name].to_numpy(zero_copy_only=False).astype(float)
                self._put(name, np.where(np.isfinite(numbers), numbers, np.nan))
        for name in ("cluster", "time", "seq"):
            self._put(name, batch[name].to_numpy(zero_copy_only=False))
        self._put("option", self._options.of([batch["chosen"]]))
        members = [batch[f"m{n}"] for n in range(len(self._columns.members))]
        self._put("context", self._contexts.of(members, len(batch)))
        if self._columns.policy is not None:
            self._put("target", self._targets.of([batch["target"]]))

    def _put(self, name: str, numbers: np.ndarray) -> None:
        self._batches.setdefault(name, []).append(numbers)


class _Numbering:
    """Gives each new combination of texts the next number."""

    def __init__(self, limit: int) -> None:
        self.values: list[tuple[str, ...]] = []
        self._numbers: dict[tuple[str, ...], int] = {}
        self._limit = limit

    def of(self, columns: list[pa.Array], size: int = 0) -> Integers:
        """Return the numbers of rows of columns of text, or of `size` rows of none."""
        encoded = [column.fill_null(UNSAID).dictionary_encode() for column in columns]
        mixed = np.zeros(len(columns[0]) if columns else size, dtype=np.int64)
        for column in encoded:
            # One number for each combination, so that Python sees only those that differ.
            mixed = mixed * len(column.dictionary) + column.indices.to_numpy()
        places, inverse = np.unique(mixed, return_index=True, return_inverse=True)[1:]
        numbers = [self._number(tuple(c[int(place)].as_py() for c in encoded)) for place in places]
        return np.array(numbers, dtype=np.int64)[inverse]

    def _number(self, values: tuple[str, ...]) -> int:
        number = self._numbers.setdefault(values, len(self.values))
        if number == len(self.values):
            self.values.append(values)
            if number >= self._limit:
                raise _too_many(self._limit)
        return number


def _sorted(
    values: list[tuple[str, ...]], numbers: Integers
) -> tuple[tuple[tuple[str, ...], ...], Integers]:
    """Texts in their order, and the numbers that they have in it."""
    order = sorted(range(len(values)), key=lambda number: values[number])
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[order] = np.arange(len(values))
    return tuple(values[number] for number in order), ranks[numbers]


def _too_many(limit: int) -> InvalidSetting:
    return InvalidSetting(
        f"more than {limit:,} options or contexts, too many to compare: --by fewer members, or ask"
        " for a --context"
    )


def choose_members(rows: DecisionRows) -> tuple[str, ...]:
    """Return up to three members of the context that say most of what was chosen or what came of
    it, of those with few values, in a sample of the newest decisions."""
    sample = rows.ask(
        f"""SELECT details::VARCHAR, chosen, worth > 0 FROM decided
        WHERE length(details::VARCHAR) < {_DETAILS_MAX} ORDER BY place DESC LIMIT {_SAMPLE}"""
    ).fetchall()
    values: dict[str, list[str | None]] = {}
    for index, (details, _, _) in enumerate(sample):
        for name, value in _scalars(details_of(details)):
            values.setdefault(name, [None] * len(sample))[index] = value
    context_names = {name for name, _ in rows.scope.context}
    scores = {
        name: max(_association(column, [row[place] for row in sample]) for place in (1, 2))
        for name, column in values.items()
        if 2 <= len(set(column)) <= _VALUES_MAX and name not in context_names
    }
    members, contexts = list[str](), 1
    for name in sorted(scores, key=lambda name: (-scores[name], name)):
        # Members are taken while each context keeps enough decisions to compare options in.
        contexts *= len(set(values[name]))
        is_small = contexts > min(_CONTEXTS_MAX, len(sample) / _CONTEXT_SIZE)
        if scores[name] <= 0 or len(members) == _MEMBERS_MAX or is_small:
            break
        members.append(name)
    return tuple(sorted(members))


def _scalars(details: object) -> Iterable[tuple[str, str]]:
    """The members of a context that are texts, numbers or truth values."""
    if not isinstance(details, Mapping):
        return
    nested = details.get("context")
    for holder in (details, nested if isinstance(nested, Mapping) else {}):
        for name, value in holder.items():
            if name and name not in ANSWERS and isinstance(value, (str, int, float, bool)):
                yield name, value if isinstance(value, str) else orjson.dumps(value).decode()


def _association(values: list[str | None], labels: list[object]) -> float:
    """How much one column says of another: the G statistic, less what chance would bring."""
    pairs = Counter(
        (v, label) for v, label in zip(values, labels, strict=True) if label is not None
    )
    value_counts, label_counts = Counter[object](), Counter[object]()
    for (value, label), count in pairs.items():
        value_counts[value] += count
        label_counts[label] += count
    total = sum(pairs.values())
    statistic = 2 * sum(
        count * math.log(count * total / (value_counts[value] * label_counts[label]))
        for (value, label), count in pairs.items()
    )
    freedom = (len(value_counts) - 1) * (len(label_counts) - 1)
    # Its mean and standard deviation where there is no association, so that members of many values
    # do not win by their number.
    return statistic - freedom - 3 * math.sqrt(2 * freedom)
