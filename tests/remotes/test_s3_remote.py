"""Remotes in object stores: the suite, on a server of moto in this process."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lakelog.errors import TransferRefused, Unreachable
from lakelog.remotes import carry, known
from lakelog.remotes import prunes as pruning
from lakelog.remotes.fetches import clone
from lakelog.remotes.remote import put, read
from lakelog.runtime.lazy import Lazy
from tests.support.cli import run
from tests.support.cutting_proxy import proxied
from tests.support.lakes import opened
from tests.support.remote_suite import RemoteSuite, add, checked, cloned, push, rows
from tests.support.requirements import need_module
from tests.support.volume_suite import RemoteVolumeSuite

need_module("obstore")
need_module("boto3")
need_module("moto.server")
object_stores = Lazy("tests.support.object_stores")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of a server with one bucket."""
    with object_stores.moto_store() as address:
        yield address


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials, and no waiting between attempts."""
    monkeypatch.setattr("lakelog.clients.connection.pause", lambda attempt: 0.0)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@pytest.fixture
def faults(keys: None, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What the store at AWS_ENDPOINT_URL does wrong: nothing, until a test says so."""
    del keys
    with object_stores.unfaithful(endpoint) as (address, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        yield faults


@pytest.mark.matrix
class TestS3(RemoteSuite, RemoteVolumeSuite):
    """A prefix of a bucket, a new one for each test."""

    CUTS = 16
    FORKS = False

    @pytest.fixture
    def url(self, home: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        return f"s3://lakes/a/{next(_NUMBERS)}"

    def test_credentials_of_a_profile(
        self, path: str, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        file = home / "credentials"
        file.write_text("[ada]\naws_access_key_id = test\naws_secret_access_key = test\n")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
        monkeypatch.setenv("AWS_PROFILE", "ada")
        assert push(path).refs == {"main": "new"}


def test_a_missing_bucket_and_a_dead_server_are_one_line(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakelog.clients.connection.pause", lambda attempt: 0.0)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)

    with pytest.raises(TransferRefused):
        clone("s3://nowhere/x", "/nonexistent/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Unreachable) as failed:
        clone("s3://lakes/x", "/nonexistent/x")
    assert "secret" not in str(failed.value)


def test_plain_http_is_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://example.com")
    with pytest.raises(TransferRefused, match="use https"):
        known.open_remote("s3://lakes/x")


@pytest.mark.parametrize("prefix", ["a//b", "..", "a/./b", "a/../b", "a\x01b"])
def test_a_prefix_that_no_object_has_is_refused(home: Path, prefix: str) -> None:
    """Before the lake knows the remote."""
    run("", "init", str(home / "lake"))
    result = run(home / "lake", "remote", "add", "far", f"s3://lakes/{prefix}", code=1)
    assert "a prefix has no empty part" in result.output
    with opened(str(home / "lake")) as lake:
        assert lake.store.remote_names() == []


def _with_remote(home: Path, url: str) -> str:
    path = str(home / "lake")
    add(path, "event")
    with opened(path) as lake:
        known.add(lake.store, "origin", url)
    return path


def test_a_store_that_ignores_conditions_is_refused(faults: Any, home: Path) -> None:
    """Of two pushes at once it would acknowledge both and keep one."""
    url = f"s3://lakes/b/{next(_NUMBERS)}"
    faults.forgets_conditions = True
    path = _with_remote(home, url)
    result = run(path, "remote", "add", "second", url, code=1)
    assert "single-writer" in result.stderr
    with pytest.raises(TransferRefused, match="single-writer"):
        push(path)
    with opened(path) as lake:
        assert lake.store.remote_names() == ["origin"]
    # Nothing of it is there, and it may be used by one machine.
    run(path, "remote", "add", "mine", f"{url}?single-writer")
    with opened(path) as lake:
        known.remove(lake.store, "origin")
        known.add(lake.store, "origin", f"{url}?single-writer")
    assert push(path).refs == {"main": "new"}
    assert rows(cloned(f"{url}?single-writer", home / "clone")) == rows(path)


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("is_versioned", [False, True])
def test_an_erasure_is_not_done_where_a_bucket_keeps_versions(
    endpoint: str, home: Path, is_versioned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the push deletes or replaces can be read there for ever."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    bucket = f"erased-{next(_NUMBERS)}"
    client = object_stores.client_of(endpoint)
    client.create_bucket(Bucket=bucket)
    if is_versioned:
        versioning = {"Status": "Enabled"}
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=versioning)
    path = _with_remote(home, f"s3://{bucket}/a")
    push(path)
    with opened(path) as lake:
        lake.erase(where="(data->>'n')::int < 3", why="asked")
    assert push(path).erased
    with opened(path) as lake:
        (status,) = lake.erasures()
    assert status.is_done is not is_versioned
    if is_versioned:
        (copy,) = status.copies
        assert "older versions" in copy["command"]
        assert "--cleaned origin" in copy["command"]
        run(path, "erase", "status", status.erasure.key, "--cleaned", "origin")
        with opened(path) as lake:
            assert lake.erasures()[0].is_done


def test_a_service_is_tried_once(
    faults: Any, endpoint: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://lakes/b/{next(_NUMBERS)}"
    path = str(home / "lake")
    add(path, "event")
    run(path, "remote", "add", "origin", url)
    assert any("cache/probe-" in place for _, place in faults.seen)
    faults.seen.clear()
    push(path)
    assert not any("cache/probe-" in place for _, place in faults.seen)
    with known.connected(url) as connection:
        assert list(connection.names("cache")) == []
    # Another service behind the same address is another one.
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with opened(path) as lake, known.connected(url) as connection:
        assert known.load(lake.store, "origin").proven != connection.deciding


def test_a_short_object_is_no_object(faults: Any, home: Path) -> None:
    """A store that keeps half of what it acknowledges: the push fails, and the next one heals."""
    url = f"s3://lakes/b/{next(_NUMBERS)}"
    path = _with_remote(home, url)
    faults.shortens = "/segments/"
    with pytest.raises(Unreachable, match=r"kept [\d,]+ of [\d,]+ bytes"):
        push(path)
    faults.shortens = ""
    assert push(path).refs == {"main": "new"}
    assert rows(cloned(url, home / "clone")) == rows(path)


def test_an_upload_whose_end_was_an_error_is_made_again(
    faults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 may say 200 at the end of an upload in parts, and then that it failed."""
    monkeypatch.setattr("lakelog.remotes.object_store._WHOLE", 5 << 20)
    faults.fails_late = 1
    data = bytes(6 << 20)
    with known.connected(f"s3://lakes/b/{next(_NUMBERS)}") as connection:
        put(connection, "segments/long", data)
        assert read(connection, "segments/long", len(data)) == data


@pytest.mark.parametrize("length", [300 << 10, 6 << 20])
def test_what_a_slow_line_takes_long_for_arrives(
    faults: Any, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """In one request or in parts: each attempt may take longer than the one before."""
    monkeypatch.setattr("lakelog.remotes.object_store._TIMEOUT", timedelta(seconds=0.5))
    monkeypatch.setattr("lakelog.remotes.object_store._WHOLE", 5 << 20)
    data = bytes(length)
    with known.connected(f"s3://lakes/b/{next(_NUMBERS)}") as connection:
        connection.size("a")
        faults.drags = 1.0
        put(connection, "segments/long", data)
        faults.drags = 0.0
        assert read(connection, "segments/long", len(data)) == data


@pytest.mark.parametrize("verb", ["push", "exchange"])
def test_ctrl_c_ends_a_verb_whose_store_stands_still(faults: Any, home: Path, verb: str) -> None:
    """What is under way is not waited for, and no request is made again."""
    lake, url = home / "lake", f"s3://lakes/b/{next(_NUMBERS)}"
    if verb == "exchange":
        run(lake, "attach", url)
    run(lake, "append", "type=event")
    if verb == "push":
        run(lake, "remote", "add", "origin", url)
    run(lake, verb)
    run(lake, "append", "type=another")
    faults.seen.clear()
    faults.drags = 3_600.0
    command = [sys.executable, "-m", "lakelog", "--lake", str(lake), verb]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while "PUT" not in [method for method, _ in list(faults.seen)]:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.communicate()[1] == "lakelog: interrupted\n"
    assert process.returncode == 130
    sent = [path for method, path in faults.seen if method == "PUT"]
    assert len(set(sent)) == len(sent)
    faults.drags = 0.0
    run(lake, verb)


@pytest.mark.parametrize(
    ("status", "text"), [(503, "answers 503 Service Unavailable"), (301, "set AWS_REGION")]
)
def test_what_a_store_answers_is_in_the_line(faults: Any, status: int, text: str) -> None:
    faults.refuses = (status, "<Error><Code>Any</Code></Error>")
    with (
        known.connected(f"s3://lakes/b/{next(_NUMBERS)}") as connection,
        pytest.raises(Unreachable, match=text),
    ):
        put(connection, "segments/a", b"a")


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("AWS_SECRET_ACCESS_KEY", None, "AWS credentials are not whole"),
        ("AWS_ENDPOINT_URL", "minio:9000", "write https://HOST"),
    ],
)
def test_what_is_set_wrong_is_one_line(
    keys: None, monkeypatch: pytest.MonkeyPatch, variable: str, value: str | None, text: str
) -> None:
    if value:
        monkeypatch.setenv(variable, value)
    else:
        monkeypatch.delenv(variable)
    with pytest.raises(TransferRefused, match=text):
        known.open_remote("s3://lakes/x")


def test_a_remote_is_added_while_the_store_is_away(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    add(str(home / "lake"), "event")
    result = run(str(home / "lake"), "remote", "add", "origin", "s3://lakes/x")
    assert "the first push does" in result.stderr


@pytest.mark.usefixtures("keys")
def test_endpoint_and_credentials_of_a_profile(
    endpoint: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`endpoint_url`, of one service too, and `credential_process`, as AWS's tools take them."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    answer = {"Version": 1, "AccessKeyId": "test", "SecretAccessKey": "it's a secret"}
    (home / "answer").write_text(json.dumps(answer))
    config = home / "config"
    config.write_text(
        f"[profile ada]\nendpoint_url = {endpoint}\ncredential_process = cat '{home}/answer'\n"
        "[profile eve]\nservices = own\ncredential_process = false\n"
        f"[services own]\ns3 =\n  endpoint_url = {endpoint}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "ada")
    path = _with_remote(home, f"s3://lakes/b/{next(_NUMBERS)}")
    assert push(path).refs == {"main": "new"}
    monkeypatch.setenv("AWS_PROFILE", "eve")
    with pytest.raises((TransferRefused, Unreachable), match="credential_process") as failed:
        push(path)
    assert str(failed.value).isprintable()
    (home / "answer").write_text("secret")
    monkeypatch.setenv("AWS_PROFILE", "ada")
    with pytest.raises((TransferRefused, Unreachable), match="credential_process") as failed:
        push(path)
    assert "secret" not in str(failed.value).replace("secret_access", "")


@pytest.fixture
def rewound(endpoint: str, home: Path, monkeypatch: pytest.MonkeyPatch, keys: None) -> str:
    """A lake at whose remote nothing needs the second of two segments any more; ages are 0."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setattr("lakelog.remotes.prunes.GRACE_LEAST", 0)
    path = _with_remote(home, f"s3://lakes/p/{next(_NUMBERS)}")
    with opened(path) as lake:
        lake.tag("first")
    push(path)
    add(path, "second")
    push(path)
    with opened(path) as lake:
        lake.rollback("first")
    push(path, force=True)
    return path


def _prune(path: str) -> pruning.Pruned:
    with opened(path) as lake:
        return pruning.prune(lake, "origin", grace=0)


def _url(path: str) -> str:
    with opened(path) as lake:
        return known.load(lake.store, "origin").url


def test_what_nothing_needs_is_pruned(rewound: str, home: Path) -> None:
    """And nothing else; it is sent again when it is needed."""
    with opened(rewound) as lake:
        early = pruning.prune(lake, "origin", grace=3_600)
        assert (early.objects, early.waits) == (0, 3_600)
        known.add(lake.store, "other", str(home / "x"))
        with pytest.raises(TransferRefused, match="pruned there"):
            pruning.prune(lake, "other", grace=3_600)
    done = _prune(rewound)
    assert done.objects >= 2  # a segment and an id run
    assert _prune(rewound).objects == 0
    assert rows(cloned(_url(rewound), home / "clone")) == rows(rewound)
    with opened(rewound) as lake:
        lake.undo()
    assert push(rewound, force=True).carried.objects >= 2
    assert rows(cloned(_url(rewound), home / "clone")) == rows(rewound)


def test_a_dry_run_of_a_prune_leaves_nothing(rewound: str) -> None:
    """A note would cost each later push a lease, and a killed dry run would keep pushes waiting."""
    with opened(rewound) as lake, known.connected(_url(rewound)) as there:
        with pruning.deleting(lake.store, there):
            before = dict(there.lengths("gc"))
            first = pruning.prune(lake, "origin", grace=3_600, dry_run=True)
            assert dict(there.lengths("gc")) == before
        assert (first.objects, first.waits, list(there.names("gc"))) == (0, 3_600, [])
        assert pruning.prune(lake, "origin", grace=0, dry_run=True).objects >= 2
    assert _prune(rewound).objects >= 2


def test_what_is_young_is_kept(rewound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _prune(rewound)
    add(rewound, "third")
    push(rewound)
    with opened(rewound) as lake:
        lake.rollback("first")
    push(rewound, force=True)
    monkeypatch.setattr("lakelog.remotes.prunes._wait", lambda *_: 0)
    with opened(rewound) as lake:
        done = pruning.prune(lake, "origin", grace=3_600)
    assert (done.objects, done.young) == (0, 2)


def test_a_push_beside_a_prune_loses_nothing(
    rewound: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a push found there and a prune deletes before it is named is sent again."""
    _prune(rewound)  # pushes have leases from now on
    with opened(rewound) as lake:
        lake.undo()
    push(rewound, force=True)
    with opened(rewound) as lake:
        lake.rollback("first")
    push(rewound, force=True)
    with opened(rewound) as lake:
        lake.undo()
    real, todo = carry.missing_at, [lambda: _prune(rewound)]

    def look(remote: Any, objects: Any) -> Any:
        found = real(remote, objects)
        if todo:
            assert todo.pop()().objects >= 2
        return found

    monkeypatch.setattr(carry, "missing_at", look)
    push(rewound, force=True)
    assert rows(cloned(_url(rewound), home / "clone")) == rows(rewound)


def test_a_prune_and_a_push_exclude_each_other(rewound: str) -> None:
    _prune(rewound)
    add(rewound, "third")
    with known.connected(_url(rewound)) as there:
        with there.publishing({}), pytest.MonkeyPatch.context() as patch:
            patch.setattr("lakelog.remotes.prunes._wait", lambda *_: 0)
            patch.setattr("lakelog.remotes.prunes.GRACE_LEAST", 3_600)
            with opened(rewound) as lake, pytest.raises(TransferRefused, match="a push runs"):
                pruning.prune(lake, "origin", grace=3_600)
        # One that took the push for dead: the push is not acknowledged.
        with pytest.raises(TransferRefused, match="push --repair"), there.publishing({}):
            _prune(rewound)
        assert there.put_new("gc/deleting", b"{}")
        with pytest.raises(TransferRefused, match="a prune runs there"):
            push(rewound)
        there.remove("gc/deleting")
    assert push(rewound).refs == {"main": "updated"}


def test_two_prunes_exclude_each_other(rewound: str, home: Path) -> None:
    """The first to end would let pushes name what the other one deletes."""
    _prune(rewound)
    clone = cloned(_url(rewound), home / "clone")
    add(rewound, "third")
    with opened(rewound) as lake, known.connected(_url(rewound)) as there:
        with pruning.deleting(lake.store, there):
            for path in (rewound, clone):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr("lakelog.remotes.prunes.GRACE_LEAST", 3_600)
                    with pytest.raises(TransferRefused, match="another prune runs there"):
                        _prune_late(path)
            with pytest.raises(TransferRefused, match="a prune runs there"):
                push(rewound)
        assert there.size("gc/deleting") is None
    _prune(clone)


def _prune_late(path: str) -> None:
    with opened(path) as lake:
        pruning.prune(lake, "origin", grace=3_600)


def test_a_prune_that_was_killed_goes_on_from_its_directory(rewound: str, home: Path) -> None:
    _prune(rewound)
    add(rewound, "third")
    with opened(rewound) as lake, known.connected(_url(rewound)) as there:
        with pruning.deleting(lake.store, there):
            left = b"".join(there.stream("gc/deleting"))
        there.replace("gc/deleting", left)
        with pytest.raises(TransferRefused, match="lakelog remote prune"):
            push(rewound)
        _prune(rewound)
        assert there.size("gc/deleting") is None
        # Of another directory it is taken for left once it is old.
        there.replace("gc/deleting", left)
        clone = cloned(_url(rewound), home / "clone")
        with pytest.raises(TransferRefused, match="cleared away: run it again"):
            _prune(clone)
    _prune(clone)


@pytest.mark.matrix
@pytest.mark.parametrize("part", range(6))
def test_a_prune_that_is_cut_at_a_request_deletes_nothing_that_is_needed(
    rewound: str, home: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    """And the next one of its directory goes on. The parts together cut one at every request,
    before and after it has taken effect."""
    _prune(rewound)
    with proxied(endpoint.removeprefix("http://")) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{proxy.address}")
        for at in itertools.count(1 + part // 2, 3):
            add(rewound, f"step{at}")
            push(rewound)
            with opened(rewound) as lake:
                lake.rollback("first")
            push(rewound, force=True)
            proxy.cut(at, after=part % 2 == 0)
            # Where only the last answers are lost, all that was to be deleted is.
            with contextlib.suppress(Unreachable):
                _prune(rewound)
            is_cut = proxy.lost > 0
            proxy.pass_all()
            assert not checked(rewound, read_data=True).faults
            _prune(rewound)
            assert _prune(rewound).objects == 0
            assert rows(cloned(_url(rewound), home / f"clone{at}")) == rows(rewound)
            if not is_cut:
                break


def test_a_prune_that_stood_still_deletes_nothing_more(
    rewound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may have pushed since, or prune."""
    moment = 1e12
    monkeypatch.setattr("lakelog.remotes.remote.clocks", lambda: (0.0, moment))
    with (
        opened(rewound) as lake,
        known.connected(_url(rewound)) as there,
        pruning.deleting(lake.store, there) as announcement,
    ):
        moment += 1_000
        announcement.require()  # which says again that it runs
        there.replace("gc/deleting", b"another's")
        announcement.require()
        moment += 1_000
        with pytest.raises(TransferRefused, match="run it again"):
            announcement.require()


def test_a_request_that_fails_once_ends_nothing(faults: Any, home: Path) -> None:
    """Each is made again: those of a push under its lease, of a prune and of an erasure as well."""
    url = f"s3://lakes/b/{next(_NUMBERS)}"
    path = _with_remote(home, url)
    push(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lakelog.remotes.prunes.GRACE_LEAST", 0)
        _prune(path)
        faults.stumbles = True
        add(path, "later")
        assert push(path).refs == {"main": "updated"}
        _prune(path)
        clone = cloned(url, home / "clone")
        add(clone, "theirs")
        push(clone)
        with opened(path) as lake:
            lake.erase(where="(data->>'n')::int < 3", why="asked")
        assert len(push(path, force=True).erased) == 1
    faults.stumbles = False
    with known.connected(url) as there:
        assert [name for name in there.names("gc") if not name.startswith("config-")] == ["pruned"]
