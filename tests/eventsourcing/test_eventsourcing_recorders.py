"""The recorders of `lakelog.eventsourcing`, by the tests that the library `eventsourcing` ships."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.requirements import need

need("eventsourcing", "Crypto")

from eventsourcing.tests import persistence as shipped  # noqa: E402
from eventsourcing.utils import Environment  # noqa: E402

from lakelog.eventsourcing import recorders  # noqa: E402


class OwnLake:
    """Gives each test of the library a lake of its own."""

    @pytest.fixture(autouse=True)
    def own_lake(self, tmp_path: Path):
        self.env = Environment("shop")
        self.env["PERSISTENCE_MODULE"] = "lakelog.eventsourcing"
        self.env["LAKELOG_PATH"] = str(tmp_path / "lake")
        self.own_factory = recorders.Factory(self.env)
        yield
        self.own_factory.close()


class TestAggregateRecorder(OwnLake, shipped.AggregateRecorderTestCase):
    def create_recorder(self):
        return self.own_factory.aggregate_recorder()


class TestApplicationRecorder(OwnLake, shipped.ApplicationRecorderTestCase):
    def create_recorder(self):
        return self.own_factory.application_recorder()

    def test_insert_subscribe(self):
        self.optional_test_insert_subscribe()


class TestTrackingRecorder(OwnLake, shipped.TrackingRecorderTestCase):
    def create_recorder(self):
        return self.own_factory.tracking_recorder()


class TestProcessRecorder(OwnLake, shipped.ProcessRecorderTestCase):
    def create_recorder(self):
        return self.own_factory.process_recorder()


class TestNotificationsOfTwoThreads(OwnLake, shipped.NonInterleavingNotificationIDsBaseCase):
    insert_num = 300

    def create_recorder(self):
        return self.own_factory.application_recorder()


class OwnTrackingRecorder(recorders.LakeTrackingRecorder):
    """A recorder that an application brings."""


class TestFactory(OwnLake, shipped.InfrastructureFactoryTestCase):
    def expected_factory_class(self):
        return recorders.Factory

    def expected_aggregate_recorder_class(self):
        return recorders.LakeAggregateRecorder

    def expected_application_recorder_class(self):
        return recorders.LakeApplicationRecorder

    def expected_tracking_recorder_class(self):
        return recorders.LakeTrackingRecorder

    def tracking_recorder_subclass(self):
        return OwnTrackingRecorder

    def expected_process_recorder_class(self):
        return recorders.LakeProcessRecorder
