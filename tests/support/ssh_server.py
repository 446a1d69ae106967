"""A loopback sshd for tests: an ordinary process on a free port, with keys of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.redis_server import free_port
from tests.support.requirements import need

_SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
UsePAM no
StrictModes no
PidFile none
Subsystem sftp {sftp}
MaxStartups 100
MaxSessions 1000
{more}
"""
_CLIENT = """\
Host *
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile none
  IdentityFile {folder}/id
  IdentitiesOnly yes
  IdentityAgent none
{more}
"""
# Many short connections of one test share one that is made once.
_SHARED = """\
  ControlPath {folder}/control
"""


@dataclass(frozen=True)
class SshServer:
    """A server; `command` is what LAKELOG_SSH has to be."""

    folder: Path
    port: int

    def command(self, *options: str, shared: bool = False) -> str:
        """Return the client's command, with a configuration of its own."""
        file = self.folder / ("shared" if shared else "config")
        more = _SHARED.format(folder=self.folder) if shared else ""
        file.write_text(_CLIENT.format(folder=self.folder, more=more))
        if shared and not (self.folder / "control").exists():
            master = ["ssh", "-F", str(file), "-M", "-N", "-f", "-p", str(self.port), "127.0.0.1"]
            subprocess.run(master, check=True, stderr=subprocess.DEVNULL)
        return " ".join(["ssh", "-F", str(file), *options])

    def url(self, path: object) -> str:
        """Return the address of a directory."""
        return f"ssh://127.0.0.1:{self.port}{path}"

    def trust(self, key: str = "host_key") -> None:
        """Make a host key the known one."""
        text = (self.folder / f"{key}.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {text}")


@contextmanager
def running(folder: Path, *, sftp: str = "internal-sftp", more: str = "") -> Iterator[SshServer]:
    """Run a server whose files are in a folder; skip the test where there is none."""
    program = need("ssh", "ssh-keygen", "sshd")
    if os.getuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)
    for name in ("host_key", "other_key", "id"):
        words = ["-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(["ssh-keygen", *words], check=True)
    shutil.copy(folder / "id.pub", folder / "authorized_keys")
    port = free_port()
    config = folder / "sshd_config"
    config.write_text(_SERVER.format(port=port, folder=folder, sftp=sftp, more=more))
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([program, "-D", "-e", "-f", str(config)], stderr=log)
    server = SshServer(folder, port)
    server.trust()
    try:
        await_port(port)
        yield server
    finally:
        for file in folder.glob("control"):
            command = ["ssh", "-o", f"ControlPath={file}", "-O", "exit", "127.0.0.1"]
            subprocess.run(command, capture_output=True, check=False)
        process.terminate()
        process.wait()


def await_port(port: int) -> None:
    """Wait until a server listens on a port of this machine."""
    for _ in range(10_000):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"nothing listens on port {port}")
