"""`%lakelog`, `%sql` and `%%sql` in a shell of IPython."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

import lakelog
from lakelog.notebook import objects
from tests.conftest import MakeLake
from tests.support.requirements import need_module

pytestmark = pytest.mark.matrix  # `make notebooks` plays all
EVENTS = [
    {"type": "COMPLETE", "source": "web", "message": "done", "data": {"ms": 10}},
    {"type": "COMPLETE", "source": "api", "message": "done", "data": {"ms": 20}},
    {"type": "FAIL", "source": "api", "message": "no route", "data": {"ms": 30}},
]


class Notebook:
    """A shell that runs cells and gives what they show."""

    def __init__(self) -> None:
        # A history has a thread and a file in the home directory, for good.
        self.shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
        self.shell.run_line_magic("load_ext", "lakelog")

    def run(self, cell: str) -> Any:
        """The result of a cell, whose error is raised."""
        with capture_output() as self.shown:
            outcome = self.shell.run_cell(cell)
        outcome.raise_error()
        return outcome.result

    def shows(self, cell: str) -> dict[str, Any]:
        """What the result of a cell is displayed as, by media type."""
        bundle: dict[str, Any] = self.shell.display_formatter.format(self.run(cell))[0]
        return bundle

    def error(self, cell: str) -> str:
        """The words that a cell which fails leaves."""
        with capture_output() as shown:
            outcome = self.shell.run_cell(cell)
        assert not outcome.success
        return str(shown.stdout + shown.stderr).strip()


@pytest.fixture
def notebook() -> Iterator[Notebook]:
    notebook = Notebook()
    yield notebook
    magics = notebook.shell.magics_manager.registry["LakelogMagics"]
    with contextlib.suppress(lakelog.LakelogError):
        magics.lake.close()
    notebook.shell.reset(new_session=False)


@pytest.fixture
def lake(make_lake: MakeLake) -> lakelog.Lake:
    lake = make_lake()
    lake.append(EVENTS)
    return lake


@pytest.fixture
def opened(notebook: Notebook, lake: lakelog.Lake) -> Notebook:
    notebook.run(f"%lakelog {lake.path}")
    return notebook


def test_line_and_cell(opened: Notebook) -> None:
    assert opened.run("%sql SELECT count(*) FROM events").fetchall() == [(3,)]
    answer = opened.run("%%sql\nSELECT source FROM events\nWHERE type = 'FAIL'")
    assert answer.fetchall() == [("api",)]


def test_answer_is_kept_in_a_variable(opened: Notebook) -> None:
    assert opened.run("%%sql failed <<\nSELECT * FROM events WHERE type = 'FAIL'") is None
    assert opened.run("len(failed), failed.df().shape[0], failed.pl().height") == (1, 1, 1)
    assert opened.run("counted = %sql SELECT count(*) FROM events\ncounted.fetchone()") == (3,)


def test_parameters_are_bound(opened: Notebook) -> None:
    opened.run("kind = \"FAIL' OR '1'='1\"\nlimit = 15")
    query = "SELECT count(*) FROM events WHERE type = $kind"
    assert opened.run(f"%sql {query}").fetchall() == [(0,)]
    found = opened.run("%sql SELECT count(*) FROM events WHERE CAST(data->>'ms' AS INT) > $limit")
    assert found.fetchall() == [(2,)]
    assert "no variable nothing for $nothing" in opened.error("%sql SELECT $nothing")
    assert "write $name" in opened.error("%sql SELECT ?")


_IN_A_FUNCTION = """
def source_of(kind):
    answer = %sql SELECT source FROM events WHERE type = $kind
    return answer.fetchall()

def sources_of(kind):
    answers = []
    for kind in (kind, "none"):
        answer = %sql SELECT count(*) FROM events WHERE type = $kind
        answers += answer.fetchone()
    return answers

def least(kind):
    limit = 15
    answer = %sql SELECT max(data->'ms') FROM events WHERE type = $kind AND 15 = $limit
    return answer.fetchone()
"""


def test_a_function_binds_its_own_variables(opened: Notebook) -> None:
    """Arguments and local variables come before variables of the notebook of the same name, which
    are used for names that the function lacks."""
    opened.run(_IN_A_FUNCTION)
    opened.run("kind, limit = 'COMPLETE', 0")
    assert opened.run("source_of('FAIL'), sources_of('FAIL')") == ([("api",)], [1, 0])
    assert opened.run("least('COMPLETE'), least('FAIL')") == (("20",), ("30",))
    opened.run("def ask():\n    answer = %sql SELECT $kind\n    return answer.fetchone()")
    assert opened.run("ask()") == ("COMPLETE",)
    opened.run("def ask(name):\n    answer = %sql SELECT $nothing\n    return answer")
    assert "no variable nothing for $nothing" in opened.error("ask(1)")


def test_a_function_reads_its_own_frames_and_lake(opened: Notebook, make_lake: MakeLake) -> None:
    """So are data frames, earlier answers, and an open lake in the variable `lake`."""
    need_module("pandas")
    opened.run("import pandas\nowners = pandas.DataFrame({'source': ['api'], 'owner': ['Ada']})")
    opened.run(
        "def ask(owners):\n"
        "    answer = %sql SELECT owner FROM events JOIN owners USING (source) LIMIT 1\n"
        "    first = %sql SELECT 'the ' || owner FROM answer\n"
        "    return first.fetchall()"
    )
    assert opened.run("ask(owners.assign(owner='Bob'))") == [("the Bob",)]
    other = make_lake("other")
    other.append(EVENTS[:1])
    notebook = Notebook()
    notebook.run(f"import lakelog\npath = {other.path!r}")
    notebook.run(
        "def count(lake):\n"
        "    answer = %sql SELECT count(*) FROM events\n"
        "    return answer.fetchone()"
    )
    with lakelog.open(other.path) as given:
        notebook.shell.user_ns["given"] = given
        notebook.run("lake = 'another thing'")
        assert notebook.run("count(given)") == (1,)
    notebook.shell.reset(new_session=False)


def test_a_function_keeps_answers_in_its_own_way(opened: Notebook) -> None:
    """`name <<` would set a variable of the notebook behind the function's back."""
    opened.run("def ask():\n    %sql kept << SELECT 1\n    return kept")
    assert "in a function write `kept = %sql ...`" in opened.error("ask()")
    assert "kept" not in opened.shell.user_ns


def test_frames_of_the_notebook_are_tables(opened: Notebook) -> None:
    need_module("polars")
    opened.run("import polars\nowners = polars.DataFrame({'source': ['api'], 'owner': ['Ada']})")
    answer = opened.run("%sql SELECT owner FROM events JOIN owners USING (source) LIMIT 1")
    assert answer.fetchall() == [("Ada",)]


def test_earlier_answer_is_a_table(opened: Notebook) -> None:
    opened.run("%%sql counted <<\nSELECT source, count(*) AS n FROM events GROUP BY 1")
    answer = opened.run("%sql SELECT max(n) FROM counted a JOIN counted b USING (source, n)")
    assert answer.fetchall() == [(2,)]


def test_state_of_a_tag(opened: Notebook, lake: lakelog.Lake) -> None:
    lake.tag("v1")
    lake.append(EVENTS)
    assert opened.run("%%sql --at v1\nSELECT count(*) FROM events").fetchall() == [(3,)]
    opened.run("%%sql --at v1 old <<\nSELECT count(*) FROM events")
    assert opened.run("old.fetchone()") == (3,)
    assert opened.run("%sql SELECT count(*) FROM events").fetchall() == [(6,)]
    assert "no tag, branch, snapshot or time 'v2'" in opened.error("%%sql --at v2\nSELECT 1")


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("SELECT tyype\nFROM events", "LINE 1: SELECT tyype\n               ^^^^^"),
        ("SELECT *\nFROM evnts", "LINE 2: FROM evnts\n             ^^^^^"),
        ("SELECT\n typ( FROM events", "LINE 2:  typ( FROM events\n              ^^^^"),
        (
            "SELECT CAST(type AS INT)\nFROM events",
            "LINE 1: SELECT CAST(type AS INT)\n               ^^^^^^^^^^^^^^^^^",
        ),
    ],
)
def test_caret_below_the_place(opened: Notebook, query: str, place: str) -> None:
    shown = opened.error(f"%%sql\n{query}")
    assert shown.endswith(place)
    assert "Traceback" not in shown


def test_answer_is_shown_with_its_types(opened: Notebook) -> None:
    shown = opened.shows("%sql SELECT source, 12 AS n, NULL AS nothing FROM events LIMIT 1")
    markup, plain = shown["text/html"], shown["text/plain"]
    assert "VARCHAR" in markup
    assert "text-align:right" in markup
    assert "NULL" in markup
    assert plain.splitlines()[-1] == "1 row"


def test_without_the_magic_the_variable_lake_is_asked(
    notebook: Notebook, lake: lakelog.Lake
) -> None:
    notebook.shell.user_ns["lake"] = lake
    assert notebook.run("%sql SELECT count(*) FROM events").fetchall() == [(3,)]


def test_the_variable_lake_is_asked_once_it_is_there(
    notebook: Notebook, make_lake: MakeLake, monkeypatch: Any
) -> None:
    """Also where a cell, or a completion, has asked the default lake before."""
    monkeypatch.setenv("LAKELOG_LAKE", make_lake("first").path)
    assert notebook.run("%sql SELECT count(*) FROM events").fetchall() == [(0,)]
    other = make_lake("other")
    other.append(EVENTS)
    notebook.run(f"import lakelog\nlake = lakelog.open({other.path!r})")
    assert notebook.run("%sql SELECT count(*) FROM events").fetchall() == [(3,)]
    notebook.run("lake.close()\ndel lake")
    assert notebook.run("%sql SELECT count(*) FROM events").fetchall() == [(0,)]


def test_live_answers_of_several_lakes_run_side_by_side(make_lake: MakeLake) -> None:
    """One query of two lakes, and with two values of its parameter."""
    query, lakes = "SELECT count(*) FROM events WHERE type = $1", [make_lake("a"), make_lake("b")]
    given = [(0, "FAIL"), (1, "FAIL"), (0, "COMPLETE"), (1, "FAIL")]
    with capture_output():
        seen = [lakelog.live(query, 60, lake=lakes[n], params=[value]) for n, value in given]
    # The last takes the place of the second, whose question is the same.
    assert [one.is_running for one in seen] == [True, False, True, True]
    for one in seen:
        one.stop()


def test_no_lake_is_one_line(notebook: Notebook, home: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(home)
    assert notebook.error("%sql SELECT 1").startswith("no lake at")
    assert notebook.error("%lakelog nowhere").startswith("no lake at")
    assert "is no verb" in notebook.error("%lakelog fly away")
    assert "--help is no verb" in notebook.error("%lakelog --help")
    unbalanced = notebook.error("%lakelog log 'a")
    assert unbalanced == "UsageError: no closing quotation in: log 'a"


def test_verbs_of_the_command_line(opened: Notebook, lake: lakelog.Lake) -> None:
    lake.tag("v1")
    table = opened.run("%lakelog tag --list").data
    assert table.startswith("<table")
    assert "v1" in table
    # Verbs of two words as well.
    table = opened.run("%lakelog policy show").data
    assert table.startswith("<table")
    opened.run("%lakelog log --json")
    assert '"op":"seal"' in opened.shown.stdout
    assert "ended with 1" in opened.error("%lakelog diff v1 nowhere")


def test_verbs_without_tables_are_shown_as_text(opened: Notebook) -> None:
    opened.run("%lakelog tail -n 1")
    assert " UTC\n" in opened.shown.stdout
    opened.run("%lakelog connect")
    assert "DuckDB's own shell" in opened.shown.stdout


def test_lake_and_records_are_tables(opened: Notebook, lake: lakelog.Lake) -> None:
    lake.tag("v1")
    opened.shell.user_ns["lake"] = lake
    for cell in ("lake", "lake.log()", "lake.tags()", "lake.at('v1')", "lake.snapshot()"):
        assert opened.shows(cell)["text/html"].startswith("<table"), cell
    for cell in ("[1, 2]", "[]", "('a', None)"):
        assert "text/html" not in opened.shows(cell), cell


@pytest.mark.parametrize(
    ("typed", "offer"),
    [
        ("%%sql\nSELECT sourc", "source"),
        ("%%sql\nSELECT *\nFROM eve", "events"),
        ("%sql SELECT count(*) FROM qua", "quarantine"),
        ("n = %sql SELECT approx_co", "approx_count_distinct("),
        ("%%sql\nSELECT *\nFROM types.C", "types.COMPLETE"),
        ("%%sql --at v", "v1"),
        ('%sql SELECT * FROM "v', '"v1".'),
    ],
)
def test_completion(opened: Notebook, lake: lakelog.Lake, typed: str, offer: str) -> None:
    lake.tag("v1")
    with provisionalcompleter():
        offers = [*opened.shell.Completer.completions(typed, len(typed))]
    texts = [typed[: each.start] + each.text for each in offers]
    assert any(text.endswith(offer.removeprefix('"')) for text in texts)


def test_completion_is_of_the_branch_that_is_open(notebook: Notebook, lake: lakelog.Lake) -> None:
    lake.branch("dev")
    query = "%sql SELECT * FROM types.only"
    for branch in ("main", "dev"):
        with lakelog.open(lake.path, branch=branch) as opened:
            opened.append({"type": f"only_{branch}"})
            opened.settle()
            notebook.shell.user_ns["lake"] = opened
            with provisionalcompleter():
                offers = notebook.shell.Completer.completions(query, len(query))
                assert f"only_{branch}" in {offer.text for offer in offers}


def test_completion_leaves_python_alone(opened: Notebook) -> None:
    with provisionalcompleter():
        offers = [each.text for each in opened.shell.Completer.completions("impor", 5)]
    assert "import" in offers
    assert "events" not in offers


def test_records_that_are_tables_exist() -> None:
    """They are named, not imported, when the extension is loaded."""
    for module, names in objects.RECORDS.items():
        for name in names.split():
            kind = getattr(importlib.import_module(f"lakelog.{module}"), name)
            assert dataclasses.is_dataclass(kind), name
