"""S3 and stores like it as a remote: `s3://BUCKET/PREFIX`, by obstore (extra `s3`).

Keys are the paths of a lake below the prefix. A name that must not be taken is a conditional PUT
(If-None-Match: *), which S3 decides as a file system decides `link`. Credentials, region and
endpoint come from the environment or the standard AWS configuration. Nothing deletes objects there.
"""

from __future__ import annotations

import configparser
import contextlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lakelog.clients.loopback import is_loopback
from lakelog.errors import MissingPackage, TransferRefused, Unreachable
from lakelog.remotes import remote as remotes
from lakelog.remotes.remote import Interrupted
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import obstore
    from obstore import exceptions, store
else:
    obstore = Lazy("obstore")
    exceptions, store = Lazy("obstore.exceptions"), Lazy("obstore.store")

_PIECE = 1 << 20
_WHOLE = 16 << 20
"""Longer objects are sent in parts."""
_LISTED = 1_000
_CHUNKS_MAX = 10_000
_TIMEOUT = timedelta(seconds=60)


def checked(url: str) -> str:
    """Return an address that names a bucket. Raises TransferRefused."""
    if not urlsplit(url).hostname:
        raise TransferRefused(f"{url}: name a bucket, as in s3://BUCKET/PREFIX")
    return url


class S3Remote:
    """The objects below a prefix of a bucket."""

    collects = False
    lists_objects = False

    def __init__(self, url: str) -> None:
        parts = urlsplit(checked(url))
        self.url = url
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        options: dict[str, Any] = {"timeout": _TIMEOUT, "connect_timeout": timedelta(seconds=10)}
        if endpoint and urlsplit(endpoint).scheme == "http":
            if not is_loopback(urlsplit(endpoint).hostname or ""):
                raise TransferRefused(f"{endpoint}: http is for this machine only: use https")
            options["allow_http"] = True
        try:
            self._store = store.S3Store(
                parts.netloc,
                prefix=parts.path.strip("/") or None,
                client_options=options,  # type: ignore[arg-type]
                # An attempt that was lost is made again above, where its outcome is known.
                retry_config={"max_retries": 0},
                **_profile(endpoint),
            )
        except ModuleNotFoundError:
            raise MissingPackage(
                "s3:// needs the package obstore: pip install 'lakelog[s3]'"
            ) from None

    def stream(self, key: str, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes of an object."""
        with self._translating(key):
            if start and start >= (self.size(key) or 0):
                return
            options: Any = {"range": {"offset": start}} if start else None
            for piece in obstore.get(self._store, key, options=options).stream(_PIECE):
                yield bytes(piece)

    def names(self, folder: str) -> Iterator[str]:
        """Yield the names below a prefix, each once."""
        prefix, last = f"{folder}/" if folder else "", ""
        with self._translating(folder):
            found = obstore.list(self._store, prefix or None, chunk_size=_LISTED)
            # Many keys may be one name, so whoever reads names cannot tell that there is no end.
            for number, chunk in enumerate(found):
                if number >= _CHUNKS_MAX:
                    raise TransferRefused(f"{self.url}: the list of {folder} has no end: refused")
                for item in chunk:
                    name = item["path"].removeprefix(prefix).split("/")[0]
                    # In the order of keys, so those of one folder follow each other.
                    if name != last:
                        yield name
                    last = name

    def size(self, key: str) -> int | None:
        """The length of an object, None if it is not there."""
        try:
            with self._translating(key):
                return int(obstore.head(self._store, key)["size"])
        except FileNotFoundError:
            return None

    def sizes(self, keys: Sequence[str]) -> list[int | None]:
        """The lengths of some files."""
        return remotes.sizes_one_by_one(self, keys)

    def put(self, key: str, pieces: Callable[[], Iterator[bytes]], size: int) -> None:
        """Store an object; a store of objects shows it only when it is whole."""
        with self._translating(key):
            if size <= _WHOLE:
                # Read to its end first: damage raises before anything is sent.
                body = io.BytesIO(b"".join(pieces()))
                obstore.put(self._store, key, body, use_multipart=False)
            else:
                obstore.put(self._store, key, pieces(), chunk_size=_WHOLE, max_concurrency=2)

    def put_new(self, key: str, data: bytes) -> bool:
        """Store an object that must not exist."""
        try:
            with self._translating(key):
                obstore.put(self._store, key, data, mode="create", use_multipart=False)
        except FileExistsError:
            return False
        return True

    def replace(self, key: str, data: bytes) -> None:
        """Store an object in the place of another."""
        with self._translating(key):
            obstore.put(self._store, key, data, use_multipart=False)

    def flush(self) -> None:
        """What a store has acknowledged is durable."""

    def publishing(self, objects: Mapping[str, int]) -> AbstractContextManager[object]:
        """No gc runs there."""
        return nullcontext()

    def close(self) -> None:
        """Connections end with the object."""

    @contextlib.contextmanager
    def _translating(self, key: str) -> Iterator[None]:
        """Raise our errors for those of obstore, which hold requests and addresses."""
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.url}: {key} is not there") from None
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            raise FileExistsError(key) from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError):
            raise Unreachable(
                f"{self.url}: access is refused: check the AWS credentials and the bucket"
            ) from None
        except exceptions.BaseError as error:
            if "NoSuchBucket" in str(error):
                raise TransferRefused(f"{self.url}: there is no such bucket: create it") from None
            raise Interrupted(f"{self.url}: the store does not answer") from None


def _profile(endpoint: str | None) -> dict[str, Any]:
    """Return what the environment does not say: credentials and region of the AWS profile."""
    options: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    profile = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or "default"
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    config = _section("AWS_CONFIG_FILE", "config", profile)
    keys = _section("AWS_SHARED_CREDENTIALS_FILE", "credentials", profile) or config
    options["region"] = region or config.get("region") or "us-east-1"
    if "AWS_ACCESS_KEY_ID" not in os.environ and "aws_access_key_id" in keys:
        options["access_key_id"] = keys["aws_access_key_id"]
        options["secret_access_key"] = keys.get("aws_secret_access_key", "")
        if token := keys.get("aws_session_token"):
            options["session_token"] = token
    return options


def _section(variable: str, name: str, profile: str) -> dict[str, str]:
    path = os.environ.get(variable) or os.path.expanduser(f"~/.aws/{name}")
    parser = configparser.RawConfigParser()
    try:
        parser.read(path)
    except (configparser.Error, UnicodeDecodeError):
        # The parser's own words would repeat a line of the file.
        raise TransferRefused(f"{path}: cannot be read as AWS configuration") from None
    for section in (profile, f"profile {profile}"):
        if parser.has_section(section):
            return dict(parser.items(section))
    return {}
