"""Revisions of a Kubernetes deployment, and going back to one, through the program `kubectl`.

Whatever cluster and credentials `kubectl` is set up with are used; nothing of them is read here.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import Any

import orjson

from lakelog.deploy import program
from lakelog.errors import DeploymentFailed, MissingPackage
from lakelog.lake import Lake
from lakelog.moves import note, with_reason
from lakelog.store import Policy
from lakelog.values import JsonObject

_REVISION = "deployment.kubernetes.io/revision"
_CAUSE = "kubernetes.io/change-cause"
_SECONDS = 60
"""How long an answer is waited for."""
# klog's prefix: level, date and time.
_LOGGED = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ ")


@dataclass(frozen=True)
class Revision:
    """A version of a deployment: its pods have the label `pod-template-hash` with value `hash`.

    `created` is ISO text, `cause` what its author noted, `ready` how many pods of it are.
    """

    number: int
    hash: str
    images: tuple[str, ...]
    created: str
    ready: int
    is_current: bool
    cause: str


@dataclass(frozen=True)
class ClusterStep:
    """A revision that a deployment is to have, by the hash of its pods; `was` is the present."""

    name: str
    namespace: str
    context: str
    hash: str
    was: str


class Kubectl:
    """The deployments of a namespace. Methods raise DeploymentFailed, with one line."""

    def __init__(self, namespace: str = "default", context: str = "") -> None:
        """Find the program. Raises MissingPackage."""
        command = shutil.which("kubectl")
        if command is None:
            raise MissingPackage("kubectl is not installed: see kubernetes.io/docs/tasks/tools")
        self._command = [command, f"--namespace={namespace}"]
        self._command += [f"--context={context}"] if context else []

    def revisions(self, name: str) -> list[Revision]:
        """The revisions that a deployment can return to, the newest first."""
        # Whatever is called kubectl here may print anything.
        try:
            return self._revisions(name)
        except (KeyError, TypeError, AttributeError, ValueError):
            raise DeploymentFailed(
                f"kubectl get: what it printed does not describe deployment {name}"
            ) from None

    def _revisions(self, name: str) -> list[Revision]:
        deployment = self._json("get", f"deployment/{name}")
        labels = deployment["spec"]["selector"].get("matchLabels", {})
        # In one order, so that the command is the same each time.
        selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        replica_sets = self._json("get", "replicasets", f"--selector={selector}")["items"]
        current = _annotation(deployment, _REVISION)
        # Several deployments may have pods with these labels.
        owned = [
            replica_set
            for replica_set in replica_sets
            for owner in replica_set["metadata"].get("ownerReferences", [])
            if owner.get("controller") and owner["uid"] == deployment["metadata"]["uid"]
        ]
        revisions = [
            _revision(replica_set, current)
            for replica_set in owned
            # One without a number was never rolled out.
            if _annotation(replica_set, _REVISION)
        ]
        return sorted(revisions, key=lambda revision: revision.number, reverse=True)

    def choose(self, name: str, number: int | None) -> Revision:
        """Return the revision of this number, or the one before the current."""
        revisions = self.revisions(name)
        current = next((entry.number for entry in revisions if entry.is_current), 0)
        if number is None:
            earlier = [entry for entry in revisions if entry.number < current]
            if not earlier:
                raise DeploymentFailed(f"deployment {name} has no revision before the current one")
            return earlier[0]
        for entry in revisions:
            if entry.number == number:
                return entry
        numbers = ", ".join(str(entry.number) for entry in revisions) or "none"
        raise DeploymentFailed(f"deployment {name} has no revision {number}; there are: {numbers}")

    def find(self, name: str, digest: str) -> Revision | None:
        """Return the revision whose pods have this hash; its number changes with every rollback."""
        return next(
            (revision for revision in self.revisions(name) if revision.hash == digest), None
        )

    def begin_undo(self, name: str, revision: Revision) -> None:
        """Let a deployment have this revision; its pods are replaced from now on."""
        self._run("rollout", "undo", f"deployment/{name}", f"--to-revision={revision.number}")

    def wait(self, name: str, seconds: int = 300) -> str:
        """Wait until a rollout is complete; return what is said of it."""
        arguments = ["rollout", "status", f"deployment/{name}", f"--timeout={seconds}s"]
        # kubectl has its own time for it, and a little more to say so.
        output = self._run(*arguments, seconds=seconds + _SECONDS).strip()
        return output.splitlines()[-1] if output else ""

    def _json(self, *arguments: str) -> Any:
        try:
            return orjson.loads(self._run(*arguments, "--output=json"))
        except orjson.JSONDecodeError:
            raise DeploymentFailed(f"kubectl {arguments[0]}: what it printed is no JSON") from None

    def _run(self, *arguments: str, seconds: int = _SECONDS) -> str:
        def without_log(output: str) -> str:
            lines = output.splitlines()
            # If all of it is log, that has to do.
            return "\n".join([x for x in lines if x.strip() and not _LOGGED.match(x)] or lines)

        hint = ": is the cluster reachable?"
        return program.run(
            self._command, arguments, DeploymentFailed, seconds, hint=hint, message_of=without_log
        )


def _revision(replicas: JsonObject, current: str) -> Revision:
    number = _annotation(replicas, _REVISION)
    spec = replicas["spec"]["template"]
    return Revision(
        int(number),
        spec["metadata"].get("labels", {}).get("pod-template-hash", ""),
        tuple(container["image"] for container in spec["spec"]["containers"]),
        replicas["metadata"].get("creationTimestamp", ""),
        replicas.get("status", {}).get("readyReplicas", 0),
        number == current,
        _annotation(replicas, _CAUSE),
    )


def _annotation(thing: JsonObject, name: str) -> str:
    return str(thing["metadata"].get("annotations", {}).get(name, ""))


def return_to(
    lake: Lake | None,
    cluster: Kubectl,
    name: str,
    revision: Revision,
    *,
    why: str = "",
    seconds: int = 300,
) -> None:
    """Let a deployment have a revision again, and wait for its pods. The log of the lake, if there
    is one, says so, and `why`. Raises NotAllowed, DeploymentFailed."""
    if lake is not None:
        Policy.require(lake.store.paths, "deploy")
    # Told first: the log must not say what was refused.
    cluster.begin_undo(name, revision)
    if lake is not None:
        message = f"{name} to revision {revision.number} ({revision.hash})"
        note(lake.store, lake.branch_name, "deploy", with_reason(message, why))
    cluster.wait(name, seconds)
