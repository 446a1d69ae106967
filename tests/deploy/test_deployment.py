"""Recipes of deployments against the published schemas, and `kubectl` at the process boundary."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from lakelog.deploy.deployment import KINDS, Deployment, render
from lakelog.deploy.kubectl import Kubectl
from lakelog.errors import DeploymentFailed, InvalidSetting
from tests.support.cli import answer, run
from tests.support.cluster import Cluster, cluster, replicaset

__all__ = ["cluster"]
SCHEMA = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
VERSIONS = ("1.29", "1.32", "1.35")
FULL: dict[str, Any] = {
    "name": "api-server",
    "image": "registry.example.com:5000/team/api@sha256:" + "0" * 64,
    "namespace": "production",
    "args": ("serve", '--title=a "b" $HOME $(x) \n: {}', "yes", "#"),
    "port": 8080,
    "size": "500Mi",
    "storage_class": "fast",
    "grace": 90,
    "retention": 7,
    "schedule": "@daily",
    "user": 4321,
}
REMOTE: dict[str, Any] = {
    **FULL,
    "remote": "s3://bucket/lakes/api",
    "secret": "api-remote",
    "push_schedule": "@hourly",
    "probe": "/healthz",
    "rolling": True,
    "serve": True,
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("given", [{"name": "a", "image": "b"}, FULL, REMOTE])
def test_manifests_are_valid(given: dict[str, Any], version: str) -> None:
    documents = list(yaml.safe_load_all(render(Deployment(**given), "kubernetes")))
    assert [each["kind"] for each in documents] == [
        "PersistentVolumeClaim",
        "Deployment",
        "CronJob",
        *(["CronJob"] if "remote" in given else []),
    ]
    for each in documents:
        kubernetes_validate.validate(each, version, strict=True)
        assert each["metadata"]["namespace"] == given.get("namespace", "default")


@pytest.mark.parametrize("given", [{"name": "a", "image": "b"}, FULL, {**FULL, "serve": True}])
def test_compose_file_is_valid(given: dict[str, Any]) -> None:
    document = yaml.safe_load(render(Deployment(**given), "compose"))
    jsonschema.Draft7Validator(SCHEMA).validate(document)
    app = document["services"]["app"]
    assert app["pre_stop"][0]["command"][-2:] == ["state", "save"]
    assert (app["read_only"], app["cap_drop"]) == (True, ["ALL"])


def test_manifests_save_the_state_and_keep_revisions() -> None:
    """The promises of system D's recipes, one by one."""
    claim, deployment, job = yaml.safe_load_all(render(Deployment(**FULL), "kubernetes"))
    spec, pod = deployment["spec"], deployment["spec"]["template"]["spec"]
    assert spec["strategy"] == {"type": "Recreate"}, "two pods would write one state"
    assert spec["revisionHistoryLimit"] == 10
    app, before = pod["containers"][0], pod["initContainers"][0]
    saves = app["lifecycle"]["preStop"]["exec"]["command"]
    assert saves == ["lakelog", "--lake", "/data/lake", "state", "save"]
    whose = ["--from", "ANY", "--to", "/data/state"]
    assert before["command"][3:] == ["state", "restore", "latest", *whose, "--if-empty", "--yes"]
    assert pod["terminationGracePeriodSeconds"] == 90
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert pod["securityContext"]["runAsNonRoot"]
    cleaner = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    for container in (app, before, cleaner):
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    # A selector never changes: what it selects must be on the pods of each later rendering.
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()


def test_a_rollout_without_a_gap_asks_whether_a_pod_is_ready() -> None:
    def pod(**changes: Any) -> tuple[Any, Any]:
        made = list(yaml.safe_load_all(render(Deployment(**{**REMOTE, **changes}), "kubernetes")))[
            1
        ]
        return made["spec"]["strategy"], made["spec"]["template"]["spec"]["containers"][0]

    strategy, app = pod()
    assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert app["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": 8080}
    strategy, app = pod(probe="", rolling=False)
    assert strategy == {"type": "Recreate"}
    assert app["readinessProbe"]["tcpSocket"] == {"port": 8080}
    _, app = pod(probe="", rolling=False, port=None)
    assert "readinessProbe" not in app


def test_a_lost_volume_comes_back_from_the_remote(tmp_path: Path) -> None:
    """The commands of the recipe, on a directory that stands for the volume of each pod."""
    volume, far = tmp_path / "data", tmp_path / "far"
    program = tmp_path / "bin" / "lakelog"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m lakelog "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    given = {**REMOTE, "remote": "s3://bucket/lake"}
    _, deployment, _, push = yaml.safe_load_all(render(Deployment(**given), "kubernetes"))
    pod = deployment["spec"]["template"]["spec"]
    assert [each["name"] for each in pod["initContainers"]] == ["clone", "restore-state", "server"]
    for each in (pod["initContainers"][0], pod["containers"][0]):
        assert each["envFrom"] == [{"secretRef": {"name": "api-remote"}}]

    def play(command: list[str]) -> None:
        words = [
            word.replace("/data", str(volume)).replace("s3://bucket/lake", str(far))
            for word in command
        ]
        state = {"STATE_DIRECTORY": str(volume / "state")}
        if words[0] == "lakelog":
            run(volume, *words[1:], env=state)
        else:
            environ = {**os.environ, "PATH": path, **state}
            subprocess.run(words, check=True, env=environ, capture_output=True)

    def begin() -> None:
        for container in pod["initContainers"][:-1]:  # the last one goes on running
            play(container["command"])

    volume.mkdir()
    begin()
    (volume / "state").mkdir(exist_ok=True)
    (volume / "state" / "number").write_text("1")
    run(volume / "lake", "append", "type=first")
    play(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"])
    shutil.rmtree(volume)
    volume.mkdir()
    begin()
    assert (volume / "state" / "number").read_text() == "1"
    run(volume / "lake", "append", "type=second")
    job = push["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    play(job["containers"][0]["command"])
    shutil.rmtree(far)
    begin()
    count = "SELECT count(*) AS n FROM events WHERE type IN ('first', 'second')"
    assert answer(volume / "lake", "sql", count) == [{"n": 2}], "also where the remote is away"


def test_a_server_runs_beside_the_program_and_nowhere_else() -> None:
    """It shares the program's loopback address, so that no token and no certificate is needed."""
    served = Deployment(**FULL, serve=True)
    pod = list(yaml.safe_load_all(render(served, "kubernetes")))[1]["spec"]["template"]["spec"]
    assert [each["name"] for each in pod["containers"]] == ["app"]
    server = pod["initContainers"][-1]
    # A sidecar: what the program sends while its state is saved before it ends is stored, too.
    assert (server["name"], server["restartPolicy"]) == ("server", "Always")
    services = yaml.safe_load(render(served, "compose"))["services"]
    assert services["server"]["network_mode"] == "service:app"
    command = ["lakelog", "--lake", "/data/lake", "serve", "--port", "7717"]
    assert server["command"] == services["server"]["entrypoint"] == command
    assert services["server"]["depends_on"]["app"]["restart"]
    assert "server" not in yaml.safe_load(render(Deployment(**FULL), "compose"))["services"]


def test_arguments_reach_the_program_as_they_are() -> None:
    """Kubernetes replaces $(NAME) and Compose $NAME; doubled signs keep them."""
    deployment = Deployment(**FULL)
    _, made, _ = yaml.safe_load_all(render(deployment, "kubernetes"))
    args = made["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [arg.replace("$$(", "$(") for arg in args] == list(FULL["args"])
    composed = yaml.safe_load(render(deployment, "compose"))["services"]["app"]["command"]
    assert [arg.replace("$$", "$") for arg in composed] == list(FULL["args"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Api"},
        {"name": "a" * 51},
        {"name": "a\nkind: Pod"},
        {"namespace": "a_b"},
        {"image": "two words"},
        {"image": "-x"},
        {"size": "10 GB"},
        {"size": "0Gi"},
        {"schedule": "daily"},
        {"user": 0},
        {"grace": 0},
        {"port": 70_000},
        {"retention": 0},
        {"probe": "/x"},
        {"rolling": True},
        {"port": 80, "probe": "x"},
        {"remote": "/there"},
        {"remote": "s3://key:secret@bucket"},
        {"secret": "s"},
        {"remote": "s3://b", "secret": "S s"},
        {"remote": "s3://b", "push_schedule": "often"},
    ],
)
def test_refuses_what_a_cluster_would(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting) as caught:
        Deployment(**{"name": "a", "image": "b", **wrong})
    assert "\n" not in str(caught.value)


def test_render_writes_files_and_never_over_one(tmp_path: Path) -> None:
    out = tmp_path / "deploy"
    run(tmp_path, "deploy", "render", "api", "--image", "api:1", "-o", str(out))
    assert sorted(path.name for path in out.iterdir()) == [f"{kind}.yaml" for kind in sorted(KINDS)]
    (out / "compose.yaml").write_text("edited")
    done = run(tmp_path, "deploy", "render", "api", "--image", "api:2", "-o", str(out), code=1)
    assert "exists: remove it" in done.stderr
    shown = run(tmp_path, "deploy", "render", "api", "--image", "api:1").stdout
    assert shown == (out / "kubernetes.yaml").read_text()


def test_render_of_one_kind_with_a_volume_of_its_own(tmp_path: Path) -> None:
    """--kind chooses the recipe, --size and --storage-class the volume of the lake."""
    render_api = ["deploy", "render", "api", "--image", "api:1"]
    recipe = run(tmp_path, *render_api, "--size", "50Gi", "--storage-class", "fast").stdout
    assert 'storage: "50Gi"' in recipe
    assert 'storageClassName: "fast"' in recipe
    assert "services:" in run(tmp_path, *render_api, "--kind", "compose").stdout


def test_revisions_are_those_of_the_deployment(cluster: Cluster) -> None:
    found = Kubectl("production").revisions("api")
    assert [(each.number, each.hash, each.images, each.ready) for each in found] == [
        (3, "h3", ("api:1.3",), 1),
        (2, "h2", ("api:1.2",), 0),
        (1, "h1", ("api:1.1",), 0),
    ]
    assert [each.number for each in found if each.is_current] == [3]
    assert all(call[0] == "--namespace=production" for call in cluster.read()["calls"])


@pytest.mark.parametrize(("given", "wanted"), [([], "2"), (["1"], "1")])
def test_rollback_to_a_revision(
    cluster: Cluster, tmp_path: Path, given: list[str], wanted: str
) -> None:
    done = run(tmp_path, "deploy", "rollback", "api", *given, "--yes")
    assert f"has revision {wanted} again: api:1.{wanted}" in done.stderr
    calls = [call[1:] for call in cluster.read()["calls"]]
    assert ["rollout", "undo", "deployment/api", f"--to-revision={wanted}"] in calls
    assert calls[-1] == ["rollout", "status", "deployment/api", "--timeout=300s"]


def test_revisions_show_the_state_that_was_live_in_them(cluster: Cluster, tmp_path: Path) -> None:
    """By the hash that the recipe gives a pod, whatever number the revision has by now."""
    home, lake = tmp_path / "app", tmp_path / "lake"
    home.mkdir()
    container = next(
        each
        for each in yaml.safe_load_all(render(Deployment(**FULL), "kubernetes"))
        if each["kind"] == "Deployment"
    )["spec"]["template"]["spec"]["containers"][0]
    given = {each["name"] for each in container["env"]}
    for number in (1, 2):
        variables = {
            "LAKELOG_DEPLOYMENT": "api",
            "LAKELOG_NAMESPACE": "default",
            "LAKELOG_IMAGE": f"api:1.{number}",
            "LAKELOG_POD_TEMPLATE_HASH": f"h{number}",
        }
        assert variables.keys() <= given
        run(lake, "state", "save", f"s{number}", "--dir", str(home), env=variables)
    run(lake, "state", "save", "elsewhere", "--dir", str(home))
    done = run(lake, "deploy", "rollback", "api", "1", "--yes", "-m", "too slow")
    assert "the newest state that was saved in it is s1" in done.stderr
    live = [(r["hash"], r["state"]) for r in answer(lake, "deploy", "revisions", "api")]
    assert live == [("h1", "s1"), ("h3", None), ("h2", "s2")]
    (move,) = [each for each in answer(lake, "log") if each["op"] == "deploy"]
    assert move["message"] == "api to revision 1 (h1): too slow"
    (lake / "policy.toml").write_text("[allow]\ndeploy = []\n")
    assert "tester may not" in run(lake, "deploy", "rollback", "api", "--yes", code=1).stderr


def test_rollback_asks_first(cluster: Cluster, tmp_path: Path) -> None:
    done = run(tmp_path, "deploy", "rollback", "api", code=2)
    assert "add --yes" in done.stderr
    assert not [call for call in cluster.read()["calls"] if "undo" in call]


@pytest.mark.parametrize(
    ("name", "revision", "words"),
    [("other", None, "not found"), ("api", 7, "no revision 7; there are: 3, 2, 1")],
)
def test_what_there_is_not(cluster: Cluster, name: str, revision: int | None, words: str) -> None:
    with pytest.raises(DeploymentFailed, match=words) as caught:
        Kubectl().choose(name, revision)
    assert "\n" not in str(caught.value)


def test_first_revision_has_none_before_it(cluster: Cluster) -> None:
    cluster.write(replicasets=[replicaset(3)])
    with pytest.raises(DeploymentFailed, match="no revision before"):
        Kubectl().choose("api", None)


def test_failure_of_the_cluster_is_one_line(cluster: Cluster, tmp_path: Path) -> None:
    """And not the client's log, which comes before it."""
    logged = 'E1122 12:45:49.792515   14730 memcache.go:265] "Unhandled Error" err="refused"\n'
    cluster.write(failure=f"{logged}Unable to connect to the server:\ndial tcp: i/o timeout")
    done = run(tmp_path, "deploy", "revisions", "api", code=1)
    assert done.stderr.count("\n") == 1
    assert "kubectl get: Unable to connect to the server: dial tcp" in done.stderr


@pytest.mark.parametrize("printed", ["", "{}", "[]", "null", '{"spec": {"selector": {}}}'])
def test_what_describes_nothing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str
) -> None:
    """Whatever programs of these names print."""
    for name in ("kubectl", "podman"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{printed}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for words in (
        ("deploy", "revisions", "api"),
        ("omega", "snapshot", "web", "--engine", "podman"),
    ):
        said = run(tmp_path / "lake", *words, code=1).stderr.splitlines()[-1]
        assert "what it printed" in said


def test_missing_program_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "kubectl is not installed" in run(tmp_path, "deploy", "status", "api", code=1).stderr
