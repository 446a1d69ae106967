"""Looking for leaks in finished files; no lake and no trust in how they were made.

What counts as a leak:
- `exact`: equal content on two sides (the content columns of the shape, named in the manifest);
- `near`: texts of two sides in one cluster of near duplicates, at the manifest's threshold;
- `group`: a group with rows on two sides;
- `time`: with a fence, a row of train or validation that is not over before it, or one of test
  that begins before it;
- `label`: a column that tells the label: learned on train, it is right for 99 % of the rows of the
  other sides whose value was seen, which are at least half of them and 20; or a text that holds its
  own label and no other in as many;

Against another export, train there is compared with validation and test here, and the reverse.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakelog.lazy import Lazy
from lakelog.train import cluster
from lakelog.train.dataset import SIDE, Dataset
from lakelog.train.selection import quoted, text_of
from lakelog.train.wording import counted

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
else:
    np = Lazy("numpy")

CERTAIN = 0.99
_SEEN_MIN, _ROWS_MIN, _BASE_MAX = 0.5, 20, 0.95
_BINS = 64
_TEXTS = 16_384
_FOLDED = "lower(trim(nfc_normalize({name}::VARCHAR)))"
_PLAIN = ("INTEGER", "BIGINT", "DOUBLE", "FLOAT", "DECIMAL", "UBIGINT", "UINTEGER", "HUGEINT")
_NAMES = ("VARCHAR", "BOOLEAN", "ENUM", "TINYINT", "SMALLINT", *_PLAIN)


@dataclass(frozen=True)
class Leak:
    """One thing that is wrong: its kind, how many cases, and words that say where."""

    kind: str
    count: int
    words: str


@dataclass(frozen=True)
class Certificate:
    """What was looked at and what was found. `clean` if nothing was."""

    checks: dict[str, str]
    leaks: tuple[Leak, ...]

    @property
    def clean(self) -> bool:
        """Whether there is no leak."""
        return not self.leaks

    def record(self) -> dict[str, Any]:
        """The certificate as it is written."""
        leaks = [dataclasses.asdict(leak) for leak in self.leaks]
        return {"clean": self.clean, "checks": self.checks, "leaks": leaks}


def look(
    con: duckdb.DuckDBPyConnection,
    here: Dataset,
    there: Dataset | None = None,
    *,
    near: float | None = None,
) -> Certificate:
    """Look for leaks in a set; `near` is another threshold than the recipe's.

    Raises duckdb.Error where a file cannot be decoded.
    """
    checks: dict[str, str] = {}
    leaks: list[Leak] = []
    threshold = near if near is not None else here.roles["threshold"]
    for name, check in _CHECKS.items():
        said, found = check(con, here, there, threshold)
        checks[name] = said
        leaks += found
    return Certificate(checks, tuple(leaks))


Answer = tuple[str, list[Leak]]


def _sources(here: Dataset, there: Dataset | None, columns: str) -> Iterator[str]:
    """SQL of what must share nothing: the sides of one export, or train against the rest."""
    if there is None:
        yield here.source(columns)
        return
    rest = ("validation", "test")
    for one, two in ((here, there), (there, here)):
        parts = [one.source(columns, ("train",), "here "), two.source(columns, rest, "there ")]
        if all(parts):
            yield " UNION ALL ".join(parts)


def _exact(con: Any, here: Dataset, there: Dataset | None, _: Any) -> Answer:
    content = ", ".join(map(quoted, here.roles["content"]))
    if there is not None and there.roles["content"] != here.roles["content"]:
        return "not comparable: the exports have other content columns", []
    columns = f"hash({content}) AS h1, hash({content}, 'lakelog') AS h2"
    found = 0
    for source in _sources(here, there, columns):
        found += _shared(con, source, "h1, h2")
    words = (
        f"{counted(found, 'distinct row', 'is', 'are')} in more than one split, compared by"
        f" {', '.join(here.roles['content'])}"
    )
    return f"equal rows by {', '.join(here.roles['content'])}", _if(found, "exact", words)


def _group(con: Any, here: Dataset, there: Dataset | None, _: Any) -> Answer:
    group = here.roles["group"]
    if not group:
        return "no group column", []
    if there is not None:
        if there.roles["group"] != group:
            return f"not comparable: the other export is grouped by {there.roles['group']}", []
        if there.manifest["redaction"]["key"] != here.manifest["redaction"]["key"]:
            return "not comparable: the exports have pseudonyms of other keys", []
    found = folded = 0
    name, one = quoted(group), _FOLDED.format(name=quoted(group))
    for source in _sources(here, there, name):
        found += _shared(con, source, name)
        folded += _shared(con, source.replace(f", {name} FROM", f", {one} AS k FROM"), "k")
    leaks = _if(found, "group", f"{counted(found, 'value')} of {group} in more than one split")
    alike = folded - found
    leaks += _if(
        alike,
        "group",
        f"{counted(alike, 'value')} of {group} in more than one split, if case, spaces and Unicode"
        " form are ignored;"
        f" select lower(trim({group})) as the group",
    )
    return f"groups by {group}", leaks


def _shared(con: duckdb.DuckDBPyConnection, source: str, key: str) -> int:
    asked = f"SELECT {key} FROM ({source}) GROUP BY ALL HAVING count(DISTINCT {SIDE}) > 1"
    return int(con.sql(f"SELECT count(*) FROM ({asked})").fetchall()[0][0])


def _time(con: Any, here: Dataset, there: Dataset | None, _: Any) -> Answer:
    fence, time = here.manifest["fence"], here.roles["time"]
    if not fence or not time:
        return "no fence", []
    if there is not None and (not there.manifest["fence"] or not there.roles["time"]):
        return "the other export has no fence", []
    moment = f"{text_of(fence)}::TIMESTAMPTZ"
    until = quoted(here.roles["until"] or time)
    found = 0
    if there is None:
        early = here.source(f"{until} AS u", ("train", "validation"))
        late = here.source(f"{quoted(time)} AS u", ("test",))
        for source, wrong in ((early, f"u >= {moment}"), (late, f"u < {moment}")):
            if source:
                found += _number(con, f"SELECT count(*) FROM ({source}) WHERE {wrong}")
        words = f"{counted(found, 'row', 'is', 'are')} on the wrong side of the cutoff {fence}"
    else:
        for one, two in ((here, there), (there, here)):
            column = quoted(one.roles["until"] or one.roles["time"])
            if "train" in one.files:
                before = f"{text_of(two.manifest['fence'])}::TIMESTAMPTZ"
                source = one.source(f"{column} AS u", ("train",))
                found += _number(con, f"SELECT count(*) FROM ({source}) WHERE u >= {before}")
        words = (
            f"{counted(found, 'row')} of train"
            f" {'is' if found == 1 else 'are'} not before the cutoff of the other export"
        )
    return f"the fence {fence}", _if(found, "time", words)


def _number(con: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(con.sql(query).fetchall()[0][0])


def _near(con: Any, here: Dataset, there: Dataset | None, threshold: float | None) -> Answer:
    column = here.roles["near"]
    if not column or not threshold:
        return "no text is compared", []
    if there is not None and there.roles["near"] != column:
        return "not comparable: the other export compares other texts", []
    found = 0
    for source in _sources(here, there, f"{column} AS t"):
        sides = np.asarray(con.sql(f"SELECT {SIDE} FROM ({source})").to_arrow_table()[SIDE])
        codes = np.unique(sides, return_inverse=True)[1]
        made = cluster.clusters(_texts(con, source), threshold, here.roles["shingle"])
        pairs = np.unique(np.stack([made.first, codes], 1), axis=0)
        found += int((np.unique(pairs[:, 0], return_counts=True)[1] > 1).sum())
    words = (
        f"{counted(found, 'cluster')} of texts with a Jaccard index of at least {threshold:g}"
        f" {'is' if found == 1 else 'are'} in more than one split"
    )
    return f"near duplicates from {threshold:g} on", _if(found, "near", words)


def _texts(con: Any, source: str) -> Callable[[], Iterator[pa.Array]]:
    def chunks() -> Iterator[pa.Array]:
        for batch in con.cursor().sql(f"SELECT t FROM ({source})").to_arrow_reader(_TEXTS):
            yield batch.column(0)

    return chunks


def _label(con: Any, here: Dataset, there: Dataset | None, _: Any) -> Answer:
    label = here.roles["label"]
    if not label:
        return "no label", []
    if there is not None:
        return "looked at in each export alone", []
    probe = con.sql(f"SELECT * FROM ({here.source('*')}) LIMIT 0")
    types = dict(zip(probe.columns, map(str, probe.types), strict=True))
    aside = {SIDE, label, "label", "outcome", "reward", "label_time", here.roles["time"]}
    told = _LabelHint(con, here, label)
    found = []
    if told.telling:
        for name, kind in _leaves(types, aside):
            if told.by_value(name, kind):
                found.append(Leak("label", 1, f"the column {name} tells {label}"))
        text = here.roles["text"]
        if text in types and types[text] == "VARCHAR" and told.by_text(quoted(text)):
            found.append(Leak("label", 1, f"the column {text} holds {label} in words"))
    return f"columns that tell {label}", found


def _leaves(types: dict[str, str], aside: set[Any]) -> Iterator[tuple[str, str]]:
    for name, kind in types.items():
        if name not in aside and kind.split("(")[0] in _NAMES:
            yield name, kind


class _LabelHint:
    """Whether a column learned on one part of the rows tells the label of the others."""

    def __init__(self, con: duckdb.DuckDBPyConnection, here: Dataset, label: str) -> None:
        self._con, self._label = con, quoted(label)
        rest = here.source("*", ("validation", "test"))
        if "train" in here.files and rest:
            self._learn, self._ask = here.source("*", ("train",)), rest
        else:
            whole = here.source("*")
            parts = f"SELECT *, hash({self._label}, 1) AS __n FROM ({whole})"
            numbered = f"SELECT *, row_number() OVER () % 2 AS __half FROM ({parts})"
            self._learn = f"SELECT * FROM ({numbered}) WHERE __half = 0"
            self._ask = f"SELECT * FROM ({numbered}) WHERE __half = 1"
        shares = con.sql(
            f"SELECT count(*) AS n FROM ({self._ask}) WHERE {self._label} IS NOT NULL"
            f" GROUP BY {self._label}"
        ).fetchall()
        counts = [n for (n,) in shares]
        self._rows = sum(counts)
        self._most = max(counts, default=0) / max(self._rows, 1)
        self.telling = len(counts) > 1 and self._rows >= _ROWS_MIN and self._most <= _BASE_MAX

    def by_value(self, name: str, kind: str) -> bool:
        """Whether the values of a column tell it; numbers also by the range they are in."""
        values = [f"{quoted(name)}::VARCHAR"]
        if kind.split("(")[0] in _PLAIN:
            parts = ", ".join(f"{i / _BINS:.6f}" for i in range(1, _BINS))
            cuts = self._con.sql(
                f"SELECT quantile_disc({quoted(name)}, [{parts}]) FROM ({self._learn})"
            ).fetchall()[0][0]
            if cuts:
                listed = ", ".join(map(str, sorted(set(cuts))))
                ranged = f"len(list_filter([{listed}], lambda q: q < {quoted(name)}))"
                values.append(f"CASE WHEN {quoted(name)} IS NOT NULL THEN {ranged} END")
        return any(map(self._tells, values))

    def _tells(self, value: str) -> bool:
        counted = (
            f"SELECT {value} AS v, {self._label} AS l, count(*) AS n FROM ({self._learn})"
            f" WHERE v IS NOT NULL AND l IS NOT NULL GROUP BY ALL"
        )
        learned = f"SELECT v, arg_max(l, n) AS l FROM ({counted}) GROUP BY v"
        asked = f"SELECT {value} AS v, {self._label} AS l FROM ({self._ask}) WHERE l IS NOT NULL"
        seen, right = self._con.sql(
            "SELECT count(b.l), count(*) FILTER (b.l = a.l)"
            f" FROM ({asked}) a LEFT JOIN ({learned}) b USING (v)"
        ).fetchall()[0]
        return self._certain(seen, right)

    def by_text(self, text: str) -> bool:
        """Whether a text holds its own label, and no other one."""
        labels = [
            str(value).lower()
            for (value,) in self._con.sql(
                f"SELECT DISTINCT {self._label}::VARCHAR FROM ({self._learn}) LIMIT 200"
            ).fetchall()
            if value is not None and len(str(value)) > 2
        ]
        if not labels:
            return False
        listed = ", ".join(map(text_of, labels))
        held = f"list_filter([{listed}], lambda l: contains(lower({text}), l))"
        seen, right = self._con.sql(
            "SELECT count(*) FILTER (len(h) = 1), count(*) FILTER (len(h) = 1 AND h[1] = l) FROM"
            f" (SELECT {held} AS h, lower({self._label}::VARCHAR) AS l FROM ({self._ask}))"
        ).fetchall()[0]
        return self._certain(seen, right)

    def _certain(self, seen: int, right: int) -> bool:
        enough = seen >= max(_ROWS_MIN, _SEEN_MIN * self._rows)
        return bool(enough and right / seen >= max(CERTAIN, (1 + self._most) / 2))


def _if(count: int, kind: str, words: str) -> list[Leak]:
    return [Leak(kind, count, words)] if count else []


_CHECKS: dict[str, Callable[[Any, Dataset, Dataset | None, float | None], Answer]] = {
    "exact": _exact,
    "near": _near,
    "group": _group,
    "time": _time,
    "label": _label,
}
