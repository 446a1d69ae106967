"""Which machine's lake this is: `machine.json` (F8.13), made by the first save or rollback.

    machine     32 hex digits, random: whose states a save makes
    keys        {machine: key}: ids of this lake, and the key that proves that it made a state
    trusted     ids that were taken over without their keys, "" for states that name no machine
    former      {machine: key}: ids of the lake that this one was copied from
    path        where the lake was, resolved
    bound       [[inode, device, file system], ...] of lakelog.json

It counts while lakelog.json is one of the files that it is bound to, so that the copy of a lake is
no other machine's. Whoever replaces lakelog.json binds it to the new file first (`rebinding`). The
keys never leave the lake: a state that comes back from a remote, and names this machine although
it was made elsewhere, is nobody's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import ClassVar

import orjson

from lakelog import document
from lakelog.disk import File, Folder, LockFile, NotIntact, NotRegular, OpenFile, disk
from lakelog.errors import UnknownRef
from lakelog.paths import Paths

UNKNOWN = "unknown"
"""In the place of an id: of states that name none, as earlier versions saved them."""
SHORT = 6
_PREFIX_MIN = 4
_BYTES_MAX = 1 << 20
Binding = tuple[int, int, int]


@dataclass(frozen=True)
class Machine:
    """Whose lake this is; `id` is "" where that is not settled yet."""

    ANY: ClassVar[str] = "ANY"
    """In the place of an id: whatever machine."""

    id: str = ""
    keys: dict[str, str] = field(default_factory=dict)
    trusted: tuple[str, ...] = ()
    former: dict[str, str] = field(default_factory=dict)
    path: str = ""
    bound: tuple[Binding, ...] = ()

    def sign(self, *facts: str | int) -> str:
        """Return the proof that this machine states these facts."""
        return _mac(self.keys[self.id], facts)

    def owns(self, machine: str, mac: str, *facts: str | int) -> bool:
        """Whether a machine's facts are those of this one."""
        if machine in self.trusted:
            return True
        return machine in self.keys and _mac(self.keys[machine], facts) == mac

    @staticmethod
    def read(paths: Paths) -> Machine:
        """Return whose lake this is, as far as that is settled; writes nothing."""
        machine = _read(paths)
        if _is_bound(machine, paths):
            return machine
        trusted = dict.fromkeys(filter(None, machine.trusted), "")
        return Machine(former={**trusted, **machine.former, **machine.keys})

    @classmethod
    def settle(cls, paths: Paths) -> Machine:
        """Return whose lake this is; a new machine where nobody's, or that of a copy, was named.
        Raises OSError."""
        machine = cls.read(paths)
        if machine.id:
            return machine
        with _locked(paths):
            machine = cls.read(paths)
            if not machine.id:
                id = disk.random_hex()
                machine = replace(machine, id=id, keys={id: disk.random_hex(32)})
                machine = _write(paths, replace(machine, bound=(_binding(paths.config),)))
        return machine

    @classmethod
    def adopt(cls, paths: Paths, machine: str) -> Machine:
        """Be another machine from now on, whose states then count as made here, beside those of
        this one; with "", only let those count that name none. Raises OSError."""
        present = cls.settle(paths)
        with _locked(paths):
            present = cls.read(paths) if cls.read(paths).id else present
            if not machine:
                return _write(paths, replace(present, trusted=(*present.trusted, "")))
            key = present.keys.get(machine) or present.former.get(machine, "")
            trusted = present.trusted
            if not key:
                # Of a machine that is gone; what names it is believed.
                key, trusted = disk.random_hex(32), (*trusted, machine)
            former = {id: key for id, key in present.former.items() if id != machine}
            return _write(
                paths,
                replace(
                    present,
                    id=machine,
                    keys={**present.keys, machine: key},
                    trusted=trusted,
                    former=former,
                ),
            )

    @staticmethod
    def short(id: str) -> str:
        """Return an id as it is shown: its first digits."""
        return id[:SHORT] or UNKNOWN

    @staticmethod
    def find(prefix: str, ids: set[str]) -> str:
        """Return the id that a user means, which may be its first digits; ANY stays. Raises
        UnknownRef."""
        if prefix == Machine.ANY:
            return Machine.ANY
        if prefix == UNKNOWN and "" in ids:
            return ""
        close = [id for id in sorted(ids) if id and id.startswith(prefix.lower())]
        if prefix.lower() in ids:
            return prefix.lower()
        if len(prefix) < _PREFIX_MIN or len(close) != 1:
            names = ", ".join(id[:SHORT] or UNKNOWN for id in sorted(ids)) or "none"
            raise UnknownRef(f"{prefix!r} is no machine, or several; known: {names}")
        return close[0]

    @staticmethod
    @contextlib.contextmanager
    def rebinding(paths: Paths) -> Iterator[Callable[[str], None]]:
        """Keep the id while lakelog.json is replaced: yields what is to be called with the path of
        the file that will take its place."""
        machine = _read(paths)
        if not _is_bound(machine, paths):
            yield lambda _: None
            return

        def bind(path: str) -> None:
            # To both: whoever dies before or after the file is replaced leaves the id as it was.
            _write(paths, replace(machine, bound=(*machine.bound, _binding(path))))

        yield bind
        # To one: the inode of the other is free for anybody's file now.
        _write(paths, replace(machine, bound=(_binding(paths.config),)))

    @staticmethod
    def place(paths: Paths) -> str:
        """Return where a lake is, resolved, as text."""
        return os.fsencode(os.path.realpath(paths.root)).decode("utf-8", "backslashreplace")


def _mac(key: str, facts: tuple[str | int, ...]) -> str:
    # Keyed by itself: the package for it would be loaded by every program that only appends.
    return hashlib.blake2b(orjson.dumps(facts), key=bytes.fromhex(key), digest_size=16).hexdigest()


def _read(paths: Paths) -> Machine:
    # Damaged it names nobody: then the states of the lake are another machine's until adopted.
    malformed = (NotIntact, AttributeError, KeyError, TypeError, ValueError)
    with contextlib.suppress(FileNotFoundError, NotRegular, *malformed):
        body = document.decode(File(paths.machine).read(_BYTES_MAX))
        return Machine(
            str(body["machine"]),
            {_hex(id, 16): _hex(key, 32) for id, key in body["keys"].items()},
            tuple(id and _hex(id, 16) for id in body["trusted"]),
            {_hex(id, 16): key and _hex(key, 32) for id, key in body["former"].items()},
            str(body["path"]),
            tuple(
                (int(inode), int(device), int(fs_type)) for inode, device, fs_type in body["bound"]
            ),
        )
    return Machine()


def _hex(value: str, size: int) -> str:
    if len(bytes.fromhex(value)) != size:
        raise ValueError(f"{value!r} has not {size} bytes")
    return value


def _write(paths: Paths, machine: Machine) -> Machine:
    machine = replace(machine, path=Machine.place(paths))
    body = asdict(machine)
    body["machine"] = body.pop("id")
    File(paths.machine).replace(document.encode(body))
    return machine


def _is_bound(machine: Machine, paths: Paths) -> bool:
    if not machine.bound or machine.id not in machine.keys:
        return False
    try:
        inode, device, fs_type = _binding(paths.config)
    except OSError:
        return False
    # Devices may be numbered anew when a machine starts; a file system keeps its own number.
    is_here = machine.path == Machine.place(paths)
    return any(
        number == inode
        and (device_number == device or (is_here and fs_type and fs_type == bound_type))
        for number, device_number, bound_type in machine.bound
    )


def _binding(path: str) -> Binding:
    status = os.stat(path)
    return status.st_ino, status.st_dev, os.statvfs(path).f_fsid


@contextlib.contextmanager
def _locked(paths: Paths) -> Iterator[None]:
    """One process at a time: of two that settle at once, the second takes what the first made."""
    Folder(paths.cache).make_all()
    with LockFile(f"{paths.cache}/machine.lock").claim() as alone:
        if not alone:
            OpenFile(alone.fd).lock(wait=True)
        yield
