"""Containers through the program `docker` or `podman`: images of them, and running them again.

Whatever engine and credentials the program is set up with are used; nothing of them is read here.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from lakelog.clients import Address
from lakelog.deploy import program
from lakelog.errors import ContainerFailed, MissingPackage
from lakelog.values import JsonObject

ENGINES = ("docker", "podman")
"""In the order in which they are tried."""
_SECONDS = 60
_COPY_SECONDS = 3600
"""How long an answer is waited for, and an image that is copied."""


@dataclass(frozen=True)
class Mount:
    """A directory of the host in a container: a volume has a `name`, another directory "". What is
    in memory has no `source` either, but the `options` of its file system."""

    name: str
    source: str
    destination: str
    is_writable: bool
    options: str = ""

    @property
    def is_in_memory(self) -> bool:
        """Whether its content is gone when the container ends."""
        return not (self.name or self.source)


@dataclass(frozen=True)
class Container:
    """A container: how it is mounted, published and restarted; `image` is what it was made of."""

    name: str
    image: str
    is_running: bool
    mounts: tuple[Mount, ...]
    ports: tuple[str, ...]
    restart: str
    variables: dict[str, str]

    def to_json(self) -> JsonObject:
        """Return what `read_container` takes. Variables are part of an image, and left out."""
        body = asdict(self)
        del body["variables"]
        return body


def read_container(body: JsonObject) -> Container:
    """Return a container as it was written. Raises KeyError, TypeError."""
    mounts = tuple(Mount(**mount) for mount in body["mounts"])
    ports = tuple(map(str, body["ports"]))
    return Container(**{**body, "mounts": mounts, "ports": ports, "variables": {}})


class Engine:
    """Docker or Podman. Methods raise ContainerFailed, with one line."""

    def __init__(self, name: str | None = None) -> None:
        """Use the engine of this name, or the first that answers. Raises MissingPackage."""
        names = [
            candidate for candidate in ([name] if name else ENGINES) if shutil.which(candidate)
        ]
        if not names:
            choice = name or " or ".join(ENGINES)
            raise MissingPackage(f"{choice} is not installed: install it, or run this where it is")
        reasons = []
        # The first that answers: both may be installed, and one not running.
        for self.name in names:
            try:
                self._run("ps", "--quiet")
                return
            except ContainerFailed as error:
                reasons.append(str(error))
        raise ContainerFailed(f"no container engine answers: {'; '.join(reasons)}")

    def inspect(self, name: str) -> Container:
        """Describe a container. Raises ContainerFailed."""
        body = self._json("container", "inspect", name)
        # Whatever is called so here may print anything.
        try:
            return _described(body[0])
        except (LookupError, TypeError, AttributeError):
            raise ContainerFailed(
                f"{self.name} container inspect: what it printed does not describe {name}"
            ) from None

    def exists(self, name: str) -> bool:
        """Whether there is a container of this name, running or not."""
        output = self._run("ps", "--all", "--format", "{{.Names}}")
        # Podman lists several names in one line.
        return name in output.replace(",", "\n").split()

    @contextlib.contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """Hold all processes of a container meanwhile, also if this process is killed."""
        # The shell reads no line, but the end of its input, when this process is gone.
        command = ["sh", "-c", 'read -r _ || exec "$@"', "sh", self.name, "unpause", name]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A session of its own: Ctrl-C in the terminal would end it before it lets the container
            # go on.
            start_new_session=True,
        ) as guard:
            try:
                self._run("pause", name)
                try:
                    yield
                finally:
                    self._run("unpause", name)
            finally:
                with contextlib.suppress(BrokenPipeError):
                    guard.communicate(b"\n")

    def commit(self, name: str, image: str) -> None:
        """Make an image of a container as it is, without holding it."""
        # Held already, where it is to be held.
        self._run("commit", "--pause=false", name, image, seconds=_COPY_SECONDS)

    def save(self, image: str, path: str) -> None:
        """Write an image to an archive."""
        self._run("save", "--output", path, image, seconds=_COPY_SECONDS)

    def load(self, path: str) -> None:
        """Take the image of an archive, under the name it was saved by."""
        self._run("load", "--input", path, seconds=_COPY_SECONDS)

    def tag(self, image: str, name: str) -> None:
        """Give an image another name."""
        self._run("tag", image, name)

    def untag(self, image: str) -> None:
        """Remove a name of an image, and the image with its last name."""
        self._run("rmi", image)

    def push(self, image: str) -> None:
        """Send an image to the registry in its name, encrypted unless that is on this machine."""
        # A port behind the host, or none; the path begins with a slash.
        host = image.partition("/")[0].rpartition(":")[0] or image.partition("/")[0]
        # Docker does without TLS for such a host by itself.
        plain = (
            ["--tls-verify=false"] if self.name == "podman" and Address.is_loopback(host) else []
        )
        self._run("push", *plain, image, seconds=_COPY_SECONDS)

    def run(self, name: str, image: str, like: Container, options: Sequence[str] = ()) -> None:
        """Start a container of an image, mounted, published and restarted like another one."""
        arguments = ["--detach", "--name", name, "--restart", like.restart]
        for port in like.ports:
            arguments += ["--publish", port]
        for mount in like.mounts:
            if mount.is_in_memory:
                options_suffix = f":{mount.options}" if mount.options else ""
                arguments += ["--tmpfs", mount.destination + options_suffix]
                continue
            mode = "" if mount.is_writable else ":ro"
            # A volume by its name, as its directory is the engine's own affair.
            arguments += ["--volume", f"{mount.name or mount.source}:{mount.destination}{mode}"]
        self._run("run", *arguments, *options, image)

    def stop(self, name: str) -> None:
        """End a container; it stays."""
        self._run("stop", name, seconds=5 * _SECONDS)

    def start(self, name: str) -> None:
        """Start a container that was stopped."""
        self._run("start", name)

    def rename(self, name: str, new: str) -> None:
        """Give a container another name."""
        self._run("rename", name, new)

    def remove(self, name: str) -> None:
        """Remove a container, also a running one."""
        self._run("rm", "--force", name)

    def volume(self, name: str) -> str:
        """Return the directory of a volume, which is created if it is not there."""
        # Creating one that is there is an error to Podman.
        if name not in self._run("volume", "ls", "--quiet").split():
            self._run("volume", "create", name)
        return str(self._json("volume", "inspect", name)[0]["Mountpoint"])

    def _json(self, *arguments: str) -> Any:
        try:
            return orjson.loads(self._run(*arguments))
        except orjson.JSONDecodeError:
            message = f"{self.name} {arguments[0]}: what it printed is no JSON"
            raise ContainerFailed(message) from None

    def _run(self, *arguments: str, seconds: int = _SECONDS) -> str:
        return program.run([self.name], arguments, ContainerFailed, seconds)


def _described(body: JsonObject) -> Container:
    """Return a container as an engine describes it. Raises LookupError, TypeError,
    AttributeError."""
    host, state = body.get("HostConfig", {}), body["State"]
    policy = host.get("RestartPolicy") or {}
    restart = policy.get("Name") or "no"
    # Only this policy has a number of attempts.
    if restart == "on-failure" and policy.get("MaximumRetryCount"):
        restart += f":{policy['MaximumRetryCount']}"
    variables = (assignment.partition("=") for assignment in body["Config"].get("Env") or ())
    return Container(
        body["Name"].removeprefix("/"),
        # Podman and Docker have the name in different places.
        str(body.get("ImageName") or body["Config"].get("Image") or body["Image"]),
        # To Docker a paused one is running as well, and it cannot be paused again.
        bool(state.get("Running")) and not state.get("Paused"),
        tuple(_mounts(body.get("Mounts") or (), host.get("Tmpfs") or {})),
        tuple(_ports(host.get("PortBindings") or {})),
        restart,
        {key: value for key, _, value in variables},
    )


def _mounts(mounts: Iterable[JsonObject], in_memory: Mapping[str, str]) -> Iterator[Mount]:
    for body in mounts:
        # Docker lists what `--mount type=tmpfs` made, and what `--tmpfs` did beside the mounts.
        is_volume, is_in_memory = body.get("Type") == "volume", body.get("Type") == "tmpfs"
        name = str(body.get("Name") or "") if is_volume else ""
        source = "" if is_in_memory else str(body["Source"])
        yield Mount(name, source, str(body["Destination"]), bool(body.get("RW", True)))
    for destination, options in in_memory.items():
        yield Mount("", "", destination, True, options)


def _ports(bindings: JsonObject) -> list[str]:
    """Return published ports as `run --publish` takes them."""
    ports = []
    for inner, outer in sorted(bindings.items()):
        for binding in outer or ():
            host = binding.get("HostIp") or ""
            host = f"[{host}]:" if ":" in host else f"{host}:" if host else ""
            ports.append(f"{host}{binding.get('HostPort') or ''}:{inner}")
    return ports
