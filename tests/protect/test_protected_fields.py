"""Protected fields: with the keys every reader has them, without them they are in no byte."""

from __future__ import annotations

import contextlib
import datetime
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import InvalidEvent, InvalidKey, InvalidSetting
from lakelog.event import EncodedBatch
from lakelog.keys.subject_keys import SubjectKeys
from lakelog.loggers.buffer import DiskBuffer
from lakelog.proofs import snapshot_tree
from lakelog.protect import sealed_blocks
from lakelog.protect.protection import PROTECTIONS
from lakelog.segments import segment
from tests.support import encrypted, protected
from tests.support.cli import answer, run
from tests.support.protected import PLANTED, ROWS, payloads, shown, without_keys


def test_a_stream_has_its_fields_before_it_is_sealed_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same events, whether all of them are in the tail or in segments."""
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        lake.append([protected.event(1)], expect={"s1": 0})
        before = lake.stream("s1").events
        assert json.loads(str(before[0]["data"])) == protected.payload(1)
        with without_keys(tmp_path):
            assert PLANTED not in str(lake.stream("s1").events)
        lake.settle()
        assert lake.stream("s1").events == before


def test_no_word_of_a_protected_field_is_in_any_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the tail, sealed, indexed, compacted, tagged, in views, quarantine, a logger's buffer, a
    backup, a remote and a clone; and the same rows everywhere, with the keys."""
    root = tmp_path / "lake"
    places = [root, tmp_path / "copy", tmp_path / "remote", tmp_path / "clone"]
    found: list[str] = []

    def look(expected: range) -> None:
        assert payloads(lake) == shown(expected)
        found.extend(hit for place in places if place.exists() for hit in searched(place))

    def searched(place: Path) -> list[str]:
        return encrypted.found(place, [PLANTED])

    with protected.create(root, monkeypatch) as lake:
        protected.append(lake, range(30))
        look(range(30))
        lake.settle()
        protected.append(lake, range(30, 1200))
        lake.settle()
        look(range(1200))
        (tmp_path / "in.jsonl").write_text(
            "".join(json.dumps(protected.event(n)) + "\n" for n in range(1200, 1250))
            + f"no event: {PLANTED}\n"
        )
        lake.ingest(str(tmp_path / "in.jsonl"))
        assert lake.sql("SELECT line FROM quarantine").fetchall() == [(f"no event: {PLANTED}",)]
        lake.tag("v1")
        lake.compact()
        look(range(1250))
        (tmp_path / "mine.sql").write_text(
            "SELECT data->>'email' AS email FROM events WHERE subject = 's1'"
        )
        run(root, "view", "create", "mine", str(tmp_path / "mine.sql"))
        assert lake.view("mine")["email"][0].as_py() == f"{PLANTED}1@example.org"
        assert lake.view("status").num_rows
        assert len(lake.sql(f"SELECT 1 FROM events WHERE search('{PLANTED}')").fetchall()) == 1250
        # The engine would write rows for which it has no room in plain.
        assert lake.sql("SELECT current_setting('temp_directory')").fetchone() == ("",)
        count = f"SELECT count(*) FROM events WHERE search('{PLANTED}3')"
        assert lake.sql(count).fetchall() == [(250,)]
        buffer = DiskBuffer(f"{root}/cache/buffer")
        buffer.add([EncodedBatch.of([protected.event(1250)]).text])
        buffer.close()
        lake.backup(tmp_path / "copy")
        run(root, "remote", "add", "origin", (tmp_path / "remote").as_uri())
        run(root, "push")
        lake.rollback("v1")
        look(range(1250))
        assert payloads(lake.at("v1")) == shown(range(1250))
    run(tmp_path / "none", "clone", (tmp_path / "remote").as_uri(), str(tmp_path / "clone"))
    for place in (tmp_path / "clone", tmp_path / "copy"):
        with lakelog.open(place) as copy:
            assert payloads(copy) == shown(range(1250))
    found.extend(hit for place in places for hit in searched(place))
    assert found == []


def test_without_keys_fields_are_null_and_rows_move_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compaction, retention and removal take the blocks along that their rows name."""
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        for start in (0, 20, 40):
            protected.append(lake, range(start, start + 20))
            lake.settle()
        with without_keys(tmp_path):
            lake.compact()
            rows = lake.sql("SELECT data->>'email', data->>'plan' FROM events").fetchall()
            assert rows == [(None, "pro")] * 60
            with pytest.raises(InvalidKey, match=r"is missing, which has the keys"):
                lake.append(protected.event(60))
            lake.append({"type": "OTHER", "data": {"n": -1}})
        assert payloads(lake)[1:] == shown(range(60))


def test_erase_destroys_the_key_in_every_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row is written again; what comes later has another key, what is older is refused."""
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        protected.append(lake, range(10))
        lake.settle()
        protected.append(lake, range(10, 20))
        lake.backup(tmp_path / "copy")
        segments = sorted((tmp_path / "lake/segments").rglob("*.parquet"))
        preview = lake.preview_erasure(subject=["s1", "s2"])
        assert (preview.keys, preview.events) == (2, 0)
        assert lake.erase(subject=["s1", "s2"], why="asked").is_done
        assert sorted((tmp_path / "lake/segments").rglob("*.parquet")) == segments
        gone = ("s1", "s2")
        assert payloads(lake) == shown(range(20), gone)
        with lakelog.open(tmp_path / "copy") as copy:
            assert payloads(copy) == shown(range(20), gone)
        lake.compact()
        assert payloads(lake) == shown(range(20), gone)
        old = {**protected.event(21), "time": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)}
        with pytest.raises(InvalidEvent, match="was erased"):
            lake.append(old)
        (tmp_path / "in.jsonl").write_text(
            json.dumps({**protected.event(21), "time": "2020-01-01T00:00:00Z"}) + "\n"
        )
        lake.ingest(str(tmp_path / "in.jsonl"))
        lake.append(protected.event(21))
        lake.compact()
        assert payloads(lake) == [*shown(range(20), gone), *shown(range(21, 22))]
        (status,) = lake.erasures()
        assert status.is_done
        receipt = json.loads(lake.erasure_receipt(status.erasure.key))
        assert '"erased": "keys"' in json.dumps(receipt)
        assert len(status.erasure.subjects) == 2


def test_a_reader_from_before_an_erasure_shows_nobody_the_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it opens with the keys of then is not given to those who read with the keys of now."""
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        protected.append(lake, range(10))
        lake.settle()
        (entry,) = lake.store.manifests.segments(lake.store.state("main"), "events")
        stored = segment.Segment(lake.store.paths, entry.key).read().to_pylist()
        tokens = [json.loads(row["data"])["$sealed"] for row in stored if row["subject"] == "s1"]
        fields = sealed_blocks.of_lake(lake.store.paths)
        assert fields is not None
        fields.expect([entry.key])
        ciphers = fields.refresh()
        assert ciphers is not None
        lake.erase(subject="s1", why="asked")
        assert sealed_blocks.of_lake(lake.store.paths) is fields
        assert fields.refresh() is not ciphers
        opened = [fields.members(ciphers, "s1", token) for token in tokens]
        assert all(members and PLANTED.encode() in members[0] for members in opened)
        assert payloads(lake) == shown(range(10), ("s1",))


def test_rows_are_erased_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others keep their fields."""
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        protected.append(lake, range(20))
        status = lake.erase(subject="s1", why="asked", rows=True)
        assert status.erasure.events == 4
        assert payloads(lake) == [row for row in shown(range(20)) if row[0] != "s1"]


def test_an_erasure_that_was_killed_is_ended_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its note stands first; until the key is destroyed the status says that it is not done."""
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        protected.append(lake, range(10))
        path = protected.key_file(tmp_path)
        lock = Path(f"{path}.lock")
        lock.unlink()
        lock.mkdir()  # the file of keys cannot be replaced
        with pytest.raises(OSError, match="lock"):
            lake.erase(subject="s1", why="asked")
        lock.rmdir()
        assert payloads(lake) == shown(range(10))
        assert [status.is_done for status in lake.erasures()] == [False]
        assert lake.erase(subject="s1", why="asked").is_done
        assert payloads(lake) == shown(range(10), ("s1",))
        assert len(lake.erasures()) == 1


def test_wrong_files_of_keys_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damaged, of another lake, older, and under another master key: one line each, no rows."""
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        protected.append(lake, range(10))
        path = protected.key_file(tmp_path)
        whole = path.read_bytes()

        def refused(data: bytes) -> str:
            path.write_bytes(data)
            with pytest.raises(InvalidKey) as error:
                lake.sql("SELECT data FROM events").fetchall()
            return str(error.value)

        for place in random.Random(1).sample(range(len(whole)), 20):
            flipped = bytes([whole[place] ^ 1])
            assert str(path) in refused(whole[:place] + flipped + whole[place + 1 :])
        refused(whole[:-1])
        path.write_bytes(whole)
        lake.erase(subject="s1", why="asked")
        newest = path.read_bytes()
        assert "an older file of keys" in refused(whole)
        path.write_bytes(newest)
        assert payloads(lake) == shown(range(10), ("s1",))
        monkeypatch.setenv("LAKELOG_KEY", "77" * 32)
        PROTECTIONS[lake.path]._file = None
        assert "cannot be opened" in refused(newest)
        monkeypatch.setenv("LAKELOG_KEY", encrypted.KEY)
        with lakelog.open(tmp_path / "other") as other:
            other.protect(["email"])
            own = Path(SubjectKeys.path_of(PROTECTIONS[other.path].id))
            assert "of another lake" in refused(own.read_bytes())


def test_what_is_there_is_sealed_by_compaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a lake that another program has open seals from its next append on."""
    protected.keys_in(tmp_path, monkeypatch)
    with lakelog.open(tmp_path / "lake") as lake:
        protected.append(lake, range(10))
        lake.settle()
        run(tmp_path / "lake", "config", "protect", *protected.FIELDS)
        PROTECTIONS.clear()
        protected.append(lake, range(10, 20))
        lake.settle()
        assert "before the fields were protected" in str(lake.preview_erasure(subject="s1"))
    with lakelog.open(tmp_path / "lake") as lake:
        lake.compact()
        assert payloads(lake) == shown(range(20))
        plain = encrypted.found(tmp_path / "lake" / "segments", [PLANTED])
        assert plain, "segments of before stay until gc"
        state = lake.store.state("main")
        for entry in lake.store.manifests.segments(state, "events"):
            path = Path(lake.store.paths.object("segments", entry.key))
            assert [hit for hit in plain if hit.startswith(f"{path}: ")] == []
    assert '"there":true' in run(tmp_path / "lake", "key", "show").stdout
    assert answer(tmp_path / "lake", "sql", "SELECT count(*) AS n FROM events") == [{"n": 20}]


def test_rows_are_sealed_and_merged_where_the_keys_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper without the master key moves rows as one without any keys; a query says why."""
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        protected.append(lake, range(10))
        lake.settle()
        protected.append(lake, range(10, 20))
        path = protected.key_file(tmp_path)
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        lake.settle()
        lake.compact()
        with pytest.raises(InvalidKey, match="damaged"):
            lake.sql("SELECT data FROM events")
        path.write_bytes(whole)
        assert payloads(lake) == shown(range(20))


def test_lakes_that_diverged_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are written again after those of a remote keep their fields, keys or not."""
    remote = (tmp_path / "remote").as_uri()
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        protected.append(lake, range(10))
    run(tmp_path / "lake", "remote", "add", "origin", remote)
    run(tmp_path / "lake", "push")
    run(tmp_path / "none", "clone", remote, str(tmp_path / "clone"))
    with lakelog.open(tmp_path / "clone") as clone:
        protected.append(clone, range(10, 20))
        clone.settle()
        clone.compact()
    with lakelog.open(tmp_path / "lake") as lake:
        protected.append(lake, range(20, 30))
    run(tmp_path / "lake", "push")
    with without_keys(tmp_path):
        run(tmp_path / "clone", "pull", "--merge")
    run(tmp_path / "clone", "push")
    run(tmp_path / "none", "clone", remote, str(tmp_path / "fresh"))
    for name in ("clone", "fresh"):
        with lakelog.open(tmp_path / name) as clone:
            assert payloads(clone) == shown(range(30))


def test_a_push_of_a_clone_keeps_how_many_keys_were_destroyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lake at the remote goes on refusing a file of keys from before."""
    remote = tmp_path / "remote"
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        protected.append(lake, range(10))
        lake.settle()
        path = protected.key_file(tmp_path)
        older = path.read_bytes()
        lake.erase(subject="s1", why="asked")
    run(tmp_path / "lake", "remote", "add", "origin", remote.as_uri())
    run(tmp_path / "lake", "push")
    run(tmp_path / "none", "clone", remote.as_uri(), str(tmp_path / "clone"))
    with lakelog.open(tmp_path / "clone") as clone:
        protected.append(clone, range(10, 20))
    run(tmp_path / "clone", "push")
    path.write_bytes(older)
    with lakelog.open(remote) as there, pytest.raises(InvalidKey, match="older file of keys"):
        there.sql(ROWS)


_LEARNERS: dict[str, Callable[[lakelog.Lake], list[str]]] = {
    "sql": lambda lake: [data for _, data in lake.sql(ROWS).fetchall()],
    "lookup": lambda lake: _column(lake, "FROM events WHERE subject IN ('s0', 's3') ORDER BY seq"),
    "quarantine": lambda lake: _column(lake, "FROM events, quarantine ORDER BY seq"),
    "ref": lambda lake: _column(lake, 'FROM "main".events ORDER BY seq'),
    "pinned": lambda lake: [data for _, data in lake.at("main").sql(ROWS).fetchall()],
    "type": lambda lake: _column(lake, "FROM types.SIGNUP ORDER BY seq", "{'email': email}::JSON"),
    "tail": lambda lake: [str(event["data"]) for event in lake.tail(10)],
    "view": lambda lake: [row["data"] for row in lake.view(_MAILS).to_pylist()],
    "subscription": lambda lake: _delivered(lake),
}
_MAILS = """-- name: mails
-- map
SELECT data, count(*) AS n FROM segment GROUP BY data
-- merge
SELECT data, sum(n) AS n FROM partials GROUP BY data
-- finish
SELECT data FROM state
"""


def _column(lake: lakelog.Lake, query: str, column: str = "data") -> list[str]:
    return [data for (data,) in lake.sql(f"SELECT {column} {query}").fetchall()]


def _delivered(lake: lakelog.Lake) -> list[str]:
    payloads = list[str]()
    with lake.subscribe("s") as subscription:
        subscription.run(lambda event: payloads.append(str(event["data"])), once=True)
    return payloads


@pytest.mark.parametrize("is_sealed", [False, True])
@pytest.mark.parametrize("reader", _LEARNERS)
def test_who_reads_learns_what_others_protect(
    reader: str, is_sealed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has asked before another one protects fields has those that come then."""
    protected.keys_in(tmp_path, monkeypatch)
    read, root = _LEARNERS[reader], tmp_path / "lake"
    with lakelog.open(root) as lake:
        protected.append(lake, range(3))
        lake.quarantine([("file", 0, "broken", "line")])
        lake.settle()
        read(lake)
        if reader == "view":
            # A thread that still writes would learn of the fields here, before it is unmade.
            lake._views.engine.background_writer.drain()
        with lakelog.open(root) as other:
            other.protect(protected.FIELDS)
            protected.append(other, range(3, 6))
            if is_sealed or reader == "pinned":
                other.settle()
        del PROTECTIONS[str(root)]  # which was made known to another process alone
        assert f"{PLANTED}3@" in "".join(read(lake))


def test_keys_that_appear_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same query has the fields whenever their keys are there, also of a tag."""
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        protected.append(lake, range(3))
        lake.settle()
        lake.tag("v1")
        for table in ("events", '"v1".events'):
            query = f"SELECT data->>'email' FROM {table} ORDER BY (data->>'n')::INT"
            with without_keys(tmp_path):
                assert lake.sql(query).fetchall() == [(None,)] * 3
            mails = [(f"{PLANTED}{n}@example.org",) for n in range(3)]
            assert lake.sql(query).fetchall() == mails
            with without_keys(tmp_path):
                assert lake.sql(query).fetchall() == [(None,)] * 3


def test_signatures_hold_over_compaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The leaf of an event has what is not sealed: its ciphertext changes, the root does not."""
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        for start in (0, 10):
            protected.append(lake, range(start, start + 10))
            lake.settle()
        before = snapshot_tree.root(lake.store, lake.store.refs.head("main").move.snapshot)
        lake.compact()
        assert snapshot_tree.root(lake.store, lake.store.refs.head("main").move.snapshot) == before


def test_payloads_come_back_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long numbers, members that come twice, escapes, half of a pair, and any order."""
    texts = [
        '{"email":"a","n":1}',
        '{"n":1,"email":{"deep":[1,2]},"m":null,"person":2}',
        '{"n":123456789012345678901234567890,"email":"x"}',
        '{"n":1.10,"email":"x"}',
        '{"\\u0065mail":"x","n":1}',
        '{"email":1,"email":2}',
        '{"email":"a\\"b\\\\","n":"\\u00e9"}',
        f'{{"n":"\\ud83d","email":"{PLANTED}"}}',
        f'{{"email":"\\ud83d{PLANTED}","n":1}}',
        f'{{"email":"{PLANTED}","email":"\\ud83d","n":1}}',
        '[{"email":"in a list"}]',
        '{"n":1}',
    ]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(f'{{"type":"A","subject":"x","data":{text}}}\n' for text in texts))
    protected.keys_in(tmp_path, monkeypatch)
    answers = []
    for name in ("plain", "lake"):
        with lakelog.open(tmp_path / name) as lake:
            if name == "lake":
                lake.protect(protected.FIELDS)
            lake.ingest(str(path))
            rows = "SELECT data FROM events ORDER BY position"
            answers.append(lake.sql(rows).fetchall())
            lake.compact()
            answers.append(lake.sql(rows).fetchall())
    assert answers[0] == answers[2] == answers[3] == answers[1]
    assert encrypted.found(tmp_path / "lake", [PLANTED]) == []
    assert any("123456789012345678901234567890" in row[0] for row in answers[0])


def test_names_that_cannot_be_protected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        with pytest.raises(InvalidSetting, match="cannot be changed"):
            lake.protect(["email"], subject="customer")
        with pytest.raises(InvalidSetting, match="name the fields"):
            lake.protect([])
        monkeypatch.setenv("LAKELOG_SUBJECT_KEYS", str(tmp_path / "lake/keys.subjects"))
    with lakelog.open(tmp_path / "other") as other, pytest.raises(InvalidKey, match="in the lake"):
        other.protect(["email"])


def test_what_another_lake_sealed_before_a_lake_was_protected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is shown as it came, at every state, and nothing beside it becomes unreadable."""
    foreign = [{"n": n, "$sealed": t} for n, t in enumerate(["v" + "A" * 80, "vA", "bAAAA.1", "x"])]
    events = [{"type": "A", "subject": "x", "data": data} for data in foreign]
    protected.keys_in(tmp_path, monkeypatch)
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(data)}}}\n" for data in foreign))
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(events)
        lake.ingest(str(tmp_path / "in.jsonl"))
        lake.append(events)
        lake.protect(protected.FIELDS, subject="subject")
        lake.append({"type": "A", "subject": "y", "data": {"email": PLANTED}})
        expected = [*foreign, *foreign, {"email": PLANTED}]
        for step in (lambda: None, lake.settle, lake.compact):
            step()
            assert sorted(str(data) for _, data in payloads(lake)) == sorted(map(str, expected))
            assert lake.sql("SELECT count(line) FROM quarantine").fetchall() == [(len(foreign),)]
        monkeypatch.setenv("LAKELOG_SUBJECT_KEYS", str(tmp_path / "away"))
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append({"type": "B", "data": {}})
        lake.compact()
        shown = [data for _, data in payloads(lake)]
        assert all(shown.count(data) == 2 for data in foreign)


@pytest.mark.parametrize("is_appended", [False, True])
@pytest.mark.parametrize("subject", ["subject", "customer"])
def test_what_another_lake_sealed_is_kept_as_it_came(
    subject: str, is_appended: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In rows that come from an export that was made without its keys, or only claim to; what
    comes with them is stored, too."""
    path = tmp_path / "in.jsonl"
    foreign = [
        {"n": 1, "$sealed": "v" + "A" * 80},
        {"n": 2, "email": PLANTED, "customer": "x", "$sealed": "hello"},
        {"n": 3, "email": PLANTED, "customer": "x", "$sealed": ""},
        {"n": 4, "email": PLANTED, "customer": "x", "$sealed": "bAAAA.0"},
    ]
    events = [{"type": "A", "subject": "x", "data": data} for data in foreign]
    lines = [json.dumps(event) for event in events]
    lines += [json.dumps({"time": "never"} | data) for data in foreign]
    if is_appended:
        lines = lines[len(events) :]
    path.write_text("".join(line + "\n" for line in lines))
    protected.keys_in(tmp_path, monkeypatch)
    with lakelog.open(tmp_path / "lake") as lake:
        lake.protect(protected.FIELDS, subject=subject)
        lake.ingest(str(path))
        if is_appended:
            lake.append(events)
        assert [data for _, data in payloads(lake)] == foreign
        lake.settle()
        lake.compact()
        assert [data for _, data in payloads(lake)] == foreign
        refused = lake.sql("SELECT line FROM quarantine ORDER BY position").fetchall()
        assert [line for (line,) in refused] == lines[-len(foreign) :]
        assert encrypted.found(tmp_path / "lake", [PLANTED]) == []
        lake.erase(subject="x", why="asked")
        assert {*payloads(lake)[1][1]} == {*payloads(lake)[3][1]} == {"n", "customer"}


def test_the_subject_may_be_a_field_and_types_be_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other types stay plain."""
    protected.keys_in(tmp_path, monkeypatch)
    with lakelog.open(tmp_path / "lake") as lake:
        lake.protect(["email"], types=["A"], subject="customer")
        data = {"customer": 7, "email": PLANTED}
        lake.append([{"type": "A", "data": data}, {"type": "B", "data": data}])
        lake.settle()
        emails = "SELECT data->>'email' FROM events ORDER BY type"
        assert lake.sql(emails).fetchall() == [(PLANTED,), (PLANTED,)]
        lake.erase(subject="7", why="asked")
        assert lake.sql(emails).fetchall() == [(None,), (PLANTED,)]


@pytest.mark.parametrize("seed", range(2))
def test_random_histories_equal_a_model(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Append, seal, compact, roll back, erase, with and without keys in between."""
    chance, erased = random.Random(seed), set[int]()
    numbers: list[int] = []
    tags: dict[str, list[int]] = {}
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        count = 0
        for step in range(18):
            match chance.choice(["append", "append", "settle", "compact", "tag", "back", "erase"]):
                case "append":
                    fresh = [*range(count, count + chance.randint(1, 30))]
                    protected.append(lake, fresh)
                    numbers, count = numbers + fresh, count + len(fresh)
                case "settle":
                    lake.settle()
                case "compact":
                    is_without = chance.random() < 0.4
                    with without_keys(tmp_path) if is_without else contextlib.nullcontext():
                        lake.compact()
                case "tag":
                    lake.tag(f"t{step}")
                    tags[f"t{step}"] = numbers
                case "back" if tags:
                    name = chance.choice([*tags])
                    lake.rollback(name)
                    numbers = tags[name]
                case "erase":
                    subject = chance.randrange(5)
                    lake.erase(subject=f"s{subject}", why="asked")
                    erased |= {n for n in range(count) if n % 5 == subject}
            wanted = []
            for number in sorted(numbers):
                subjects = (f"s{number % 5}",) if number in erased else ()
                wanted += shown(range(number, number + 1), subjects)
            assert payloads(lake) == wanted
        assert encrypted.found(tmp_path / "lake", [PLANTED]) == []
        shutil.rmtree(tmp_path / "lake/cache")
        assert lake.verify().problems == ()
