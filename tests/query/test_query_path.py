"""How many modules of `lakelog/query` a query goes through, and how often it comes back to one.

The figures are ceilings: a change may lower them. What is counted are calls of functions, of a
query with a new text in a session that has answered others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

import lakelog
from lakelog import Lake
from lakelog.query import session

_PACKAGE = str(Path(lakelog.__file__).parent / "query")
# By query: modules it enters, and returns to one that it has left.
_CEILINGS = {
    "SELECT count(*) AS {name} FROM events": (7, 6),
    "SELECT type, count(*) AS {name} FROM events GROUP BY type": (7, 8),
    "SELECT *, 1 AS {name} FROM events WHERE subject = 'u7'": (7, 8),
    "SELECT *, 1 AS {name} FROM events WHERE search('hello')": (7, 11),
    "SELECT count(*) AS {name} FROM events WHERE search('hello')": (7, 11),
    "SELECT *, 1 AS {name} FROM events ORDER BY time DESC LIMIT 10": (7, 8),
    "SELECT data->>'n' AS {name} FROM events": (8, 9),
}


def _modules_called(work: Callable[[], object]) -> list[str]:
    """Return the files of the package whose functions are called, one for each time it is entered
    from another."""
    entered: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(_PACKAGE) and entered[-1:] != [file]:
            entered.append(file)

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return entered


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = lakelog.open(tmp_path / "lake")
    for batch in range(2):
        lake.append(
            [
                {
                    "type": "login",
                    "subject": f"u{number}",
                    "id": f"{batch}-{number}",
                    "message": "hello world",
                    "data": {"n": number},
                }
                for number in range(20)
            ]
        )
        if batch == 0:
            lake.settle()
    return lake


@pytest.mark.parametrize("is_kept", [False, True], ids=["files", "kept"])
@pytest.mark.parametrize("query", list(_CEILINGS))
def test_a_query_goes_through_few_modules(
    lake: Lake, query: str, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query of a new text enters no more modules, and returns to them no more often, than it did
    when the path of a query was last made shorter."""
    if not is_kept:
        monkeypatch.setattr(session, "KEPT_EVENTS", 0)
    for number in range(8):
        lake.sql(query.format(name=f"before_{number}")).fetchall()
    entered = _modules_called(lambda: lake.sql(query.format(name="now")).fetchall())
    modules, returns = _CEILINGS[query]
    assert len(set(entered)) <= modules
    assert len(entered) - len(set(entered)) <= returns
