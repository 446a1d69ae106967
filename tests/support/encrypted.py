"""What tests of encrypted lakes use: a lake whose key is in the environment, and a byte search."""

from __future__ import annotations

import base64
import hmac
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lakelog.keys.keyring import KeyRing
from lakelog.keys.master import MasterKey
from lakelog.keys.vault import VAULT
from lakelog.remotes.shared import attach
from lakelog.settings import DEFAULTS, Settings
from lakelog.store import Store
from tests.support.attached import SharedMachines

KEY = "5a" * 32


def create(root: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings = DEFAULTS) -> str:
    """Create an encrypted lake, and let this process find its key; return its path."""
    monkeypatch.setenv("LAKELOG_KEY", KEY)
    master = MasterKey(bytes.fromhex(KEY), "LAKELOG_KEY")
    ring = KeyRing.generate(master)
    VAULT.unlock(str(root), ring, master)
    return Store.create(str(root), settings, ring=ring).paths.root


def share(root: Path, monkeypatch: pytest.MonkeyPatch, url: str = "") -> SharedMachines:
    """Create an encrypted lake that machines below a path share, of which `a` is the first."""
    monkeypatch.setenv("LAKELOG_KEY", KEY)
    machines = SharedMachines(root, url)
    master = MasterKey(bytes.fromhex(KEY), "LAKELOG_KEY")
    attach(machines.url, f"{root}/a", new_ring=lambda: KeyRing.generate(master))
    return machines


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be as a process that never opened an encrypted lake, without a key."""
    monkeypatch.delenv("LAKELOG_KEY", raising=False)
    VAULT.lakes.clear()
    VAULT._secrets.clear()
    VAULT.finders.clear()


def found(root: Path, words: Iterable[str]) -> list[str]:
    """Return which words stand in which files below a directory: in the bytes, in their names, and
    in what zstd, zlib and base64 make of them."""
    needles = [word.encode() for word in words]
    hits = []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        data = path.read_bytes()
        layers = [data, str(path.relative_to(root)).encode(), *_unpacked(data)]
        hits += [f"{path}: {n.decode()}" for n in needles if any(n in layer for layer in layers)]
    return hits


def _unpacked(data: bytes) -> Iterable[bytes]:
    """Yield what can be decompressed at any place that looks like a beginning."""
    start = data.find(b"\x28\xb5\x2f\xfd")
    while start >= 0:
        try:
            reader = zstandard.ZstdDecompressor().decompressobj()
            yield reader.decompress(data[start:])
        except zstandard.ZstdError:
            pass
        start = data.find(b"\x28\xb5\x2f\xfd", start + 1)
    for line in data.split(b'"'):
        if len(line) > 40:
            try:
                yield base64.b64decode(line, validate=True)
            except ValueError:
                continue
    try:
        yield zlib.decompress(data)
    except zlib.error:
        return


def opened(data: bytes, secret: bytes, context: bytes = b"") -> bytes:
    """Return the plaintext of an envelope, by what FORMAT.md says alone (F24.3)."""
    head, stride = data[:32], (1 << data[4]) + 16
    assert head[:4] == b"LKN1"
    assert head[6:8] == bytes(2)
    is_series = {0: False, 1: True}[head[5]]
    purpose = b"lakelog series" + head[16:24] if is_series else b"lakelog envelope" + head[16:]
    cipher = AESGCM(hmac.digest(secret, purpose, "sha256"))
    chunks = [data[start : start + stride] for start in range(32, len(data), stride)]
    plaintexts = []
    for number, chunk in enumerate(chunks):
        last = bytes([number == len(chunks) - 1])
        u24, u64 = number.to_bytes(3, "big"), struct.pack(">Q", number)
        nonce = head[24:] + u24 + last if is_series else u64 + bytes(3) + last
        plaintexts.append(cipher.decrypt(nonce, chunk, head + context))
    return b"".join(plaintexts)
