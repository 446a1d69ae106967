"""What every kind of remote has to do: a test class inherits `RemoteSuite` and has a fixture `url`.

`cut` puts a `Cut` before a remote: from the nth request on, the connection is lost or the process
is killed, before or after the request has taken effect.
"""

from __future__ import annotations

import base64
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import lakelog
from lakelog import document
from lakelog.chunks import state_files
from lakelog.errors import Diverged, TransferRefused, Unreachable
from lakelog.proofs import keys, proof, signing, snapshot_tree
from lakelog.remotes import carry, known
from lakelog.remotes import fetches as fetching
from lakelog.remotes import prunes as pruning
from lakelog.remotes import pushes as pushing
from lakelog.remotes.remote import Interrupted
from lakelog.remotes.site import Site, key_of
from lakelog.state.restore import restore_state
from lakelog.state.state import list_states, save_state
from lakelog.store import Signatures
from tests.support.interposed import Interposed, interpose
from tests.support.lakes import opened
from tests.support.requirements import need_module
from tests.support.tree import ROOT

REQUESTS = {"stream", "names", "size", "put", "put_new", "replace", "flush"}
Rows = list[tuple[Any, ...]]


class Cut:
    """A remote whose requests fail from the nth on; `puts` counts those that took effect."""

    def __init__(self, inner: Any, at: int, *, after: bool, kill: bool) -> None:
        self._inner, self._at, self._after, self._kill = inner, at, after, kill
        self.requests, self.puts = 0, list[str]()

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._inner, name)
        return self._request(name, real) if name in REQUESTS else real

    def _request(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def run(*words: Any) -> Any:
            self.requests += 1
            number = self.requests
            if number > self._at or (number == self._at and not self._after):
                self._end()
            answer = real(*words)
            if name in ("stream", "names"):
                answer = iter(list(answer))
            if name in ("put", "put_new"):
                self.puts.append(words[0])
            if number == self._at:
                self._end()
            return answer

        return run

    def _end(self) -> None:
        if self._kill:
            os.kill(os.getpid(), signal.SIGKILL)
        raise Interrupted("the connection was cut")


def cut(
    monkeypatch: pytest.MonkeyPatch, at: int = 10**9, *, after: bool = False, kill: bool = False
) -> list[Cut]:
    """Put a `Cut` before each remote that is connected to from now on; return them as they come."""
    made: list[Cut] = []
    real = known.open_remote

    def connect(url: str) -> Any:
        made.append(Cut(real(url), at, after=after, kill=kill))
        return made[-1]

    monkeypatch.setattr(known, "open_remote", connect)
    return made


def add(path: str, name: str, count: int = 40) -> None:
    """Append events and publish them as a segment."""
    with opened(path) as lake:
        lake.append([{"type": name, "id": f"{name}-{i}", "data": {"n": i}} for i in range(count)])
        lake.settle()


def rows(path: str, ref: str = "events") -> Rows:
    """Return all events of a lake, in order of seq."""
    columns = "seq, time, type, id, data, ingested_at, origin, position"
    with lakelog.open(path, create=False) as lake:
        found: Rows = lake.sql(f"SELECT {columns} FROM {ref} ORDER BY seq").fetchall()
    return found


def push(path: str, *tags: str, **options: Any) -> carry.Transfer:
    """Push the branch, or only tags."""
    with opened(path) as lake:
        branches = [] if tags else ["main"]
        return pushing.push(lake, "origin", branches=branches, tags=tags, **options)


def pull(path: str, **options: Any) -> carry.Transfer:
    """Pull the branch."""
    with opened(path) as lake:
        return fetching.pull(lake, "origin", **options)


def checked(path: str, **options: Any) -> pruning.Checked:
    """Check the remote."""
    with opened(path) as lake:
        return pruning.check(lake, "origin", **options)


def _keys(there: Any, folder: str) -> list[str]:
    return sorted(
        f"{folder}/{name}/{file}"
        for name in there.names(folder)
        for file in there.names(f"{folder}/{name}")
    )


def _store(there: Any, key: str, change: Callable[[bytes], bytes]) -> None:
    """Change a file at a remote."""
    data = change(b"".join(there.stream(key)))
    there.put(key, lambda: iter((data,)), len(data))
    there.flush()


def snapshot(path: str, ref: str = "main") -> str:
    """Return the id of a state."""
    with lakelog.open(path, create=False) as lake:
        return lake.store.refs.head(ref).move.snapshot


def cloned(url: str, path: Path) -> str:
    """Clone, and check every byte of the clone."""
    shutil.rmtree(path, ignore_errors=True)
    fetching.clone(url, str(path))
    with lakelog.open(path, create=False) as lake:
        report = lake.verify()
        assert report.problems == (), report.problems
    return str(path)


def heads(url: str) -> dict[str, str]:
    """Return the states that the branches and tags of a remote name."""
    with known.connected(url) as connection:
        site = Site(connection)
        found = {name: site.head(name) for name in site.branches()}
        tags = {name: site.tag(name) for name in site.tags()}
    named = {name: head.move.snapshot for name, head in found.items() if head}
    return named | {name: tag[0].snapshot for name, tag in tags.items() if tag}


class RemoteSuite:
    """Push, pull and clone, with every kind of interruption."""

    CUTS = 40
    DAMAGES = True
    """Whether something can be stored that is not what its name says."""
    FORKS = True
    """Whether a forked process can use this kind of remote: one with threads of its own cannot."""

    def ends_in_child(self, work: Callable[[], object], at: int, after: bool, *words: str) -> bool:
        """Do it in a process that is killed at a request; whether it came to its end."""
        if self.FORKS:
            return _ends_in_fork(work)
        command = [sys.executable, "-m", "tests.support.remote_suite", str(at), str(after), *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode == 0

    @pytest.fixture
    def url(self, home: Path) -> str:
        """The address of an empty place."""
        raise AssertionError

    @pytest.fixture(scope="class")
    @classmethod
    def grown(cls, tmp_path_factory: pytest.TempPathFactory) -> str:
        """A lake of 20 segments with a tag, of which each test has a copy."""
        path = str(tmp_path_factory.mktemp("grown") / "lake")
        for number in range(3):
            add(path, f"first{number}")
        with opened(path) as lake:
            lake.tag("v1")
        for number in range(17):
            add(path, f"later{number}", 5)
        return path

    @pytest.fixture
    def path(self, home: Path, grown: str, url: str, monkeypatch: pytest.MonkeyPatch) -> str:
        """A lake of 20 segments with a tag, and a remote."""
        monkeypatch.setattr("lakelog.clients.connection.pause", lambda attempt: 0.0)
        path = str(home / "lake")
        shutil.copytree(grown, path)
        with opened(path) as lake:
            known.add(lake.store, "origin", url)
        return path

    def test_a_clone_equals_what_was_pushed(self, path: str, url: str, home: Path) -> None:
        with opened(path) as lake:
            lake.append({"type": "PENDING"})
        assert push(path).refs == {"main": "new"}
        assert push(path, "v1").refs == {"v1": "new"}
        clone = cloned(url, home / "clone")
        assert rows(clone) == rows(path)
        assert rows(clone, '"v1".events') == rows(path, '"v1".events')
        with lakelog.open(clone) as one, lakelog.open(path) as other:
            assert one.store.lake_id != other.store.lake_id

    def test_push_is_idempotent(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        push(path)
        made = cut(monkeypatch)
        result = push(path)
        assert (result.refs, result.carried.objects) == ({"main": "up to date"}, 0)
        assert made[0].puts == []

    def test_push_is_incremental(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        push(path)
        add(path, "more")
        made = cut(monkeypatch)
        result = push(path)
        with opened(path) as lake:
            live = lake.store.manifests.segments(lake.store.state("main"))
        # The segment and its id run, and not a look at anything else.
        assert result.carried.objects == 2
        assert result.carried.bytes < 2 * live[-1].bytes + 1_000
        assert made[0].requests < 20

    def test_a_tag_is_pushed_alone_with_its_objects(self, path: str, url: str, home: Path) -> None:
        result = push(path, "v1")
        # Three segments and three id runs; the manifest is in the tag.
        assert result.carried.objects == 6
        assert heads(url).keys() == {"v1"}
        assert rows(cloned(url, home / "clone"), '"v1".events') == rows(path, '"v1".events')

    def test_a_tag_is_not_overwritten(self, path: str, url: str) -> None:
        push(path, "v1")
        with opened(path) as lake:
            lake.store.refs.replace_tag(lake.tag("v1b"))
            old = lake.store.paths.tag("v1")
            os.unlink(old)
            lake.tag("v1")
        before = heads(url)
        with pytest.raises(Diverged, match="--force"):
            push(path, "v1")
        assert heads(url) == before
        assert push(path, "v1", force=True).refs == {"v1": "forced"}
        assert heads(url) != before

    def test_pull_brings_what_another_clone_pushed(self, path: str, url: str, home: Path) -> None:
        push(path)
        clone = cloned(url, home / "clone")
        add(clone, "theirs")
        assert push(clone).refs == {"main": "updated"}
        result = pull(path)
        assert result.refs["main"] == "updated"
        assert result.carried.objects == 2
        assert rows(path) == rows(clone)
        assert pull(path).carried.objects == 0

    def test_diverged_branches_are_refused_on_both_sides(
        self, path: str, url: str, home: Path
    ) -> None:
        push(path)
        clone = cloned(url, home / "clone")
        add(clone, "theirs")
        push(clone)
        add(path, "ours")
        ours, there = rows(path), heads(url)
        with pytest.raises(Diverged, match="moved on there"):
            push(path)
        with pytest.raises(Diverged, match="lakelog branch NAME"):
            pull(path)
        assert (rows(path), heads(url)) == (ours, there)
        assert pull(path, force=True).refs["main"] == "forced"
        assert rows(path) == rows(clone)
        with opened(path) as lake:
            lake.undo()
        assert rows(path) == ours
        assert push(path, force=True).refs == {"main": "forced"}
        assert rows(cloned(url, home / "again")) == ours

    def test_an_erasure_travels(self, path: str, url: str, home: Path) -> None:
        push(path)
        push(path, "v1")
        with opened(path) as lake:
            status = lake.erase(where="type = 'first1'", why="asked")
            (place,) = status.copies
            old = [key for key, new in lake.store.erased.segments().items() if new != key]
        result = push(path)
        with known.connected(url) as there:
            is_registry = there.lists_objects
            assert [there.size(key_of(("segments", key))) for key in old] == [None]
        assert result.erased == [status.erasure.key]
        assert place["command"] == "lakelog push origin"
        assert checked(path, read_data=True).faults == []
        clone = cloned(url, home / "clone")
        assert rows(clone) == rows(path)
        assert len(rows(clone, '"v1".events')) == 80
        with opened(path) as lake, opened(clone) as copied:
            # What a registry was told to delete it has until its owner collects.
            assert lake.erasures()[0].is_done is not is_registry
            assert [s.erasure.key for s in copied.erasures()] == result.erased

    def test_a_rollback_is_not_pushed_without_force(self, path: str, url: str) -> None:
        push(path)
        with opened(path) as lake:
            lake.rollback("v1")
        with pytest.raises(Diverged):
            push(path)
        assert push(path, force=True).refs == {"main": "forced"}
        assert heads(url)["main"] == snapshot(path)

    def test_compaction_is_no_divergence(self, path: str, url: str, home: Path) -> None:
        push(path)
        clone = cloned(url, home / "clone")
        with opened(clone) as lake:
            lake.compact()
        add(path, "more")
        push(path)
        assert pull(clone).refs["main"] == "updated"
        assert rows(clone) == rows(path)
        with opened(path) as lake:
            lake.compact()
        assert push(path).refs == {"main": "updated"}
        assert rows(cloned(url, home / "again")) == rows(path)

    def test_saved_states_travel(self, path: str, url: str, home: Path) -> None:
        push(path)
        app, there = home / "app", home / "there"
        app.mkdir()
        (app / "big").write_bytes(random.Random(1).randbytes(300_000))
        (app / "name").symlink_to("big")
        with opened(path) as lake:
            save_state(lake, {"app": str(app)}, name="one")
            (app / "small").write_bytes(b"new")
            save_state(lake, {"app": str(app)}, name="two")
        sent = push(path, "one").carried.bytes
        # The second state shares all but an index and a chunk with the first one.
        assert push(path, "two").carried.bytes < sent / 10
        assert push(path).refs == {"main": "updated"}
        clone = cloned(url, home / "clone")
        with opened(clone) as lake:
            assert [state.name for state in list_states(lake)] == ["two", "one"]
            restore_state(lake, "two", to=str(there))
        assert (there / "big").read_bytes() == (app / "big").read_bytes()
        assert (there / "name").readlink() == Path("big")
        assert push(path).carried.objects == 0

    def test_what_is_damaged_there_is_found_and_sent_again(
        self, path: str, url: str, home: Path
    ) -> None:
        """By its length, or where it has that by its bytes; also what an earlier push had sent."""
        if not self.DAMAGES:
            return
        (home / "app").mkdir()
        (home / "app" / "file").write_bytes(b"content")
        with opened(path) as lake:
            save_state(lake, {"app": str(home / "app")}, name="one")
        push(path)
        push(path, "v1")
        assert checked(path).faults == checked(path, read_data=True).faults == []
        with known.connected(url) as there:
            segments = _keys(there, "segments")
            _store(there, segments[0], lambda data: data[:-9])
            _store(there, segments[1], lambda data: data[:-1] + b"?")
            there.remove(segments[2])
            chunk = next(key for key in _keys(there, "states") if "chunk" in key)
            _store(there, chunk, lambda data: data[:-1] + b"?")
        found = {fault.path for fault in checked(path).faults}
        assert found == {segments[0], segments[2]}
        found = {fault.path for fault in checked(path, read_data=True).faults}
        assert found == {*segments[:3], chunk}
        push(path)
        assert len(checked(path).faults) == 2  # what is known to be there is not looked for
        assert push(path, repair=True, dry_run=True).carried.objects == 2
        assert push(path, repair=True).carried.objects == 2
        assert push(path, repair=True, read_data=True).carried.objects == 2
        assert checked(path, read_data=True).faults == []
        assert rows(cloned(url, home / "clone")) == rows(path)

    def test_a_move_that_was_stored_half_is_repaired(self, path: str, url: str, home: Path) -> None:
        """A broken upload must not lock everybody out for ever."""
        if not self.DAMAGES:
            return
        push(path)
        add(path, "more")
        with known.connected(url) as there:
            assert there.put_new("refs/heads/main/000000000002.json", b'{"number":2')
        with pytest.raises(TransferRefused, match="damaged"):
            push(path)
        (fault,) = checked(path).faults
        assert fault.path == "refs/heads/main"
        assert push(path, repair=True).refs == {"main": "updated"}
        assert rows(cloned(url, home / "clone")) == rows(path)

    def test_a_damaged_state_does_not_travel(self, path: str, url: str, home: Path) -> None:
        (home / "app").mkdir()
        (home / "app" / "file").write_bytes(b"content")
        with opened(path) as lake:
            save_state(lake, {"app": str(home / "app")}, name="one")
        chunk = next(Path(path).glob("states/*/*.chunk.zst"))
        good = chunk.read_bytes()
        chunk.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(lakelog.Damaged, match=chunk.name):
            push(path, "one")
        chunk.unlink()
        with pytest.raises(lakelog.Damaged, match="it is missing"):
            push(path, "one")
        assert heads(url) == {}

    def test_a_state_that_is_not_what_its_name_says_is_refused(
        self, path: str, url: str, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (home / "app").mkdir()
        (home / "app" / "file").write_bytes(b"content")
        with opened(path) as lake:
            save_state(lake, {"app": str(home / "app")}, name="one")
        other = state_files.seal(b"CONTENT")
        with monkeypatch.context() as patch:
            patch.setattr(carry, "_state_file", lambda path, _: _forged(path, other))
            push(path, "one")
        with pytest.raises(TransferRefused, match="does not match its name: refused"):
            fetching.clone(url, str(home / "clone"))
        with lakelog.open(str(home / "clone"), create=False) as lake:
            assert lake.store.refs.tag_names() == []
            assert lake.verify().problems == ()

    def test_signatures_travel(self, path: str, url: str, home: Path) -> None:
        need_module("cryptography")
        private, public = str(home / "key"), str(home / "key.pub")
        keys.PrivateKey.generate(private)
        with opened(path) as lake:
            store, id = lake.store, lake.store.lake_id
            head = signing.Target.of(store, "main", lake.settle().move.snapshot)
            for what in (signing.Target.of(store, "main", "v1"), head):
                signing.sign(store, "main", what, keys.PrivateKey.load(private))
        assert push(path).carried.signatures == 1
        assert push(path, "v1").carried.signatures == 1
        assert push(path, "v1").carried.signatures == 0
        clone, accepted = cloned(url, home / "clone"), [keys.PublicKey.load(public)]
        with lakelog.open(clone, create=False) as lake:
            assert signing.SignatureCheck(lake.store, accepted, lakes=[id]).tags() == []
            assert signing.SignatureCheck(lake.store, accepted, lakes=[id]).target(head) == []
            ((_, reason),) = signing.SignatureCheck(lake.store, accepted).tags()
            assert f"--signed-in {id}" in reason
            (seq, _), *_ = snapshot_tree.find_events(lake.store, head.snapshot, "first1-3", None)
            assert (
                proof.check_proof(proof.prove(lake.store, head, seq), accepted).event["seq"] == seq
            )

    def test_a_renewed_signature_travels_and_a_forged_one_replaces_none(
        self, path: str, url: str, home: Path
    ) -> None:
        need_module("cryptography")
        private = str(home / "key")
        keys.PrivateKey.generate(private)
        key = keys.PrivateKey.load(private)
        with opened(path) as lake:
            what = signing.Target.of(lake.store, "main", "v1")
            signing.sign(lake.store, "main", what, key, expires_in=1)
            push(path, "v1")
            clone = cloned(url, home / "clone")
            signing.sign(lake.store, "main", what, key)
            assert push(path, "v1").carried.signatures == 1
            push(path)
            file = Signatures(lake.store.paths).of_tag("v1")[0].path
        received = Path(clone, "refs/signatures", os.path.basename(file))
        assert pull(clone).carried.signatures == 1
        good = received.read_bytes()
        assert good == Path(file).read_bytes()
        body = document.decode(good)
        body["signatures"][0]["sig"] = base64.b64encode(bytes(64)).decode()
        with known.connected(url) as connection:
            site = Site(connection)
            site.put_signature(received.name, document.encode(body), replace=True)
            assert pull(clone).carried.signatures == 0
            assert received.read_bytes() == good
            received.unlink()
            site.put_signature(received.name, document.encode({"x": 1}), replace=True)
        with pytest.raises(TransferRefused, match="a signature is another document: refused"):
            pull(clone)
        assert not received.exists()

    def test_dry_run_changes_nothing(self, path: str, url: str, home: Path) -> None:
        result = push(path, dry_run=True)
        assert result.refs == {"main": "new"}
        assert result.carried.objects
        assert heads(url) == {}
        sent = push(path).carried
        assert (sent.objects, sent.bytes) == (result.carried.objects, result.carried.bytes)
        add(path, "more")
        assert push(path, dry_run=True).refs == {"main": "updated"}

    def test_concurrent_pushes_lose_nothing(
        self, path: str, url: str, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        push(path)
        clone = cloned(url, home / "clone")
        add(clone, "theirs")
        add(path, "ours")
        real = pushing.objects_of

        def late(*words: Any) -> Any:
            # The other one is first, between our look at the branch and our move.
            monkeypatch.setattr(pushing, "objects_of", real)
            push(clone)
            return real(*words)

        monkeypatch.setattr(pushing, "objects_of", late)
        with pytest.raises(Diverged):
            push(path)
        assert heads(url)["main"] == snapshot(clone)

    @pytest.mark.parametrize("is_late", [False, True])
    def test_concurrent_changes_of_lakelog_json_lose_nothing(
        self, path: str, url: str, is_late: bool
    ) -> None:
        """Another one changes it between our look and our change, or our change comes `is_late`."""
        push(path)
        with known.connected(url) as ours, known.connected(url) as theirs:
            other = Thread(target=Site(theirs).change_config, args=[lambda _: {"theirs": 1}])
            site = Site(Interposed(ours, other) if is_late else ours)

            def members(_: Any) -> dict[str, int]:
                if not is_late:
                    interpose(other)
                return {"ours": 1}

            says = site.change_config(members)
            other.join()
            body = site.config()
        assert (body["ours"], body["theirs"], says["ours"]) == (1, 1, 1)

    def test_a_retried_ref_does_not_lose_to_itself(
        self, path: str, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers = itertools.count()
        real = Cut._request

        def lossy(self: Cut, name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
            def run(*words: Any) -> Any:
                answer = inner(*words)
                if name == "put_new" and next(answers) % 2 == 0:
                    raise Interrupted("the answer was lost")
                return answer

            return run if name == "put_new" else real(self, name, inner)

        monkeypatch.setattr(Cut, "_request", lossy)
        cut(monkeypatch)
        assert push(path).refs == {"main": "new"}
        assert heads(url)["main"] == snapshot(path)

    @pytest.mark.parametrize("kill", [False, pytest.param(True, marks=pytest.mark.matrix)])
    def test_interrupted_push_resumes(
        self, path: str, url: str, home: Path, monkeypatch: pytest.MonkeyPatch, kill: bool
    ) -> None:
        push(path)
        old, steps = heads(url)["main"], 0
        for step in range(1, self.CUTS):
            add(path, f"step{step}", 3)
            after, at = step % 2 == 0, step // 2 + 1
            with monkeypatch.context() as patch:
                made = cut(patch, at, after=after, kill=kill)
                if kill:
                    was_cut = not self.ends_in_child(lambda: push(path), at, after, "push", path)
                else:
                    was_cut = _is_cut(lambda: push(path))
            there = heads(url)["main"]
            assert there in (old, snapshot(path))
            sent = set() if kill else set(made[0].puts)
            with monkeypatch.context() as patch:
                again = cut(patch)
                push(path)
            # What has arrived is not sent again.
            assert sent.isdisjoint(k for k in again[0].puts if k.startswith("segments/"))
            old = snapshot(path)
            assert heads(url)["main"] == old
            steps += was_cut
            if not was_cut:
                break
        assert steps >= 10
        assert rows(cloned(url, home / "clone")) == rows(path)

    @pytest.mark.parametrize("kill", [False, pytest.param(True, marks=pytest.mark.matrix)])
    def test_interrupted_first_push_and_clone_resume(
        self, path: str, url: str, home: Path, monkeypatch: pytest.MonkeyPatch, kill: bool
    ) -> None:
        steps = 0
        for at in (1, 2, 3, 5, 8, 20, 44, 60, 80, 84, 86, 88):
            after = at % 2 == 0
            with monkeypatch.context() as patch:
                cut(patch, at, kill=kill, after=after)
                work = lambda: push(path)  # noqa: E731
                if kill:
                    steps += not self.ends_in_child(work, at, after, "push", path)
                else:
                    steps += _is_cut(work)
            assert heads(url).get("main") in (None, snapshot(path))
        push(path)
        expected = rows(path)
        clone = home / "clone"
        for at in (1, 2, 3, 4, 6, 9, 15, 25, 40, 44):
            with monkeypatch.context() as patch:
                cut(patch, at, kill=kill)
                work = lambda: fetching.clone(url, str(clone))  # noqa: E731
                if kill:
                    steps += not self.ends_in_child(work, at, False, "clone", url, str(clone))
                else:
                    steps += _is_cut(work)
            if clone.exists() and (clone / "lakelog.json").exists():
                # An empty lake or the whole one, and nothing in between.
                assert rows(str(clone)) in ([], expected)
        fetching.clone(url, str(clone))
        assert rows(str(clone)) == expected
        assert steps >= 12

    def test_what_is_damaged_here_does_not_travel(self, path: str, url: str) -> None:
        file = next(Path(path).glob("segments/*/*.parquet"))
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        with pytest.raises(lakelog.Damaged, match=file.name):
            push(path)
        assert heads(url) == {}

    def test_an_unreachable_remote_is_one_error(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cut(monkeypatch, 1)
        with pytest.raises(Unreachable, match="run it again"):
            push(path)

    def test_a_lake_is_no_remote_of_itself(self, path: str) -> None:
        with opened(path) as lake:
            known.add(lake.store, "me", path)
            with pytest.raises(TransferRefused, match="this lake"):
                pushing.push(lake, "me", branches=["main"])


def _forged(path: str, other: bytes) -> bytes:
    return other if path.endswith(".chunk.zst") else Path(path).read_bytes()


def _is_cut(work: Callable[[], object]) -> bool:
    try:
        work()
    except Unreachable:
        return True
    return False


def _ends_in_fork(work: Callable[[], object]) -> bool:
    """Run in a process of its own; whether it came to its end."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    return not os.WIFSIGNALED(status)


def main(at: str, after: str, verb: str, *words: str) -> None:
    """Push or clone in this process, which is killed at a request."""
    with pytest.MonkeyPatch.context() as patch:
        cut(patch, int(at), after=after == "True", kill=True)
        push(*words) if verb == "push" else fetching.clone(*words)


if __name__ == "__main__":
    main(*sys.argv[1:])
