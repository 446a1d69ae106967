"""Templates: which words of messages are values, whoever wrote them and in whatever order."""

from __future__ import annotations

import collections
import csv
import itertools
import random
import re
from pathlib import Path

import duckdb
import pytest

from lakelog.patterns import shape_sql, templates_of
from tests.support.tree import SHARED

LOGHUB = SHARED / "loghub"


def texts(*messages: str) -> list[str]:
    """The template of each message."""
    query = f"SELECT {shape_sql('message')} FROM (SELECT unnest($1) AS message)"
    shapes = [shape for (shape,) in duckdb.execute(query, [list(messages)]).fetchall()]
    templates = templates_of(collections.Counter(shapes))
    return [templates[shape].pattern for shape in shapes]


@pytest.mark.parametrize(
    ("message", "template"),
    [
        ("connect to 10.0.0.5:8080 failed after 3 tries", "connect to <*> failed after <*> tries"),
        ("GET https://example.com/a?b=1 took 12.5 ms", "GET <*> took <*>"),
        ("mail to alice@example.com", "mail to <*>"),
        ("cannot read /var/lib/data/part-1.parquet", "cannot read <*>"),
        (r"loaded C:\Windows\system32\x.dll now", "loaded <*> now"),
        ("lease of 00:1a:2b:3c:4d:5e ends", "lease of <*> ends"),
        ("host db.internal, up", "host <*>, up"),
        ("user=alice state=open", "user=<*> state=<*>"),
        ('name="a b" ok', "name=<*> ok"),
        ("ids=[1, 2, 3] ws=Work{10113} by=f(a, b) ok", "ids=<*> ws=<*> by=<*> ok"),
        ("read 1024 bytes (1.0 KB) of it", "read <*> of it"),
        ("ids 1, 2, 3 and 4", "ids <*> and <*>"),
        ("last run Mon Jan 12 2026", "last run <*>"),
        ("dry run: true", "dry run: <*>"),
        ("java.io.IOException: closed", "java.io.IOException: closed"),
        ("nothing to do", "nothing to do"),
        ("", ""),
        ("42", "<*>"),
    ],
    ids=lambda value: re.sub(r"\W+", "-", value)[:24] if isinstance(value, str) else "",
)
def test_values_are_known_by_their_form(message: str, template: str) -> None:
    assert texts(message) == [template]


def test_a_word_that_takes_many_values_is_one() -> None:
    names = "ada bea cora dora ella fina gwen hana".split()
    assert set(texts(*(f"hello {name} there" for name in names))) == {"hello <*> there"}
    # A value in one message makes it one in the others.
    assert set(texts("Invalid user root from 10.1.1.1", "Invalid user x7 from 10.1.1.1")) == {
        "Invalid user <*> from <*>"
    }


def test_words_that_are_said_as_often_are_no_values() -> None:
    messages = [f"machine {verb} by schedule" for verb in ("started", "stopped", "paused", "ended")]
    assert len(set(texts(*messages * 20))) == 4
    users = [f"login of {name} refused" for name in ["root"] * 90 + ["ada", "bea", "cora"]]
    assert set(texts(*users)) == {"login of <*> refused"}


def test_two_words_of_many_values() -> None:
    words = [chr(97 + n) * 4 for n in range(12)]
    moves = [f"task went from {a} over to {b}" for a, b in itertools.pairwise(words)]
    assert set(texts(*moves)) == {"task went from <*> over to <*>"}


def test_the_order_of_messages_does_not_matter() -> None:
    dice = random.Random(5)
    words = [f"w{letter}" for letter in "abcdefghijkl"]
    counts = {
        " ".join(dice.choices(words, k=dice.randint(1, 7))): dice.randint(1, 300)
        for _ in range(400)
    }
    expected = templates_of(counts)
    for _ in range(5):
        shapes = list(counts)
        dice.shuffle(shapes)
        assert templates_of({shape: counts[shape] for shape in shapes}) == expected


def test_hostile_messages_are_bounded() -> None:
    odd = [
        "x" * 5_000_000,
        "{" * 3_000,
        "word " * 10_000,
        "\x1a\x1a",
        "a\x00b 1",
        "\n\t 7 \n",
        "<*> <*>",
        "🦆 7 🦆",
    ]
    for message, template in zip(odd, texts(*odd), strict=True):
        assert len(template) <= 1_200, message[:20]


def test_what_is_behind_the_words_that_are_mined_makes_no_shape() -> None:
    """Two hundred thousand dumps that differ far behind are no shapes to hold."""
    dump = "the request failed " + " ".join(f"{key}=x" for key in "abcdefghij" * 6)
    query = f"SELECT DISTINCT {shape_sql('message')} FROM (SELECT unnest($1) AS message)"
    messages = [f"{dump} {word} {dump}" for word in ("ab", "cd", "ef")]
    assert len(duckdb.execute(query, [messages]).fetchall()) == 1
    assert len(set(texts(*messages, *(f"{word} {dump}" for word in ("ab", "cd"))))) == 3


def scores(name: str) -> tuple[float, float]:
    """Grouping accuracy, and F1 of groups, by the labels of a log."""
    with Path(LOGHUB, f"{name}_2k.log_structured_corrected.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found, labelled = (collections.defaultdict[str, set[int]](set) for _ in range(2))
    for line, template in enumerate(texts(*(row["Content"] for row in rows))):
        found[template].add(line)
        labelled[rows[line]["EventTemplate"]].add(line)
    groups, truth = ({frozenset(lines) for lines in g.values()} for g in (found, labelled))
    right = groups & truth
    precision, recall = len(right) / len(groups), len(right) / len(truth)
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return sum(map(len, right)) / len(rows), f1


@pytest.mark.needs("../shared")
def test_real_logs_are_grouped_as_people_did() -> None:
    names = sorted(
        path.name.split("_")[0] for path in LOGHUB.glob("*_2k.log_structured_corrected.csv")
    )
    accuracies, f1s = zip(*map(scores, names), strict=True)
    assert sum(accuracies) / len(names) >= 0.95, dict(zip(names, accuracies, strict=True))
    assert sum(f1s) / len(names) >= 0.93, dict(zip(names, f1s, strict=True))
