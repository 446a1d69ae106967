"""Stores of objects as remotes, by obstore: what those of Amazon, Microsoft and Google share.

Keys are the paths of a lake below the prefix. A name that must not be taken is a conditional PUT,
which a store decides as a file system decides `link`; whether it does so is tried before the first
push (conditions.py). Where it does not, `?single-writer` at the end of the address says that one
machine at a time pushes: then it is looked before a name is taken, and again a while after. The
length of what is sent is compared.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import re
import threading
import time
import unicodedata
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lakelog.clients import Address
from lakelog.disk import disk
from lakelog.errors import MissingPackage, TransferRefused, Unreachable
from lakelog.paths import LEASE
from lakelog.remotes.remote import SETTLING, Interrupted, Remote, retrying
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import obstore
    from obstore import exceptions
    from obstore import store as store
else:
    obstore, store = Lazy("obstore"), Lazy("obstore.store")
    exceptions = Lazy("obstore.exceptions")

PRUNED, DELETING = "gc/pruned", "gc/deleting"
"""That somebody prunes there, and that a prune runs (prunes.py)."""
_READ = 256 << 10
"""What comes of a body before its time is over is kept by so many bytes: whoever reads goes on."""
_WHOLE = 16 << 20
"""Longer objects are sent in parts."""
_LISTED = 1_000
_CHUNKS_MAX = 10_000
_TIMEOUT, _TIMEOUT_MAX = timedelta(seconds=60), timedelta(seconds=960)
"""How long a request may take with its body; longer ones get more time where that is over, since
many share a line that may be slow: obstore (0.12) cannot tell such a line from a dead one."""
_LONG = 256 << 10
_STATUS = re.compile(r"status code: (\d{3} [A-Za-z ]+)")
"""In messages of obstore (0.12): what follows are words of the store, which may be anything."""


SINGLE_WRITER = "single-writer"
"""After a `?` at the end of an address: only one machine pushes at a time."""


_USERS: list[int] = []
"""The process in which obstore has threads, and those that were forked from it do not."""


def _require_threads(url: str) -> None:
    """Refuse a process that was forked from one that used obstore: a request would never end.
    Raises TransferRefused."""
    if not _USERS:
        _USERS.append(os.getpid())
    if _USERS[0] != os.getpid():
        raise TransferRefused(
            f"{url}: a forked child of a process that has sent requests there cannot send any:"
            " start a new process, as multiprocessing does with `spawn`"
        )


def checked(url: str) -> str:
    """Return an address that names a bucket. Raises TransferRefused."""
    address = urlsplit(url)
    if not address.hostname:
        raise TransferRefused(f"{url}: name a bucket, as in {address.scheme}://BUCKET/PREFIX")
    if address.query not in ("", SINGLE_WRITER) or address.fragment:
        raise TransferRefused(f"{url}: nothing but ?{SINGLE_WRITER} may follow the prefix")
    prefix = address.path.strip("/")
    has_controls = any(unicodedata.category(letter) == "Cc" for letter in prefix)
    # As obstore has it, which says so only once it connects.
    if has_controls or (prefix and not {"", ".", ".."}.isdisjoint(prefix.split("/"))):
        raise TransferRefused(
            f"{url}: a prefix has no empty part, no `.` or `..`, and no control characters"
        )
    return url


class ObjectStoreRemote(Remote):
    """The objects below a prefix of a bucket."""

    is_lake_directory = False
    SERVICE = ""
    """Whose credentials are asked for."""
    NAMES_VERSIONS = True
    """Whether an answer that names a version says that older ones are kept."""

    def __init__(self, url: str) -> None:
        self.url = url
        address = urlsplit(url)
        self._is_single = address.query == SINGLE_WRITER
        self._refusal: TransferRefused | None = None
        self._timeout, self._lock = _TIMEOUT, threading.Lock()
        place = address.netloc, address.path.strip("/") or None
        try:
            self._store: Any = self._connected(*place)
        except ModuleNotFoundError:
            raise MissingPackage(
                f"{address.scheme}:// needs the package obstore: pip install 'lakelog[s3]'"
            ) from None
        except exceptions.BaseError:
            # Without the words of obstore, which may repeat a part of a secret.
            raise TransferRefused(
                f"{url}: the {self.SERVICE} credentials are not whole, or malformed: check them"
            ) from None
        self._patient_store = self._store
        self._connect_again = functools.partial(self._connected, *place)

    @abstractmethod
    def _connected(self, bucket: str, prefix: str | None) -> Any:
        """Return the store of obstore, which connects with its first request. Raises
        TransferRefused, ModuleNotFoundError."""

    def _options(self, endpoint: str) -> dict[str, Any]:
        """Return what stores have in common: how long requests wait, whether they may be in the
        clear, and how often they are made. Raises TransferRefused."""
        options: dict[str, Any] = {
            "timeout": self._timeout,
            "connect_timeout": timedelta(seconds=10),
        }
        if endpoint and urlsplit(endpoint).scheme not in ("http", "https"):
            raise TransferRefused(f"{endpoint} is no address of a service: write https://HOST")
        if urlsplit(endpoint).scheme == "http":
            if not Address.is_loopback(urlsplit(endpoint).hostname or ""):
                # Credentials would travel in the clear.
                raise TransferRefused(f"{endpoint}: http is for this machine only: use https")
            options["allow_http"] = True
        # An attempt that was lost is made again by whoever knows its outcome.
        return {"client_options": options, "retry_config": {"max_retries": 0}}

    @contextlib.contextmanager
    def _patiently(self, count: int) -> Iterator[Any]:
        """Give the store for a request with a body of so many bytes. One that ends in vain when its
        time is over lets the next ones take longer."""
        started, timeout = time.monotonic(), self._timeout
        try:
            yield self._patient_store if count > _LONG else self._store
        except exceptions.BaseError:
            if count > _LONG and time.monotonic() - started >= timeout.total_seconds():
                self._be_more_patient(timeout)
            raise

    def _be_more_patient(self, timeout: timedelta) -> None:
        with self._lock:
            # Of many that were under way at once the first.
            if timeout == self._timeout < _TIMEOUT_MAX:
                self._timeout = 2 * timeout
                self._patient_store = self._connect_again()

    @property
    def collects(self) -> bool:
        """Whether somebody prunes there (prunes.py)."""
        return retrying(lambda: self.size(PRUNED)) is not None

    def stream(self, key: str, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes of an object."""
        with self._translating(key):
            # A range from the end on is an error (416) to S3, and to us the end.
            if start and start >= (self.size(key) or 0):
                return
            options: Any = {"range": {"offset": start}} if start else None
            for chunk in obstore.get(self._store, key, options=options).stream(_READ):
                yield bytes(chunk)

    def piece(self, key: str, start: int, length: int) -> bytes:
        """Return so many bytes of an object from `start` on, or as many as there are."""
        with self._translating(key):
            options: Any = {"range": (start, start + length)}
            with self._patiently(length) as patient_store:
                return bytes(obstore.get(patient_store, key, options=options).bytes())

    def names(self, folder: str) -> Iterator[str]:
        """Yield the names below a prefix, each once."""
        prefix, previous, offset = f"{folder}/" if folder else "", "", None
        for _ in range(_CHUNKS_MAX):
            with self._translating(folder):
                page = next(
                    iter(
                        obstore.list(self._store, prefix or None, offset=offset, chunk_size=_LISTED)
                    ),
                    (),
                )
            for item in page:
                # In the order of keys, so those of one folder follow each other.
                name = item["path"].removeprefix(prefix).split("/")[0]
                if name != previous:
                    yield name
                previous = name
            if len(page) < _LISTED:
                return
            # What else is below the last name adds none: a branch may have a million moves.
            last_key = page[-1]["path"]
            is_folder = "/" in last_key.removeprefix(prefix)
            # `~` sorts behind every character of our keys: the next page begins after the whole
            # folder.
            offset = f"{prefix}{previous}/~" if is_folder else last_key
        raise TransferRefused(f"{self.url}: the list of {folder} has no end: refused")

    def folders(self, folder: str) -> Iterator[str]:
        """Yield the names below a prefix, each once, by the store's own folders, of which a store
        that is not to be trusted may have no end. The `names` of one that cannot begin a list
        behind a key."""
        with self._translating(folder):
            prefix = f"{folder}/" if folder else ""
            listing = obstore.list_with_delimiter(self._store, prefix or None)
        for path in (*listing["common_prefixes"], *(o["path"] for o in listing["objects"])):
            yield path.removeprefix(prefix).strip("/")

    def lengths(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield the names of objects below a prefix, with their lengths."""
        prefix = f"{folder}/" if folder else ""
        with self._translating(folder):
            listing = obstore.list(self._store, prefix or None, chunk_size=_LISTED)
            # Many keys may be one name, so whoever reads names cannot tell that there is no end.
            for number, chunk in enumerate(listing):
                if number >= _CHUNKS_MAX:
                    raise TransferRefused(f"{self.url}: the list of {folder} has no end: refused")
                for item in chunk:
                    yield item["path"].removeprefix(prefix).split("/")[0], int(item["size"])

    def size(self, key: str) -> int | None:
        """The length of an object, None if it is not there."""
        try:
            with self._translating(key):
                return int(obstore.head(self._store, key)["size"])
        except FileNotFoundError:
            return None

    def put(self, key: str, read_chunks: Callable[[], Iterator[bytes]], size: int) -> None:
        """Store an object; a store of objects shows it only when it is whole."""
        # In one request where that is possible: one part costs as much as a whole object.
        if size <= _WHOLE:
            # Read to its end first: damage raises before anything is sent.
            self._put(key, b"".join(read_chunks()))
            return
        try:
            with self._translating(key), self._patiently(size) as patient_store:
                obstore.put(patient_store, key, read_chunks(), chunk_size=_WHOLE, max_concurrency=2)
        except FileNotFoundError:
            # NoSuchUpload: it was ended by an attempt whose answer was an error, or got lost.
            raise Interrupted(f"{self.url}: the store gave up the parts of {key}") from None
        self._require_length(key, size)

    def put_new(self, key: str, data: bytes) -> bool:
        """Store an object that must not exist."""
        if not self._is_single:
            # A server that looks and then stores may have given the name to another one, too: only
            # the bytes say who won.
            return self.try_new(key, data) and b"".join(self.stream(key)) == data
        if self.size(key) is not None:
            return False
        self._put(key, data)
        # Of two that found no object the last one has it, as in a registry.
        time.sleep(SETTLING)
        return b"".join(self.stream(key)) == data

    def try_new(self, key: str, data: bytes) -> bool:
        """Store an object that must not exist, if the store says so."""
        try:
            self._put(key, data, mode="create")
        except FileExistsError:
            return False
        return True

    def replace(self, key: str, data: bytes) -> None:
        """Store an object in the place of another."""
        self._put(key, data)

    def remove(self, key: str) -> None:
        """Remove an object, if it is there."""
        self.remove_all([key])

    def remove_all(self, keys: Sequence[str]) -> None:
        """Remove some objects by one request, if they are there."""
        with contextlib.suppress(FileNotFoundError), self._translating(keys[0]):
            obstore.delete(self._store, keys)

    def _put(self, key: str, data: bytes, mode: Any = "overwrite") -> None:
        is_new = mode == "create"
        with self._translating(key, is_new=is_new), self._patiently(len(data)) as patient_store:
            result = obstore.put(
                patient_store, key, io.BytesIO(data), mode=mode, use_multipart=False
            )
        self.keeps_versions |= self.NAMES_VERSIONS and result["version"] is not None
        # Where a store encrypts, the tag is no MD5; then at least the length is compared.
        # The MD5 comes for nothing with the answer: no second request where it agrees.
        tag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if (result["e_tag"] or "").strip('"') != tag:
            self._require_length(key, len(data))

    def _require_length(self, key: str, size: int) -> None:
        length = self.size(key)
        if length != size:
            raise Interrupted(
                f"{self.url}: the store kept {length or 0:,} of {size:,} bytes of {key}"
            )

    @contextlib.contextmanager
    def publishing(self, objects: Mapping[str, int]) -> Iterator[None]:
        """Have a lease there, while no prune deletes; none where nobody prunes."""
        # A lease costs two requests: they are spared where nobody has ever pruned.
        if not self.collects:
            yield
            return
        lease = f"gc/{LEASE}{disk.random_hex()}"
        try:
            retrying(lambda: self._put(lease, b"{}"))
            # After the lease: a prune that begins now finds it.
            if retrying(lambda: self.size(DELETING)) is not None:
                raise TransferRefused(
                    f"{self.url}: a prune runs there: push when it has ended; of one that was"
                    " interrupted run `lakelog remote prune` again"
                )
            yield
            # A prune removed it as one of a push that died, and may have deleted what was just
            # sent.
            if retrying(lambda: self.size(lease)) is None:
                raise TransferRefused(
                    f"{self.url}: a prune there took this push for dead: `lakelog push --repair`"
                    " sends again what it may have deleted"
                )
        finally:
            # One that is left over holds prunes off for an hour at most.
            with contextlib.suppress(Unreachable):
                retrying(lambda: self.remove(lease))

    def stamp(self, key: str) -> float | None:
        """When an object was stored, in seconds by the store's clock; None if it is not there."""
        try:
            with self._translating(key):
                return obstore.head(self._store, key)["last_modified"].timestamp()
        except FileNotFoundError:
            return None

    def now(self) -> float:
        """The time by the store's clock."""
        key = f"cache/clock-{disk.random_hex(8)}"
        self._put(key, b"{}")
        try:
            return self.stamp(key) or 0.0
        finally:
            self.remove(key)

    def files(self, folder: str) -> Iterator[tuple[str, int, float]]:
        """Yield (key, bytes, time of storing) of all objects below a prefix."""
        with self._translating(folder):
            for chunk in obstore.list(self._store, f"{folder}/", chunk_size=_LISTED):
                for item in chunk:
                    yield item["path"], int(item["size"]), item["last_modified"].timestamp()

    @contextlib.contextmanager
    def _translating(self, key: str, *, is_new: bool = False) -> Iterator[None]:
        """Raise our errors for those of obstore, which hold requests and addresses."""
        _require_threads(self.url)
        try:
            yield
        except (exceptions.BaseError, FileNotFoundError) as error:
            if refusal := self._refusal:
                self._refusal = None
                raise refusal from None
            conflicts = exceptions.AlreadyExistsError, exceptions.PreconditionError
            if is_new and isinstance(error, conflicts):
                raise FileExistsError(key) from None
            raise self._translated(error, key) from None

    def _translated(self, error: Exception, key: str) -> Exception:
        if any(name in str(error) for name in ("NoSuchBucket", "ContainerNotFound")):
            return TransferRefused(f"{self.url}: there is no such bucket: create it")
        if isinstance(error, FileNotFoundError):
            return FileNotFoundError(f"{self.url}: {key} is not there")
        if isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)):
            return Unreachable(
                f"{self.url}: access is refused: check the {self.SERVICE} credentials and the"
                " bucket"
            )
        if "ExpiredToken" in str(error):
            return Unreachable(f"{self.url}: the credentials have expired: renew them")
        if "configured region" in str(error):
            return Unreachable(f"{self.url}: the bucket is in another region: set AWS_REGION")
        answer = _STATUS.search(str(error))
        answered = f"answers {answer[1]}" if answer else "does not answer"
        return Interrupted(f"{self.url}: the store {answered}")
