"""The faults that each target of a sync is tested with: the table ends equal to the lake.

A test class of a target inherits `TargetSuite` and has a fixture `place`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import document
from lakelog.analyze import dedupe
from lakelog.clients.connection import ConnectionLost
from lakelog.errors import QueryFailed, SyncRefused, Unreachable
from lakelog.maintain import retention
from lakelog.sync.comparison import check
from lakelog.sync.sync import status
from lakelog.sync.target import SyncTarget
from lakelog.volume import MovePack
from tests.support.lakes import EXOTIC, copied, opened
from tests.support.sync_places import Faulty, Place, expected, forked, kill, synced

POINTS = [
    (method, moment, number)
    for method, numbers in {
        "begin": (1, 2),
        "create": (1,),
        "write": (1, 3),
        "commit": (1, 2, 3),
    }.items()
    for number in numbers
    for moment in ("before", "after")
]
REWOUND = [
    (method, moment, 1)
    for method in ("begin", "delete", "write", "commit")
    for moment in ("before", "after")
]


def add(path: str, name: str, count: int, **columns: Any) -> None:
    """Append events and publish them as a segment."""
    with opened(path) as lake:
        lake.append(
            [
                {"type": name, "message": f"{name} {i}", "data": {"n": i}, **columns}
                for i in range(count)
            ]
        )
        lake.settle()


def three_segments(path: str) -> None:
    """A lake of three segments, the first one tagged."""
    add(path, "a", 40)
    with opened(path) as lake:
        lake.tag("base")
    for name in "bc":
        add(path, name, 40)


def four_segments(path: str) -> None:
    """A lake of four segments, the first two tagged."""
    for name in "ab":
        add(path, name, 40)
    with opened(path) as lake:
        lake.tag("base")
    for name in "cd":
        add(path, name, 40)


def rewind(path: str) -> None:
    """Take a lake back, and let other events have the numbers of those that are gone."""
    with opened(path) as lake:
        lake.rollback("base")
    add(path, "after", 40)


def collect(path: str, snapshot: str) -> None:
    """Delete a state and whatever carries it, as gc does when it is old; its moves stay."""
    with opened(path) as lake:
        paths = lake.store.paths
    with contextlib.suppress(FileNotFoundError):
        os.remove(paths.object("manifests", snapshot))
    for name in os.listdir(paths.head_dir("main")):
        move = Path(paths.head_dir("main"), name)
        head, text = document.split(move.read_bytes())
        if text and snapshot.encode() in head:
            move.write_bytes(head)


def drop_move(path: str, number: int) -> None:
    """Pack the moves up to this one, and drop it with its state, as gc does."""
    with opened(path) as lake:
        paths = lake.store.paths
    files = {n: Path(paths.move("main", n)) for n in range(1, number + 1)}
    moves = {n: document.split(file.read_bytes())[0] for n, file in files.items()}
    gone = document.decode(moves.pop(number))["snapshot"]
    data = MovePack("main", 1, number).encode(moves)
    Path(paths.packed("main", 1, number)).write_bytes(data)
    for file in files.values():
        file.unlink()
    with contextlib.suppress(FileNotFoundError):
        os.remove(paths.object("manifests", gone))


def lose(target: SyncTarget) -> None:
    """Break the connection, as a server does that goes away."""
    target.close()
    raise ConnectionLost("the connection broke")


def restored_from_a_backup(path: str, home: Path, place: Place) -> None:
    """Let a lake lose events that a target has, and go on with as many others."""
    backup = shutil.copytree(path, home / "backup")
    add(path, "lost", 7)
    synced(path, place.url)
    shutil.rmtree(path)
    shutil.copytree(backup, path)
    add(path, "after", 7)


class TargetSuite:
    """Faults and changes of the lake."""

    TEXT = "TEXT"

    @pytest.fixture
    def place(self) -> Place:
        raise AssertionError

    @pytest.fixture
    def path(self, home: Path) -> str:
        """A lake of four segments, the first two tagged."""
        return copied(four_segments, home)

    def check(self, path: str, place: Place) -> None:
        """The table is the mapping over the lake, and the watermark counts its rows."""
        result = synced(path, place.url)
        assert place.rows() == expected(path)
        assert result.total == len(place.rows())
        assert synced(path, place.url).commits == 0

    # --- the syncing process is killed, its connection breaks --------------------------------

    @pytest.mark.matrix
    @pytest.mark.parametrize(("method", "moment", "number"), POINTS)
    def test_crash_recovery_in_a_back_fill(
        self, path: str, place: Place, method: str, moment: str, number: int
    ) -> None:
        target = Faulty(place.target(), method, moment, number, kill)
        assert forked(lambda: synced(path, target)) == -9
        self.check(path, place)

    @pytest.mark.matrix
    @pytest.mark.parametrize(("method", "moment", "number"), REWOUND)
    def test_crash_recovery_while_a_rewind_is_propagated(
        self, path: str, place: Place, method: str, moment: str, number: int
    ) -> None:
        synced(path, place.url)
        rewind(path)
        target = Faulty(place.target(), method, moment, number, kill)
        assert forked(lambda: synced(path, target)) == -9
        self.check(path, place)

    @pytest.mark.matrix
    @pytest.mark.parametrize(("method", "moment", "number"), POINTS)
    def test_retry_after_a_lost_connection(
        self, path: str, place: Place, method: str, moment: str, number: int
    ) -> None:
        """After commit: the reply is lost, and the rows are there."""
        target, said = Faulty(place.target(), method, moment, number, lose), list[str]()
        synced(path, target, say=said.append)
        assert target.has_struck
        assert len(said) == 1
        self.check(path, place)

    @pytest.mark.matrix
    @pytest.mark.parametrize(("method", "moment", "number"), REWOUND)
    def test_retry_after_a_lost_connection_in_a_rewind(
        self, path: str, place: Place, method: str, moment: str, number: int
    ) -> None:
        synced(path, place.url)
        rewind(path)
        target = Faulty(place.target(), method, moment, number, lose)
        synced(path, target)
        assert target.has_struck
        self.check(path, place)

    @pytest.mark.matrix
    @pytest.mark.parametrize("change", ["rewind", "compact", "retention", "add"])
    def test_crash_recovery_when_the_lake_changed_meanwhile(
        self, path: str, place: Place, change: str
    ) -> None:
        """Between the second batch of a back-fill and the next run."""
        target = Faulty(place.target(), "commit", "after", 2, kill)
        assert forked(lambda: synced(path, target)) == -9
        CHANGES[change](path)
        self.check(path, place)

    def test_gives_up_after_some_attempts(self, path: str, place: Place) -> None:
        target = place.target()
        target.watermarks = lambda: lose(target)  # type: ignore[method-assign, assignment]
        with pytest.raises(Unreachable, match="tried 2 times"):
            synced(path, target, retries=1)
        self.check(path, place)

    # --- the lake changes -------------------------------------------------------------------

    @pytest.mark.matrix
    @pytest.mark.parametrize("mode", ["upsert", "append"])
    @pytest.mark.parametrize("change", ["add", "rewind", "undo", "compact", "retention", "dedupe"])
    def test_incremental(self, path: str, place: Place, change: str, mode: str) -> None:
        synced(path, place.url, mode=mode)
        CHANGES[change](path)
        result = synced(path, place.url, mode=mode)
        assert place.rows() == expected(path)
        assert not result.is_rebuilt
        assert result.total == len(place.rows())

    @pytest.mark.parametrize("change", ["rewind", "retention", "dedupe"])
    def test_refuses_what_it_was_told_not_to_propagate(
        self, path: str, place: Place, change: str
    ) -> None:
        synced(path, place.url)
        before = place.rows()
        CHANGES[change](path)
        with pytest.raises(SyncRefused, match=r"rollback, retention or dedupe.*--on-rewind propag"):
            synced(path, place.url, on_rewind="refuse")
        assert place.rows() == before
        self.check(path, place)

    @pytest.mark.parametrize("change", ["add", "compact"])
    def test_growth_and_compaction_are_no_rewind(
        self, path: str, place: Place, change: str
    ) -> None:
        synced(path, place.url, on_rewind="refuse")
        CHANGES[change](path)
        result = synced(path, place.url, on_rewind="refuse")
        assert result.written == (40 if change == "add" else 0)
        assert place.rows() == expected(path)

    def test_rollback_to_another_branch(self, path: str, place: Place) -> None:
        synced(path, place.url)
        with opened(path) as lake:
            other = lake.branch("other", "base")
            other.append([{"type": "other", "message": str(i)} for i in range(100)])
            other.settle()
            other.close()
            lake.rollback("other")
        self.check(path, place)

    @pytest.mark.parametrize("rewound", [False, True])
    def test_older_state_that_was_collected(self, path: str, place: Place, rewound: bool) -> None:
        synced(path, place.url)
        (rewind if rewound else lambda path: add(path, "e", 7))(path)
        collect(path, json.loads(place.ask("SELECT watermark FROM lakelog_sync")[0][0])["snapshot"])
        result = synced(path, place.url)
        assert (result.is_rebuilt, result.written) == ((True, 120) if rewound else (False, 7))
        self.check(path, place)

    @pytest.mark.parametrize("is_other", [False, True])
    def test_move_that_was_dropped(
        self, path: str, home: Path, place: Place, *, is_other: bool
    ) -> None:
        """The last event tells whether the history is still the one that was synced."""
        backup = shutil.copytree(path, home / "backup")
        add(path, "d", 7)
        synced(path, place.url)
        if is_other:
            shutil.rmtree(path)
            shutil.copytree(backup, path)
            add(path, "o", 7)
        add(path, "e", 7)
        drop_move(path, json.loads(place.ask("SELECT watermark FROM lakelog_sync")[0][0])["move"])
        result = synced(path, place.url)
        assert (result.is_rebuilt, result.written) == ((True, 174) if is_other else (False, 7))
        self.check(path, place)

    def test_lake_restored_from_a_backup(self, path: str, home: Path, place: Place) -> None:
        """It went on with as many other events, under the same numbers as those that are gone."""
        restored_from_a_backup(path, home, place)
        with lakelog.open(path) as lake:
            found = status(lake, place.url)[0]
        assert "another history" in found.note
        assert found.events_behind == 167
        before = place.rows()
        with pytest.raises(SyncRefused, match="another history, as after it was restored"):
            synced(path, place.url, on_rewind="refuse")
        assert place.rows() == before
        said = list[str]()
        assert synced(path, place.url, say=said.append).is_rebuilt
        assert "another history" in said[0]
        self.check(path, place)

    def test_table_that_was_emptied(self, path: str, place: Place) -> None:
        synced(path, place.url)
        place.ask("DELETE FROM events")
        with lakelog.open(path) as lake:
            found = status(lake, place.url)[0]
        assert (found.rows, found.events_behind) == (0, 160)
        assert "emptied" in found.note
        with pytest.raises(SyncRefused, match="the table was emptied"):
            synced(path, place.url, on_rewind="refuse")
        synced(path, place.url)
        self.check(path, place)

    # --- what is mapped ---------------------------------------------------------------------

    def test_values_of_every_kind(self, home: Path, place: Place) -> None:
        path = str(home / "exotic")
        with opened(path) as lake:
            lake.append(EXOTIC)
        synced(path, place.url)
        found = place.rows()
        wanted = [tuple(self.text(value) for value in row) for row in expected(path)]
        assert found == wanted

    def text(self, value: Any) -> Any:
        """A value as this database can hold it."""
        return value

    def test_query_maps_and_filters(self, path: str, place: Place) -> None:
        query = (
            "SELECT upper(message) AS words, (data->>'n')::INT AS n FROM events WHERE type <> 'b'"
        )
        synced(path, place.url, query=query)
        rewind(path)
        synced(path, place.url, query=query)
        columns = "upper(message), (data->>'n')::INT, seq"
        assert place.rows(columns="words, n, seq") == expected(path, columns, "type <> 'b'")

    def test_new_column_of_the_mapping_is_added(self, path: str, place: Place) -> None:
        synced(path, place.url, query="SELECT seq, type FROM events")
        wider = "SELECT seq, type, message FROM events"
        with pytest.raises(SyncRefused, match="mapping is another one"):
            synced(path, place.url, query=wider, on_rewind="refuse")
        assert synced(path, place.url, query=wider).is_rebuilt
        assert place.rows(columns="seq, type, message") == expected(path, "seq, type, message")

    @pytest.mark.parametrize(
        "query",
        [
            "SELECT count(*) FROM events",
            "SELECT type, max(time) FROM events GROUP BY type",
            "SELECT DISTINCT type FROM events",
            "FROM events LIMIT 3",
            "SELECT row_number() OVER () FROM events",
            "SELECT now() FROM events",
            "SELECT random() FROM events",
            "SELECT nope FROM events",
            "SELECT 1; SELECT 2",
            "DELETE FROM events",
            "SELECT type AS a, message AS a FROM events",
        ],
    )
    def test_refuses_a_query_whose_rows_are_no_events(
        self, path: str, place: Place, query: str
    ) -> None:
        with pytest.raises(QueryFailed):
            synced(path, place.url, query=query)

    def test_tables_of_one_target_are_independent(self, path: str, place: Place) -> None:
        synced(path, place.url)
        synced(path, place.url, table="second", query="SELECT * FROM events WHERE type = 'a'")
        add(path, "a", 3)
        with lakelog.open(path) as lake:
            found = {each.table: each for each in status(lake, place.url)}
        assert {name: each.events_behind for name, each in found.items()} == {
            "events": 3,
            "second": 3,
        }
        assert found["events"].seconds_behind
        synced(path, place.url)
        with lakelog.open(path) as lake:
            found = {each.table: each for each in status(lake, place.url)}
        assert (found["events"].events_behind, found["events"].seconds_behind) == (0, 0)

    # --- the target is not as it should be ----------------------------------------------------

    def test_column_of_another_type(self, path: str, place: Place) -> None:
        place.ask(f"CREATE TABLE events (seq BIGINT PRIMARY KEY, message BIGINT, type {self.TEXT})")
        with pytest.raises(
            SyncRefused, match=r"column message is (?i:bigint)\S*, where \w+ is needed"
        ):
            synced(path, place.url)
        assert place.ask("SELECT count(*) FROM events") == [(0,)]

    def test_column_that_was_dropped(self, path: str, place: Place) -> None:
        query = "SELECT seq, type, message FROM events"
        synced(path, place.url, query=query)
        place.ask("ALTER TABLE events DROP COLUMN message")
        with lakelog.open(path) as lake:
            assert status(lake, place.url)[0].note == "a column was dropped by somebody else"
            assert status(lake, place.url)[0].events_behind == 160
        with pytest.raises(SyncRefused, match="a column was dropped"):
            synced(path, place.url, query=query, on_rewind="refuse")
        # A sync that is killed once the column is there again has filled it for no row.
        target = Faulty(place.target(), "extend", "after", 1, kill)
        assert forked(lambda: synced(path, target, query=query)) == -9
        assert synced(path, place.url, query=query).is_rebuilt
        with lakelog.open(path) as lake:
            assert not status(lake, place.url)[0].note
        assert place.rows(columns="seq, type, message") == expected(path, "seq, type, message")

    @pytest.mark.parametrize(
        ("constraint", "words"),
        [("UNIQUE", "(?i)unique|duplicate"), ("CHECK (message <> 'c 7')", "(?i)check|constraint")],
    )
    def test_constraint_that_a_row_violates(
        self, path: str, place: Place, constraint: str, words: str
    ) -> None:
        """Earlier batches stay, the failed one leaves nothing; then it goes on where it was."""
        place.ask(f"CREATE TABLE events (seq BIGINT PRIMARY KEY, message {self.TEXT} {constraint})")
        if constraint == "UNIQUE":
            add(path, "d", 40)
        query = "SELECT seq, message FROM events"
        with pytest.raises(SyncRefused, match=words) as caught:
            synced(path, place.url, query=query)
        assert "\n" not in str(caught.value)
        assert len(place.rows(columns="seq")) % 40 == 0
        assert (
            place.rows(columns="seq, message")
            == expected(path, "seq, message")[: len(place.rows(columns="seq"))]
        )
        place.ask("DROP TABLE events")
        place.ask("DELETE FROM lakelog_sync")
        synced(path, place.url, query=query)
        assert place.rows(columns="seq, message") == expected(path, "seq, message")

    def test_refused_rows_go_to_the_quarantine(self, path: str, place: Place) -> None:
        """All others are there, and a later sync goes on; each refused row is kept once."""
        place.ask(
            f"CREATE TABLE events (seq BIGINT PRIMARY KEY, message {self.TEXT}"
            " CHECK (message NOT IN ('a 7', 'b 39', 'c 0')))"
        )
        options = {"query": "SELECT seq, message FROM events", "on_error": "quarantine"}
        assert synced(path, place.url, **options).quarantined == 3
        add(path, "e", 3)
        assert synced(path, place.url, **options).quarantined == 0
        where = "message NOT IN ('a 7', 'b 39', 'c 0')"
        assert place.rows(columns="seq, message") == expected(path, "seq, message", where)
        with opened(path) as lake:
            query = "SELECT position, reason, line FROM quarantine ORDER BY position"
            found = lake.sql(query).fetchall()
        assert [row[0] for row in found] == [7, 79, 80]
        assert re.search("(?i)check|constraint", found[0][1])
        assert json.loads(found[0][2]) == {"seq": 7, "message": "a 7"}

    def test_table_with_rows_of_somebody_else(self, path: str, place: Place) -> None:
        place.ask(f"CREATE TABLE events (seq BIGINT PRIMARY KEY, message {self.TEXT})")
        place.ask("INSERT INTO events VALUES (7, 'mine')")
        with pytest.raises(SyncRefused, match="rows that no sync wrote"):
            synced(path, place.url)
        assert place.rows(columns="seq, message") == [(7, "mine")]

    def test_upsert_replaces_rows_of_the_same_key(self, path: str, place: Place) -> None:
        synced(path, place.url)
        place.ask("INSERT INTO events (seq, message) VALUES (163, 'mine')")
        add(path, "e", 10)
        synced(path, place.url)
        assert place.rows() == expected(path)

    def test_table_without_key(self, path: str, place: Place) -> None:
        place.ask("CREATE TABLE events (seq BIGINT)")
        with pytest.raises(SyncRefused, match="not a unique key"):
            synced(path, place.url)
        synced(path, place.url, mode="append")
        assert place.rows() == expected(path)

    def test_table_that_is_gone(self, path: str, place: Place) -> None:
        synced(path, place.url)
        place.ask("DROP TABLE events")
        with pytest.raises(SyncRefused, match="the table is gone"):
            synced(path, place.url)
        place.ask("DELETE FROM lakelog_sync")
        self.check(path, place)

    def test_table_of_another_lake(self, path: str, home: Path, place: Place) -> None:
        synced(path, place.url)
        add(str(home / "other"), "x", 3)
        with pytest.raises(SyncRefused, match="synced from another lake"):
            synced(str(home / "other"), place.url)
        self.check(path, place)

    def test_check_finds_and_repairs_what_differs(self, path: str, place: Place) -> None:
        with opened(path) as lake:
            lake.append(EXOTIC)
        synced(path, place.url)
        with lakelog.open(path) as lake:
            assert check(lake, place.url)[0].is_equal
            place.ask("DELETE FROM events WHERE seq IN (3, 5)")
            place.ask("UPDATE events SET message = 'mine' WHERE seq IN (7, 8, 9)")
            place.ask("UPDATE events SET seq = 100000 WHERE seq = 11")
            found = check(lake, place.url)[0]
            assert (found.missing, found.extra, found.different) == (3, 1, 3)
            assert check(lake, place.url, "events", repair=True)[0].is_repaired
            assert check(lake, place.url)[0].is_equal
        assert [row[0] for row in place.rows()] == [row[0] for row in expected(path)]
        add(path, "e", 3)
        assert synced(path, place.url).total == len(place.rows())

    def test_check_of_numbers_that_a_database_may_not_have(self, path: str, place: Place) -> None:
        query = """SELECT CASE seq WHEN 1 THEN -0.0::DOUBLE WHEN 2 THEN 'nan'::DOUBLE
            WHEN 3 THEN '-inf'::DOUBLE ELSE 1e300 END AS n, -0.0::FLOAT AS short FROM events"""
        synced(path, place.url, query=query)
        with lakelog.open(path) as lake:
            assert check(lake, place.url)[0].is_equal

    def test_watermark_of_a_later_version(self, path: str, place: Place) -> None:
        synced(path, place.url)
        place.ask("""UPDATE lakelog_sync SET watermark = '{"shape": 9}'""")
        with pytest.raises(lakelog.LakelogError, match="upgrade lakelog"):
            synced(path, place.url)

    def test_concurrent_syncs_write_each_event_once(self, path: str, place: Place) -> None:
        """Another sync commits between the reading of the watermark and the transaction."""
        ran = []

        def meanwhile(target: SyncTarget) -> None:
            if not ran:
                ran.append(True)
                target.close()
                synced(path, place.url)
                target.connect()

        result = synced(path, Faulty(place.target(), "begin", "before", 1, meanwhile))
        assert (ran, result.written) == ([True], 0)
        self.check(path, place)


def _undo(path: str) -> None:
    rewind(path)
    with opened(path) as lake:
        lake.undo(force=True)


def _compact(path: str) -> None:
    with opened(path) as lake:
        lake.settle()
        assert lake.compact().removed


def _retention(path: str) -> None:
    with opened(path) as lake:
        times = lake.sql("SELECT epoch_us(max(time)) AS t FROM events WHERE type = 'a'")
        cutoff = times.to_arrow_table()["t"][0].as_py() + 1
        retention.apply(lake.store, lake.branch_name, cutoff, lake.engine)


def _dedupe(path: str) -> None:
    add(path, "d", 40)
    with opened(path) as lake:
        dedupe.apply(lake, dedupe.plan(lake, "type,message", "last"))


CHANGES: dict[str, Callable[[str], None]] = {
    "add": lambda path: add(path, "e", 40),
    "rewind": rewind,
    "undo": _undo,
    "compact": _compact,
    "retention": _retention,
    "dedupe": _dedupe,
}
