"""The data keys of a lake: wrapped in lakelog.json, and in memory once the master key opened them.

encryption   {ring, key, master, former, keys}
ring         16 hex digits: lakes whose rings are the same share their data keys
key          the id of the data key with which everything new is encrypted
master       the id of the master key, or "kms"
former       ids of master keys that were rotated away
keys         {id: {wrapped, created}}: base64, and a time
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lakelog.errors import InvalidKey, NotAllowed
from lakelog.keys import envelope
from lakelog.runtime.lazy import Lazy
from lakelog.values import JsonObject

if TYPE_CHECKING:
    from lakelog.keys import master
    from lakelog.keys.master import Master
else:
    master = Lazy("lakelog.keys.master")


@dataclass(frozen=True)
class WrappedKey:
    """A data key as it stands in lakelog.json; `created` in us."""

    wrapped: str
    created: int


@dataclass(frozen=True)
class KeyRing:
    """The wrapped data keys of a lake, which anybody may see."""

    ring: str
    key: str
    master: str
    former: tuple[str, ...]
    keys: dict[str, WrappedKey]

    @staticmethod
    def of_json(body: Any) -> KeyRing:
        """Return the ring that lakelog.json holds. Raises InvalidKey."""
        try:
            keys = {
                _id(name): WrappedKey(str(key["wrapped"]), int(key["created"]))
                for name, key in body["keys"].items()
            }
            ring = KeyRing(
                _id(body["ring"]),
                _id(body["key"]),
                str(body["master"]),
                tuple(map(str, body.get("former", ()))),
                keys,
            )
            # A ring whose present key is missing could write what nobody opens.
            keys[ring.key]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise InvalidKey(
                "the keys in lakelog.json cannot be read: take the file from a copy"
            ) from None
        return ring

    def config_members(self, config: JsonObject | None = None) -> JsonObject:
        """Return what lakelog.json has besides in an encrypted lake, with what it requires
        already."""
        required = {*(config or {}).get("requires", ()), "encryption"}
        return {"requires": sorted(required), "encryption": self.to_json()}

    def to_json(self) -> JsonObject:
        """Return the member `encryption` of lakelog.json."""
        keys = {
            name: {"wrapped": key.wrapped, "created": key.created}
            for name, key in self.keys.items()
        }
        return {
            "ring": self.ring,
            "key": self.key,
            "master": self.master,
            "former": list(self.former),
            "keys": keys,
        }

    @staticmethod
    def generate(with_master: Master) -> KeyRing:
        """Return a ring with one new data key. Raises InvalidKey, MissingPackage."""
        empty = KeyRing(os.urandom(8).hex(), "", with_master.id, (), {})
        return empty.with_new_key(with_master)

    def unlocked(self, with_master: Master | None = None) -> dict[str, bytes]:
        """Return the data keys by id; the master key is found as `master.find` does unless given.
        Raises InvalidKey, MissingPackage."""
        with_master = with_master or self.find_master()
        return {name: with_master.unwrap(key.wrapped, name) for name, key in self.keys.items()}

    def with_new_key(self, with_master: Master) -> KeyRing:
        """Return the ring with one more data key, for all that is written from now on."""
        name, secret = os.urandom(8).hex(), os.urandom(envelope.SECRET_BYTES)
        wrapped = WrappedKey(with_master.wrap(secret, name), time.time_ns() // 1000)
        return replace(self, key=name, keys={**self.keys, name: wrapped})

    def rotated(self, new: Master) -> KeyRing:
        """Return the ring with the same data keys, wrapped by another master key."""
        keys = {
            name: WrappedKey(new.wrap(secret, name), self.keys[name].created)
            for name, secret in self.unlocked().items()
        }
        former = tuple(i for i in dict.fromkeys((*self.former, self.master)) if i != new.id)
        return replace(self, master=new.id, former=former, keys=keys)

    def joined(self, other: KeyRing) -> KeyRing:
        """Return the ring with the data keys that a copy of it has, too; both have one master
        key."""
        return replace(self, keys={**other.keys, **self.keys})

    def rebased(self, before: KeyRing | None, present: Any) -> KeyRing:
        """Return the ring, which was made of the one `before`, with the data keys that others have
        made meanwhile: `present` is what lakelog.json says now. Raises NotAllowed where one of them
        changed the master key, InvalidKey."""
        ring = None if present is None else KeyRing.of_json(present)
        if ring is None or ring == before:
            return self
        if before is None or not self.master == before.master == ring.master:
            raise NotAllowed(
                "another process has just changed the keys of the lake: look at them by"
                " `lakelog key show`, and run it again"
            )
        return replace(self.joined(ring), key=ring.key if self.key == before.key else self.key)

    def find_master(self) -> Master:
        """Return the master key that wraps the data keys. Raises InvalidKey."""
        try:
            return master.find(self.master)
        except InvalidKey:
            # Who gives the key of yesterday is told so, and not that the lake is damaged.
            present = master.of_environment()
            if present is not None and present.id in self.former:
                raise InvalidKey(
                    f"{present.origin} gives the master key {present.id}, which was rotated away:"
                    f" give its successor {self.master}"
                ) from None
            raise


def _id(name: Any) -> str:
    if len(bytes.fromhex(name)) != 8:
        raise ValueError(name)
    return str(name)
