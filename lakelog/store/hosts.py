"""Which machine stored an event (F1.5, F6.19): a writer's id ends in a digest of its host's name.

The id of a writer is the origin of its events, so a state needs one record per host, however many
writers there were: {"add": "host", "key": the digest, "name": that of the host}. Whoever seals adds
it from the headers of the WALs. Two machines of one name are one host.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache

from lakelog.disk import disk
from lakelog.entries import Record
from lakelog.manifest import Manifest, Manifests

WHAT = "host"
DIGITS = 12
"""Of a writer's id that say its host: 48 bits, so that ten thousand hosts do not meet by chance."""
_RANDOM_BYTES = 16 - DIGITS // 2
Hosts = dict[str, str]
"""Names of hosts by their digest."""


def host_name() -> str:
    """The name of this machine as valid Unicode; bytes that are no text are escaped."""
    name = os.uname().nodename
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@lru_cache(maxsize=64)
def digest_of(name: str) -> str:
    """The digest of a host's name that ends the ids of its writers."""
    return hashlib.sha256(name.encode()).hexdigest()[:DIGITS]


def new_writer(host: str) -> str:
    """Return an id for a new writer of a host."""
    # At the end: messages show the beginning of an id, which tells writers apart.
    return disk.random_hex(_RANDOM_BYTES) + digest_of(host)


def named_in(writers: Iterable[tuple[str, str]]) -> Hosts:
    """Return the hosts of writers, without those of writers whose ids say none: these are older.

    `writers` has the id of each and the name of its host.
    """
    return {digest_of(host): host for id, host in set(writers) if id.endswith(digest_of(host))}


def of_state(manifests: Manifests, state: Manifest) -> Hosts:
    """Return the hosts that a state knows. Raises DamagedManifest."""
    return dict(manifests.read_records(state, WHAT, lambda r: (r.key, str(r.members["name"]))))


def records(hosts: Mapping[str, str], recorded: Mapping[str, str]) -> tuple[Record, ...]:
    """Return the entries of hosts that a state does not know yet."""
    fresh = sorted(key for key in hosts if key not in recorded)
    return tuple(Record(WHAT, key, {"name": hosts[key]}) for key in fresh)
