# ruff: noqa: E501
"""A lake's own views: kept in its manifest once tried both ways, and refused with the place."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import views
from lakelog.errors import InvalidView, QueryFailed
from lakelog.views import LakeViews, catalog, user_views
from lakelog.views.definition import parse
from tests.conftest import MakeLake
from tests.support.own_views import BUSIEST
from tests.support.view_events import event, rows, some

PLAIN = """-- about: How many events a type has.
-- params: type text
SELECT count(*) AS events FROM events WHERE type = $type
"""


def projection(**sections: str) -> str:
    """BUSIEST with other sections, each on a line of its own."""
    texts = {
        "map": "SELECT source, count(*) AS n FROM segment GROUP BY source",
        "merge": "SELECT source, sum(n) AS n FROM partials GROUP BY source",
        "finish": "SELECT source, n FROM state",
        **sections,
    }
    return "-- name: x\n" + "\n".join(f"-- {name}\n{text}" for name, text in texts.items())


def totals(text: str) -> str:
    """How many sources have how many events, with its own totals."""
    made = projection(finish="SELECT n, c FROM totals ORDER BY n", totals=text)
    return "-- key: source\n-- by: n\n" + made


def test_totals_are_added_and_taken_away(make_lake: MakeLake) -> None:
    """Totals of a state that grew are those of the whole, for groups that come and go too."""
    lake = make_lake()
    text = totals("SELECT n, count(*) AS c, sum(n) AS events FROM state GROUP BY n")
    lake.append([event(n, "PING", source=f"s{n % 4}") for n in range(8)])
    LakeViews(lake).create("spread", text)
    lake._views.engine._builder._small = 0  # as if the state were large
    assert rows(lake, "spread") == [(2, 4)]
    for source, expected in (
        ("s0", [(2, 3), (3, 1)]),
        ("s0", [(2, 3), (4, 1)]),
        ("new", [(1, 1), (2, 3), (4, 1)]),
        ("new", [(2, 4), (4, 1)]),
    ):
        lake.append(event(9, "PING", source=source))
        assert rows(lake, "spread") == expected
    lake.settle()
    assert rows(lake, "spread") == [(2, 4), (4, 1)]


@pytest.mark.parametrize("form", ["plain", "incremental"])
def test_values_of_types_that_arrow_lacks_are_other_types(make_lake: MakeLake, form: str) -> None:
    """As in exports: the engine gives Arrow bits as bytes, and times without their zone."""
    lake = make_lake()
    lake.append(event(1, "PING", source="a"))
    columns = "'101'::BIT AS b, TIMETZ '12:00:00+05' AS z, 7::UHUGEINT AS u"
    plain = f"-- about: Odd types.\nSELECT {columns} FROM events"
    text = plain if form == "plain" else projection(finish=f"SELECT {columns} FROM state")
    LakeViews(lake).create("odd", text)
    assert rows(lake, "odd") == lake.sql("FROM odd").fetchall() == [("101", "12:00:00+05", 7)]


def test_a_text_is_answered_and_not_stored(make_lake: MakeLake) -> None:
    """The text of a definition may stand in the place of a name: it is checked likewise, answered
    with live events, and the lake has no view of it."""
    lake = make_lake()
    lake.append([event(n, "PING", source="a") for n in range(3)])
    assert rows(lake, projection()) == [("a", 3)]
    lake.append(event(4, "PING", source="a"))
    assert rows(lake, projection()) == [("a", 4)]
    assert not [definition for definition, is_own in LakeViews(lake).listed() if is_own]
    with pytest.raises(InvalidView, match="reads only segment"):
        lake.view(projection(map="SELECT source, count(*) AS n FROM quarantine GROUP BY source"))


def test_a_projection_is_kept_and_answers(make_lake: MakeLake) -> None:
    """A view that was made answers live, by parameters, as a table, and from another process."""
    lake = make_lake()
    lake.append([event(n, "PING", source="ab"[n % 3 == 0]) for n in range(10)])
    LakeViews(lake).create("busiest", BUSIEST)
    assert rows(lake, "busiest") == [("a", 6), ("b", 4)]
    lake.append([event(n, "PONG", source="b") for n in range(5)])
    assert rows(lake, "busiest") == [("b", 9), ("a", 6)]
    assert rows(lake, "busiest", {"type": "PONG"}) == [("b", 5)]
    assert rows(lake, "busiest", {"at_least": 7}) == [("b", 9)]
    assert lake.sql("SELECT sum(events) FROM busiest").fetchall() == [(15,)]
    with lakelog.open(lake.path, create=False) as other:
        assert rows(other, "busiest") == [("b", 9), ("a", 6)]


def test_a_plain_view_is_one_select_over_events(make_lake: MakeLake) -> None:
    """A view without sections runs over all events of the state, with its parameters."""
    lake = make_lake()
    lake.append([event(0, "PING"), event(1, "PING"), event(2, "PONG")])
    with pytest.raises(InvalidView, match=r"needs the parameter type \(text\)"):
        LakeViews(lake).create("count_of", PLAIN)
    LakeViews(lake).create("count_of", PLAIN, {"type": "x"})
    lake.tag("v1")
    lake.append(event(3, "PING"))
    assert rows(lake, "count_of", {"type": "PING"}) == [(3,)]
    assert rows(lake.at("v1"), "count_of", {"type": "PING"}) == [(2,)]
    with pytest.raises(InvalidView, match="view count_of needs the parameter type"):
        views.read(lake, "count_of")
    with pytest.raises(InvalidView, match="--since and --until are for incremental views"):
        views.read(lake, "count_of", {"type": "x"}, since=0)


def test_definitions_are_versioned_and_roll_back(make_lake: MakeLake) -> None:
    """An older state has the definition it had; dropping and replacing are moves like others."""
    lake = make_lake()
    lake.append(event(0, "PING", source="a"))
    lake.tag("v0")
    LakeViews(lake).create("busiest", BUSIEST)
    lake.tag("v1")
    changed = BUSIEST.replace("version: 1", "version: 2").replace(
        "source, events FROM", "events FROM"
    )
    with pytest.raises(InvalidView, match="view 'busiest' exists"):
        LakeViews(lake).create("busiest", changed)
    LakeViews(lake).create("busiest", changed, replace=True)
    lake.tag("v2")
    LakeViews(lake).drop("busiest")
    assert rows(lake.at("v1"), "busiest") == [("a", 1)]
    assert rows(lake.at("v2"), "busiest") == [(1,)]
    for state in (lake, lake.at("v0")):
        with pytest.raises(InvalidView, match="no view 'busiest'"):
            views.read(state, "busiest")
    lake.rollback("v1")
    assert rows(lake, "busiest") == [("a", 1)]
    assert [(d.name, d.version) for d, mine in LakeViews(lake).listed() if mine] == [
        ("busiest", "1")
    ]
    assert [entry.move.op for entry in lake.log(4)] == ["rollback", "view", "view", "view"]


@pytest.mark.parametrize("name", [*catalog.BUILT_IN, "create", "events", "Up", "a b", "", "state"])
def test_a_name_that_cannot_be_is_refused(make_lake: MakeLake, name: str) -> None:
    """Names that are taken by lakelog, or are no names, cannot be given."""
    with pytest.raises(InvalidView):
        LakeViews(make_lake()).create(name, BUSIEST.replace("busiest", ""))


SELECTS_A = "SELECT source, count(*) AS n FROM segment\nWHERE {}\nGROUP BY source"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            projection(map="SELECT source, count(*) n\nFRM segment"),
            "section map, line 4: syntax err",
        ),
        (
            projection(map="SELECT source,\nnosuch AS n FROM segment"),
            "section map, line 4: .*nosuch",
        ),
        (
            projection(merge="SELECT source, sum(m) AS n\nFROM partials GROUP BY 1"),
            'section merge, line 5: .*"m"',
        ),
        (projection(map="SELECT source, data.k AS n\nFROM segment"), ".*: write data->>'k'"),
        ("SELECT data.k FROM events", "section query, line 1: .*: write data->>'k'"),
        (projection(finish="SELECT source, k\nFROM state"), 'section finish, line 7: .*"k"'),
        (
            projection(merge="SELECT source, sum(n) AS total FROM partials GROUP BY 1"),
            "section merge, line 5: merge gives source, total, and map source, n",
        ),
        (
            projection(merge="SELECT source, avg(n) AS n FROM partials GROUP BY 1"),
            "section merge, line 5: the answer depends on how events are put together .* associative",
        ),
        (
            projection(merge="SELECT source, first(n) AS n FROM partials GROUP BY 1"),
            "must be associative",
        ),
        (
            projection(merge="SELECT source, count(*) AS n FROM partials GROUP BY 1"),
            "must be associative",
        ),
        (
            projection(map="SELECT * FROM 'secret.csv'"),
            "section map, line 3: 'secret.csv' is a file",
        ),
        (
            projection(map="SELECT 1 AS source, 2 AS n FROM segment,\nread_csv('/etc/passwd')"),
            r"section map, line 4: read_csv\(\) reads something else",
        ),
        (
            projection(map="SELECT source, 1 AS n FROM segment, glob('*')"),
            r"glob\(\) reads something else",
        ),
        (
            projection(map="SELECT source, 1 AS n FROM\nevents"),
            "section map, line 4: 'events' cannot be read here: section map reads only segment",
        ),
        (
            projection(merge='SELECT source, 1 AS n FROM partials, "v1".events'),
            "section merge, line 5: v1.events is not of this state",
        ),
        (
            projection(finish="SELECT * FROM state, other.main.t"),
            "not of this state: a view reads only state",
        ),
        (projection(finish="SELECT * FROM state, duckdb_settings()"), r"duckdb_settings\(\) reads"),
        (projection(finish="SELECT * FROM query('SELECT 1')"), r"query\(\) reads something else"),
        (
            projection(finish="SELECT * FROM state; SELECT 1"),
            "section finish, line 7: one SELECT stands here, not 2",
        ),
        (projection(finish="DELETE FROM state"), "section finish, line 7: only SELECT"),
        (projection(finish="DESCRIBE state"), "only SELECT"),
        (projection(finish="COPY state TO 'x'"), "section finish, line 7"),
        (
            projection(map=SELECTS_A.format("random() > 0.5")),
            r"section map, line 4: random\(\) gives another answer",
        ),
        (
            projection(map=SELECTS_A.format("time < now()")),
            r"section map, line 4: now is another time at each",
        ),
        (
            projection(map=SELECTS_A.format("time < current_timestamp")),
            "line 4: current_timestamp is another",
        ),
        (
            projection(map=SELECTS_A.format("time < $now")),
            r"section map, line 4: \$now is known in finish only",
        ),
        (
            projection(map=SELECTS_A.format("type = $kind")),
            r"section map, line 4: \$kind is no parameter: declared are none",
        ),
        (projection(map=SELECTS_A.format("type = ?")), "section map, line 3"),
        (
            projection(finish="SELECT getenv('HOME') FROM state"),
            r"getenv\(\) says something of this process",
        ),
        ("-- params: a texts = 1\nSELECT 1", "line 1: 'a texts = 1' declares no parameter"),
        ("-- params: a int = x\nSELECT 1", "line 1: parameter a is a whole number"),
        ("-- params: a int; a text\nSELECT 1", "declared twice"),
        (
            "-- map\nSELECT 1 AS a FROM segment\n-- finish\nSELECT 1 FROM state",
            "no section `-- merge`",
        ),
        ("-- map\n-- merge\nSELECT 1\n-- finish\nSELECT 1", "section map, line 2, is empty"),
        ("-- map\nSELECT 1\n-- map\nSELECT 1", "line 3: a second section map"),
        ("", "no section"),
        (
            totals("SELECT n, avg(n) AS mean FROM state GROUP BY n"),
            "section totals, line 11: mean is DOUBLE: only whole numbers add up",
        ),
        (
            totals("SELECT source, count(*) AS c FROM state GROUP BY source"),
            "section totals, line 11: by names n, which is no column",
        ),
        (
            totals("SELECT n, max(length(source)) AS c FROM state GROUP BY n"),
            "section totals, line 11: only counts and sums can be added",
        ),
        (
            totals("SELECT n, count(*) AS c FROM events GROUP BY n"),
            "line 11: 'events' cannot be read here: section totals reads only state",
        ),
        (
            totals("SELECT n, count(*) AS c FROM state WHERE $now > '2020-01-01' GROUP BY n"),
            r"line 11: \$now is known in finish only",
        ),
        (
            totals("SELECT n, count(*)::UBIGINT AS c FROM state GROUP BY n"),
            "section totals, line 11: c is UBIGINT: only whole numbers",
        ),
        (
            totals("SELECT DISTINCT n FROM state"),
            "section totals, line 11: totals have no count or sum",
        ),
        (
            projection(finish="SELECT * FROM totals"),
            "'totals' cannot be read here: section finish reads only state",
        ),
        ("-- by: n\n" + projection(), "the view has no section `-- totals`"),
        ("SELECT * FROM events, 'x.parquet'", "section query, line 1: 'x.parquet' is a file"),
        ("SELECT * FROM nosuch", "'nosuch' cannot be read here: section query reads only events"),
        ("SELECT\nnosuch FROM events", "section query, line 2: .*nosuch"),
        ("SELECT 1; " + "x" * 200_000, "at most 100,000 bytes"),
    ],
)
def test_a_wrong_definition_names_section_and_line(
    make_lake: MakeLake, text: str, words: str
) -> None:
    """Wrong SQL, a merge that is not associative, files and other tables: what, and where."""
    lake = make_lake()
    lake.append(some(80))
    with pytest.raises(InvalidView, match=words):
        LakeViews(lake).create("x", text)
    assert [d for d, mine in LakeViews(lake).listed() if mine] == []


def test_a_key_that_merge_does_not_keep_apart_is_found(make_lake: MakeLake) -> None:
    """A key by which merge does not group gives other answers in parts, and so is refused."""
    text = projection(merge="SELECT min(source) AS source, sum(n) AS n FROM partials")
    with pytest.raises(InvalidView, match="must be associative"):
        LakeViews(make_lake()).create("x", text.replace("-- map", "-- key: source\n-- map"))


def test_merged_that_is_not_true_is_found(make_lake: MakeLake) -> None:
    """`merged: yes` where map gives raw rows is found on the sample."""
    text = projection(map="SELECT source, 1 AS n FROM segment", finish="SELECT count(*) FROM state")
    with pytest.raises(InvalidView, match="merged: yes"):
        LakeViews(make_lake()).create("x", text.replace("-- map", "-- merged: yes\n-- map"))


def test_a_lake_from_elsewhere_is_not_believed(make_lake: MakeLake, home: Path) -> None:
    """A definition that reads files is refused when read, even where a manifest holds it."""
    (home / "secret.csv").write_text("a,b\n1,2\n")
    lake = make_lake()
    file = f'"{home}/secret.csv"'
    for name, text in (
        ("plain", f"SELECT * FROM '{home}/secret.csv'"),
        ("kept", projection(finish=f"SELECT * FROM read_csv('{home}/secret.csv')")),
        (
            "within",
            f"SELECT * FROM {file}, (WITH {file} AS (SELECT 1) SELECT count(*) FROM events)",
        ),
        ("itself", f"WITH {file} AS (FROM {file}) SELECT * FROM {file}, events"),
        ("later", "WITH a AS (FROM quarantine), quarantine AS (SELECT 1) SELECT * FROM a, events"),
        ("cyclic", "WITH RECURSIVE a AS (FROM b UNION ALL FROM a), b AS (SELECT 1) FROM a, events"),
    ):
        catalog.create(lake.store, "main", parse(text, name))
        with pytest.raises(InvalidView, match=r"section (query|finish), line \d"):
            views.read(lake, name)
        with pytest.raises(InvalidView):
            lake.sql(f"SELECT * FROM {name}")


@pytest.mark.parametrize(
    "finish",
    [
        "/* /* */ WITH evil AS (SELECT content FROM read_text('{}')) SELECT * FROM evil -- */"
        " SELECT * FROM state",
        "--\rSELECT source, n, '\n WITH evil AS (FROM \"{}\") SELECT * FROM evil -- ' FROM state",
        "WITH state AS (SELECT * FROM state WHERE n > 0) SELECT * FROM state",
        "WITH/**/x AS (SELECT * FROM state) SELECT * FROM x",
        "WITH RECURSIVE x AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM x WHERE i < 3)"
        " SELECT source, n FROM state, x WHERE i = 1",
        "-- a comment\nFROM state SELECT source, n -- another",
        "(SELECT source, n FROM state)",
    ],
)
def test_odd_texts_say_what_the_engine_takes_them_for(
    make_lake: MakeLake, home: Path, finish: str
) -> None:
    """Comments, nested ones and others, and WITH of any kind neither hide anything nor break."""
    (home / "secret.csv").write_text("a,b\nhidden,2\n")
    lake = make_lake()
    lake.append([event(0, "PING", source="a"), event(1, "PING", source="a")])
    catalog.create(lake.store, "main", parse(projection(finish=finish.format(home / "secret.csv"))))
    found = rows(lake, "x")
    assert [row[:2] for row in found] == [("a", 2)]


def test_a_comment_is_no_header(make_lake: MakeLake) -> None:
    """Words that begin a comment are not taken for what they say elsewhere."""
    lake = make_lake()
    LakeViews(lake).create("totals", "-- by hour and type\nSELECT count(*) FROM events")
    assert rows(lake, "totals") == [(0,)]


def test_many_parameters_leave_few_tables(make_lake: MakeLake) -> None:
    """Answers by ever other parameters do not fill the memory."""
    lake = make_lake()
    lake.append(some(50))
    for n in range(40):
        rows(lake, "status", {"category": f"c{n}"})
        rows(lake, "stuck", {"limit": n})
    lake._views.engine._builder.cursor().close()
    engine = lake._views.engine._builder.cursor()
    held = engine.sql("SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'lakelog_views'")
    assert held.fetchall()[0][0] < 30


def test_views_that_fail_leave_few_tables(make_lake: MakeLake) -> None:
    """A view that no longer suits its events fails again and again, without filling the memory."""
    lake = make_lake()
    counted = "SELECT source, sum((data ->> '$.n')::INT) AS n FROM segment GROUP BY source"
    LakeViews(lake).create("x", projection(map=counted))
    for n in range(40):
        lake.append(event(n, "PING", source="a", data={"n": "none"}))
        rows(lake, "status")
        with pytest.raises(QueryFailed, match="none"):
            rows(lake, "x")
    engine = lake._views.engine._builder.cursor()
    held = engine.sql("SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'lakelog_views'")
    assert held.fetchall()[0][0] < 30


@pytest.fixture(scope="module")
def no_rows() -> Any:
    """The sample of an empty lake."""
    with tempfile.TemporaryDirectory() as path, lakelog.open(f"{path}/lake") as lake:
        return lake._views.sample(10)


@pytest.mark.matrix
@pytest.mark.parametrize("name", catalog.BUILT_IN)
def test_the_views_that_come_with_lakelog_pass_the_same_check(no_rows: Any, name: str) -> None:
    """Every built-in definition is accepted by the check of users' own, on made-up events."""
    assert user_views.check(catalog.built_in()[name], no_rows).num_columns


def test_a_view_that_fails_on_real_events_says_which(make_lake: MakeLake) -> None:
    """SQL that meets a value it cannot take names the view."""
    lake = make_lake()
    lake.append(event(0, "PING", source="7"))
    LakeViews(lake).create(
        "x", projection(finish="SELECT TRY_CAST(source AS INT) AS s, n FROM state")
    )
    strict = projection(finish="SELECT source::INT AS s, n FROM state")
    lake.append(event(0, "PING", source="word"))
    catalog.create(lake.store, "main", parse(strict, "strict"))
    with pytest.raises(QueryFailed, match=r"view strict: .*word"):
        views.read(lake, "strict")


def test_views_of_tags_and_branches_are_tables(make_lake: MakeLake) -> None:
    """`"v1".view` answers over that state: built-in views and the lake's own, plain ones too."""
    lake = make_lake()
    lake.append([event(n, "PING", source="ab"[n % 3 == 0]) for n in range(60)])
    LakeViews(lake).create("busiest", BUSIEST)
    LakeViews(lake).create("counted", "-- about: All.\nSELECT count(*) AS n FROM events")
    lake.tag("v1")
    lake.append([event(n, "PING", source="ab"[n % 3 == 0]) for n in range(50)])
    side = lake.branch("side", "v1")
    side.append(
        [event(n, "PING", source="ab"[n % 3 == 0]) for n in range(40)]
    )  # a tail that only the branch has
    for name in ("status", "busiest", "counted"):
        for ref, at in (("v1", lake.at("v1")), ("side", side), ("main", lake), ("SIDE", side)):
            mine = lake.sql(f'SELECT * FROM "{ref}".{name} ORDER BY ALL').fetchall()
            assert mine == at.sql(f"SELECT * FROM {name} ORDER BY ALL").fetchall(), (name, ref)
    (grown,) = lake.sql(
        'SELECT (SELECT n FROM "side".counted) - v1.counted.n'
        ' FROM "v1".counted, "v1".events LIMIT 1'
    ).fetchall()
    assert grown == (40,)


def test_a_ref_without_such_a_view_says_so(make_lake: MakeLake) -> None:
    """A view that a tag does not have is named, with the nearest one; a column is no view."""
    lake = make_lake()
    lake.append([event(n, "PING", source="ab"[n % 3 == 0]) for n in range(10)])
    lake.tag("v1")
    LakeViews(lake).create("busiest", BUSIEST)
    assert lake.sql('SELECT count(*) FROM "main".busiest').fetchall()[0][0]
    with pytest.raises(QueryFailed, match='"v1" has no table or view busiest: see'):
        lake.sql('FROM "v1".busiest')
    with pytest.raises(QueryFailed, match="did you mean 'sessions'"):
        lake.sql('FROM "v1".sesions')
    assert lake.sql("SELECT v1.status FROM (SELECT 1 AS status) AS v1").fetchall() == [(1,)]


def test_views_of_refs_do_not_pile_up(make_lake: MakeLake) -> None:
    """A view of a tag that is asked for again and again leaves few tables in memory."""
    lake = make_lake()
    lake.append([event(n, "PING", source="ab"[n % 3 == 0]) for n in range(10)])
    lake.tag("v1")
    for _ in range(100):
        lake.sql('FROM "v1".status').fetchall()
    (count,) = lake.engine().cursor().sql("SELECT count(*) FROM duckdb_tables()").fetchall()[0]
    assert count < 80
