"""What a lake knows of its remotes: `remotes/<name>.json`, and tags named `<remote>/<branch>`.

    name, url             as given to `lakelog remote add`
    proven                the service that was tried and decides who takes a name (conditions.py),
                          if it is one that has to be tried
    lake                  the id of the lake there, "" before the first contact
    branches              by name: `seen`, the newest move that was seen there, and `common`, the
                          newest one whose events were all here, with the move of ours that had them

The tag makes the state of `seen` readable and keeps gc from deleting it. Generations tell whether
a branch was rewound since (F7.5), on either side.
"""

from __future__ import annotations

import contextlib
import os
import re
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields, replace
from urllib.parse import urlsplit

from lakelog import document
from lakelog.disk import DOCUMENT_MAX, File, Folder, NotIntact, disk
from lakelog.erased import copies
from lakelog.errors import (
    AlreadyExists,
    DamagedRef,
    InvalidName,
    MissingPackage,
    TransferRefused,
    UnknownRef,
    Unreachable,
)
from lakelog.refs import Move, Tag, author
from lakelog.remotes import conditions
from lakelog.remotes.directory import DirectoryRemote
from lakelog.remotes.remote import Interrupted, Remote
from lakelog.runtime.closest import did_you_mean
from lakelog.runtime.lazy import Lazy
from lakelog.store import Policy, Store

_KINDS = {
    "ssh": "HOST/PATH",
    "s3": "BUCKET/PREFIX",
    "az": "CONTAINER/PREFIX",
    "gs": "BUCKET/PREFIX",
    "oci": "HOST/REPOSITORY",
}
"""Schemes of addresses with what follows, besides those of directories. Each has a module of its
name, with `checked`, which returns an address as it is stored, and REMOTE_CLASS."""
# A push to a directory is over before the HTTP of the others would be loaded.
_MODULES = {scheme: Lazy(f"lakelog.remotes.{scheme}") for scheme in _KINDS}
ORIGIN = "origin"
"""The remote that a clone came from."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://")


@dataclass(frozen=True)
class MovePosition:
    """A move of a remote branch: its number, the branch's generation, and the state it names."""

    number: int
    generation: int
    snapshot: str


@dataclass(frozen=True)
class Common:
    """A move of the remote branch, and the move of the local one that held the same events."""

    remote: MovePosition
    local: MovePosition


@dataclass(frozen=True)
class KnownBranch:
    """What is known of one branch of a remote."""

    seen: MovePosition | None = None
    common: Common | None = None


@dataclass(frozen=True)
class KnownRemote:
    """What is known of one remote."""

    name: str
    url: str
    lake: str = ""
    branches: dict[str, KnownBranch] = field(default_factory=dict)
    proven: str = ""

    def branch(self, name: str) -> KnownBranch:
        """What is known of a branch."""
        return self.branches.get(name, KnownBranch())

    def with_branch(self, name: str, known_branch: KnownBranch) -> KnownRemote:
        """Return the same with other knowledge of a branch."""
        return replace(self, branches={**self.branches, name: known_branch})


_MEMBERS = {member.name for member in fields(KnownRemote)} - {"branches"}


def add(store: Store, name: str, url: str) -> KnownRemote:
    """Name a remote. Raises AlreadyExists, InvalidName, TransferRefused for a wrong address."""
    if not _NAME.fullmatch(name):
        raise InvalidName(f"{name!r} cannot name a remote: letters, digits, `.`, `_` and `-` can")
    url = checked_url(url)
    prefix = f"{name}/"
    # A tag of that name would be taken for one of the remote's branches.
    if any(n.startswith(prefix) for n in (*store.refs.tag_names(), *store.refs.all_branches())):
        raise AlreadyExists(
            f"tags or branches named {prefix}… exist: choose another name for the remote"
        )
    remote = KnownRemote(name, url)
    Folder(store.paths.remotes).make_all()
    try:
        File(store.paths.remote(name)).create(_encoded(remote))
    except FileExistsError:
        raise AlreadyExists(f"remote {name!r} exists: choose another name") from None
    Folder(store.paths.remotes).sync()
    return remote


def add_tested(store: Store, name: str, url: str) -> tuple[KnownRemote, str]:
    """Name a remote and try it; the text says why that could not be done now, or is empty. Raises
    as `add`, and TransferRefused for one that cannot be used: then the lake does not know it."""
    remote = add(store, name, url)
    return remote, _try_out(store, remote)


def default_name(store: Store) -> str:
    """Return the only remote, or origin. Raises UnknownRef."""
    names = store.remote_names()
    if len(names) == 1 or ORIGIN in names:
        return ORIGIN if ORIGIN in names else names[0]
    if names:
        raise UnknownRef(f"which remote? name one of {', '.join(names)}")
    raise UnknownRef("no remotes: add one with `lakelog remote add NAME URL`")


def load(store: Store, name: str | None) -> KnownRemote:
    """Return one remote, without a name the only one, or origin. Raises UnknownRef, DamagedRef."""
    name = default_name(store) if name is None else name
    path = store.paths.remote(name)
    try:
        body = document.decode(File(path).read(DOCUMENT_MAX))
        branches = {n: _known(b) for n, b in body.pop("branches").items()}
        # Members of a later version are left out, so that an older lakelog can still read it.
        members = {n: v for n, v in body.items() if n in _MEMBERS}
        return KnownRemote(**members, branches=branches)
    except FileNotFoundError:
        near = did_you_mean(name, store.remote_names())
        raise UnknownRef(
            f"no remote {name!r}: {near or 'add it with `lakelog remote add NAME URL`'}"
        ) from None
    except (NotIntact, TypeError, KeyError, AttributeError) as error:
        raise DamagedRef(path, f"what is known of the remote is damaged: {error}") from None


def _known(body: dict[str, dict[str, dict[str, object]]]) -> KnownBranch:
    place, common = body["seen"], body["common"]
    return KnownBranch(
        place and MovePosition(**place),  # type: ignore[arg-type]
        common and Common(MovePosition(**common["remote"]), MovePosition(**common["local"])),  # type: ignore
    )


def save(store: Store, remote: KnownRemote) -> None:
    """Replace what is known of a remote."""
    File(store.paths.remote(remote.name)).replace(_encoded(remote))


def _encoded(remote: KnownRemote) -> bytes:
    body = asdict(remote)
    # Written only where it is known, as before the member existed.
    if not remote.proven:
        del body["proven"]
    return document.encode(body)


def proven(store: Store, remote: KnownRemote, connection: Remote) -> KnownRemote:
    """Try a service that was not tried yet and remember it. Raises TransferRefused for one that
    does not decide who takes a name, Unreachable."""
    if connection.deciding in ("", remote.proven):
        return remote
    conditions.require(connection)
    remote = replace(remote, proven=connection.deciding)
    save(store, remote)
    return remote


def _try_out(store: Store, remote: KnownRemote) -> str:
    try:
        with connected(remote.url) as connection:
            if connection.deciding:
                connection.size("lakelog.json")  # once: whoever is offline does not wait
                proven(store, remote, connection)
    except TransferRefused:
        # A remote that would lose pushes must not be known for a moment longer.
        File(store.paths.remote(remote.name)).remove()
        Folder(store.paths.remotes).sync()
        raise
    except (Interrupted, MissingPackage, Unreachable) as error:
        return str(error)
    return ""


def remove(store: Store, name: str) -> None:
    """Forget a remote and the tags of its branches. Raises UnknownRef, NotAllowed."""
    Policy.require(store.paths, "remove-remote")
    # Its error says which name was meant; a damaged file is no reason to keep it.
    if not File(store.paths.remote(name)).exists():
        load(store, name)
    with contextlib.suppress(DamagedRef):
        remote = load(store, name)
        if remote.lake:  # what was pushed stays there, and an erasure has to name it
            copies.note(store.paths, "remote", remote.url)
    for tag in store.refs.tag_names():
        if tag.startswith(f"{name}/"):
            File(store.paths.tag(tag)).remove()
    Folder(store.paths.tags).sync()
    File(store.paths.remote(name)).remove()
    Folder(store.paths.remotes).sync()


def take_tag(store: Store, name: str, data: bytes) -> bool:
    """Make a tag of a remote one of the lake; False if its name was taken meanwhile, as by another
    fetch."""
    try:
        File(store.paths.tag(name)).create(data)
    except FileExistsError:
        return False
    Folder(store.paths.tags).sync()
    return True


def track(store: Store, remote: str, branch: str, snapshot: str, carried: bytes = b"") -> None:
    """Make the tag of a remote's branch name a state, whose objects are here; `carried` is that of
    a manifest which no ref carries yet."""
    name = f"{remote}/{branch}"
    if name in store.refs.tag_names() and store.refs.tag(name).snapshot == snapshot:
        return
    carried = carried or store.manifests.text_to_carry(snapshot)
    message = f"{branch} of the remote {remote}"
    # A new commit each time: equal tags made at two times are two documents.
    now_us, commit = disk.now_us(), disk.random_hex()
    store.refs.replace_tag(Tag(name, snapshot, now_us, author(), message, branch, commit, carried))


def place_of(move: Move) -> MovePosition:
    """Return what is remembered of a move."""
    return MovePosition(move.number, move.generation, move.snapshot)


def checked_url(url: str) -> str:
    """Return an address as it is stored. Raises TransferRefused."""
    url = _MODULES["ssh"].of_short_form(url) or url
    match = _SCHEME.match(url)
    if not match:
        return os.path.abspath(url)
    # The address is stored in the lake, and shown.
    if _holds_password(url):
        raise TransferRefused(
            f"{match[1]}://: the address holds a password: leave it out, credentials come from the"
            " environment or the standard configuration; an @ in a path is written as %40"
        )
    try:
        address = urlsplit(url)
    except ValueError:
        raise TransferRefused(f"{url}: this is no address") from None
    if match[1] == "file":
        if address.netloc not in ("", "localhost"):
            raise TransferRefused(f"{url}: {address.netloc} is no host here: write the path alone")
        return os.path.abspath(address.path)
    if match[1] not in _KINDS:
        *examples, example = (f"{scheme}://{place}" for scheme, place in _KINDS.items())
        raise TransferRefused(
            f"no remotes of kind {match[1]}://: choose a directory, {', '.join(examples)}"
            f" or {example}"
        )
    return str(_MODULES[match[1]].checked(url))


def _holds_password(url: str) -> bool:
    """Whether an address has a password, or what may be one with a `/`, `?` or `#` in it."""
    # urlsplit gives up at the first odd character of a password, and would call it a host.
    after_scheme = url.partition("://")[2]
    authority = re.split("[/?#]", after_scheme, maxsplit=1)[0]
    userinfo, _, place = authority.rpartition("@")
    has_port = ":" in re.sub(r"^\[.*\]", "", place)
    return ":" in userinfo or (has_port and "@" in after_scheme[len(authority) :])


def connected(url: str) -> AbstractContextManager[Remote]:
    """Connect to the remote at an address. Raises MissingPackage, Unreachable."""
    return contextlib.closing(open_remote(url))


def open_remote(url: str) -> Remote:
    """Return the remote at an address that `checked_url` gave."""
    return class_of(url)(url)


def class_of(url: str) -> type[Remote]:
    """Return the class of the remote at an address that `checked_url` gave."""
    module = _MODULES.get(url.partition("://")[0])
    remote_class: type[Remote] = module.REMOTE_CLASS if module else DirectoryRemote
    return remote_class
