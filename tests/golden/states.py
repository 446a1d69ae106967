"""Make the golden lake of saved states: `python -m tests.golden.states`.

It writes states2.tar.gz here, a lake with a directory of each kind of entry that an index of format
2 may have, and states2.json, what a restore brings back. Both are kept for ever: make others under
a new name for a new format. The machine's own file is left out, so that nobody owns the states.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from lakelog.state.state import save_state
from tests.support import lakes

HERE = Path(__file__).resolve().parent
LAKE, ANSWERS = HERE / "states2.tar.gz", HERE / "states2.json"
NEW_YEAR = 1_767_225_600_000_000_000
"""2026-01-01 00:00:00 UTC, in nanoseconds."""
STATES = ("v1", "v2")


def make_tree(home: Path) -> None:
    """Make files with and without holes, names of one file, links, a pipe and names of one link."""
    (home / "in" / "ner").mkdir(parents=True)
    (home / "a").write_text("old")
    (home / "empty").write_bytes(b"")
    (home / os.fsdecode(b"\xff")).write_text("no UTF-8")
    (home / "ä").write_text("UTF-8")
    with (home / "in" / "holes").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    os.link(home / "a", home / "in" / "same-file")
    (home / "link").symlink_to("nowhere")
    os.link(home / "link", home / "in" / "same-link", follow_symlinks=False)
    os.mkfifo(home / "pipe", 0o640)
    for path in sorted(home.rglob("*"), reverse=True):
        os.utime(path, ns=(NEW_YEAR, NEW_YEAR), follow_symlinks=False)


def facts(home: Path) -> dict[str, Any]:
    """Return what a restored directory has, by name; the names that share an inode as groups."""
    entries: dict[str, Any] = {}
    names: dict[int, list[str]] = {}
    for path in sorted(home.rglob("*")):
        status, name = path.lstat(), os.fsencode(path.relative_to(home)).hex()
        entry = {"kind": stat.S_IFMT(status.st_mode), "mtime": status.st_mtime_ns}
        if stat.S_ISLNK(status.st_mode):
            entry["target"] = os.readlink(path)
        else:
            entry["mode"] = stat.S_IMODE(status.st_mode)
        if stat.S_ISREG(status.st_mode):
            data = path.read_bytes()
            entry |= {"size": len(data), "content": data.strip(b"\0").decode()}
        if not stat.S_ISDIR(status.st_mode):
            names.setdefault(status.st_ino, []).append(name)
        entries[name] = entry
    return {"entries": entries, "one": sorted(g for g in names.values() if len(g) > 1)}


def _without_machine(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Keep what another machine would get: no locks, and no key of the one that saved."""
    return None if member.name in ("lake/cache", "lake/machine.json") else member


def main() -> None:
    """Make the lake and what is in it. Refuses to make them again."""
    if LAKE.exists():
        sys.exit(f"{LAKE} is kept for ever")
    with tempfile.TemporaryDirectory() as root:
        home, answers = Path(root, "app"), {}
        home.mkdir()
        make_tree(home)
        with lakes.opened(f"{root}/lake") as lake:
            for name in STATES:
                save_state(lake, {"app": str(home)}, name=name)
                answers[name] = facts(home)
                (home / "a").write_text("new")
                os.utime(home / "a", ns=(NEW_YEAR, NEW_YEAR))
            lake.settle()
        with tarfile.open(LAKE, "w:gz") as archive:
            archive.add(f"{root}/lake", "lake", filter=_without_machine)
    ANSWERS.write_text(json.dumps(answers, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
