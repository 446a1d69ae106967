"""Which machine stored an event (F1.5, F6.19): a writer's id ends in a digest of its host's name.

The id of a writer is the origin of its events, so a state needs one record per host, however many
writers there were: {"add": "host", "key": the digest, "name": that of the host}. Whoever seals adds
it from the headers of the WALs. Two machines of one name are one host.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import lru_cache
from typing import ClassVar, Self

from lakelog.disk import disk
from lakelog.entries import Record
from lakelog.manifest import Manifest, Manifests


class Hosts(dict[str, str]):
    """Names of hosts by their digest."""

    WHAT: ClassVar[str] = "host"
    DIGITS: ClassVar[int] = 12
    """Of a writer's id that say its host: 48 bits, so that ten thousand hosts do not meet by
    chance."""

    @staticmethod
    def own_name() -> str:
        """The name of this machine as valid Unicode; bytes that are no text are escaped."""
        name = os.uname().nodename
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    @staticmethod
    @lru_cache(maxsize=64)
    def digest_of(name: str) -> str:
        """The digest of a host's name that ends the ids of its writers."""
        return hashlib.sha256(name.encode()).hexdigest()[: Hosts.DIGITS]

    @classmethod
    def new_writer(cls, host: str) -> str:
        """Return an id for a new writer of a host."""
        # At the end: messages show the beginning of an id, which tells writers apart.
        return disk.random_hex(16 - cls.DIGITS // 2) + cls.digest_of(host)

    @classmethod
    def named_in(cls, writers: Iterable[tuple[str, str]]) -> Self:
        """Return the hosts of writers, without those of writers whose ids say none: these are
        older. `writers` has the id of each and the name of its host."""
        keys = ((id, cls.digest_of(host), host) for id, host in set(writers))
        return cls((key, host) for id, key, host in keys if id.endswith(key))

    @classmethod
    def of_state(cls, manifests: Manifests, state: Manifest) -> Self:
        """Return the hosts that a state knows. Raises DamagedManifest."""
        return cls(
            manifests.read_records(state, cls.WHAT, lambda r: (r.key, str(r.members["name"])))
        )

    def records(self, state_hosts: Hosts) -> tuple[Record, ...]:
        """Return the entries of hosts that a state does not know yet."""
        fresh = sorted(self.keys() - state_hosts)
        return tuple(Record(self.WHAT, key, {"name": self[key]}) for key in fresh)
