"""Docker's registry (Debian: docker-registry) on a free loopback port, in a temporary folder."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.support.redis_server import free_port
from tests.support.requirements import need
from tests.support.scratch import memory

_CONFIGS: dict[str, Path] = {}
"""The configuration of each registry, by HOST:PORT."""


@contextlib.contextmanager
def served(**more: object) -> Iterator[str]:
    """Start a registry with more configuration; yield HOST:PORT."""
    program = need("docker-registry")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="registry-", dir=memory()) as folder:
        config = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": folder}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{port}"},
            **more,
        }
        file = Path(folder, "config.yml")
        file.write_text(json.dumps(config))  # which is YAML, too
        server = subprocess.Popen(
            [program, "serve", str(file)],
            # A third of its CPU would go into garbage of a few MB.
            env={**os.environ, "GOGC": "400", "GOMAXPROCS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait(f"http://127.0.0.1:{port}/v2/", server)
            _CONFIGS[f"127.0.0.1:{port}"] = file
            yield f"127.0.0.1:{port}"
        finally:
            server.kill()
            server.wait()


def folder(host: str) -> Path:
    """The folder with all that a registry stores."""
    return _CONFIGS[host].parent


def collect_garbage(host: str) -> None:
    """Delete what the registry thinks nobody needs, manifests without a tag included."""
    command = [need("docker-registry"), "garbage-collect", "-m", str(_CONFIGS[host])]
    subprocess.run(command, check=True, capture_output=True, timeout=240)


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(2000):
        with contextlib.suppress(OSError):
            # One that asks for a password has answered, too.
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(url, timeout=5).close()
            return
        assert server.poll() is None, "the registry ended"
        time.sleep(0.05)
    raise AssertionError("the registry does not answer")
