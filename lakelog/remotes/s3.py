"""S3 and stores like it as a remote: `s3://BUCKET/PREFIX`, by obstore (extra `s3`).

A name that must not be taken is sent with If-None-Match, and what is sent with its SHA-256.

What the standard AWS configuration says of a profile: endpoint, region and credentials.

`$AWS_CONFIG_FILE` and `$AWS_SHARED_CREDENTIALS_FILE`, by default in `~/.aws`; the environment comes
first. `credential_process` is run as AWS's own tools run it. No message shows a secret.
"""

from __future__ import annotations

import configparser
import json
import os
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lakelog.errors import TransferRefused
from lakelog.remotes.object_store import ObjectStoreRemote, checked, store

__all__ = ["REMOTE_CLASS", "S3Remote", "checked", "load"]


class S3Remote(ObjectStoreRemote):
    """The objects below a prefix of a bucket."""

    SERVICE = "AWS"

    def _connected(self, bucket: str, prefix: str | None) -> Any:
        profile = load()
        self.deciding = "" if self._is_single else profile.endpoint or f"AWS {profile.region}"
        options: dict[str, Any] = {"endpoint": profile.endpoint} if profile.endpoint else {}
        # obstore renews them itself when they are about to expire.
        if profile.process:
            options["credential_provider"] = lambda: self._ask(profile.process)
        return store.S3Store(
            bucket,
            prefix=prefix,
            **self._options(profile.endpoint),
            checksum_algorithm="SHA256",
            region=profile.region,
            **profile.keys,  # type: ignore[arg-type]
            **options,
        )

    def _ask(self, process: Callable[[], Credentials]) -> Credentials:
        try:
            return process()
        except TransferRefused as error:
            # obstore would say of it that access is refused.
            self._refusal = error
            raise


REMOTE_CLASS = S3Remote


_PROCESS_SECONDS = 60
_DEFAULT_REGION = "us-east-1"
Credentials = dict[str, Any]


@dataclass(frozen=True)
class Profile:
    """What is set for S3; `endpoint` is "" for AWS itself. Without `keys` and `process` credentials
    are those of the environment or of the machine."""

    endpoint: str
    region: str
    keys: dict[str, str] = field(default_factory=dict, repr=False)
    process: Callable[[], Credentials] | None = None


def load() -> Profile:
    """Return what holds for this process. Raises TransferRefused."""
    name = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or "default"
    config, credentials = (
        _parsed("AWS_CONFIG_FILE", "config"),
        _parsed("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
    )
    settings, secrets = _section(config, name), _section(credentials, name)
    endpoint = (
        os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or _configured_endpoint(config, settings)
    )
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    profile = Profile(endpoint, region or settings.get("region") or _DEFAULT_REGION)
    # Credentials of the environment win over every profile, as for AWS's own tools.
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return profile
    # In the order of AWS's own tools.
    if "aws_access_key_id" in secrets:
        return Profile(profile.endpoint, profile.region, _keys(secrets))
    command = secrets.get("credential_process") or settings.get("credential_process")
    if command:
        return Profile(profile.endpoint, profile.region, process=lambda: _ask(name, command))
    return Profile(profile.endpoint, profile.region, _keys(settings))


def _configured_endpoint(config: configparser.RawConfigParser, settings: dict[str, str]) -> str:
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return ""
    # Of one service, as AWS's tools have it since 2023: indented lines below `s3 =` in a section
    # that the profile names.
    services = _section(config, f"services {settings.get('services', '')}")
    for line in services.get("s3", "").splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "endpoint_url" and value.strip():
            return value.strip()
    return settings.get("endpoint_url", "")


def _keys(section: dict[str, str]) -> dict[str, str]:
    if "aws_access_key_id" not in section:
        return {}
    credentials = {
        "access_key_id": section["aws_access_key_id"],
        "secret_access_key": section.get("aws_secret_access_key", ""),
    }
    token = section.get("aws_session_token")
    return {**credentials, "session_token": token} if token else credentials


def _ask(profile: str, command: str) -> Credentials:
    """Return the credentials that a program gives, with the time until which they hold."""
    setting = f"credential_process of the AWS profile {profile!r}"
    try:
        arguments = shlex.split(command)
        process = subprocess.run(
            arguments,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_PROCESS_SECONDS,
            check=False,
        )
    except (OSError, ValueError):
        raise TransferRefused(f"the {setting} cannot be run: check the command") from None
    except subprocess.TimeoutExpired:
        raise TransferRefused(f"the {setting} does not answer") from None
    if process.returncode:
        raise TransferRefused(f"the {setting} failed with code {process.returncode}")
    try:
        answer = json.loads(process.stdout)
        if answer["Version"] != 1:
            raise ValueError("another version")
        ends = answer.get("Expiration")
        return {
            "access_key_id": str(answer["AccessKeyId"]),
            "secret_access_key": str(answer["SecretAccessKey"]),
            "token": answer.get("SessionToken"),
            "expires_at": datetime.fromisoformat(ends).astimezone(UTC) if ends else None,
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        # The parser's own words would repeat a part of the answer.
        raise TransferRefused(f"the {setting} answered something else than credentials") from None


def _parsed(variable: str, name: str) -> configparser.RawConfigParser:
    path = os.environ.get(variable) or os.path.expanduser(f"~/.aws/{name}")
    parser = configparser.RawConfigParser()
    try:
        parser.read(path)
    except (configparser.Error, UnicodeDecodeError):
        # The parser's own words would repeat a line of the file.
        raise TransferRefused(f"{path}: cannot be read as AWS configuration") from None
    return parser


def _section(parser: configparser.RawConfigParser, name: str) -> dict[str, str]:
    for section in (name, f"profile {name}"):
        if parser.has_section(section):
            return dict(parser.items(section))
    return {}
