"""Which machines share a lake, and which erasures each has confirmed (F22.15).

    machines/<16 hex>.json   a document {name, erased}, written by that machine alone

A machine is in the bucket before it reads anything there, so an erasure knows all that can have
rows of it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass

from lakelog import document
from lakelog.keys import VAULT
from lakelog.remotes import remote as remotes
from lakelog.remotes.shared.mirrored_volume import MirroredVolume

_FOLDER = "machines"
_NAME = re.compile(r"([0-9a-f]{16})\.json")


@dataclass(frozen=True)
class MachineNote:
    """A directory that is attached, and the keys of the erasures of which it has nothing."""

    id: str
    name: str
    erased: frozenset[str]


class Machines:
    """The machines of one bucket. Methods raise Unreachable, TransferRefused."""

    def __init__(self, root: str, volume: MirroredVolume, id: str) -> None:
        self._volume = volume
        # A directory of before machines had ids has that of its place.
        self.id = id or document.digest(f"{platform.node()}:{root}".encode())[:16]
        self.name = f"{platform.node()}:{os.path.abspath(root)}"
        self._confirmed: frozenset[str] | None = None

    @property
    def confirmed(self) -> frozenset[str]:
        """The erasures that this machine has confirmed; a request for the first look."""
        if self._confirmed is None:
            note = self._read(f"{self.id}.json")
            self._confirmed = note.erased if note else frozenset()
        return self._confirmed

    def join(self, *, is_new: bool) -> None:
        """Say that this machine is there, of which nothing was said before if it `is_new`."""
        if is_new:
            self._confirmed = frozenset()
        self.confirm(())

    def confirm(self, keys: Iterable[str]) -> None:
        """Say that this machine has nothing of some erasures."""
        self._confirmed = self.confirmed | set(keys)
        body = {"name": self.name, "erased": sorted(self._confirmed)}
        data = self._volume.sealed(document.encode(body))
        self._volume.bucket.replace(f"{_FOLDER}/{self.id}.json", data)

    def withdraw(self, key: str) -> None:
        """Say that this machine may have something of an erasure that it had confirmed."""
        if key in self.confirmed:
            self._confirmed = self.confirmed - {key}
            self.confirm(())

    def listing(self) -> list[MachineNote]:
        """Return all machines, by name."""
        names = self._volume.bucket.names(_FOLDER)
        notes = [note for _, note in remotes.in_parallel(self._read, names) if note]
        return sorted(notes, key=lambda note: (note.name, note.id))

    def forget(self, name: str) -> bool:
        """Remove a machine that is gone for good; whether there is one of that name."""
        ids = [note.id for note in self.listing() if note.name == name]
        for id in ids:
            self._volume.bucket.remove(f"{_FOLDER}/{id}.json")
        return bool(ids)

    def _read(self, name: str) -> MachineNote | None:
        """Return what a file says; None for what no machine would have put there."""
        match = _NAME.fullmatch(name)
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            body = document.decode(VAULT.decrypt(self._volume.bucket.read(f"{_FOLDER}/{name}")))
            erased = frozenset(map(str, body["erased"]))
            return MachineNote(match[1], str(body["name"]), erased) if match else None
        return None
