"""What a verb does to the disk: from a log of its system calls, or from the seam of the tests.

Run as a program it does one verb on one lake, under strace, and writes to `acks` what it was
promised. Both ways give the changes of tests/support/powercut.py, and ("ack", text).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lakelog
from lakelog.history import thinning
from tests.support import seam
from tests.support.feeds import feed, put
from tests.support.powercut import FOLDER, apply, is_in_memory, placed, started
from tests.support.requirements import find
from tests.support.verbs import VERBS, Verb, events

CALLS = """openat creat write writev pwrite64 pwritev lseek ftruncate fallocate fsync fdatasync mmap
    sync_file_range msync rename renameat renameat2 link linkat unlink unlinkat rmdir mkdir mkdirat
    copy_file_range sendfile symlink symlinkat""".split()
UNMODELLED = set(
    """creat writev pwrite64 pwritev fallocate sync_file_range msync
    renameat renameat2 linkat unlinkat mkdirat copy_file_range sendfile symlink symlinkat""".split()
)
Tree = list[tuple[str, bytes | None]]
Log = list[tuple[Any, ...]]
Ack = Callable[[str], None]


def _appends(lake: lakelog.Lake, ack: Ack) -> None:
    for n in range(70, 76):
        lake.append(events(n, 1))
        ack(f"e{n}")


def _ingests(lake: lakelog.Lake, ack: Ack) -> None:
    lake.ingest(put(Path(f"{lake.path}.feed"), feed(40, subject="f") + b'{"oops\n'))


def _bad_lines(lake: lakelog.Lake, ack: Ack) -> None:
    lake.quarantine([("a.log", 0, "bad", "{")])
    lake.settle()


def _plain(verb: Verb) -> Callable[[lakelog.Lake, Ack], None]:
    return lambda lake, ack: verb(lake) and None


WORK: dict[str, tuple[str, Callable[[lakelog.Lake, Ack], None]]] = {
    name: (name, _plain(verb)) for name, (_, verb, _) in VERBS.items()
} | {
    "six appends": ("append", _appends),
    "ingest": ("append", _ingests),
    "quarantine": ("append", _bad_lines),
}
"""By name: whose lake it starts from, and what is done."""


def by_strace(name: str, root: str, tree: Tree) -> Log | None:
    """Do a verb in a process of its own under strace; None where there is no strace."""
    strace = find("strace")
    if strace is None:
        return None
    log = f"{root}.strace"
    command = [strace, "-f", "-y", "-xx", "-qq", "-s", "10000000", "--seccomp-bpf"]
    command += ["-e", f"trace={','.join(CALLS)}", "-o", log]
    command += [sys.executable, "-B", "-m", "tests.torture.trace", name, root]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if "ptrace" in done.stderr and not os.path.exists(f"{root}.acks"):
        return None
    assert done.returncode == 0, done.stderr
    return list(parsed(Path(log).read_text("latin-1"), root, tree))


def by_seam(name: str, root: str, tree: Tree, patch: Any) -> Log:
    """Do a verb in this process behind the seam."""
    recorder = Recorder(root, tree)
    lake = lakelog.open(root, create=False)
    with patch.context() as inner:
        inner.setattr(thinning, "UNPACKED", 3)
        seam.install(inner, recorder)
        WORK[name][1](lake, lambda text: recorder.log.append(("ack", text)))
        recorder.log.append(("ack", "done"))
        lake.close()
    return recorder.log


class Recorder:
    """A hook of the seam that writes down every change."""

    def __init__(self, root: str, tree: Tree) -> None:
        self.log: Log = []
        self._fds: dict[int, int] = {}
        self._disk = started(tree)

    def __call__(self, name: str, real: Any, *args: Any, **kwargs: Any) -> Any:
        """Do it, then note it."""
        if name == "claim" and args[0] not in self._disk.live():
            self._note("create", args[0], self._new())
        result = real(*args, **kwargs)
        if name == "create":
            self._fds[result] = self._new()
            self._note("create", args[0], self._fds[result])
        elif name in ("write_all", "truncate", "sync_file"):
            if args[0] in self._fds and not is_in_memory(name, args):
                self._note(name, *placed(name, self._fds[args[0]], *args))
        elif name in seam.CHANGES and self._changed(name, args):
            self._note(name, *args)
        return result

    def _new(self) -> int:
        return len(self._disk.inodes)

    def _changed(self, name: str, args: tuple[Any, ...]) -> bool:
        if name == "make_dir":
            return args[0] not in self._disk.live()
        return name not in ("unlink", "remove_dir") or args[0] in self._disk.live()

    def _note(self, *entry: Any) -> None:
        self.log.append(entry)
        apply(self._disk, *entry)


def parsed(text: str, root: str, tree: Tree) -> Iterator[tuple[Any, ...]]:
    """Read a log of strace; raise AssertionError at a call that the model does not know."""
    disk = started(tree)
    fds: dict[int, Any] = {}
    places: dict[int, int] = {}
    """Where the next write to an open file goes."""
    acks = f"{root}.acks"
    for call, args, result in _calls(text):
        entry: tuple[Any, ...] | None = None
        paths = [_text(a) for a in args if a.startswith('"')]
        if call == "openat":
            made = paths[0].startswith(f"{root}/") and "O_CREAT" in args[2]
            if made and paths[0] not in disk.live():
                entry = ("create", paths[0], len(disk.inodes))
                yield _applied(disk, entry)
            assert "O_TRUNC" not in args[2] or not paths[0].startswith(f"{root}/")
            fds[result], places[result] = disk.live().get(paths[0], paths[0]), 0
            if fds[result] == FOLDER:
                fds[result] = ("folder", paths[0])
            continue
        if any(f"<{root}/cache/clock>" in _text(a) for a in (args[0], *args[4:5])):
            continue  # of the newest stamp: whatever a crash leaves of it, no promise needs it
        fd = args[0].split("<")[0]
        target = fds.get(int(fd)) if fd.isdigit() else None
        ours = isinstance(target, (int, tuple)) or any(p.startswith(f"{root}/") for p in paths)
        if call == "mmap":
            shared = "MAP_SHARED" in args[3] and "PROT_WRITE" in args[2]
            assert not (shared and f"<{root}/" in _text(args[4])), "a shared mapping that writes"
        elif call == "write" and target == acks:
            entry = ("ack", _text(args[1]).strip())
        elif not ours:
            continue
        elif call == "lseek":
            places[int(fd)] = result
        elif call in UNMODELLED:
            raise AssertionError(f"{call} on {paths or target}: the model does not know it")
        else:
            entry = _entry(call, target, args, paths, result)
            if call == "write":
                entry = (*entry, places[int(fd)])
                places[int(fd)] += result
        if entry is not None:
            yield _applied(disk, entry)


def _entry(
    call: str, target: Any, args: list[str], paths: list[str], result: int
) -> tuple[Any, ...]:
    if call == "write":
        return ("write_all", target, _text(args[1]).encode("latin-1")[:result])
    if call == "ftruncate":
        return ("truncate", target, int(args[1], 0))
    if call in ("fsync", "fdatasync"):
        return ("sync_dir", target[1]) if isinstance(target, tuple) else ("sync_file", target)
    return ({"mkdir": "make_dir", "rmdir": "remove_dir"}.get(call, call), *paths)


def _applied(disk: Any, entry: tuple[Any, ...]) -> tuple[Any, ...]:
    if entry[0] != "ack":
        apply(disk, *entry)
    return entry


def _calls(text: str) -> Iterator[tuple[str, list[str], int]]:
    """Yield calls that succeeded; those that were interrupted by others are put together."""
    begun: dict[str, str] = {}
    for line in text.splitlines():
        pid, _, rest = line.partition(" ")
        rest = rest.strip()
        if rest.endswith("<unfinished ...>"):
            begun[pid] = rest.removesuffix("<unfinished ...>")
            continue
        if found := re.match(r"<\.\.\. \w+ resumed>(.*)", rest):
            rest = begun.pop(pid) + found[1]
        if found := re.match(r"(\w+)\((.*)\)\s+= (0x[0-9a-f]+|\d+)", rest):
            yield found[1], found[2].split(", "), int(found[3], 0)


def _text(written: str) -> str:
    r"""Undo strace's \x escapes, and its quotes."""
    plain = re.sub(r"\\x([0-9a-f]{2})", lambda m: chr(int(m[1], 16)), written)
    return plain[1:-1] if plain.startswith('"') else plain


def main(name: str, root: str) -> None:
    """Do one verb on one lake, telling what was promised."""
    thinning.UNPACKED = 3
    acks = os.open(f"{root}.acks", os.O_CREAT | os.O_WRONLY)
    lake = lakelog.open(root, create=False)
    WORK[name][1](lake, lambda text: os.write(acks, text.encode()) and None)
    os.write(acks, b"done")
    lake.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
