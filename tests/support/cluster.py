"""A stand-in for `kubectl` at the process boundary, and the cluster that it knows."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

# Stands in for the program, which needs a cluster; it keeps what it is told in a file.
KUBECTL = f"""#!{sys.executable}
import json, sys
path = __file__ + ".json"
cluster = json.load(open(path))
words = sys.argv[1:]
cluster["calls"].append(words)
space, words = words[0], [w for w in words if not w.startswith("--n") and not w.startswith("--c")]
failure = cluster.get("failure")
if failure:
    sys.exit(failure)
if words[:2] == ["get", "replicasets"]:
    print(json.dumps({{"items": cluster["replicasets"]}}))
elif words[0] == "get":
    if words[1] != "deployment/api":
        sys.exit('Error from server (NotFound): deployments.apps "other" not found')
    print(json.dumps(cluster["deployment"]))
elif words[:2] == ["rollout", "undo"]:
    number = words[3].partition("=")[2]
    # The revision gets a new number, the highest, as a real cluster gives it.
    name = "deployment.kubernetes.io/revision"
    sets = [r["metadata"]["annotations"] for r in cluster["replicasets"]]
    newest = str(max(int(each[name]) for each in sets) + 1)
    next(each for each in sets if each[name] == number)[name] = newest
    cluster["deployment"]["metadata"]["annotations"][name] = newest
elif words[:2] == ["rollout", "status"]:
    print("Waiting for deployment...\\ndeployment \\"api\\" successfully rolled out")
json.dump(cluster, open(path, "w"))
"""


def replicaset(number: int, owner: str = "u1") -> dict[str, Any]:
    return {
        "metadata": {
            "annotations": {"deployment.kubernetes.io/revision": str(number)},
            "creationTimestamp": f"2026-05-0{number}T10:00:00Z",
            "ownerReferences": [{"uid": owner, "controller": True}],
        },
        "spec": {
            "template": {
                "metadata": {"labels": {"pod-template-hash": f"h{number}"}},
                "spec": {"containers": [{"image": f"api:1.{number}"}]},
            }
        },
        "status": {"readyReplicas": int(number == 3)},
    }


class Cluster:
    """What the stand-in of kubectl knows and was asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write(
            calls=[],
            deployment={
                "metadata": {
                    "uid": "u1",
                    "annotations": {"deployment.kubernetes.io/revision": "3"},
                },
                "spec": {"selector": {"matchLabels": {"app": "api"}}},
            },
            replicasets=[*map(replicaset, (1, 3, 2)), replicaset(9, owner="another")],
        )

    def write(self, **changes: Any) -> None:
        known = self.read() if self.path.exists() else {}
        self.path.write_text(json.dumps({**known, **changes}))

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path.read_text())
        return found

    def current(self) -> str:
        """The hash of the pods that the deployment has now."""
        name = "deployment.kubernetes.io/revision"
        known = self.read()
        number = known["deployment"]["metadata"]["annotations"][name]
        for each in known["replicasets"]:
            if each["metadata"]["annotations"][name] == number:
                return str(each["spec"]["template"]["metadata"]["labels"]["pod-template-hash"])
        return ""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(KUBECTL)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return Cluster(Path(f"{program}.json"))
