"""How answers are shown: what is in them harms neither page nor terminal."""

from __future__ import annotations

import importlib
import random
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import lakelog
from lakelog.notebook import objects
from tests.conftest import MakeLake

ELEMENTS = {"table", "thead", "tbody", "tr", "th", "td", "br", "small", "span"}
ATTRIBUTES = {"class", "style"}
ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
SEEDS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg/onload=alert(1)>',
    "</td></tr></table><iframe src='javascript:alert(1)'>",
    "<style>*{display:none}</style>",
    "<!--",
    "]]>",
    "&lt;script&gt;",
    "&#60;b&#62;",
    "$$\\href{javascript:alert(1)}{x}$$",
    "javascript:alert(1)",
    "{{constructor.constructor('alert(1)')()}}",
    "\u202egnp.exe",
    "\u2066\u2067\u2069",
    "\u200f\u061c",
    "\x1b[2J\x1b[31mred",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\r overwritten",
    "a\nb\tc",
    "\x00\x01\x7f",
    "\ufeff\ufffe",
    "👩‍👩‍👧 e\u0301",
    "' OR 1=1 --",
    "`rm -rf`",
]


class Reader(HTMLParser):
    """Collects elements, attributes and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile() -> list[str]:
    """200 values: each seed, and mixtures of several."""
    made = random.Random(20)
    mixed = ["".join(made.choices(SEEDS, k=3)) for _ in range(173)]
    return [*SEEDS, *mixed, "x" * 1_000_000, "<b>" * 400_000]


@pytest.fixture
def lake(make_lake: MakeLake) -> lakelog.Lake:
    return make_lake()


@pytest.mark.parametrize("number", range(10))
def test_hostile_values_are_harmless(lake: lakelog.Lake, number: int) -> None:
    values = hostile()
    assert len(values) == 200
    chosen = {"chosen": pa.table({"value": values[number * 20 : number * 20 + 20]})}
    query = "SELECT value, [value] AS listed, {'v': value} AS packed FROM chosen"
    answer = lake.sql(query, variables=chosen)
    assert_harmless(answer._repr_html_(), plain=answer._repr_mimebundle_()["text/plain"])


def assert_harmless(markup: str, plain: str) -> None:
    page = Reader()
    page.feed(markup)
    assert page.elements <= ELEMENTS
    assert page.attributes <= ATTRIBUTES
    acting = re.compile(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
    )
    assert not acting.search(page.text)
    assert not acting.search(plain)
    assert len(markup) < 60_000


def test_hostile_names_of_columns(lake: lakelog.Lake) -> None:
    # An Arrow name may be anything but what the engine cannot hold.
    names = [seed for seed in SEEDS if "\0" not in seed]
    wide = pa.table({name: [1] for name in names})
    answer = lake.sql("SELECT * FROM wide")
    assert_harmless(answer._repr_html_(), plain=answer._repr_mimebundle_()["text/plain"])
    assert wide.num_columns == len(answer.columns)


def test_twenty_rows_are_shown(lake: lakelog.Lake) -> None:
    for count, words in [(0, "0 rows"), (1, "1 row"), (20, "20 rows"), (21, "the first 20 rows")]:
        answer = lake.sql(f"SELECT range AS n FROM range({count})")
        assert answer._repr_html_().count("<tr>") == 1 + min(count, 20)
        assert words in answer._repr_html_()


def test_query_runs_once_for_all_forms(lake: lakelog.Lake) -> None:
    answer = lake.sql("SELECT random() AS r")
    assert answer._repr_html_() == answer._repr_html_()
    assert f"{answer.head.rows[0][0]}"[:6] in answer._repr_mimebundle_()["text/plain"]


def test_columns_of_one_name(lake: lakelog.Lake) -> None:
    shown = lake.sql("SELECT 1 AS a, 2 AS a")._repr_mimebundle_()["text/plain"]
    assert shown.splitlines()[2].split() == ["1", "2"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("true", "true"),
        ("12.50::DECIMAL(9, 2)", "12.50"),
        ("TIMESTAMPTZ '2026-11-21 10:00:00+01'", "2026-11-21 09:00:00+00"),
        ("'\\xAA'::BLOB", "\\xAA"),
        ("[1, NULL]", "[1, NULL]"),
        ("'nan'::DOUBLE", "nan"),
        ("INTERVAL 90 MINUTES", "01:30:00"),
    ],
)
def test_values_of_every_kind(lake: lakelog.Lake, value: str, text: str) -> None:
    assert lake.sql(f"SELECT {value} AS v").head.rows == [(text,)]


def test_interchange(lake: lakelog.Lake) -> None:
    answer: Any = lake.sql("SELECT 1 AS n, 'a' AS t")
    assert answer.__dataframe__().column_names() == ["n", "t"]
    assert pa.table(answer).to_pydict() == {"n": [1], "t": ["a"]}


def test_a_lake_that_is_gone_is_shown_with_what_is_wrong(tmp_path: Path) -> None:
    with lakelog.open(tmp_path / "lake") as each:
        shutil.rmtree(each.path)
        assert "no branch" in objects.lake_html(each)


def test_each_record_is_in_the_module_by_which_it_is_known() -> None:
    """IPython compares names, so that a class that has moved would be shown as text."""
    for module, names in objects.RECORDS.items():
        home = importlib.import_module(f"lakelog.{module}")
        assert {getattr(home, name).__module__ for name in names.split()} == {home.__name__}
