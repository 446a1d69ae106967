"""Whether a remote has all that its branches and tags need.

What is named there is found as a fetch finds it, so pages that are not here are received; nothing
else is, and no branch or tag changes on either side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lakelog.errors import TransferRefused
from lakelog.lake import Lake
from lakelog.remotes import carry, known
from lakelog.remotes.erasures import RemoteErasures
from lakelog.remotes.objects import STATES, Sizes
from lakelog.remotes.site import Site, key_of
from lakelog.runtime.progress import ProgressCallback
from lakelog.store.bootstrap import Store


@dataclass(frozen=True)
class Fault:
    """A file of a remote, or a branch or tag there, and what is wrong with it."""

    path: str
    reason: str


@dataclass
class Checked:
    """What a check looked at, and what it found."""

    remote: str
    url: str
    refs: int = 0
    objects: int = 0
    bytes: int = 0
    faults: list[Fault] = field(default_factory=list)
    snapshots: set[str] = field(default_factory=set)


def check(
    lake: Lake, name: str, *, read_data: bool = False, progress: ProgressCallback = lambda *_: None
) -> Checked:
    """Compare the lengths of all objects that a remote's branches and tags need, or with
    `read_data` each byte. Raises UnknownRef, Unreachable, OSError, TransferRefused where no lake
    is."""
    remote = known.load(lake.store, name)
    result = Checked(name, remote.url)
    with known.connected(remote.url) as connection:
        site = Site(connection)
        if not site.lake_id():
            raise TransferRefused(f"{site.url}: there is no lake: check the address")
        objects = named_objects(lake.store, site, result)
        result.objects, result.bytes = len(objects), sum(objects.values())
        result.faults += _faults(site, objects, read_data, progress)
    return result


def named_objects(store: Store, site: Site, result: Checked) -> Sizes:
    """Return the objects that are named there; what cannot be read is a fault."""
    objects: Sizes = {}
    named = list(_named(site, result))
    # All at once: what stands in for erased states is one look at the remote.
    erased = RemoteErasures(store, site, result.remote)
    # Here another manifest may be read in the place of an erased state than there.
    stored = erased.stored_as(state for _, state, _ in named)
    for path, state, carried_text in named:
        snapshot = stored[state]
        carried = carried_text if snapshot == state else b""
        result.refs += 1
        result.snapshots.add(snapshot)
        try:
            objects |= carry.objects_there(store, site.remote, snapshot, carried)
        except TransferRefused as error:
            result.faults.append(_fault(site, path, error))
    return objects


def _named(site: Site, result: Checked) -> Iterator[tuple[str, str, bytes]]:
    """Yield (path, snapshot, manifest) of all branches and tags."""
    for branch in site.branches():
        try:
            head = site.head(branch)
            # A deleted branch names nothing that has to be there.
            if head and head.move.op != "delete":
                yield f"refs/heads/{branch}", head.move.snapshot, head.move.carried
        except TransferRefused as error:
            result.faults.append(_fault(site, f"refs/heads/{branch}", error))
    for name in site.tags():
        try:
            if tag := site.tag(name):
                yield f"refs/tags/{name}", tag[0].snapshot, tag[0].carried
        except TransferRefused as error:
            result.faults.append(_fault(site, f"refs/tags/{name}", error))


def _faults(
    site: Site, objects: Sizes, read_data: bool, progress: ProgressCallback
) -> Iterator[Fault]:
    lengths = carry.lengths_at(site.remote, objects)
    whole: Sizes = {}
    for name, size in objects.items():
        length = lengths.get(name)
        if length is None:
            yield Fault(key_of(name), "it is missing")
        elif length != size and name[0] not in STATES:
            yield Fault(key_of(name), f"it has {length:,} bytes instead of {size:,}")
        else:
            # Of a state's file the length is only an upper bound where it was never here.
            whole[name] = max(size, length) if name[0] in STATES else size
    if read_data:
        for name, reason in carry.damaged_at(site.remote, whole, progress):
            yield Fault(key_of(name), reason)


def _fault(site: Site, path: str, error: TransferRefused) -> Fault:
    return Fault(path, str(error).removeprefix(f"{site.url}: "))
