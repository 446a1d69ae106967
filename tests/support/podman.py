"""A real Podman with storage of its own, where one works; its image is a program of 12 bytes."""

from __future__ import annotations

import contextlib
import io
import os
import platform
import socket
import struct
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.redis_server import free_port
from tests.support.requirements import find, give_up, need

# pause(2) in an endless loop.
_CODE = bytes.fromhex("b822000000 0f05 ebf7 9090 90".replace(" ", ""))
_RUNTIMES = ("runc", "crun")


def pausing_program() -> bytes:
    """Return an ELF executable of Linux on x86-64 that waits for signals."""
    base, head = 0x400000, 120
    size = head + len(_CODE)
    elf = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    elf += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + head, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return elf + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096) + _CODE


class Podman:
    """A directory with a `podman` to put on the PATH; `run` is that one."""

    def __init__(self, root: Path, runtime: str) -> None:
        real = need("podman")
        self.root, self.path = root, f"{root}/bin:{os.environ['PATH']}"
        (root / "bin").mkdir(parents=True)
        (root / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        # The limits of a build machine may be below those that are set by default.
        (root / "containers.conf").write_text(
            f'[containers]\ndefault_ulimits=["nofile=256:256","nproc=200:200"]\nnetns="host"\n'
            f'[engine]\ncgroup_manager="cgroupfs"\nevents_logger="file"\nruntime="{runtime}"\n'
            f'tmp_dir="{root}/tmp"\n'
        )
        script = root / "bin" / "podman"
        script.write_text(
            f"#!/bin/sh\nCONTAINERS_CONF={root}/containers.conf exec {real} --storage-driver vfs"
            f' --root {root}/root --runroot {root}/run "$@"\n'
        )
        script.chmod(0o755)
        # Docker may be there as well, and is asked first.
        docker = root / "bin" / "docker"
        docker.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
        docker.chmod(0o755)

    def run(self, *words: str) -> str:
        """Run a command; return its output. Raises CalledProcessError."""
        done = subprocess.run(
            [str(self.root / "bin" / "podman"), *words],
            capture_output=True,
            text=True,
            timeout=240,
            stdin=subprocess.DEVNULL,
            check=True,
        )
        return done.stdout

    def make_image(self, name: str) -> None:
        """Make an image that runs the program."""
        archive = self.root / "image.tar"
        with tarfile.open(archive, "w") as tar:
            entry, content = tarfile.TarInfo("pause"), pausing_program()
            entry.mode, entry.size = 0o755, len(content)
            tar.addfile(entry, io.BytesIO(content))
            # So that a layer has some size.
            entry = tarfile.TarInfo("noise")
            entry.size = 3 << 20
            tar.addfile(entry, io.BytesIO(os.urandom(entry.size)))
        self.run("import", "--change", 'CMD ["/pause"]', str(archive), name)

    def remove_all(self) -> None:
        """Remove containers, so that none outlives a test."""
        subprocess.run(
            [str(self.root / "bin" / "podman"), "rm", "--all", "--force", "--time", "0"],
            capture_output=True,
            timeout=240,
        )


def start(root: Path) -> Podman:
    """Return a Podman that can run containers, or skip the test with the reason."""
    need("podman")
    if platform.machine() != "x86_64":
        give_up("a machine of x86-64")
    if not any(map(find, _RUNTIMES)):
        need(_RUNTIMES[0])
    reasons = []
    for runtime in filter(find, _RUNTIMES):
        podman = Podman(root / runtime, runtime)
        try:
            podman.make_image("localhost/base")
            podman.run("run", "--detach", "--name", "probe", "localhost/base")
            podman.remove_all()
            return podman
        except subprocess.SubprocessError as error:
            reasons.append(f"{runtime}: {getattr(error, 'stderr', '') or error}".strip())
            podman.remove_all()
    give_up(f"a kernel that lets podman run containers: {'; '.join(reasons)}")


@contextlib.contextmanager
def registry(root: Path) -> Iterator[str]:
    """Yield the host and port of a registry, or skip the test."""
    program = need("docker-registry")
    port = free_port()
    root.mkdir()
    (root / "config.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {root}/data}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}}}\n"
    )
    command = [program, "serve", str(root / "config.yml")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                assert server.poll() is None
                time.sleep(0.05)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()
