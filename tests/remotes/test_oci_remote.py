"""Remotes in registries: the suite, on Docker's own registry, and what other clients see there."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import random
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.errors import Diverged, TransferRefused, Unreachable
from lakelog.proofs import keys, signing
from lakelog.remotes import fetches as fetching
from lakelog.remotes import known, oci, oci_manifests
from lakelog.remotes.registry import Repository
from lakelog.remotes.remote import SETTLING, retrying
from lakelog.state.state import save_state
from lakelog.store import Store
from tests.support import registry_server
from tests.support.cutting_proxy import CuttingProxy, proxied
from tests.support.lakes import opened
from tests.support.remote_suite import (
    RemoteSuite,
    add,
    checked,
    cloned,
    heads,
    pull,
    push,
    rows,
    snapshot,
)
from tests.support.requirements import need, need_module
from tests.support.volume_suite import RemoteVolumeSuite

_NUMBERS = itertools.count()
PART = 1 << 18
"""Bytes of a request here, for the registry takes a second of CPU for a few long ones."""


@pytest.fixture(autouse=True)
def _short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lakelog.remotes.registry.PART", PART)


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    """HOST:PORT of a registry."""
    with registry_server.served() as host:
        yield host


@pytest.mark.matrix
class TestOci(RemoteSuite, RemoteVolumeSuite):
    """A repository, a new one for each test."""

    CUTS = 14
    DAMAGES = False

    @pytest.fixture
    def url(self, home: Path, registry: str, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv("DOCKER_CONFIG", str(home))
        monkeypatch.setattr(oci, "SETTLING", 0.0)
        return f"oci://{registry}/lakes/n{next(_NUMBERS)}"

    def test_concurrent_publishes_take_each_number_once(
        self, stores: list[Store], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A tag that each found free is the last writer's only once the other has looked again."""
        monkeypatch.setattr(oci, "SETTLING", SETTLING)
        super().test_concurrent_publishes_take_each_number_once(stores)

    def test_all_files_of_a_ref_are_a_lake(self, path: str, url: str, home: Path) -> None:
        """Whoever pulls all layers into a directory by their titles, as `oras pull` does."""
        push(path)
        files = _files(url, "main")
        for title, data in files.items():
            target = home / "pulled" / title
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        with lakelog.open(str(home / "pulled"), create=False) as lake:
            assert lake.verify().problems == ()
        assert rows(str(home / "pulled")) == rows(path)

    def test_a_ref_lists_what_it_needs_and_a_push_only_what_is_new(
        self, path: str, url: str, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(oci_manifests, "_LISTED", 4)
        push(path)
        before = {each["digest"] for each in _get(url, "main")["manifests"]}
        add(path, "more")
        push(path)
        after = [each["digest"] for each in _get(url, "main")["manifests"]]
        assert len(after) > 6
        assert len(set(after) - before) <= 3
        with opened(path) as lake:
            paths = {str(file.relative_to(path)) for file in Path(path).glob("segments/*/*")}
            assert len(paths) == len(lake.store.manifests.segments(lake.store.state("main")))
        assert paths <= _files(url, "main").keys()

    def test_skopeo_lists_and_copies(self, path: str, url: str, home: Path) -> None:
        need("skopeo")
        push(path)
        push(path, "v1")
        place = url.replace("oci://", "docker://")
        listed = json.loads(_skopeo("list-tags", "--tls-verify=false", place))
        names = [tag for tag in listed["Tags"] if not tag.startswith("_l")]
        assert sorted(names) == ["main", "main_m1", "v1"]
        raw = json.loads(_skopeo("inspect", "--raw", "--tls-verify=false", f"{place}:main"))
        assert raw["artifactType"] == oci.SNAPSHOT
        copy = home / "copy"
        _skopeo("copy", "--all", "--src-tls-verify=false", f"{place}:main", f"dir:{copy}")
        digests = {_sha256(file.read_bytes()) for file in copy.iterdir()}
        files = _files(url, "main")
        assert {_sha256(data) for data in files.values()} <= digests

    def test_a_branch_that_was_copied_alone_is_a_remote(
        self, path: str, url: str, home: Path
    ) -> None:
        need("skopeo")
        add(path, "more")
        push(path)
        add(path, "even more")
        push(path)
        copy, place = f"{url}copy", f"{url}:main".replace("oci://", "docker://")
        no_tls = ("--src-tls-verify=false", "--dest-tls-verify=false")
        to = f"{copy}:main".replace("oci://", "docker://")
        _skopeo("copy", "--all", *no_tls, place, to)
        clone = cloned(copy, home / "clone")
        assert rows(clone) == rows(path)
        add(clone, "theirs")
        assert push(clone).refs == {"main": "updated"}
        assert rows(cloned(copy, home / "again")) == rows(clone)

    def test_a_blob_that_a_registry_lost_is_sent_again(
        self, path: str, url: str, home: Path, registry: str
    ) -> None:
        push(path)
        segment = min(Path(path).glob("segments/*/*.parquet"))
        place = f"{url.replace('oci://' + registry, f'http://{registry}/v2')}/blobs"
        request = urllib.request.Request(f"{place}/sha256:{segment.stem}", method="DELETE")
        urllib.request.urlopen(request, timeout=240).close()
        (fault,) = checked(path).faults
        assert fault.path == str(segment.relative_to(path))
        repaired = push(path, repair=True)
        assert (repaired.refs, repaired.carried.objects) == ({"main": "repaired"}, 1)
        assert push(path, repair=True).refs == {"main": "up to date"}
        assert checked(path, read_data=True).faults == []
        assert rows(cloned(url, home / "clone")) == rows(path)

    def test_a_branch_whose_newest_move_was_lost_is_no_empty_lake(
        self, path: str, url: str, home: Path, registry: str
    ) -> None:
        push(path)
        with known.connected(url) as there:
            move = b"".join(there.stream("refs/heads/main/000000000001.json"))
        place = f"{url.replace('oci://' + registry, f'http://{registry}/v2')}/blobs"
        digest = hashlib.sha256(move).hexdigest()
        request = urllib.request.Request(f"{place}/sha256:{digest}", method="DELETE")
        urllib.request.urlopen(request, timeout=240).close()
        for work in (lambda: fetching.clone(url, str(home / "clone")), lambda: push(path)):
            with pytest.raises(TransferRefused, match="'main' is listed there, but its bytes are"):
                work()
        assert [fault.path for fault in checked(path).faults] == ["refs/heads/main"]
        assert push(path, repair=True).refs == {"main": "new"}
        assert rows(cloned(url, home / "clone")) == rows(path)

    def test_what_is_cut_in_the_storage_of_a_registry_is_named(
        self, path: str, url: str, home: Path, registry: str
    ) -> None:
        """Another attempt would not help, so none is advised."""
        push(path)
        folder = registry_server.folder(registry)
        repository = url.removeprefix(f"oci://{registry}/")
        link = next(folder.rglob(f"{repository}/_manifests/tags/main/current/link"))
        digest = link.read_text().removeprefix("sha256:")
        blob = next(folder.rglob(f"{digest}/data"))
        for work in (lambda: fetching.clone(url, str(home / "clone")), lambda: checked(path)):
            with _cut(blob), pytest.raises(Unreachable) as cut:
                work()
            assert f"/v2/{repository}/manifests/" in str(cut.value)
            assert "damaged in the registry's storage" in str(cut.value)
            assert "run it again" not in str(cut.value)

    def test_what_a_full_disk_cut_in_a_registry_is_sent_again(
        self, path: str, registry: str
    ) -> None:
        """Its answer of 500 to a look at a blob ends no push; where it keeps what is cut, no repair
        is said to have mended it."""
        push(path)
        folder = registry_server.folder(registry)
        with opened(path) as lake:
            state = lake.store.state("main")
            digest = lake.store.manifests.segments(state)[0].key
        for link in folder.rglob(f"_layers/sha256/{digest}/link"):
            link.write_bytes(b"")
        assert push(path, repair=True).refs == {"main": "repaired"}
        assert not checked(path, read_data=True).faults
        blob = next(folder.rglob(f"blobs/sha256/*/{digest}/data"))
        stays = f"{digest}.parquet is damaged there, and stays"
        with _cut(blob), pytest.raises(TransferRefused, match=stays):
            push(path, repair=True)

    def test_a_signature_is_a_referrer_of_what_it_signs(
        self, path: str, url: str, home: Path
    ) -> None:
        need_module("cryptography")
        keys.PrivateKey.generate(str(home / "key"))
        with opened(path) as lake:
            for ref in ("v1", "main"):
                what = signing.Target.of(lake.store, "main", ref)
                signing.sign(lake.store, "main", what, keys.PrivateKey.load(str(home / "key")))
        push(path)
        push(path, "v1")
        repository = Repository(url)
        tags = [tag for tag in repository.tags() if re.search("_s[0-9a-f]{16}$", tag)]
        assert len(tags) == 2
        for tag in tags:
            signed = repository.manifest("v1" if tag.startswith("v1_s") else "main")
            subject = json.loads(repository.manifest(tag) or b"")["subject"]
            assert subject["digest"] == f"sha256:{_sha256(signed or b'')}"
        repository.close()

    def test_names_that_registries_do_not_take(self, path: str, url: str, home: Path) -> None:
        names = ["v1_m2", "Übung & mehr", "a/b", "_lakelog", "A", "a", "v1_s0123456789abcdef"]
        with opened(path) as lake:
            for name in names:
                lake.tag(name)
            lake.branch("side_m1")
            lake.tag("x" * 130)
        push(path)
        with opened(path) as lake:
            push_tags = [name for name in lake.store.refs.tag_names() if name in names]
        push(path, *push_tags)
        assert set(names) | {"main"} == heads(url).keys()
        with pytest.raises(TransferRefused, match="too long a name"):
            push(path, "x" * 130)

    def test_a_tag_is_not_mistaken_for_a_branch(self, path: str, url: str) -> None:
        push(path)
        other = path + "2"
        add(other, "other")
        with opened(other) as lake:
            lake.branch("v1")
            known.add(lake.store, "origin", url)
        push(path, "v1")
        with opened(other) as lake, pytest.raises(TransferRefused, match="name of a tag there"):
            lakelog.remotes.pushes.push(lake, "origin", branches=["v1"])
        assert heads(url).keys() == {"main", "v1"}

    def test_of_two_acknowledged_pushes_the_lost_one_is_noticed(
        self, path: str, url: str, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A registry overwrites: the other side's write came after our last look."""
        push(path)
        clone = cloned(url, home / "clone")
        add(clone, "theirs")
        add(path, "ours")
        ours = rows(path)
        with monkeypatch.context() as patch:
            # Their look is before our write, and their write after our last look.
            patch.setattr(Repository, "has_manifest", _before(lambda: push(path)))
            push(clone)
        assert heads(url)["main"] == snapshot(clone)
        with pytest.raises(Diverged):
            pull(path)
        add(path, "later", 1)
        with pytest.raises(Diverged):
            push(path)
        assert rows(path)[:-1] == ours

    def test_somebody_elses_tags_are_left_alone(
        self, path: str, url: str, home: Path, registry: str
    ) -> None:
        repository, mixed = Repository(url), Repository(url + "x")
        body = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
        repository.put_manifest("latest", body, "application/vnd.oci.image.index.v1+json")
        with pytest.raises(TransferRefused, match="is not empty and no lake"):
            push(path)
        with opened(path) as lake:
            known.remove(lake.store, "origin")
            known.add(lake.store, "origin", url + "x")
        push(path)
        mixed.put_manifest("latest", body, "application/vnd.oci.image.index.v1+json")
        assert heads(url + "x").keys() == {"main"}
        with opened(path) as lake:
            lake.tag("latest")
        with pytest.raises(TransferRefused, match="somebody else's tag"):
            push(path, "latest")
        repository.close()
        mixed.close()

    @pytest.mark.matrix
    @pytest.mark.parametrize("part", range(6))
    def test_cut_at_a_request_it_goes_on(
        self, path: str, url: str, home: Path, registry: str, part: int
    ) -> None:
        """From a request on, all connections are cut: the old state or the new one is there. The
        parts together cut a push at every request, before and after it has taken effect."""
        (home / "app").mkdir()
        (home / "app" / "big").write_bytes(random.Random(1).randbytes(PART + 100_000))
        push(path)
        old, cuts, after = heads(url)["main"], 0, part % 2 == 0
        with proxied(registry) as proxy:
            far = url.replace(registry, proxy.address)
            with opened(path) as lake:
                known.remove(lake.store, "origin")
                known.add(lake.store, "origin", far)
            for at in itertools.count(1 + part // 2, 3):
                add(path, f"step{at}", 3)
                (home / "app" / "small").write_text(str(at))
                with opened(path) as lake:
                    save_state(lake, {"app": str(home / "app")}, name=f"s{at}")
                is_cut = _is_cut(proxy, at, after, lambda: push(path))
                assert heads(url)["main"] in (old, snapshot(path))
                push(path)
                old = snapshot(path)
                assert heads(url)["main"] == old
                cuts += is_cut
                if not is_cut:
                    break
            clone = home / "clone"
            for at in itertools.count(1 + part // 2, 3):
                if not _is_cut(proxy, at, after, lambda: fetching.clone(far, str(clone))):
                    break
                cuts += 1
        assert cuts >= 10
        assert rows(str(clone)) == rows(path)
        with lakelog.open(str(clone), create=False) as lake:
            assert lake.verify().problems == ()


def test_garbage_collection_between_pushes_keeps_all(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`docker-registry garbage-collect -m` deletes manifests that have no tag of their own."""
    monkeypatch.setenv("DOCKER_CONFIG", str(home))
    monkeypatch.setattr(oci, "SETTLING", 0.0)
    monkeypatch.setattr(oci_manifests, "_LISTED", 4)
    path = str(home / "lake")
    with registry_server.served() as host:
        url = f"oci://{host}/lake"
        (home / "app").mkdir()
        (home / "app" / "file").write_bytes(b"content")
        add(path, "first")
        with opened(path) as lake:
            known.add(lake.store, "origin", url)
            save_state(lake, {"app": str(home / "app")}, name="saved")
        push(path, "saved")
        for number in range(3):
            add(path, f"later{number}", 5)
            push(path)
            registry_server.collect_garbage(host)
            assert rows(cloned(url, home / "clone")) == rows(path)


def test_one_lost_request_is_made_again_and_uploads_go_on(
    registry: str, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(home))
    data = random.Random(2).randbytes(3 * PART)
    digest = f"sha256:{_sha256(data)}"
    with proxied(registry) as proxy:
        for at, after in itertools.product(range(2, 4), (False, True)):
            repository = Repository(f"oci://{proxy.address}/parts/n{next(_NUMBERS)}")
            proxy.cut(at, after=after, once=True)
            # Docker's registry has no way back into an upload of which it got more than we know.
            retrying(lambda put=repository.put_blob: put(digest, _pieces(data), len(data)))  # type: ignore[misc]
            assert proxy.lost == 1
            assert proxy.requests <= (8 if after else 5) + 1
            assert b"".join(repository.blob(digest)) == data
            assert b"".join(repository.blob(digest, PART + 1)) == data[PART + 1 :]
            assert repository.blob_size(digest) == len(data)
            repository.close()


def test_a_dead_registry_and_wrong_addresses_are_one_line(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setattr("lakelog.clients.connection.pause", lambda attempt: 0.0)
    monkeypatch.setenv("DOCKER_CONFIG", str(home))
    with pytest.raises(Unreachable, match="run it again"):
        fetching.clone("oci://127.0.0.1:9/x", "/nonexistent/x")
    for wrong in ("oci://host", "oci://host/UPPER", "oci://host/a:tag", "oci:///a", "oci://h:x/a"):
        with pytest.raises(TransferRefused, match="oci://HOST/REPOSITORY"):
            known.checked_url(wrong)


def _pieces(data: bytes) -> Iterator[bytes]:
    return (data[at : at + (1 << 15)] for at in range(0, len(data), 1 << 15))


@contextlib.contextmanager
def _cut(blob: Path) -> Iterator[None]:
    """A file of a registry is cut, which has one of the same bytes for the lakes of all tests."""
    data = blob.read_bytes()
    blob.write_bytes(data[:200])
    yield
    blob.write_bytes(data)


def _is_cut(proxy: CuttingProxy, at: int, after: bool, work: Any) -> bool:
    proxy.cut(at, after=after)
    try:
        work()
    except Unreachable:
        return True
    finally:
        proxy.pass_all()
    return False


def _before(work: Any) -> Any:
    """Do something once, after the next look at a move's tag and before its answer."""
    real, todo = Repository.has_manifest, [work]

    def look(repository: Repository, reference: str) -> bool:
        answer = real(repository, reference)
        if "_m" in reference and todo:
            todo.pop()()
        return answer

    return look


def _get(url: str, reference: str) -> Any:
    host, _, name = url.removeprefix("oci://").partition("/")
    accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
    request = urllib.request.Request(
        f"http://{host}/v2/{name}/manifests/{reference}", headers={"Accept": accept}
    )
    with urllib.request.urlopen(request, timeout=240) as answer:
        return json.loads(answer.read())


def _files(url: str, reference: str) -> dict[str, bytes]:
    """Return all layers below an index, by title."""
    host, _, name = url.removeprefix("oci://").partition("/")
    found = {}
    for each in _get(url, reference)["manifests"]:
        for layer in _get(url, each["digest"])["layers"]:
            place = f"http://{host}/v2/{name}/blobs/{layer['digest']}"
            with urllib.request.urlopen(place, timeout=240) as answer:
                found[layer["annotations"]["org.opencontainers.image.title"]] = answer.read()
    return found


def _skopeo(*words: str) -> str:
    done = subprocess.run([need("skopeo"), *words], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
