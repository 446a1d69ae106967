"""An application of the library `eventsourcing` on a lake, as its users write it."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner

from tests.support.requirements import need

need("eventsourcing")

from eventsourcing.application import AggregateNotFoundError, Application  # noqa: E402
from eventsourcing.domain import Aggregate, event  # noqa: E402
from eventsourcing.persistence import IntegrityError, StoredEvent, Tracking  # noqa: E402
from eventsourcing.system import Leader, ProcessApplication, SingleThreadedRunner, System  # noqa: E402
from eventsourcing.utils import Environment  # noqa: E402

import lakelog  # noqa: E402
from lakelog.cli import cli  # noqa: E402
from lakelog.errors import InvalidKey, SubscriptionRewound  # noqa: E402
from lakelog.eventsourcing import Factory  # noqa: E402
from lakelog.eventsourcing.recorders import LakeProcessRecorder  # noqa: E402
from tests.support import encrypted, protected  # noqa: E402


class Dog(Aggregate):
    """The aggregate of the library's tutorial."""

    @event("Registered")
    def __init__(self, name: str) -> None:
        self.name, self.tricks = name, []

    @event("TrickAdded")
    def add_trick(self, trick: str) -> None:
        self.tricks.append(trick)


class DogSchool(Application):
    """The application of the library's tutorial."""

    is_snapshotting_enabled = True

    def register(self, name: str) -> UUID:
        dog = Dog(name)
        self.save(dog)
        return dog.id

    def add_trick(self, dog_id: UUID, trick: str) -> None:
        dog = self.repository.get(dog_id)
        dog.add_trick(trick)
        self.save(dog)

    def tricks(self, dog_id: UUID, version: int | None = None) -> list[str]:
        return list(self.repository.get(dog_id, version=version).tricks)


def environment(path: Path) -> dict[str, str]:
    return {"PERSISTENCE_MODULE": "lakelog.eventsourcing", "LAKELOG_PATH": str(path / "lake")}


@pytest.fixture
def recorder(tmp_path):
    factory = Factory(Environment("shop", environment(tmp_path)))
    yield factory.process_recorder()
    factory.close()


def stored(originator_id: UUID | str, version: int, state: bytes = b"{}") -> StoredEvent:
    return StoredEvent(originator_id, version, "shop:Paid", state)


def test_an_aggregate_whose_key_was_destroyed_is_not_there(tmp_path, monkeypatch):
    """All others are, also behind it in the notifications, which do not end there. Without the
    file of keys nobody is told that an aggregate is not there."""
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        lake.protect(["state", "state_base64"])
    with DogSchool(environment(tmp_path)) as school:
        dogs = [school.register(f"{protected.PLANTED}{n}") for n in range(3)]
        school.add_trick(dogs[0], "roll over")
        school.take_snapshot(dogs[0])
        with lakelog.open(tmp_path / "lake") as lake:
            subjects = [f"dogschool.{purpose}/{dogs[0]}" for purpose in ("events", "snapshots")]
            lake.erase(subject=subjects, why="asked")
        with pytest.raises(AggregateNotFoundError):
            school.tricks(dogs[0])
        school.add_trick(dogs[1], "fetch")
        assert [school.tricks(dog) for dog in dogs[1:]] == [["fetch"], []]
        notifications = school.recorder.select_notifications(1, 2)
        assert [n.originator_id for n in notifications] == dogs[1:]
        with protected.without_keys(tmp_path):
            with pytest.raises(InvalidKey):
                school.tricks(dogs[2])
            with pytest.raises(InvalidKey):
                school.recorder.select_notifications(1, 2)
    assert encrypted.found(tmp_path / "lake", [protected.PLANTED]) == []


def test_threads_that_store_meanwhile_are_no_conflict(tmp_path):
    """Each takes the next number of notifications, however often another one was faster."""
    slow, turns = uuid4(), iter(range(3))

    class SlowRecorder(LakeProcessRecorder):
        def _encoded(self, event, **data):
            if event.originator_id == slow and next(turns, None) is not None:
                self.insert_events([stored(uuid4(), 1)])
            return super()._encoded(event, **data)

    recorder = SlowRecorder(lakelog.open(tmp_path / "lake"), "shop")
    assert recorder.insert_events([stored(slow, 1)]) == [4]
    assert [n.id for n in recorder.select_notifications(1, 9)] == [1, 2, 3, 4]
    recorder.lake.close()


def test_the_tutorials_application_keeps_its_dogs_in_streams(tmp_path):
    with DogSchool(environment(tmp_path)) as school:
        dog = school.register("Fido")
        for trick in ("roll over", "play dead", "fetch"):
            school.add_trick(dog, trick)
        school.take_snapshot(dog, version=3)
        school.add_trick(dog, "sit")
        names = [n.topic.rpartition(".")[2] for n in school.notification_log.select(1, 10)]
    with DogSchool(environment(tmp_path)) as school:
        assert school.tricks(dog) == ["roll over", "play dead", "fetch", "sit"]
        assert school.tricks(dog, version=2) == ["roll over"]
        with pytest.raises(AggregateNotFoundError):
            school.tricks(uuid4())
    assert names == ["Registered", *["TrickAdded"] * 4]
    with lakelog.open(tmp_path / "lake") as lake:
        assert lake.stream(f"dogschool.events/{dog}").version == 5
        assert lake.stream(f"dogschool.snapshots/{dog}").version == 1
        assert lake.stream("dogschool.events").version == 5


class Trainers(ProcessApplication):
    """Counts the tricks of all dogs, once each."""

    name = "trainers"

    def policy(self, domain_event, processing_event) -> None:
        if isinstance(domain_event, Dog.TrickAdded):
            processing_event.collect_events(*Dog(domain_event.trick).collect_events())


class School(DogSchool, Leader):  # it prompts those that follow it
    name = "school"


def test_a_system_handles_each_event_once_though_it_starts_again(tmp_path):
    system = System(pipes=[[School, Trainers]])
    for trick in ("sit", "roll over"):
        with SingleThreadedRunner(system, environment(tmp_path)) as runner:
            school, trainers = runner.get(School), runner.get(Trainers)
            school.add_trick(school.register("Fido"), trick)
            log = trainers.notification_log.select(1, 10)
    assert [n.id for n in log] == [1, 2]
    with lakelog.open(tmp_path / "lake") as lake:
        handled = lake.stream("trainers.tracking/school")
        assert [json.loads(event["data"])["number"] for event in handled] == [1, 2, 3, 4]


@pytest.mark.parametrize("state", [b"", b"\xff\xfe", b"a\x00b", "\u2028 \U0001f600".encode()])
def test_states_come_back_as_the_bytes_that_they_were(recorder, state):
    dog = uuid4()
    recorder.insert_events([stored(dog, 1, state)])
    assert recorder.select_events(dog)[0].state == state
    assert recorder.select_notifications(1, 1)[0].state == state


def test_a_version_below_the_newest_one_is_refused_by_another_recorder_as_well(tmp_path, recorder):
    dog = uuid4()
    recorder.insert_events([stored(dog, version) for version in range(1, 6)])
    other = Factory(Environment("shop", environment(tmp_path)))
    for version in (1, 3, 5, 7):
        with pytest.raises(IntegrityError, match="has this number, or not the one before it"):
            other.application_recorder().insert_events([stored(dog, version)])
    assert other.application_recorder().insert_events([stored(dog, 6)]) == [6]
    assert recorder.insert_events([stored(dog, 7)]) == [7]
    assert [e.originator_version for e in recorder.select_events(dog, gt=4, lte=6)] == [5, 6]
    other.close()


def test_a_rollback_takes_versions_notifications_and_tracking_back(tmp_path, recorder):
    dog = uuid4()
    recorder.insert_events([stored(dog, 1)], tracking=Tracking("upstream", 7))
    with lakelog.open(tmp_path / "lake") as lake:
        lake.tag("before")
        recorder.insert_events([stored(dog, 2, b"lost")], tracking=Tracking("upstream", 9))
        lake.rollback("before")
    assert recorder.max_tracking_id("upstream") == 7
    assert recorder.insert_events([stored(dog, 2)], tracking=Tracking("upstream", 8)) == [2]
    assert [e.state for e in recorder.select_events(dog)] == [b"{}", b"{}"]
    assert [n.id for n in recorder.select_notifications(1, 10)] == [1, 2]


def test_a_subscription_is_told_of_a_rollback(tmp_path, recorder):
    """Numbers are given again: it would leave out those that it had before."""
    recorder.insert_events([stored(uuid4(), 1)])
    with lakelog.open(tmp_path / "lake") as lake, recorder.subscribe() as subscription:
        assert next(subscription).id == 1
        lake.tag("before")
        recorder.insert_events([stored(uuid4(), 1), stored(uuid4(), 1)])
        assert [next(subscription).id for _ in range(2)] == [2, 3]
        lake.rollback("before")
        assert recorder.insert_events([stored(uuid4(), 1) for _ in range(3)]) == [2, 3, 4]
        with pytest.raises(SubscriptionRewound, match="subscribe again"):
            next(subscription)
    with recorder.subscribe(gt=1) as again:
        assert [next(again).id for _ in range(3)] == [2, 3, 4]


def test_what_was_read_before_a_rollback_is_not_stored_behind_it(tmp_path, recorder):
    """Else its aggregate could never be read again."""
    dog, puppy = uuid4(), uuid4()
    recorder.insert_events([stored(dog, 1)])
    with lakelog.open(tmp_path / "lake") as lake:
        lake.tag("before")
        recorder.insert_events([stored(dog, 2), stored(dog, 3), stored(puppy, 1)])
        lake.rollback("before")
    for stale in (stored(dog, 4), stored(puppy, 2)):
        with pytest.raises(IntegrityError):
            recorder.insert_events([stale])
    assert recorder.insert_events([stored(dog, 2), stored(puppy, 1)]) == [2, 3]


@pytest.mark.parametrize("is_restarted", [False, True])
def test_an_application_goes_on_where_retention_removed_all_of_its_events(
    tmp_path, recorder, is_restarted
):
    """Its notifications get higher numbers than any before, and each is read. The next version of
    an aggregate, which was read from a younger snapshot, is stored by a new process, too."""
    dog = uuid4()
    before = recorder.insert_events([stored(dog, version) for version in (1, 2, 3)])
    with lakelog.open(tmp_path / "lake") as lake:
        lake.settle()
        command = ["--lake", lake.path, "retention", "--older-than", "1us", "--apply", "--yes"]
        assert CliRunner().invoke(cli, command).exit_code == 0
    assert recorder.select_events(dog) == []
    other = Factory(Environment("shop", environment(tmp_path)))
    recorders = [recorder, other.application_recorder()][:: -1 if is_restarted else 1]
    (number,) = recorders[0].insert_events([stored(dog, 4)])
    assert number > max(before)
    assert recorders[1].insert_events([stored(dog, 5)]) == [number + 1]
    other.close()
    assert [n.originator_version for n in recorder.select_notifications(4, 10)] == [4, 5]


def test_ids_may_be_texts_and_applications_share_a_lake(tmp_path):
    text_ids = {**environment(tmp_path), "ORIGINATOR_ID_TYPE": "text"}
    factories = [Factory(Environment(name, text_ids)) for name in ("shop", "depot")]
    for factory in factories:
        recorder = factory.application_recorder()
        assert recorder.insert_events([stored("order/17", 1)]) == [1]
        (notification,) = recorder.select_notifications(None, 10)
        assert (notification.originator_id, notification.id) == ("order/17", 1)
        factory.close()


def test_an_environment_without_a_lake_is_one_line():
    with pytest.raises(OSError, match="set SHOP_LAKELOG_PATH or LAKELOG_PATH"):
        Factory(Environment("shop")).application_recorder()
    wrong = {"LAKELOG_PATH": "lake", "ORIGINATOR_ID_TYPE": "int"}
    with pytest.raises(OSError, match="is uuid or text, not 'int'"):
        Factory(Environment("shop", wrong)).application_recorder()


def _insert(path: Path, shared: UUID, count: int) -> None:
    recorder = Factory(Environment("shop", environment(path))).application_recorder()
    for version in range(1, count + 1):
        recorder.insert_events([stored(uuid4(), 1), stored(uuid4(), 1)])
        try:
            recorder.insert_events([stored(shared, version)])
        except IntegrityError:
            continue


def test_processes_share_a_sequence_without_a_gap(tmp_path, recorder):
    shared, count = uuid4(), 20
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_insert, args=(tmp_path, shared, count)) for _ in range(3)]
    for process in processes:
        process.start()
    with recorder.subscribe() as subscription:
        seen = [next(subscription).id for _ in range(3 * count * 2 + count)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert seen == list(range(1, 3 * count * 2 + count + 1))
    versions = [e.originator_version for e in recorder.select_events(shared)]
    assert versions == list(range(1, count + 1))


def test_numbers_follow_a_backup_that_is_restored(tmp_path: Path) -> None:
    """What a recorder has looked up it does not number by where a stream has as many versions."""
    with lakelog.open(tmp_path / "lake") as lake:
        recorder = LakeProcessRecorder(lake, "shop")

        def read(name: str, number: int) -> None:
            with lakelog.open(lake.path, create=False) as other_lake:
                event, tracking = StoredEvent(uuid4(), 0, "topic", b""), Tracking(name, number)
                LakeProcessRecorder(other_lake, "shop").insert_events([event], tracking=tracking)
                other_lake.settle()

        lake.backup(tmp_path / "copy")
        read("upstream", 2)
        assert recorder.max_tracking_id("upstream") == 2
        with pytest.raises(IntegrityError):
            recorder.insert_events([], tracking=Tracking("upstream", 1))
        shutil.rmtree(lake.path)
        shutil.copytree(tmp_path / "copy", lake.path)
        read("upstream", 5)
        with pytest.raises(IntegrityError):
            recorder.insert_events([], tracking=Tracking("upstream", 4))


def test_numbers_follow_a_rollback_of_another_process(tmp_path: Path) -> None:
    """What a recorder has seen of a state that was taken back, it does not number by: also where
    another one has stored as many times since, and more."""
    with lakelog.open(tmp_path / "lake") as lake, lakelog.open(tmp_path / "lake") as other_lake:
        here, there = (LakeProcessRecorder(each, "shop") for each in (lake, other_lake))

        def stored(recorder: LakeProcessRecorder, name: str, count: int, read: int) -> list[int]:
            events = [StoredEvent(UUID(int=ord(name)), n, "topic", b"") for n in range(count)]
            return recorder.insert_events(events, tracking=Tracking("upstream", read))

        assert stored(here, "a", 1, 1) == [1]
        lake.tag("v1")
        assert stored(here, "b", 1, 2) == [2]
        other_lake.rollback("v1")
        assert stored(there, "c", 3, 5) == [2, 3, 4]
        with pytest.raises(IntegrityError):
            stored(here, "d", 1, 4)
        assert stored(here, "d", 1, 6) == [5]
        assert [n.id for n in here.select_notifications(1, 10)] == [1, 2, 3, 4, 5]
