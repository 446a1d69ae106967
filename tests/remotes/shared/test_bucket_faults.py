"""Machines that share a lake in a store of objects, behind a network that fails, and are killed.

`LAKELOG_SHARED_KILLS=200` kills so many and appends accordingly more.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lakelog.errors import LakelogError, TransferRefused, Unreachable
from lakelog.remotes import known, prune
from lakelog.remotes.s3 import S3Remote
from lakelog.remotes.shared import attach, move_spans
from lakelog.runtime.lazy import Lazy
from tests.support import encrypted, protected
from tests.support.attached import SharedMachines, append, numbers, offer_and_die, publish_each
from tests.support.cli import run
from tests.support.flaky_bucket import FlakyBucket, Trouble, flaky_bucket
from tests.support.killed_machines import MachineFleet
from tests.support.requirements import need_module

if TYPE_CHECKING:
    from tests.support.object_stores import Faults

need_module("obstore")
need_module("boto3")
need_module("moto.server")
object_stores = Lazy("tests.support.object_stores")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
REFUSALS = {
    "full": (507, "<Error><Code>InsufficientStorage</Code></Error>"),
    "read-only": (403, "<Error><Code>AccessDenied</Code></Error>"),
    "expired": (400, "<Error><Code>ExpiredToken</Code></Error>"),
}
"""What a store answers to everything that is to be stored there."""
KILLS = int(os.environ.get("LAKELOG_SHARED_KILLS", "1"))


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials, and hardly any waiting between attempts."""
    monkeypatch.setattr("lakelog.clients.connection.pause", lambda attempt: 0.01)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@contextlib.contextmanager
def troubled(trouble: Trouble, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyBucket]:
    """Run a store in a process of its own, and a proxy before it."""
    with object_stores.moto_process() as address, flaky_bucket(address, trouble) as bucket:
        monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.address)
        yield bucket


@contextlib.contextmanager
def unfaithful_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """Run a store behind a proxy that does not keep its word where it is told so."""
    with (
        object_stores.moto_store() as address,
        object_stores.unfaithful(address) as (proxy, faults),
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
        yield faults


def test_each_event_is_there_once_after_kills_and_lost_answers(
    keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with troubled(Trouble(7, lost=0.04, cut=0.04, refused=0.04), monkeypatch) as bucket:
        fleet = MachineFleet(
            tmp_path, "s3://lakes/x", 2 if KILLS == 1 else 8, 30 + 12 * KILLS, 10, KILLS, 3
        )
        fleet.run(60.0 + 5 * KILLS)
        assert fleet.check() <= fleet.machines * fleet.events
        assert bucket.count("lost") + bucket.count("cut") + bucket.count("refused")


def test_a_conflict_that_nobody_won_is_tried_again(
    keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A 409 of S3, unlike a 412, says nothing of whether the name is taken.
    with troubled(Trouble(conflicts=2), monkeypatch) as bucket:
        machines = SharedMachines(tmp_path, "s3://lakes/x")
        append(machines["a"], 1)
        machines["a"].tag("v1")
        assert bucket.count("refused") == 2
        machines["b"].exchange()
        assert [tag.name for tag in machines["b"].tags()] == ["v1"]
        machines.close()


def test_an_exchange_costs_the_same_whatever_the_history(
    keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which branches there are is one small request, in which their moves are not listed."""
    with troubled(Trouble(), monkeypatch) as bucket:
        machines, costs = SharedMachines(tmp_path, "s3://lakes/x"), list[list[int]]()
        append(machines["a"], 1)
        machines["b"].exchange()
        remote = known.open_remote("s3://lakes/x")
        for count in (0, 1100):
            for number in range(count):
                remote.replace(f"refs/heads/main/{number:012}.unknown", b"")
            before = bucket.count("requests"), bucket.count("bytes")
            machines["b"].exchange()
            costs.append([bucket.count("requests") - before[0], bucket.count("bytes") - before[1]])
        machines["a"].branch("other").close()
        machines["b"].exchange()
        assert machines["b"].store.refs.all_branches() == ["main", "other"]
        machines.close()
    assert costs[0] == costs[1]


def test_a_store_that_ignores_conditions_is_refused(
    keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unfaithful_store(monkeypatch) as faults:
        faults.forgets_conditions = True
        with pytest.raises(TransferRefused, match="does not refuse a name that is taken"):
            attach("s3://lakes/x", str(tmp_path / "a"))
        assert not (tmp_path / "a").exists()


def test_a_store_that_gives_names_to_several_at_once_is_refused(
    keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unfaithful_store(monkeypatch) as faults:
        for count in (2, 3):
            faults.gives_twice = count
            with pytest.raises(TransferRefused, match="does not refuse a name that is taken"):
                attach("s3://lakes/x", str(tmp_path / "a"))
        faults.gives_twice = 1  # which a busy server of one process may do
        attach("s3://lakes/x", str(tmp_path / "a"))
        faults.gives_twice = 9
        with pytest.raises(TransferRefused, match="does not refuse a name that is taken"):
            attach("s3://lakes/x", str(tmp_path / "b"))
        assert not (tmp_path / "b").exists()


def test_a_web_page_that_is_given_for_any_key_is_refused(
    keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the console of a store gives, whose address was taken for that of the store."""
    with unfaithful_store(monkeypatch) as faults:
        machines = SharedMachines(tmp_path, "s3://lakes/x")
        append(machines["a"], 1)
        faults.reads = 200, "<html></html>"
        with pytest.raises(TransferRefused, match="refused"):
            machines["a"].exchange()
        with pytest.raises(TransferRefused, match="refused"):
            attach("s3://lakes/x", str(tmp_path / "b"))
        faults.reads = 0, ""
        assert machines["a"].exchange() == (0, 1)
        machines.close()


def test_a_refusal_of_a_condition_that_no_read_has_is_one_line(
    keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unfaithful_store(monkeypatch) as faults:
        machines = SharedMachines(tmp_path, "s3://lakes/x")
        append(machines["a"], 1)
        faults.reads = 412, "<Error><Code>PreconditionFailed</Code></Error>"
        with pytest.raises(Unreachable, match="s3://lakes/x: the store answers 412"):
            machines["a"].exchange()
        faults.reads = 0, ""
        assert machines["a"].exchange() == (0, 1)
        machines.close()


def test_a_directory_is_attached_by_few_requests_and_each_tries_the_store(
    keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(move_spans, "SPAN", 16)
    monkeypatch.setattr(move_spans, "GROWTH", 4)
    with unfaithful_store(monkeypatch) as faults:
        machines = SharedMachines(tmp_path, "s3://lakes/few")
        machines["a"].exchange()
        assert len(faults.seen) <= 25  # 20, and the 5 of an exchange without news
        publish_each(machines["a"], range(20))
        faults.seen.clear()
        assert machines["b"].count() == 20
        assert len(faults.seen) <= 18
        assert numbers(machines["b"]) == list(range(20))
        faults.forgets_conditions = True
        with pytest.raises(TransferRefused, match="does not refuse a name that is taken"):
            attach("s3://lakes/few", str(tmp_path / "c"))
        assert not (tmp_path / "c").exists()
        machines.close()


def test_keys_change_while_answers_are_lost_and_no_word_is_stored(
    keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rotation and an erasure by keys happen once, in a lake that is encrypted as well."""
    monkeypatch.setenv("LAKELOG_SUBJECT_KEYS", str(tmp_path / "keys"))
    (tmp_path / "keys").mkdir()
    with troubled(Trouble(5, lost=0.06, cut=0.03), monkeypatch) as bucket:
        machines = encrypted.share(tmp_path, monkeypatch, "s3://lakes/x")
        machines["a"].protect(protected.FIELDS)
        for name, first in ("a", 0), ("b", 5):
            protected.append(machines[name], range(first, first + 5))
            machines[name].exchange()
        run(machines["a"].path, "key", "rotate", "--data")
        machines["b"].erase(subject="s1", why="asked")
        machines.exchange("a", "b")
        for name in "ab":
            lake = machines.reopened(name)
            assert protected.payloads(lake) == protected.shown(range(10), ("s1",))
            assert lake.erasures()[0].is_done
            keys_of, fields = lake.store.paths.keys, lake.store.paths.protection
            assert keys_of
            assert fields
            assert (len(keys_of.ring.keys), fields.destroyed) == (2, 1)
        machines.close()
        assert bucket.count("lost") + bucket.count("cut")
        objects = object_stores.download(bucket.address, tmp_path / "store")
        assert {"config", "machines", "segments"} <= {key.split("/")[1] for key in objects}
    assert encrypted.found(tmp_path, [protected.PLANTED, "SIGNUP"]) == []


def test_events_wait_while_a_store_is_away(
    keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with object_stores.moto_store() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        machines = SharedMachines(tmp_path, "s3://lakes/x")
        append(machines["a"], 1)
        machines.exchange("a", "b")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        append(machines.reopened("a"), 2)
        with pytest.raises(Unreachable):
            machines["a"].exchange()
        assert numbers(machines["a"]) == [1, 2]
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        machines.reopened("a")
        machines.exchange("a", "b")
        assert numbers(machines["b"]) == [1, 2]
        machines.close()


def test_expired_credentials_are_one_line(
    keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with troubled(Trouble(denied=True), monkeypatch), pytest.raises(Unreachable, match="access is"):
        attach("s3://lakes/x", str(tmp_path / "a"))


def test_a_forked_child_of_a_process_that_used_the_store_is_refused(
    keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # obstore's threads are not in it, and a request would wait for them for ever.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Unreachable):
        attach("s3://lakes/x", str(tmp_path / "a"))
    child = os.fork()
    if not child:
        signal.alarm(30)
        try:
            attach("s3://lakes/x", str(tmp_path / "b"))
        except TransferRefused:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("harm", ["shortens", "full", "read-only", "expired"])
def test_events_wait_while_a_store_does_not_keep_them(
    keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    with unfaithful_store(monkeypatch) as faults:
        machines = SharedMachines(tmp_path, f"s3://lakes/{harm}")
        append(machines["a"], 1)
        if harm == "shortens":
            faults.shortens = "/segments/"
        else:
            faults.refuses = REFUSALS[harm]
        with pytest.raises(LakelogError, match=f"s3://lakes/{harm}: "):
            machines["a"].exchange()
        assert numbers(machines["a"]) == [1]
        faults.shortens, faults.refuses = "", (0, "")
        machines.exchange("a", "b")
        assert numbers(machines["b"]) == [1]
        machines.close()


def test_a_listing_that_lacks_names_takes_nothing_away(
    keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unfaithful_store(monkeypatch) as faults:
        machines = SharedMachines(tmp_path, "s3://lakes/listed")
        append(machines["a"], 1)
        machines["a"].tag("v1")
        machines.exchange("a", "b")
        faults.hides = True
        append(machines["b"], 2)
        machines.exchange("b", "a", "c")
        for name in "ab":
            assert [tag.name for tag in machines[name].tags()] == ["v1"]
        assert numbers(machines["a"]) == numbers(machines["c"]) == [1, 2]
        machines.close()


def test_an_erasure_is_learnt_of_though_a_listing_lacks_it(
    keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unfaithful_store(monkeypatch) as faults:
        machines = SharedMachines(tmp_path, "s3://lakes/unlisted")
        for name, number in ("a", 1), ("b", 2):
            machines[name].exchange()
            machines[name].append({"type": "T", "subject": "ada", "data": {"n": number}})
            append(machines[name], number + 10)
        machines["a"].exchange()
        machines["a"].erase(subject="ada", why="asked")
        faults.hides = True
        machines["b"].exchange()
        faults.hides = False
        machines.exchange("b", "a")
        assert numbers(machines["a"]) == numbers(machines["b"]) == [11, 12]
        assert machines["a"].erasures()[0].is_done
        machines.close()


def test_a_prune_from_a_new_directory_keeps_states_that_only_the_bucket_has(
    keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long_manifests: None
) -> None:
    """Also those that move spans brought without their manifests."""
    monkeypatch.setattr("lakelog.remotes.prunes.GRACE_LEAST", 0)
    monkeypatch.setattr("lakelog.remotes.prunes._SHARED_GRACE", 0)
    monkeypatch.setattr(move_spans, "SPAN", 4)
    monkeypatch.setattr(move_spans, "GROWTH", 2)
    with unfaithful_store(monkeypatch):
        machines = SharedMachines(tmp_path, "s3://lakes/lazy")
        publish_each(machines["a"], range(6))
        known.add(machines["b"].store, "origin", "s3://lakes/lazy")
        machines["b"].gc()
        prune(machines["b"], "origin", grace=0)
        assert [machines["c"].at(f"@{n}").count() for n in range(2, 8)] == list(range(1, 7))
        machines.close()


def test_a_prune_keeps_history_and_what_is_offered(
    keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakelog.remotes.prunes.GRACE_LEAST", 0)
    with object_stores.moto_store() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        machines = SharedMachines(tmp_path, "s3://lakes/pruned")
        publish_each(machines["a"], range(3))
        machines["a"].compact()
        machines["b"].exchange()
        offer_and_die(machines, 3, 4)
        stray = S3Remote("s3://lakes/pruned")
        stray.put(f"segments/00/{'0' * 64}.parquet", lambda: iter([b"stray"]), 5)
        known.add(machines["b"].store, "origin", "s3://lakes/pruned")
        with pytest.raises(TransferRefused, match="a day at least"):
            prune(machines["b"], "origin", grace=3_600)
        monkeypatch.setattr("lakelog.remotes.prunes._SHARED_GRACE", 0)
        assert prune(machines["b"], "origin", grace=0).objects == 1
        append(machines["c"], 5)
        machines["c"].exchange()
        assert numbers(machines["c"]) == [0, 1, 2, 3, 4, 5]
        machines["c"].rollback("@3")
        assert numbers(machines["c"]) == [0, 1]
        machines.close()
