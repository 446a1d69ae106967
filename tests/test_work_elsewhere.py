"""`--on`: verbs whose work other processes do leave what they leave without them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import lakelog
from lakelog import train, views
from lakelog.errors import DamagedSegment
from lakelog.runtime import interpreter
from tests.support.redis_server import free_port
from tests.support.requirements import need
from tests.support.ssh_server import await_port
from tests.support.trainsets import notes, recipe
from tests.support.tree import ROOT

MakeLake = Callable[..., lakelog.Lake]
ON = "local:2"


def filled(lake: lakelog.Lake) -> lakelog.Lake:
    """Fill a lake with segments of which groups of four are merged, and a tail."""
    for n in range(8):
        events = notes(25, seed=n, first=25 * n)
        for place, event in enumerate(events):
            event["message"] = f"{event['message']} user{place}@example.com {place}"
        lake.append(events)
        lake.settle()
    lake.append(notes(5, seed=99, first=900))
    return lake


def segments(lake: lakelog.Lake) -> list[Any]:
    """Return what is known of the segments, and their rows as they are stored."""
    state = lake.store.manifests.of(lake.store.refs.head("main").move)
    found = []
    for entry in lake.store.manifests.segments(state, "events"):
        paths = lake.store.paths
        rows = pq.read_table(paths.object("segments", entry.key)).to_pydict()
        has_words = Path(paths.words(entry.key)).exists()
        found.append((entry.seq, entry.layout, entry.types, has_words, rows))
    return found


def files_of(directory: Path) -> dict[str, str]:
    """Return the digests of the files of an export, but for those that name the one before it."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("data", "lineage")
        for path in sorted((directory / folder).iterdir())
    }


def test_a_training_set_has_the_same_bytes(make_lake: MakeLake, tmp_path: Path) -> None:
    """Rows that workers redacted make the files that this process makes, with the same counts."""
    lake, wanted = filled(make_lake()), recipe("text", redact={"kinds": ["email"]})
    here = train.export(lake, wanted, str(tmp_path / "here"))
    there = train.export(lake, wanted, str(tmp_path / "there"), workers=ON)
    assert files_of(tmp_path / "here") == files_of(tmp_path / "there")
    assert there.manifest["redaction"] == here.manifest["redaction"]
    assert there.manifest["redaction"]["found"]["email"] == 200


def test_compaction_leaves_the_same_segments(make_lake: MakeLake) -> None:
    """Groups that workers merge have the rows, the order, the types and the word indexes that they
    have where this process merges them."""
    lake = filled(make_lake("one", segment_rows=100))
    lake.settle()
    copy = str(Path(lake.path).with_name("two"))
    lake.backup(copy)
    with lakelog.open(copy, settings={"seal": "never"}) as other:
        assert lake.compact() == other.compact(workers=ON)
        assert lake.sql("FROM events ORDER BY seq").fetchall() == (
            other.sql("FROM events ORDER BY seq").fetchall()
        )
        assert len(segments(lake)) == 3
        assert segments(lake) == segments(other)
        assert other.compact(workers=ON).removed == 0


@pytest.mark.damaged
def test_damage_stops_no_other_group(make_lake: MakeLake) -> None:
    """A worker that finds a damaged segment leaves its group, and the others are merged."""
    lake = filled(make_lake(segment_rows=100))
    lake.settle()
    state = lake.store.manifests.of(lake.store.refs.head("main").move)
    first = lake.store.manifests.segments(state, "events")[0]
    path = Path(lake.store.paths.object("segments", first.key))
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedSegment, match="does not match its name"):
        lake.compact(workers=ON)
    assert [layout for _, layout, *_ in segments(lake)].count("sorted") == 2


def test_views_and_templates_are_computed_before_somebody_asks(make_lake: MakeLake) -> None:
    """What workers computed is found by who asks, who gets what he gets without them."""
    lake = filled(make_lake("one"))
    copy = str(Path(lake.path).with_name("two"))
    lake.backup(copy)
    names = ["status", "throughput"]
    with lakelog.open(copy, settings={"seal": "never"}) as other:
        build = views.LakeViews(other).build
        assert build(*names, workers=ON) == 16
        assert build(*names, workers=ON) == 0
        # Each view is of two pieces of one worker's tasks at least, and nobody has asked yet.
        pieces = [*Path(other.store.paths.cache, "views").rglob("*.piece")]
        assert len(pieces) >= 4
        for name in names:
            moment = {"now": "2026-10-01T00:00:00Z"}
            assert views.read(other, name, **moment).equals(views.read(lake, name, **moment))
        assert [*Path(other.store.paths.cache, "views").rglob("*.piece")] == pieces
        assert views.patterns(other, workers=ON).equals(views.patterns(lake))


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[tuple[int, dict[str, str]]]:
    """A Ray cluster of this machine: the port for clients, and the environment of its members."""
    need("ray")
    ports = free_port(), free_port()
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *(f"--port={ports[0]}", f"--ray-client-server-port={ports[1]}", "--num-cpus=2"),
        *("--include-dashboard=false", "--disable-usage-stats", "--node-ip-address=127.0.0.1"),
        *("--temp-dir", tempfile.mkdtemp(dir="/tmp")),  # its sockets need a short path
        # Ports of its workers must not be those that were free.
        *("--min-worker-port=0", "--max-worker-port=0"),
    ]
    environment = {
        **interpreter.environment(),
        "RAY_ADDRESS": f"127.0.0.1:{ports[0]}",
        "RAY_AUTH_MODE": "disabled",  # or a token that some program left would be asked for
    }
    with subprocess.Popen(command, env=environment) as cluster:
        for port in ports:
            await_port(port)
        try:
            yield ports[1], environment
        finally:
            cluster.terminate()
    shutil.rmtree(command[-3])


@pytest.mark.parametrize("is_client", [False, True])
def test_a_ray_cluster_does_the_same(
    make_lake: MakeLake, tmp_path: Path, ray_cluster: tuple[int, dict[str, str]], is_client: bool
) -> None:
    """Tasks on Ray leave what they leave here, also where a worker is killed meanwhile: for a
    member of the cluster, and for its client."""
    port, environment = ray_cluster
    place = f"ray://127.0.0.1:{port}" if is_client else "ray"
    lake = filled(make_lake())
    train.export(lake, recipe("text", redact={"kinds": ["email"]}), str(tmp_path / "here"))
    program = [sys.executable, "-c", RAY, place, lake.path, str(tmp_path)]
    subprocess.run(program, cwd=ROOT, env=environment, check=True)
    assert files_of(tmp_path / "here") == files_of(tmp_path / "there")
    assert (tmp_path / "1").exists()


RAY = """
import sys
import lakelog
from lakelog import train
from lakelog.errors import DamagedSegment
from lakelog.workers import WorkerPool
from tests.support import worker_tasks
from tests.support.trainsets import recipe

place, path, folder = sys.argv[1:]
with WorkerPool.at(place) as pool:
    assert [*pool.results(worker_tasks.dies_once, [(n, folder) for n in (1, 2)])] == [1, 2]
    try:
        [*pool.results(worker_tasks.finds_damage, [()])]
    except DamagedSegment as error:
        assert error.offset == 7
with lakelog.open(path) as lake:
    wanted = recipe("text", redact={"kinds": ["email"]})
    train.export(lake, wanted, f"{folder}/there", workers=place)
"""
"""A program that has its tasks done on a cluster."""
