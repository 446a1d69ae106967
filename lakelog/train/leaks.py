"""Leak detection on finished files alone, without the lake and without trust in their origin.

What counts as a leak:
- `exact`: equal content in two splits (the content columns of the shape, named in the manifest);
- `near`: texts of two splits in one cluster of near duplicates, at the manifest's threshold;
- `group`: a group with rows in two splits;
- `time`: with a temporal cutoff, a row of train or validation that does not end before it, or one
  of test that begins before it;
- `label`: a column that predicts the label: learned on train, it is right for 99 % of the rows of
  the other splits whose value was seen in train, if those are at least half of the rows and 20; or
  a text that contains its own label and no other one, equally often.

Against another export, train there is compared with validation and test here, and vice versa.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lakelog.libraries import duckdb, np, pa
from lakelog.train import cluster
from lakelog.train.dataset import SPLIT, Dataset
from lakelog.train.selection import content_hashes, quoted, text_of
from lakelog.train.tables import JsonMap, quantity

# _SEEN_MIN and _ROWS_MIN keep rare values and tiny sets from looking predictive; above _BASE_MAX
# one class is so frequent that always guessing it is nearly right.
CERTAIN = 0.99
_SEEN_MIN, _ROWS_MIN, _BASE_MAX = 0.5, 20, 0.95
_BINS = 64
_TEXTS = 16_384
_FOLDED = "lower(trim(nfc_normalize({name}::VARCHAR)))"
_PLAIN = ("INTEGER", "BIGINT", "DOUBLE", "FLOAT", "DECIMAL", "UBIGINT", "UINTEGER", "HUGEINT")
_NAMES = ("VARCHAR", "BOOLEAN", "ENUM", "TINYINT", "SMALLINT", *_PLAIN)


FILE_CHECKS = {
    "manifest": "every value of manifest.json",
    "files": "SHA-256 of every file",
    "recipe": "manifest against recipe",
    "rows": "rows against manifest and recipe",
    "documents": "card, report and certificate against manifest",
}
"""Checks of a set's files, see `inspection`: a file that was edited tells nothing about splits."""


@dataclass(frozen=True)
class Leak:
    """One finding: its kind, the number of cases, and a description that says where."""

    kind: str
    count: int
    words: str


@dataclass(frozen=True)
class Certificate:
    """What was checked and what was found. `clean` if nothing was."""

    checks: dict[str, str]
    leaks: tuple[Leak, ...]

    @property
    def clean(self) -> bool:
        """Whether there is no leak."""
        return not self.leaks

    @property
    def file_findings(self) -> int:
        """How many of them are findings about files and manifest, and no leaks."""
        return sum(leak.kind in FILE_CHECKS for leak in self.leaks)

    def record(self) -> JsonMap:
        """The certificate in the form of certificate.json."""
        leaks = [dataclasses.asdict(leak) for leak in self.leaks]
        return {"clean": self.clean, "checks": self.checks, "leaks": leaks}


def find(
    con: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    other_set: Dataset | None = None,
    *,
    near: float | None = None,
) -> Certificate:
    """Check a set for leaks; `near` overrides the threshold of the recipe.

    Raises duckdb.Error where a file cannot be decoded.
    """
    checks: dict[str, str] = {}
    leaks: list[Leak] = []
    threshold = near if near is not None else dataset.roles["threshold"]
    # Every check reports, also one that does not apply: a certificate says what was compared.
    for name, check in _CHECKS.items():
        description, hits = check(con, dataset, other_set, threshold)
        checks[name] = description
        leaks += hits
    return Certificate(checks, tuple(leaks))


LeakCheck = tuple[str, list[Leak]]


def _sources(dataset: Dataset, other_set: Dataset | None, columns: str) -> Iterator[str]:
    """SQL of rows that must share nothing: the splits of one export, or train against the rest."""
    if other_set is None:
        yield dataset.source(columns)
        return
    evaluation_splits = ("validation", "test")
    # Both directions: each set may have been trained on and each may be used for evaluation. The
    # marks keep equal split names of the two sets apart.
    for training, evaluation in ((dataset, other_set), (other_set, dataset)):
        queries = [
            training.source(columns, ("train",), "here "),
            evaluation.source(columns, evaluation_splits, "there "),
        ]
        if all(queries):
            yield " UNION ALL ".join(queries)


def _exact(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, other_set: Dataset | None, _: object
) -> LeakCheck:
    if other_set is not None and other_set.roles["content"] != dataset.roles["content"]:
        return "not comparable: the exports have other content columns", []
    shared = 0
    for source in _sources(dataset, other_set, content_hashes(dataset.roles["content"])):
        shared += _count_shared(con, source, "h1, h2")
    finding = (
        f"{quantity(shared, 'distinct row', 'is', 'are')} in more than one split, compared by"
        f" {', '.join(dataset.roles['content'])}"
    )
    return f"equal rows by {', '.join(dataset.roles['content'])}", _leak_if(
        shared, "exact", finding
    )


def _group(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, other_set: Dataset | None, _: object
) -> LeakCheck:
    group = dataset.roles["group"]
    if not group:
        return "not checked: no group column", []
    if other_set is not None:
        if other_set.roles["group"] != group:
            return f"not comparable: the other export is grouped by {other_set.roles['group']}", []
        # With different keys equal groups have different pseudonyms, and the comparison would find
        # nothing and call it clean.
        if other_set.manifest["redaction"]["key"] != dataset.manifest["redaction"]["key"]:
            return "not comparable: the exports have pseudonyms of other keys", []
    shared = folded_only = 0
    name, folded_name = quoted(group), _FOLDED.format(name=quoted(group))
    for source in _sources(dataset, other_set, name):
        shared += _count_shared(con, source, name)
        # Keys that differ only in case, spaces or Unicode form are usually one entity, which the
        # split by hash has separated.
        pairs = f"SELECT DISTINCT {SPLIT}, {name} FROM ({source})"
        # Without those that are in several splits as they are.
        apart = f"({pairs}) QUALIFY count(*) OVER (PARTITION BY {name}) = 1"
        folded_only += _count_shared(con, f"SELECT {SPLIT}, {folded_name} AS k FROM {apart}", "k")
    leaks = _leak_if(
        shared, "group", f"{quantity(shared, 'value')} of {group} in more than one split"
    )
    leaks += _leak_if(
        folded_only,
        "group",
        f"{quantity(folded_only, 'value')} of {group} in more than one split, if case, spaces"
        f" and Unicode form are ignored; select {_FOLDED.format(name=group)} as the group",
    )
    return f"groups by {group}", leaks


def _count_shared(con: duckdb.DuckDBPyConnection, source: str, key: str) -> int:
    query = f"SELECT {key} FROM ({source}) GROUP BY ALL HAVING count(DISTINCT {SPLIT}) > 1"
    return int(con.sql(f"SELECT count(*) FROM ({query})").fetchall()[0][0])


def _time(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, other_set: Dataset | None, _: object
) -> LeakCheck:
    fence, time = dataset.manifest["fence"], dataset.roles["time"]
    if not fence or not time:
        return "not checked: no temporal cutoff", []
    if other_set is not None and (not other_set.manifest["fence"] or not other_set.roles["time"]):
        return "not comparable: the other export has no temporal cutoff", []
    moment = f"{text_of(fence)}::TIMESTAMPTZ"
    until = quoted(dataset.roles["until"] or time)
    misplaced = 0
    # Within a set, training rows must end before the cutoff and test rows begin at it. Across sets
    # only training rows matter: what was trained on must be older than the other set's test rows.
    if other_set is None:
        early = dataset.source(f"{until} AS u", ("train", "validation"))
        late = dataset.source(f"{quoted(time)} AS u", ("test",))
        for source, wrong in ((early, f"u >= {moment}"), (late, f"u < {moment}")):
            if source:
                misplaced += _number(con, f"SELECT count(*) FROM ({source}) WHERE {wrong}")
        finding = (
            f"{quantity(misplaced, 'row', 'is', 'are')} on the wrong side of the cutoff {fence}"
        )
    else:
        for training_set, evaluated_set in ((dataset, other_set), (other_set, dataset)):
            column = quoted(training_set.roles["until"] or training_set.roles["time"])
            if "train" in training_set.files:
                before = f"{text_of(evaluated_set.manifest['fence'])}::TIMESTAMPTZ"
                source = training_set.source(f"{column} AS u", ("train",))
                misplaced += _number(con, f"SELECT count(*) FROM ({source}) WHERE u >= {before}")
        finding = (
            f"{quantity(misplaced, 'row')} of train"
            f" {'is' if misplaced == 1 else 'are'} not before the cutoff of the other export"
        )
    return f"the cutoff {fence}", _leak_if(misplaced, "time", finding)


def _number(con: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(con.sql(query).fetchall()[0][0])


def _near(
    con: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    other_set: Dataset | None,
    threshold: float | None,
) -> LeakCheck:
    column = dataset.roles["near"]
    if not column or not threshold:
        return "not checked: no text is compared", []
    if other_set is not None and other_set.roles["near"] != column:
        return "not comparable: the other export compares other texts", []
    straddling = 0
    for source in _sources(dataset, other_set, f"{column} AS t"):
        splits = np.asarray(con.sql(f"SELECT {SPLIT} FROM ({source})").to_arrow_table()[SPLIT])
        # Clusters refer to rows by position, so the split names are read in the same order as the
        # texts.
        codes = np.unique(splits, return_inverse=True)[1]
        clusters = cluster.clusters(_texts(con, source), threshold, dataset.roles["shingle"])
        pairs = np.unique(np.stack([clusters.roots, codes], 1), axis=0)
        straddling += int((np.unique(pairs[:, 0], return_counts=True)[1] > 1).sum())
    finding = (
        f"{quantity(straddling, 'cluster')} of texts with a Jaccard index of at least {threshold:g}"
        f" {'is' if straddling == 1 else 'are'} in more than one split"
    )
    return f"near duplicates from {threshold:g} on", _leak_if(straddling, "near", finding)


def _texts(con: duckdb.DuckDBPyConnection, source: str) -> Callable[[], Iterator[pa.Array]]:
    def chunks() -> Iterator[pa.Array]:
        for batch in con.cursor().sql(f"SELECT t FROM ({source})").to_arrow_reader(_TEXTS):
            yield batch.column(0)

    return chunks


def _label(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, other_set: Dataset | None, _: object
) -> LeakCheck:
    label = dataset.roles["label"]
    if not label:
        return "not checked: no label", []
    if other_set is not None:
        return "not checked: belongs to each export alone", []
    probe = con.sql(f"SELECT * FROM ({dataset.source('*')}) LIMIT 0")
    types = dict(zip(probe.columns, map(str, probe.types), strict=True))
    # Columns that are the label, or are known only together with it, are no features.
    excluded = {SPLIT, label, "label", "outcome", "reward", "label_time", dataset.roles["time"]}
    hint = _LabelPredictor(con, dataset, label)
    hits = []
    if hint.is_learnable:
        for name, dtype in types.items():
            is_leaf = name not in excluded and dtype.split("(")[0] in _NAMES
            if is_leaf and hint.by_value(name, dtype):
                hits.append(Leak("label", 1, f"the column {name} tells {label}"))
        text_column = dataset.roles["text"]
        if (
            text_column in types
            and types[text_column] == "VARCHAR"
            and hint.by_text(quoted(text_column))
        ):
            hits.append(Leak("label", 1, f"the column {text_column} holds {label} in words"))
    return f"columns that tell {label}", hits


class _LabelPredictor:
    """Whether a column, learned on some rows, predicts the label of the others."""

    def __init__(self, con: duckdb.DuckDBPyConnection, dataset: Dataset, label: str) -> None:
        self._con, self._label = con, quoted(label)
        evaluation_rows = dataset.source("*", ("validation", "test"))
        if "train" in dataset.files and evaluation_rows:
            self._train_rows, self._test_rows = dataset.source("*", ("train",)), evaluation_rows
        else:
            # A set without evaluation splits is halved by row number, so that the check still says
            # something.
            all_rows = dataset.source("*")
            hashed = f"SELECT *, hash({self._label}, 1) AS __n FROM ({all_rows})"
            numbered = f"SELECT *, row_number() OVER () % 2 AS __half FROM ({hashed})"
            self._train_rows = f"SELECT * FROM ({numbered}) WHERE __half = 0"
            self._test_rows = f"SELECT * FROM ({numbered}) WHERE __half = 1"
        shares = con.sql(
            f"SELECT count(*) AS n FROM ({self._test_rows}) WHERE {self._label} IS NOT NULL"
            f" GROUP BY {self._label}"
        ).fetchall()
        counts = [n for (n,) in shares]
        self._rows = sum(counts)
        self._most = max(counts, default=0) / max(self._rows, 1)
        self.is_learnable = len(counts) > 1 and self._rows >= _ROWS_MIN and self._most <= _BASE_MAX

    def by_value(self, name: str, dtype: str) -> bool:
        """Whether the values of a column predict it; numbers also by their quantile bin."""
        values = [f"{quoted(name)}::VARCHAR"]
        # A number seldom repeats, so it is learned by range as well: a score with a threshold
        # reveals the label though no value comes twice.
        if dtype.split("(")[0] in _PLAIN:
            quantiles = ", ".join(f"{i / _BINS:.6f}" for i in range(1, _BINS))
            cuts = self._con.sql(
                f"SELECT quantile_disc({quoted(name)}, [{quantiles}]) FROM ({self._train_rows})"
            ).fetchall()[0][0]
            if cuts:
                listing = ", ".join(map(str, sorted(set(cuts))))
                ranged = f"len(list_filter([{listing}], lambda q: q < {quoted(name)}))"
                values.append(f"CASE WHEN {quoted(name)} IS NOT NULL THEN {ranged} END")
        return any(map(self._predicts, values))

    def _predicts(self, value: str) -> bool:
        counts = (
            f"SELECT {value} AS v, {self._label} AS l, count(*) AS n FROM ({self._train_rows})"
            f" WHERE v IS NOT NULL AND l IS NOT NULL GROUP BY ALL"
        )
        learned = f"SELECT v, arg_max(l, n) AS l FROM ({counts}) GROUP BY v"
        targets = (
            f"SELECT {value} AS v, {self._label} AS l FROM ({self._test_rows}) WHERE l IS NOT NULL"
        )
        decided, right = self._con.sql(
            "SELECT count(b.l), count(*) FILTER (b.l = a.l)"
            f" FROM ({targets}) a LEFT JOIN ({learned}) b USING (v)"
        ).fetchall()[0]
        return self._is_certain(decided, right)

    def by_text(self, text_sql: str) -> bool:
        """Whether texts contain their own label and no other one."""
        labels = [
            str(value).lower()
            for (value,) in self._con.sql(
                f"SELECT DISTINCT {self._label}::VARCHAR FROM ({self._train_rows}) LIMIT 200"
            ).fetchall()
            # Labels of one or two letters are found in every text.
            if value is not None and len(str(value)) > 2
        ]
        if not labels:
            return False
        listing = ", ".join(map(text_of, labels))
        mentioned = f"list_filter([{listing}], lambda l: contains(lower({text_sql}), l))"
        decided, right = self._con.sql(
            "SELECT count(*) FILTER (len(h) = 1), count(*) FILTER (len(h) = 1 AND h[1] = l) FROM"
            f" (SELECT {mentioned} AS h, lower({self._label}::VARCHAR) AS l"
            f" FROM ({self._test_rows}))"
        ).fetchall()[0]
        return self._is_certain(decided, right)

    def _is_certain(self, decided: int, right: int) -> bool:
        enough = decided >= max(_ROWS_MIN, _SEEN_MIN * self._rows)
        # Halfway between always guessing the majority class and being always right; it only matters
        # if CERTAIN is set lower than that.
        return bool(enough and right / decided >= max(CERTAIN, (1 + self._most) / 2))


def _leak_if(count: int, check: str, finding: str) -> list[Leak]:
    return [Leak(check, count, finding)] if count else []


_CHECKS: dict[
    str, Callable[[duckdb.DuckDBPyConnection, Dataset, Dataset | None, float | None], LeakCheck]
] = {"exact": _exact, "near": _near, "group": _group, "time": _time, "label": _label}
