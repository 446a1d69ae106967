"""A registry that passes on what a good one has, and forges one thing in it, by case.

`python -m tests.support.hostile_registry HOST:PORT HOME` clones from each case, whose repository
is named for its number, in one process, and prints what came of it and the memory, as JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lakelog
from lakelog.clients import connection
from lakelog.remotes import fetches as fetching
from tests.support.fake_registry import Reply
from tests.support.hostile_remotes import outcome
from tests.support.peak_memory import peak

GOOD = "lakes/good"
_DIGEST = "sha256:" + "ab" * 32
_ACCEPT = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
_MOVE = r"/manifests/main_m\d+$"
_BLOB = r"/blobs/sha256:"
Forge = Callable[[str, Reply, int], Reply]


def _body(reply: Reply) -> bytes:
    return reply[2] if isinstance(reply[2], bytes) else b""


def _on(pattern: str, change: Callable[[bytes], Any]) -> Forge:
    """Change the body of answers to paths like this."""

    def forge(path: str, reply: Reply, number: int) -> Reply:
        if reply[0] != 200 or not re.search(pattern, path) or not _body(reply):
            return reply
        return 200, {}, change(_body(reply))

    return forge


def _moved(pattern: str, place: str) -> Forge:
    """Send a request for a path like this elsewhere."""
    return lambda path, reply, number: (
        (307, {"Location": place}, b"") if re.search(pattern, path) else reply
    )


def _titled(title: str) -> Callable[[bytes], bytes]:
    """Give layers another title."""
    return lambda data: re.sub(rb'(image\.title":")[^"]*', rb"\g<1>" + title.encode(), data)


def _many(member: str, count: int) -> bytes:
    one = f'{{"digest":"{_DIGEST}","size":1}}'
    kind = "application/vnd.lakelog.snapshot.v1"
    return f'{{"artifactType":"{kind}","{member}":[{",".join([one] * count)}]}}'.encode()


def _turns(path: str, reply: Reply, number: int) -> Reply:
    """Let a tag name something else each time."""
    if re.search(_MOVE, path) and number % 2 and _body(reply):
        return 200, {}, _body(reply).replace(b"_", b"-")
    if re.search(r"/manifests/main_m", path) and number % 2:
        return 404, {}, b"{}"
    return reply


def _short(path: str, reply: Reply, number: int) -> Reply:
    """Say that blobs are longer than they are."""
    if not re.search(_BLOB, path) or reply[0] != 200:
        return reply
    more = {"Content-Length": str(len(_body(reply)) + 9), "Connection": "close"}
    return 200, more, _body(reply)


CASES: dict[str, Forge] = {
    "blobs of other bytes": _on(_BLOB, lambda data: bytes(len(data))),
    "blobs that are shorter": _on(_BLOB, lambda data: data[:-1]),
    "blobs that are longer": _on(_BLOB, lambda data: data + b"x"),
    "blobs without end": _on(_BLOB, lambda data: itertools.repeat(bytes(1 << 16))),
    "blobs that begin well and have no end": _on(
        _BLOB, lambda data: itertools.chain([data], itertools.repeat(bytes(1 << 16)))
    ),
    "blobs of nothing": _on(_BLOB, lambda data: b""),
    "blobs of a wrong length": _short,
    "blobs in a file": _moved(_BLOB, "file:///etc/passwd"),
    "blobs of another scheme": _moved(_BLOB, "ftp://127.0.0.1/x"),
    "blobs in the clear elsewhere": _moved(_BLOB, "http://169.254.169.254/latest/meta-data"),
    "blobs at a port that is none": _moved(_BLOB, "http://127.0.0.1:99999999/x"),
    "blobs at an address that is none": _moved(_BLOB, "http://[::1/x"),
    "manifests in a file": _moved(_MOVE, "file:///etc/passwd"),
    "a million lists": _on(_MOVE, lambda data: _many("manifests", 1_000_000)),
    "as many lists as fit": _on(_MOVE, lambda data: _many("manifests", 40_000)),
    "a deep manifest": _on(_MOVE, lambda data: b'{"manifests":' + b"[" * 4_000_000),
    "deep lists": _on(r"/manifests/sha256:", lambda data: b"[" * 4_000_000),
    "a deep list of tags": _on(r"/tags/list", lambda data: b'{"tags":' + b"[" * 8_000_000),
    "a wide list of tags": _on(r"/tags/list", lambda data: b'{"tags":[' + b"[]," * 2_700_000),
    "tags of no text": _on(r"/tags/list", lambda data: b'{"tags":[{},[],1,null]}'),
    "titles that leave the lake": _on(r"/manifests/", _titled("refs/tags/../../../evil")),
    "titles that are absolute": _on(r"/manifests/", _titled("/tmp/evil")),
    "titles of another move": _on(r"/manifests/", _titled("refs/heads/main/000000000009.json")),
    "a tag that changes": _turns,
}


def passing(good: str) -> Callable[[str, str, dict[str, str]], Reply]:
    """Return the answers of the registry: `/v2/case<number>/...` is forged from the good one's."""
    forges, numbers = list(CASES.values()), itertools.count()

    def answer(method: str, path: str, headers: dict[str, str]) -> Reply:
        match = re.match(r"/v2/case(\d+)/", path)
        if not match:
            return 404, {}, b"{}"
        real = path.replace(match[0], f"/v2/{GOOD}/")
        request = urllib.request.Request(
            f"http://{good}{real}", headers={"Accept": _ACCEPT}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=240) as found:
                reply: Reply = found.status, {}, found.read()
        except urllib.error.HTTPError as error:
            reply = error.code, {}, b"{}"
        return forges[int(match[1])](path, reply, next(numbers))

    return answer


def main(address: str, home: Path) -> None:
    """Clone from each case."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    # Retries wait for a network that comes back.
    connection.pause = lambda attempt: 0.0
    found = {}
    for number, case in enumerate(CASES):
        copy = home / "clone"
        said = outcome(lambda: fetching.clone(f"oci://{address}/case{number}", str(copy)))  # noqa: B023
        rows = 0
        if copy.exists():
            with lakelog.open(str(copy), create=False) as lake:
                rows = lake.count() if lake.verify().problems == () else -1
            shutil.rmtree(copy)
        found[case] = {
            "said": said,
            "rows": rows,
            "memory": peak(),
            "home": sorted(os.listdir(home)),
        }
    print(json.dumps({"cases": found, "memory": peak()}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
