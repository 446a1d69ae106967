"""Recipes that deploy a program with its lake and state: Kubernetes manifests, a Compose file.

The recipes are the YAML files beside this module. Values are put in as JSON, which is YAML, so no
value can add a line of its own.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from lakelog.errors import InvalidSetting
from lakelog.runtime.tables import ModuleFiles
from lakelog.values import JsonObject

KINDS = ("kubernetes", "compose")
LAKE, STATE = "/data/lake", "/data/state"
"""Where a container finds its lake, and the state that is saved."""
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?")
_SIZE = re.compile(r"[1-9][0-9]*(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?")
# No password: a recipe is read by many.
_REMOTE = re.compile(r"((s3|az|gs|oci)://|ssh://([^\s@:/]+@)?)[^\s@]+")
_SECRET = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_PROBE = re.compile(r"/[!-~]*")
_IMAGE = re.compile(r"[\w][\w./:@-]*")
_RUNNING = {
    "name": "LAKELOG_DEPLOYMENT",
    "namespace": "LAKELOG_NAMESPACE",
    "hash": "LAKELOG_POD_TEMPLATE_HASH",
    "image": "LAKELOG_IMAGE",
}
_ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
_REASONS = (
    "One pod at a time writes the state: the old one ends before the new one starts.",
    "The old pod ends once the new one is ready: the program lets one of them write its state.",
)
_CRON = re.compile(r"(\S+ ){4}\S+|@(hourly|daily|weekly|monthly)")


@dataclass(frozen=True)
class Deployment:
    """A program that is deployed with its lake; `grace` in seconds, `user` a number above 0.

    With a `remote` the lake is cloned onto a new volume and pushed by `push_schedule`, by the
    variables of a `secret`. A pod is ready once its port answers, or the path `probe` there. With
    `rolling` the old pod ends when the new one is ready, so that both run for a while; else before.
    With `serve` a server of the lake runs beside the program, on its loopback address.

    Raises InvalidSetting for a value that a cluster would refuse.
    """

    name: str
    image: str
    namespace: str = "default"
    args: Sequence[str] = ()
    port: int | None = None
    size: str = "10Gi"
    storage_class: str = ""
    grace: int = 60
    retention: int = 24
    schedule: str = "17 3 * * *"
    user: int = 10001
    remote: str = ""
    secret: str = ""
    push_schedule: str = "*/15 * * * *"
    probe: str = ""
    rolling: bool = False
    serve: bool = False

    def __post_init__(self) -> None:
        for noun, value, pattern, example in (
            ("name", self.name, _NAME, "api-server, of at most 50 lower-case letters and digits"),
            ("namespace", self.namespace, _NAME, "production"),
            ("image", self.image, _IMAGE, "registry.example.com/app:1.4"),
            ("size", self.size, _SIZE, "10Gi"),
            ("schedule", self.schedule, _CRON, "17 3 * * *"),
            ("push-schedule", self.push_schedule, _CRON, "*/15 * * * *"),
            ("secret", self.secret or "s", _SECRET, "api-remote"),
            ("probe", self.probe or "/", _PROBE, "/healthz"),
        ):
            # Refused here, since a cluster says it late and in many words.
            if not pattern.fullmatch(value):
                raise InvalidSetting(f"the {noun} {value!r} is not like {example}")
        # Not repeated: it may hold a password.
        if self.remote and not _REMOTE.fullmatch(self.remote):
            raise InvalidSetting("the remote is not like s3://bucket/lakes/api, without a password")
        if (self.probe or self.rolling) and self.port is None:
            raise InvalidSetting("whether a pod is ready is asked at its port: name it by --port")
        if self.secret and not self.remote:
            raise InvalidSetting("a secret is for a remote: name it by --remote")
        # As root a container could change what its image protects.
        for noun, number, maximum in (
            ("user", self.user, 2**31 - 1),
            ("grace", self.grace, 24 * 3600),
            ("retention", self.retention, 10_000),
            ("port", self.port if self.port is not None else 1, 65_535),
        ):
            if not 1 <= number <= maximum:
                raise InvalidSetting(f"the {noun} {number} is not from 1 to {maximum:,}")


def running_in(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what the recipes tell a pod of its deployment: `name`, `namespace`, `hash` (the pods
    of a revision have it as label `pod-template-hash`) and `image`, each if it is set."""
    # Only what is set: outside of a pod nothing is.
    return {key: environment[name] for key, name in _RUNNING.items() if environment.get(name)}


def render(deployment: Deployment, recipe: str) -> str:
    """Return the recipe of a kind of KINDS, as YAML."""
    values = _compose(deployment) if recipe == "compose" else _kubernetes(deployment)
    pieces_by_name = {
        piece: _filled(f"{recipe}_{piece}", values).rstrip("\n") if is_there else ""
        for piece, is_there in (
            ("clone", bool(deployment.remote) and recipe != "compose"),
            ("server", deployment.serve),
        )
    }
    content = _filled(recipe, values | pieces_by_name)
    if recipe == "compose":
        return content
    return content + _filled("kubernetes_push", values) if deployment.remote else content


def _filled(name: str, values: Mapping[str, str]) -> str:
    return string.Template(ModuleFiles(__file__).text(f"{name}.yaml")).substitute(values)


def _kubernetes(deployment: Deployment) -> dict[str, str]:
    # $(NAME) is a variable there.
    args = [arg.replace("$(", "$$(") for arg in deployment.args]
    return {
        **_shared(deployment),
        "claim": _json(f"{deployment.name}-data"),
        "storage_class": _line("  storageClassName", deployment.storage_class),
        "args": _line("          args", args),
        "ports": _line(
            "          ports", [{"containerPort": deployment.port}] if deployment.port else []
        ),
        "retention_job": _json(f"{deployment.name}-retention"),
        "strategy": _json(_ROLLING if deployment.rolling else {"type": "Recreate"}),
        "strategy_reason": _REASONS[deployment.rolling],
        "probe": _line("          readinessProbe", _probe(deployment)),
        "secret": _line("          envFrom", _secret(deployment)),
        "job_secret": _line("              envFrom", _secret(deployment)),
        "stop": _json(_stop(deployment)),
        "push_job": _json(f"{deployment.name}-push"),
    }


def _probe(deployment: Deployment) -> JsonObject | None:
    if deployment.port is None:
        return None
    request = {"httpGet": {"path": deployment.probe, "port": deployment.port}}
    return {
        # A port that takes connections, where the program has no page for it.
        **(request if deployment.probe else {"tcpSocket": {"port": deployment.port}}),
        "periodSeconds": 5,
    }


def _secret(deployment: Deployment) -> list[object] | None:
    return [{"secretRef": {"name": deployment.secret}}] if deployment.secret else None


def _stop(deployment: Deployment) -> list[str]:
    """What runs before the program is told to end."""
    save = ["lakelog", "--lake", LAKE, "state", "save"]
    if not deployment.remote:
        return save
    # Events travel also where the state could not be saved, which the pod's events then say.
    push = f"lakelog --lake {LAKE} push origin --tags"
    # The exit code is that of the save, which counts for more.
    return ["sh", "-c", f"{' '.join(save)}; saved=$?; {push} && exit $saved"]


def _compose(deployment: Deployment) -> dict[str, str]:
    values = {
        **_shared(deployment),
        "user": _json(f"{deployment.user}:{deployment.user}"),
        "grace": _json(f"{deployment.grace}s"),
        "args": _line("    command", list(deployment.args)),
        "ports": _line(
            "    ports", [f"{deployment.port}:{deployment.port}"] if deployment.port else []
        ),
    }
    # Compose replaces $NAME by a variable of its own, also in what a program gets.
    return {name: value.replace("$", "$$") for name, value in values.items()}


def _shared(deployment: Deployment) -> dict[str, str]:
    own = {"lake": LAKE, "state": STATE, "retention": str(deployment.retention)}
    return {name: _json(value) for name, value in (vars(deployment) | own).items()}


def _line(name: str, value: object) -> str:
    """A line of its own, if there is a value."""
    return f"\n{name}: {_json(value)}" if value else ""


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
