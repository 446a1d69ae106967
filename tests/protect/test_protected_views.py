"""Views over protected fields: the same answer as a query, and no word of them in what is kept."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import folds
from lakelog.alerts import AlertRule, RuleBook, evaluating
from lakelog.libraries import duckdb
from lakelog.query import SegmentMap
from lakelog.views import LakeViews, catalog
from tests.support import cli, encrypted, protected
from tests.support.protected import PLANTED, without_keys

BY_EMAIL = """-- name: by_email
-- key: email
-- map
SELECT data->>'email' AS email, count(*) AS n FROM segment GROUP BY ALL
-- merge
SELECT email, sum(n)::BIGINT AS n FROM partials GROUP BY ALL
-- finish
SELECT * FROM state ORDER BY email
"""
QUERY = "SELECT data->>'email' AS email, count(*) AS n FROM events GROUP BY ALL ORDER BY email"


def answers(lake: Any) -> list[list[tuple[Any, ...]]]:
    """What the view gives alone, in a query and at a tag, and what the query gives."""
    table = lake.view("by_email").to_pylist()
    alone = [(row["email"], row["n"]) for row in table]
    named = lake.sql("SELECT email, n FROM by_email ORDER BY email").fetchall()
    return [alone, named, lake.sql(QUERY).fetchall()]


def test_a_view_gives_what_a_query_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With keys, without them and again with them, in the tail, sealed and compacted, and once a
    key was destroyed."""
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        protected.append(lake, range(20))
        lake.settle()
        LakeViews(lake).create("by_email", BY_EMAIL)
        lake.tag("v1")
        protected.append(lake, range(20, 30))
        emails = [f"{PLANTED}{n}@example.org" for n in range(5)]
        for _ in range(2):
            alone, named, wanted = answers(lake)
            assert alone == named == wanted == [(email, 6) for email in emails]
            with without_keys(tmp_path):
                assert answers(lake) == [[(None, 30)]] * 3
            lake.compact()
        query = 'SELECT email, n FROM "v1".by_email ORDER BY email'
        assert lake.sql(query).fetchall() == [(email, 4) for email in emails]
        lake.erase(subject="s1", why="asked")
        alone, named, wanted = answers(lake)
        assert alone == named == wanted
        assert [email for email, _ in wanted] == [emails[0], *emails[2:], None]
        window = lake.view("by_email", since="2020-01-01", until="2040-01-01").to_pylist()
        assert [(row["email"], row["n"]) for row in window] == wanted
    assert encrypted.found(tmp_path / "lake", [PLANTED]) == []


def test_what_was_kept_before_fields_were_protected_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of views that were made of plain fields, also by those who read old segments later."""
    protected.keys_in(tmp_path, monkeypatch)
    with lakelog.open(tmp_path / "lake") as lake:
        protected.append(lake, range(20))
        lake.settle()
        LakeViews(lake).create("by_email", BY_EMAIL)
        assert len(lake.view("by_email")) == 5
    cache = tmp_path / "lake/cache/views"
    assert list(cache.rglob("*.piece"))
    with lakelog.open(tmp_path / "lake") as lake:
        lake.protect(protected.FIELDS)
        assert list(cache.rglob("*.piece")) == []
        with without_keys(tmp_path):
            assert len(lake.view("by_email")) == 5
        assert len(lake.view("by_email")) == 5
        lake.view("status")
    pieces = [path.read_bytes() for path in cache.rglob("*.piece")]
    assert pieces
    assert not [piece for piece in pieces if b"email" in piece]


def test_the_schema_of_a_time_lists_fields_as_they_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of all events does; another view of its name is one like any other."""
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        protected.append(lake, range(20))
        paths = [row["path"] for row in lake.view("schema").to_pylist()]
        assert '"$sealed"' in paths
        window = lake.view("schema", since="2020-01-01", until="2040-01-01").to_pylist()
        assert [row["path"] for row in window] == paths
        by_email = lake.view(BY_EMAIL.replace("name: by_email", "name: schema")).to_pylist()
        assert [(row["email"], row["n"]) for row in by_email] == lake.sql(QUERY).fetchall()


def test_a_contract_from_before_says_nothing_of_protected_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which are not missing because they are sealed; of others it says what it said."""
    protected.keys_in(tmp_path, monkeypatch)
    with lakelog.open(tmp_path / "lake") as lake:
        protected.append(lake, range(3))
    cli.run(tmp_path / "lake", "schema", "pin")
    with lakelog.open(tmp_path / "lake") as lake:
        lake.protect(protected.FIELDS)
        protected.append(lake, range(3, 6))
    cli.run(tmp_path / "lake", "schema", "check")
    assert "1 contract say" in cli.run(tmp_path / "lake", "doctor").stdout
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append([{"type": "SIGNUP", "subject": "s1", "data": {"email": "a"}}])
    found = cli.answer(tmp_path / "lake", "schema", "check", code=3)
    assert {row["path"] for row in found} == {"n", "plan"}


def test_tables_of_a_type_have_protected_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        protected.append(lake, range(3))
        lake.settle()
        lake.tag("v1")
        queries = [
            "SELECT plan, email FROM types.SIGNUP ORDER BY n",
            "SELECT fields.plan, fields.email FROM events ORDER BY fields.n",
            """SELECT data->>'plan', data->>'email' FROM "v1".events ORDER BY fields.n""",
            """SELECT plan, email FROM "v1".types.SIGNUP ORDER BY n""",
        ]
        emails = [f"{PLANTED}{n}@example.org" for n in range(3)]
        for _ in range(2):
            for query in queries:
                assert lake.sql(query).fetchall() == [("pro", email) for email in emails]
                with without_keys(tmp_path):
                    assert lake.sql(query).fetchall() == [("pro", None)] * 3
            lake.compact()


@pytest.mark.parametrize(
    ("query", "reads"),
    [
        ("SELECT count(*) AS n FROM segment", False),
        ("SELECT data->>'plan' AS p, count(*) AS n FROM segment GROUP BY ALL", False),
        ("WITH a AS (SELECT type FROM segment) SELECT * FROM a", False),
        ("SELECT data->'email' AS e FROM segment", True),
        ("SELECT s.data->>'email' AS e FROM segment s", True),
        ("SELECT data->'$.person.name' AS e FROM segment", True),
        ("SELECT data->>lower('EMAIL') AS e FROM segment", True),
        ("SELECT fields.email AS e FROM segment", True),
        ("SELECT json_keys(data) AS e FROM segment", True),
        ("SELECT * FROM segment", True),
        ("SELECT s.* EXCLUDE (time) FROM segment s", True),
        ("WITH a AS (SELECT * FROM segment) SELECT type FROM a", True),
        ("SELECT to_json(segment) AS e FROM segment", True),
        ("SELECT to_json(S) AS e FROM segment s", True),
        ("SELECT #8 AS e FROM segment", True),
    ],
)
def test_what_a_map_reads(query: str, reads: bool) -> None:
    """Whatever is not clearly something else counts as the fields."""
    with duckdb.connect(":memory:") as cursor:
        assert SegmentMap(query).reads_members(cursor, protected.FIELDS) is reads


def test_few_built_in_views_read_all_of_a_payload() -> None:
    """All others go on from what they kept."""
    with duckdb.connect(":memory:") as cursor:
        reading = set()
        for name in catalog.BUILT_IN:
            definition = catalog.built_in()[name]
            if definition.is_projection:
                query = definition.sections["map"].sql
                if SegmentMap(query).reads_members(cursor, ("email",)):
                    reading.add(name)
    assert reading == {"decisions", "schema", "tool_calls"}


def test_folds_and_alerts_keep_no_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fold sees the fields, and keeps no state; an alert does not, as it keeps what it saw."""
    fold = folds.Fold[list[Any]](
        "emails", list, {"SIGNUP": lambda state, event: [*state, event.data.get("email")]}, every=1
    )
    query = "SELECT data->>'email' AS email, count(*) AS n FROM events GROUP BY ALL"
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        protected.append(lake, range(10))
        for _ in range(2):
            assert fold.of(lake, "s1").state == [f"{PLANTED}1@example.org"] * 2
        RuleBook(lake).add(AlertRule("signups", query=query, labels_by=("email",)))
        stop, lines = threading.Event(), list[str]()
        with evaluating(lake, lines.append, stop) as evaluator:
            assert evaluator is not None
            evaluator.round()
        assert "signups" in str(lines)
        assert PLANTED not in str(lines)
        lake.erase(subject="s1", why="asked")
        assert fold.of(lake, "s1").state == [None, None]
        lake.settle()
        alerts = "SELECT count(*) > 0 FROM events WHERE type = 'lakelog.alert'"
        assert lake.sql(alerts).fetchall() == [(True,)]
    assert encrypted.found(tmp_path / "lake", [PLANTED]) == []
