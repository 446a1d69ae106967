"""The language of searches: what words mean, what is refused, and the same in SQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import InvalidSearch, QueryFailed
from lakelog.search.language import highlighter, parse
from lakelog.views import LakeViews
from tests.support.search_states import shrink_indexes

EVENTS = [
    {
        "type": "log",
        "source": "web",
        "level": "ERROR",
        "message": "Connection to 10.0.0.5:8080 refused",
        "data": {"path": "/var/log/app.log", "ms": 120, "user": {"name": "Zoë"}},
    },
    {
        "type": "log",
        "source": "db",
        "level": "WARN",
        "message": "Straße 東京 timeout=30 deadlock_detected",
        "data": {"ms": 5, "text": 'a\nfoo "q" \u00e9t\u00e9 \\ud83d'},
    },
    {"type": "DISCOVER", "source": "pod", "subject": "ep_1", "data": {"status": 500}},
]


LOUD = """-- key: source
-- map
SELECT source, count(*) AS n FROM segment WHERE search('level>=WARN') GROUP BY source
-- merge
SELECT source, sum(n)::BIGINT AS n FROM partials GROUP BY source
-- finish
SELECT source, n FROM state ORDER BY source
"""


FOUND = [
    ("refused", "web"),
    ("REFUSED", "web"),
    ("fused", ""),
    ("*fused", "web"),
    ("conn*", "web"),
    ("*nect*", "web"),
    ("10.0.0.5", "web"),
    ("10.0.0.5:8080", "web"),
    ("0.0.5", "web"),
    ("8080", "web"),
    ("/var/log", "web"),
    ("app.log", "web"),
    ("deadlock", "db"),
    ("deadlock_detected", "db"),
    ("dead*ted", "db"),
    ("timeout=30", "db"),
    ("STRASSE", ""),
    ("straße", "db"),
    ("京", "db"),
    ("foo", "db"),
    ('"q"', "db"),
    (r'"\"q\""', "db"),
    ("été", "db"),
    ("zoë", "web"),
    ("user.name:zoë", "web"),
    ("data.user.name:zoë", "web"),
    ("name:zoë", ""),
    ("ms>=5", "web db"),
    ("ms>5", "web"),
    ("ms:120", "web"),
    ("ms:=120.0", "web"),
    ("ms:<=5", "db"),
    ("status:*", "pod"),
    ("-status:*", "web db"),
    ("level>=WARN", "web db"),
    ("level<error", "db"),
    ("level:warning", "db"),
    ("level:(error OR warn)", "web db"),
    ("type:=log", "web db"),
    ("refused OR timeout", "web db"),
    ("(refused OR timeout) source:db", "db"),
    ("NOT refused", "db pod"),
    ("-refused -timeout", "pod"),
    ("refused AND source:web", "web"),
    ("/time.ut/", "db"),
    ("message:/^Conn.*d$/", "web"),
    ("time>=1h", "web db pod"),
    ("time<2020-01-01", ""),
    ("*", "web db pod"),
    ('data:"\\"status\\":500"', "pod"),
    ("http://nowhere", ""),
    ("or", ""),
]
"""Queries, and the sources of the events that they find."""


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lakelog.Lake]:
    """A lake with a web server's error, a database's warning and a discovery."""
    with lakelog.open(tmp_path_factory.mktemp("search") / "lake") as lake:
        lake.append(EVENTS)
        yield lake


@pytest.mark.parametrize(("query", "sources"), FOUND)
def test_what_is_found(lake: lakelog.Lake, query: str, sources: str) -> None:
    """Words whole and in any case, their parts with stars, fields, comparisons and logic."""
    found = [row[3] for row in lake.search(query, oldest=True).fetchall()]
    assert found == sources.split()


def test_letters_that_libraries_know_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A letter is found in the case in which it was written, also where Arrow knows its other case
    and the engine does not, in a tail and by an index."""
    shrink_indexes(monkeypatch, is_counted=True)
    letters = ["\u1c89", "\ua7cb", "\ua7da", "\U00010d50", "\U00016ea2", "\u0130", "\u1e9e"]
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append([{"type": "log", "message": f"{n}x{x}y z"} for n, x in enumerate(letters)])
        for _ in ("tail", "compacted"):
            for number, letter in enumerate(letters):
                for query in (f"*x{letter}Y", f"*{letter}*", f"{number}X{letter}y"):
                    found = [row[6] for row in lake.search(query).fetchall()]
                    assert found == [f"{number}x{letter}y z"], query
            lake.compact()


@pytest.mark.matrix
@pytest.mark.parametrize(("query", "sources"), FOUND)
def test_what_is_found_in_sql(lake: lakelog.Lake, query: str, sources: str) -> None:
    """The same as a condition, alone and of one table among several."""
    quoted = query.replace("'", "''")
    plain = f"SELECT source FROM events WHERE search('{quoted}') ORDER BY seq"
    named = f"SELECT e.source FROM events e, (SELECT 1 AS message) WHERE search(e, '{quoted}')"
    assert [row[0] for row in lake.sql(plain).fetchall()] == sources.split()
    assert sorted(row[0] for row in lake.sql(named).fetchall()) == sorted(sources.split())


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "a word is missing"),
        ("a OR", "a word is missing: 'a OR', at character 5"),
        ("NOT", "a word is missing"),
        ("(a", "the closing ) is missing"),
        ("a)", "there is no ( to this )"),
        ('say "hi', 'the closing " is missing'),
        ('"  "', "a phrase has no words"),
        ("user: x", "a value of 'user' is missing"),
        ("/a(/", "the regular expression 'a(': missing )"),
        ("/a{1000}{1000}{1000}/", "(RE2 reads it, not Python)"),
        ("level>=LOUD", "'LOUD' has no place among the levels"),
        ("time>yesterday", "is a time such as"),
        ("seq>abc", "'seq' is a number"),
        ("a" * 70_000, "at most 65,536"),
        ("a " * 500_000, "at most 65,536"),
        ("(" * 60 + "a" + ")" * 60, "nested more than 50 deep"),
        ("-" * 200 + "a", "nested more than 50 deep"),
        ("a " * 1_001, "more than 1,000 terms"),
        ("*a" * 1_001, "more than 1,000 terms"),
        ("a\0b", "a NUL character"),
        ("a\udcff", "not valid Unicode"),
        ("seq>=\N{ARABIC-INDIC DIGIT THREE}", "'seq' is a number"),
    ],
)
def test_what_is_refused(lake: lakelog.Lake, query: str, said: str) -> None:
    """One line that says what is wrong, and where."""
    with pytest.raises(InvalidSearch) as caught:
        lake.search(query)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("digits", [8, 14, 400])
def test_a_span_may_be_longer_than_time(lake: lakelog.Lake, digits: int) -> None:
    """Then no event is older."""
    assert len(lake.search(f"time>={'9' * digits}d").fetchall()) == lake.count()


@pytest.mark.parametrize(
    "query", ["- .", '"--"', "/(x+x+)+y/", "/(a|aa)*$/", "... ,", "%%%", "-", "***", "a" * 60_000]
)
def test_odd_searches_end(lake: lakelog.Lake, query: str) -> None:
    """Characters that are no words are looked for as they are; nothing is stuck."""
    assert len(lake.search(query).fetchall()) in (0, 3)


def test_long_numbers_are_compared_to_their_last_digit(home: Path) -> None:
    """Ids of 18 digits that a DOUBLE cannot tell apart; and numbers beyond all that it has."""
    first = 1_234_567_890_123_456_788
    with lakelog.open(home / "long") as lake:
        lake.append([{"type": "t", "data": {"user": first + n}} for n in range(4)])
        users = f"SELECT (data->>'user')::BIGINT - {first} FROM events WHERE search('user%s')"

        def found(test: str) -> list[int]:
            return sorted(row[0] for row in lake.sql(users % test).fetchall())

        assert found(f":={first + 1}") == [1]
        assert found(f">{first + 1}") == [2, 3]
        assert found(f"<=+{first + 1}") == [0, 1]
        assert found(f">-{first}") == found("<1" + "0" * 400) == [0, 1, 2, 3]
        assert found(":=\N{ARABIC-INDIC DIGIT THREE}") == []


@pytest.mark.parametrize("is_typed", [False, True])
def test_a_text_that_is_no_number_is_above_none(home: Path, is_typed: bool) -> None:
    """As JSON has no NaN, writers store it as a text; to the engine it is above all numbers."""
    with lakelog.open(home / "lake") as lake:
        values = [2.5, "NaN", "nan", "Infinity", "-inf", "7", "x"]
        lake.append([{"type": "t", "data": {"value": value}} for value in values])
        if is_typed:
            lake.snapshot()
            lake.compact()

        def found(test: str) -> list[object]:
            texts = f"SELECT data->>'value' FROM events WHERE search('value{test}') ORDER BY seq"
            return [text for (text,) in lake.sql(texts).fetchall()]

        assert found(">2.5") == found(">5") == ["Infinity", "7"]
        assert found(">=2.5") == ["2.5", "Infinity", "7"]
        assert found("<5") == ["2.5", "-inf"]


@pytest.mark.parametrize("is_typed", [False, True])
def test_names_of_members_have_dots(tmp_path: Path, is_typed: bool) -> None:
    """A field finds a member of a member, and one whose own name has the dots, as those of
    OpenTelemetry; the first of both where there are both."""
    lake = lakelog.open(tmp_path / "lake")
    payloads = [
        {"http": {"route": "cart", "code": 200}},
        {"http.route": "cart", "http.code": 404},
        {"attributes": {"http.route": "/cart/7", "http": {"code": 500}}},
        {"attributes": {"a.b": {"c": "deep"}}, "x.y.z.u.v": "wide"},
        {"http": {"route": "shop"}, "http.route": "cart"},
    ]
    lake.append([{"type": "t", "source": str(n), "data": data} for n, data in enumerate(payloads)])
    if is_typed:
        lake.snapshot()
        lake.compact()

    def found(query: str) -> str:
        rows = lake.search(query).fetchall()
        return "".join(sorted(row[3] for row in rows))

    assert found("http.route:cart") == "01"
    assert found("data.http.route:=cart") == "01"
    assert found("http.code>=400") == "1"
    assert found("attributes.http.route:7") == "2"
    assert found("attributes.http.code:500") == "2"
    assert found("attributes.a.b.c:deep x.y.z.u.v:*") == "3"
    assert found("http.route:*") == "014"


def test_a_day_is_that_of_utc_in_any_session(tmp_path: Path) -> None:
    """A search finds the same events in SQL, whatever time zone the session shows times in."""
    with lakelog.open(tmp_path / "lake") as lake:
        hours = range(0, 24, 6)
        lake.append([{"type": "A", "time": f"2026-11-20T{hour:02}:00:00Z"} for hour in hours])
        for query in ("time:2026-11-20", "time:*18", "time:/ 18/", "time:=2026-11-20"):
            asked = f"SELECT count(*) FROM events WHERE search('{query}')"
            count = lake.sql(asked).fetchall()
            assert count[0][0], query
            assert lake.sql(f"SET TimeZone = 'Asia/Tokyo'; {asked}").fetchall() == count, query


def test_calls_in_strings_and_comments_stay(lake: lakelog.Lake) -> None:
    """Only a call is one: not a text, a name or a comment."""
    query = """SELECT 'search(x)' AS a, count(*) AS "search(y)" -- search(
        FROM events WHERE /* search(z) */ search('it''s OR refused')"""
    assert lake.sql(query).fetchall() == [("search(x)", 1)]
    escaped = r"SELECT E'it\'s search(x) \\', count(*) FROM events WHERE search('refused')"
    assert lake.sql(escaped).fetchall() == [("it's search(x) \\", 1)]
    with pytest.raises(QueryFailed, match="takes one text in quotes"):
        lake.sql("SELECT * FROM events WHERE search(message)")


@pytest.mark.parametrize("content", ["x", "[]", "[1,2]", '["",{}]', '["",["",true,true,false]]'])
def test_a_text_that_looks_like_the_words_of_a_search(lake: lakelog.Lake, content: str) -> None:
    """A condition that somebody wrote so is one like any other."""
    query = f"SELECT count(*) FROM events WHERE 'lakelog.words: {content}' IS NOT NULL"
    assert lake.sql(query).fetchall() == [(3,)]


def test_views_exports_and_refs_search(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Every entrance of SQL knows the function: states, exports and plans of a query."""
    lake.tag("found")
    query = "SELECT source FROM events WHERE search('refused')"
    assert lake.at("found").sql(query).fetchall() == [("web",)]
    assert [row[3] for row in lake.at("found").search("refused").fetchall()] == ["web"]
    assert lake.sql(query.replace("events", '"found".events')).fetchall() == [("web",)]
    assert lake.export(query, tmp_path / "found.csv").rows == 1
    assert lake.explain(query)[0] <= 1
    with pytest.raises(QueryFailed, match=r"search\('\(a'\): the closing"):
        lake.sql("SELECT * FROM events WHERE search('(a')")


def test_whatever_takes_a_condition_searches(tmp_path: Path) -> None:
    """Live events, views, kept views, syncs and training sets know the function, too."""
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(EVENTS)
        assert [e["source"] for e in lake.tail(9, where="search('level>=WARN')")] == ["web", "db"]
        LakeViews(lake).create("refused", "SELECT source FROM events WHERE search('refused')")
        assert lake.view("refused").to_pylist() == [{"source": "web"}]
        assert lake.sql("SELECT * FROM refused").fetchall() == [("web",)]
        LakeViews(lake).create("loud", LOUD)
        assert lake.view("loud").to_pylist() == [
            {"source": "db", "n": 1},
            {"source": "web", "n": 1},
        ]
        lake.append(EVENTS[:1])
        assert lake.view("loud").to_pylist() == [
            {"source": "db", "n": 1},
            {"source": "web", "n": 2},
        ]


def test_what_was_found_is_shown(lake: lakelog.Lake) -> None:
    """The pattern that marks what was found marks words whole, and nothing that was excluded."""
    pattern = highlighter(parse('conn* "to 10" -refused level>=WARN'))
    assert pattern is not None
    message = str(EVENTS[0]["message"])
    assert pattern.findall(message) == ["Conn", "to 10"]
    assert highlighter(parse("level>=WARN -x")) is None


def test_no_search_makes_what_marks_it_slow() -> None:
    """A link may hold any search, and its page looks for it in each row: stars that could each
    stand for as much as the others must not be tried in all their ways."""
    many_stars = parse("a*" * 12 + 'z "b*c*d" e*f*g')
    pattern = highlighter(many_stars)
    assert pattern is not None
    assert pattern.search("a" * 3_000) is None
    found = [match[0] for match in pattern.finditer("a" * 40 + "z no e1f22g but ef")]
    assert found == ["a" * 40 + "z", "e1f22g"]


def test_many_terms_find_what_each_finds(home: Path) -> None:
    """Beyond sixteen terms all are tested over one text; what is found is the same."""
    numbers = range(40)
    with lakelog.open(home / "lake") as lake:
        lake.append(
            [{"type": "log", "message": f"w{n} Zoë", "data": {"a": n % 2}} for n in numbers]
        )
        either = " OR ".join(f"w{n}" for n in range(30))
        neither = " ".join(f"-w{n}" for n in range(30))

        def found(query: str) -> list[int]:
            rows = lake.search(query, limit=100).to_arrow_table()["message"].to_pylist()
            return sorted(int(message.split()[0][1:]) for message in rows)

        for _ in ("tail", "compacted"):
            assert found(either) == [*range(30)]
            assert found(neither) == [*range(30, 40)]
            assert found(f"({either}) a:1 -w3") == [n for n in range(1, 30, 2) if n != 3]
            assert found("*w*1* " * 16) == found("*w*1*")
            assert found(f"*{'*'.join('w1')}*") == found("*w*1*")
            lake.compact()


def test_errors_show_what_was_written(home: Path) -> None:
    """An error of a query with a search has no line of the condition that stands for it."""
    with lakelog.open(home / "lake") as lake:
        lake.append({"type": "log", "message": "hello"})
        for query in ("search('hello') AND AND", "search('hello') AND foo = 1"):
            with pytest.raises(QueryFailed) as caught:
                lake.sql(f"SELECT 1 FROM events WHERE {query}")
            assert "LINE" not in caught.value.details
            assert "Katakana" not in caught.value.details + str(caught.value)
