"""Directories that pretend to be remotes: each case forges one thing in a good one.

`python -m tests.support.hostile_remotes HOME` attacks a lake by every case, in one process, and
prints what came of each, and the memory that it took, as JSON. HOME holds `good`, a remote, and
`victim`, a lake that has fetched from it and lacks its newest state.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import zstandard

import lakelog
from lakelog import document
from lakelog.errors import LakelogError
from lakelog.refs import Ref
from lakelog.remotes import fetches as fetching
from lakelog.remotes import pushes as pushing
from tests.support.peak_memory import peak

Body = dict[str, Any]
BIDI = "\u202egpj.evil\u2066"
DEEP = b"[" * 200_000
DIGEST = "ab" * 32
_PATIENCE = 120


class Forge:
    """The files of a remote, changed as somebody who can write there would: with true checksums."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def move(self) -> Path:
        """The newest move of main."""
        return max((self.root / "refs/heads/main").glob("[0-9]*.json"))

    @property
    def tag(self) -> Path:
        return self.root / "refs/tags/v1.json"

    @property
    def segment(self) -> Path:
        """A segment that only the newest state names, so that the victim lacks it."""
        _, text = Ref.document_of(self.move.read_bytes())
        key = orjson.loads(text)["tail"][-1]["key"]
        return self.root / f"segments/{key[:2]}/{key}.parquet"

    def ref(self, path: Path, change: Callable[[Body], object], target: Path | None = None) -> None:
        """Change the document of a move or tag."""
        body, text = Ref.document_of(path.read_bytes())
        change(body)
        carried = text + b"\n" if text else b""
        (target or path).write_bytes(document.encode(body) + carried)

    def manifest(self, change: Callable[[Body], object]) -> None:
        """Change the manifest of the newest state, which its move then names and carries."""
        _, text = Ref.document_of(self.move.read_bytes())
        manifest = orjson.loads(text)
        change(manifest)
        self.text(orjson.dumps(manifest))

    def text(self, text: bytes) -> None:
        """Make these bytes the manifest of the newest state."""
        body, _ = Ref.document_of(self.move.read_bytes())
        body["snapshot"] = document.digest(text)
        self.move.write_bytes(document.encode(body) + text + b"\n")

    def page(self, data: bytes, size: int | None = None) -> None:
        """Make a manifest that names a page whose file has these bytes."""
        digest = document.digest(data)
        file = self.root / f"manifests/{digest[:2]}/{digest}.json.zst"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        self.manifest(setter(pages=[page(digest, len(data) if size is None else size)]))

    def own_manifest(self, data: bytes, digest: str = "") -> None:
        """Make the newest move name a manifest in a file of its own."""
        digest = digest or document.digest(data)
        file = self.root / f"manifests/{digest[:2]}/{digest}.json.zst"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        body, _ = Ref.document_of(self.move.read_bytes())
        self.move.write_bytes(document.encode({**body, "snapshot": digest}))

    def lake(self, **members: Any) -> None:
        """Change lakelog.json."""
        path = self.root / "lakelog.json"
        path.write_bytes(document.encode({**document.decode(path.read_bytes()), **members}))

    def other(self, path: Path, make: Callable[[Path], object]) -> None:
        """Put something else in the place of a file."""
        path.unlink()
        make(path)


def page(digest: str, size: int, **members: Any) -> Body:
    """A page as a manifest names it."""
    counts = {"level": 0, "entries": 1, "removals": 0, "events": 1, "time": None}
    return {"digest": digest, "bytes": size, **counts, **members}


def entry(**members: Any) -> Callable[[Body], object]:
    """Change the last segment of a manifest."""
    return lambda body: body["tail"][-1].update(members)


def setter(**members: Any) -> Callable[[Body], object]:
    """Change members of a document."""
    return lambda body: body.update(members)


def squeeze(data: bytes, **options: Any) -> bytes:
    compressed: bytes = zstandard.ZstdCompressor(level=1, **options).compress(data)
    return compressed


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _bomb(size: int, *, says: bool = True) -> bytes:
    return squeeze(bytes(size), write_content_size=says)


def _liar() -> bytes:
    """A frame that claims 1 kB and holds 64 MB."""
    inner = squeeze(bytes(64 << 20), write_content_size=False)
    return inner[:4] + b"\x60" + (1000 - 256).to_bytes(2, "little") + inner[6:]


CASES: dict[str, Callable[[Forge], object]] = {
    # lakelog.json
    "lake: no JSON": lambda f: (f.root / "lakelog.json").write_bytes(b"{"),
    "lake: endless": lambda f: (f.root / "lakelog.json").write_bytes(b" " * (5 << 20)),
    "lake: deep": lambda f: (f.root / "lakelog.json").write_bytes(
        DEEP[:-1] + b"{" + document.ending(DEEP[:-1] + b"{}")
    ),
    "lake: id is a path": lambda f: f.lake(lake="../../../../tmp/evil"),
    "lake: id is a list": lambda f: f.lake(lake=["x"]),
    "lake: of the future": lambda f: f.lake(format=10**6),
    "lake: format is text": lambda f: f.lake(format="1"),
    "lake: a device": lambda f: f.other(f.root / "lakelog.json", zeros),
    "lake: a pipe": lambda f: f.other(f.root / "lakelog.json", os.mkfifo),
    "lake: a directory": lambda f: f.other(f.root / "lakelog.json", os.mkdir),
    "lake: a link in a circle": lambda f: f.other(
        f.root / "lakelog.json", lambda p: p.symlink_to(p)
    ),
    # moves
    "move: no document": lambda f: f.move.write_bytes(b"\x00" * 100),
    "move: empty": lambda f: f.move.write_bytes(b""),
    "move: endless": lambda f: f.move.write_bytes(b"1" * (5 << 20)),
    "move: deep": lambda f: f.move.write_bytes(DEEP),
    "move: a device": lambda f: f.other(f.move, zeros),
    "move: a pipe": lambda f: f.other(f.move, os.mkfifo),
    "move: of another branch": lambda f: f.ref(f.move, setter(branch="other")),
    "move: of another number": lambda f: f.ref(f.move, setter(number=77)),
    "move: negative": lambda f: f.ref(f.move, setter(number=-1)),
    "move: snapshot is a path": lambda f: f.ref(f.move, setter(snapshot="../../../etc/passwd")),
    "move: snapshot is missing": lambda f: f.ref(f.move, lambda b: b.pop("snapshot")),
    "move: snapshot of another": lambda f: f.ref(f.move, setter(snapshot=DIGEST)),
    "move: watermark of a path": lambda f: f.ref(f.move, setter(wal={"../../evil": 3})),
    "move: watermark is text": lambda f: f.ref(f.move, setter(wal={"0" * 32: "3"})),
    "move: more members": lambda f: f.ref(f.move, setter(carried="x")),
    "move: time beyond all": lambda f: f.ref(f.move, setter(time=(1 << 63) - 1)),
    "move: generation is true": lambda f: f.ref(f.move, setter(generation=True)),
    # manifests that moves carry
    "manifest: no object": lambda f: f.text(b"[]"),
    "manifest: no JSON": lambda f: f.text(b"nothing"),
    "manifest: deep": lambda f: f.text(DEEP[:100_000] + b"]" * 100_000),
    "manifest: a million values": lambda f: f.text(b'{"a":[' + b"0," * 1_000_001 + b"0]}"),
    "manifest: a million objects": lambda f: f.text(b'{"a":[' + b"{}," * 300_000 + b"{}]}"),
    "manifest: of no format": lambda f: f.manifest(lambda b: b.pop("format")),
    "manifest: key is a path": lambda f: f.manifest(entry(key="../../../evil")),
    "manifest: key is long": lambda f: f.manifest(entry(key="a" * 1000)),
    "manifest: key in capitals": lambda f: f.manifest(entry(key="AB" * 32)),
    "manifest: key with a newline": lambda f: f.manifest(entry(key=DIGEST[:-1] + "\n")),
    "manifest: no such segment": lambda f: f.manifest(entry(key=DIGEST)),
    "manifest: negative length": lambda f: f.manifest(entry(bytes=-1)),
    "manifest: length is text": lambda f: f.manifest(entry(bytes="9")),
    "manifest: 8 TiB": lambda f: f.manifest(entry(bytes=1 << 43)),
    "manifest: length beyond all": lambda f: f.manifest(entry(bytes=1 << 61)),
    "manifest: entry is a list": lambda f: f.manifest(lambda b: b["tail"].append([])),
    "manifest: entries are none": lambda f: f.manifest(setter(tail=None)),
    "manifest: ids are text": lambda f: f.manifest(setter(ids="ab")),
    "manifest: id run is a path": lambda f: f.manifest(
        setter(ids=[{"digest": "../../x", "bytes": 1, "count": 1}])
    ),
    "manifest: page is a path": lambda f: f.manifest(setter(pages=[page("/etc/passwd", 9)])),
    "manifest: page is missing": lambda f: f.manifest(setter(pages=[page(DIGEST, 9)])),
    "manifest: a page a thousand times": lambda f: f.manifest(
        setter(pages=[page(DIGEST, 1 << 30)] * 1000)
    ),
    "manifest: page of no level": lambda f: f.manifest(
        setter(pages=[{"digest": DIGEST, "bytes": 9}])
    ),
    "manifest: page of a text": lambda f: f.manifest(setter(pages=[page(DIGEST, 9, time="ab")])),
    "manifest: totals are none": lambda f: f.manifest(setter(totals=[])),
    "manifest: totals are texts": lambda f: f.manifest(setter(totals={"events": "1"})),
    "manifest: next seq is a text": lambda f: f.manifest(setter(next_seq="1")),
    "manifest: retention is a list": lambda f: f.manifest(setter(retention=[1])),
    "manifest: in a wrong file": lambda f: f.own_manifest(squeeze(b"{}"), DIGEST),
    "manifest: endless file": lambda f: f.own_manifest(bytes(17 << 20)),
    "manifest: bomb": lambda f: f.own_manifest(_bomb(1 << 30)),
    "manifest: bomb of no length": lambda f: f.own_manifest(_bomb(1 << 28, says=False)),
    "manifest: bomb that lies": lambda f: f.own_manifest(_liar()),
    # pages
    "page: bomb": lambda f: f.page(_bomb(1 << 30)),
    "page: bomb of no length": lambda f: f.page(_bomb(1 << 28, says=False)),
    "page: no zstd": lambda f: f.page(b"junk" * 10),
    "page: no object": lambda f: f.page(squeeze(b"[1]")),
    "page: deep": lambda f: f.page(squeeze(DEEP)),
    "page: of wrong length": lambda f: f.page(squeeze(b"{}"), size=7),
    "page: key is a path": lambda f: f.page(
        squeeze(orjson.dumps({"format": 1, "entries": [{"add": "segment", "key": "../../evil"}]}))
    ),
    "page: is a page of itself": lambda f: f.page(squeeze(b'{"format":1,"pages":[],"ids":[]}')),
    # segments
    "segment: other bytes": lambda f: f.segment.write_bytes(b"x" * f.segment.stat().st_size),
    "segment: shorter": lambda f: f.segment.write_bytes(f.segment.read_bytes()[:-1]),
    "segment: longer": lambda f: f.segment.write_bytes(f.segment.read_bytes() + b"x"),
    "segment: a device": lambda f: f.other(f.segment, zeros),
    "segment: a pipe": lambda f: f.other(f.segment, os.mkfifo),
    "segment: a directory": lambda f: f.other(f.segment, os.mkdir),
    "segment: a secret file": lambda f: f.other(f.segment, lambda p: p.symlink_to("/etc/passwd")),
}


def _tag_as(file: str, name: str) -> Callable[[Forge], object]:
    return lambda f: f.ref(f.tag, setter(name=name), f.tag.with_name(file))


IGNORED: dict[str, Callable[[Forge], object]] = {
    "branch: a path": lambda f: shutil.copytree(
        f.move.parent, f.root / "refs/heads/..%2f..%2fevil"
    ),
    "branch: dots": lambda f: shutil.copytree(f.move.parent, f.root / "refs/heads/%2e%2e"),
    "branch: a second spelling": lambda f: shutil.copytree(
        f.move.parent, f.root / "refs/heads/m%61in"
    ),
    "branch: a file": lambda f: (f.root / "refs/heads/file").write_bytes(b"x"),
    "branch: a newline": lambda f: shutil.copytree(f.move.parent, f.root / "refs/heads/a\nb"),
    "tag: a path": _tag_as("..%2f..%2fevil.json", "../../evil"),
    "tag: dots": _tag_as("...json", ".."),
    "tag: of a remote's branch": _tag_as("origin%2fmain.json", "origin/main"),
    "tag: a newline": _tag_as("a\nb.json", "a\nb"),
    "tag: an escape": _tag_as("\x1b[2J.json", "\x1b[2J"),
    "tag: bidi": _tag_as(BIDI + ".json", BIDI),
    "tag: bidi, as a lake spells it": _tag_as("%e2%80%aegpj.json", "\u202egpj"),
    "hint: beyond all": lambda f: (f.move.parent / "hint.json").write_bytes(b"9" * 5000),
    "links, files and pipes beside": lambda f: [
        (f.root / "segments/zz").symlink_to("/etc"),
        os.mkfifo(f.root / "refs/heads/main/pipe"),
        (f.root / "refs/tags/notes.txt").write_bytes(b"x"),
    ],
}
"""What is forged here is no part of what a lake is: the rest is received."""
TAGS: dict[str, Callable[[Forge], object]] = {
    "tag: no document": lambda f: f.tag.write_bytes(b"x"),
    "tag: endless": lambda f: f.tag.write_bytes(b"x" * (5 << 20)),
    "tag: name of another": lambda f: f.ref(f.tag, setter(name="v2")),
    "tag: name is a path": lambda f: f.ref(f.tag, setter(name="../../v1")),
    "tag: snapshot is a path": lambda f: f.ref(f.tag, setter(snapshot="../x")),
    "tag: a pipe": lambda f: f.other(f.tag, os.mkfifo),
    "tag: a device": lambda f: f.other(f.tag, zeros),
}
"""Refused after the branches were received; clones only, as the victim has the tag."""


def _elsewhere(f: Forge, folder: str) -> None:
    """Make a folder of the remote a link to one that is none of its business."""
    shutil.rmtree(f.root / folder, ignore_errors=True)
    (f.root / folder).parent.mkdir(parents=True, exist_ok=True)
    (f.root / folder).symlink_to(f.root.parent / "outside")


PUSHES: dict[str, Callable[[Forge], object]] = {
    **{
        f"{folder} is a link": lambda f, folder=folder: _elsewhere(f, folder)  # type: ignore[misc]
        for folder in ("segments", "ids", "refs", "refs/heads", "refs/heads/main", "cache")
    },
    "each folder of segments is a link": lambda f: [
        _elsewhere(f, f"segments/{number:02x}") for number in range(256)
    ],
    "lock of gc is a link": lambda f: [
        (f.root / "cache").mkdir(exist_ok=True),
        (f.root / "cache/gc.lock").unlink(missing_ok=True),
        (f.root / "cache/gc.lock").symlink_to(f.root.parent / "outside/evil"),
    ],
    "lock of gc is a pipe": lambda f: [
        (f.root / "cache").mkdir(exist_ok=True),
        (f.root / "cache/gc.lock").unlink(missing_ok=True),
        os.mkfifo(f.root / "cache/gc.lock"),
    ],
}
"""What waits for a push."""


def outcome(work: Callable[[], object]) -> str:
    """Return the error's line, "" where there was none. Another error has its traceback."""
    signal.alarm(_PATIENCE)
    try:
        work()
    except LakelogError as error:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    return ""


def _hangs(*_: object) -> None:
    raise RuntimeError("it hangs")


def heads(path: Path) -> Body:
    """Return what the refs of a lake name."""
    with lakelog.open(str(path)) as lake:
        refs = lake.store.refs
        tags = {tag.name: tag.snapshot for tag in refs.tags()}
        return tags | {name: refs.head(name).move.snapshot for name in refs.branches()}


def attack(home: Path, name: str, forge: Callable[[Forge], object], verb: str) -> Body:
    """Fetch or clone from a remote that is forged, or push to it."""
    remote, victim, copy = home / "remote", home / "victim", home / "clone"
    shutil.rmtree(remote, ignore_errors=True)
    shutil.copytree(home / "good", remote)
    forge(Forge(remote))
    before = heads(victim)
    if verb == "clone":
        shutil.rmtree(copy, ignore_errors=True)
        said = outcome(lambda: fetching.clone(str(remote), str(copy)))
    elif verb == "fetch":
        with lakelog.open(str(victim)) as lake:
            said = outcome(lambda: fetching.pull(lake, "origin"))
    else:
        with lakelog.open(str(home / "pusher")) as lake:
            said = outcome(lambda: pushing.push(lake, "origin", branches=["main"]))
    changed = heads(victim) != before
    cloned = copy.exists() and verb == "clone" and sorted(heads(copy))
    return {
        "case": name,
        "verb": verb,
        "said": said,
        "changed": changed,
        "cloned": cloned,
        "outside": sorted(os.listdir(home / "outside")),
        "home": sorted(os.listdir(home)),
    }


def main(home: Path) -> None:
    """Run every case and print what came of it."""
    signal.signal(signal.SIGALRM, _hangs)
    with lakelog.open(str(home / "victim")):
        base = peak()
    found = [attack(home, name, forge, "fetch") for name, forge in CASES.items()]
    found += [attack(home, name, forge, "clone") for name, forge in (CASES | TAGS).items()]
    found += [attack(home, name, forge, "push") for name, forge in PUSHES.items()]
    found += [attack(home, name, forge, "clone") for name, forge in IGNORED.items()]
    print(json.dumps({"cases": found, "memory": peak(), "base": base}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
