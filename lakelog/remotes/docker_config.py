"""Credentials for a registry from the configuration that `docker login` and others write.

`$DOCKER_CONFIG/config.json`, by default `~/.docker/config.json`: `credHelpers` of a host, then
`credsStore`, both programs `docker-credential-<name>`, then `auths`. No message shows a secret.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from typing import Any

from lakelog.errors import TransferRefused

_HUB = ("https://index.docker.io/v1/", "index.docker.io", "docker.io")
_HELPER = re.compile(r"[A-Za-z0-9._-]+")
_TIMEOUT = 30
_NO_CREDENTIALS = "credentials not found"
_TOKEN_USER = "<token>"
"""The user name with which a helper says that the secret is an identity token."""


@dataclass(frozen=True)
class Login:
    """A user and a password, or an identity token (an OAuth2 refresh token); all "" for nobody."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header, "" without a password."""
        pair = f"{self.user}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}" if self.password else ""


def login(host: str) -> Login:
    """Return the credentials of a registry, `HOST` or `HOST:PORT`. Raises TransferRefused."""
    path = os.path.join(
        os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"), "config.json"
    )
    config = _read(path)
    names = _HUB if host == "docker.io" else (host, f"https://{host}", f"https://{host}/v1/")
    helpers = config.get("credHelpers") or {}
    store = next((helpers[name] for name in names if name in helpers), config.get("credsStore"))
    if store:
        secret = _ask(str(store), names)
        if secret:
            return secret
    auths = config.get("auths") or {}
    entry: dict[str, str] = next((auths[name] for name in names if auths.get(name)), {})
    try:
        return _of_entry(entry)
    except (AttributeError, TypeError, ValueError):
        raise TransferRefused(f"{path}: the credentials of {host} cannot be read") from None


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        # The parser's own words would repeat a part of the file.
        raise TransferRefused(f"{path}: cannot be read as Docker configuration") from None
    is_valid = isinstance(config, dict) and all(
        isinstance(config.get(name) or {}, dict) for name in ("auths", "credHelpers")
    )
    if not is_valid:
        raise TransferRefused(f"{path}: cannot be read as Docker configuration")
    return config  # type: ignore[no-any-return]


def _of_entry(entry: dict[str, str]) -> Login:
    if entry.get("identitytoken"):
        return Login(identity=entry["identitytoken"])
    if entry.get("auth"):
        user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        return Login(user, password.rstrip("\0"))
    return Login(entry.get("username", ""), entry.get("password", ""))


def _ask(store: str, names: tuple[str, ...]) -> Login | None:
    """Return what a credential helper knows, None where it knows nothing."""
    program = f"docker-credential-{store}"
    if not _HELPER.fullmatch(store):
        raise TransferRefused(f"{store!r} in the Docker configuration is no credential helper")
    for name in names:
        try:
            process = subprocess.run(
                [program, "get"], input=name, capture_output=True, text=True, timeout=_TIMEOUT
            )
        except FileNotFoundError:
            raise TransferRefused(f"{program} is not installed: `docker login` needs it") from None
        except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
            raise TransferRefused(f"{program} does not answer") from None
        if process.returncode:
            if _NO_CREDENTIALS in (process.stdout + process.stderr).lower():
                continue
            raise TransferRefused(f"{program} failed for {name}: `docker login {names[0]}` again")
        try:
            answer = json.loads(process.stdout)
            user, secret = str(answer["Username"]), str(answer["Secret"])
        except (ValueError, KeyError, TypeError):
            raise TransferRefused(f"{program} answered something else than credentials") from None
        return Login(identity=secret) if user == _TOKEN_USER else Login(user, secret)
    return None
