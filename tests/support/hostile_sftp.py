"""An SFTP server that lies, in the place of ssh: `python hostile_sftp.py ... --case CASE ...`."""

from __future__ import annotations

import os
import random
import struct
import sys
import threading

CASES = {
    "says nothing": "there is no connection",
    "says garbage": "",
    "packet of 4 GB": "",
    "packet of no length": "",
    "another version's answer": "",
    "endless words": "",
    "endless file": "longer than",
    "more than was asked for": "breaks the protocol",
    "an answer of another kind": "breaks the protocol",
    "an answer nobody asked for": "connection was lost",
    "an answer that is cut off": "",
    "dies": "connection was lost",
}
"""What it does, and what the line says that is then printed."""


def packet(kind: int, body: bytes) -> bytes:
    return struct.pack(">IB", len(body) + 1, kind) + body


def text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def send(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def read(length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = os.read(0, length - len(data))
        if not piece:
            sys.exit()
        data += piece
    return data


def answer(case: str, kind: int, number: bytes, body: bytes) -> bytes:
    """Return the packet for a request."""
    if case == "an answer nobody asked for":
        return packet(101, b"\xff\xff\xff\xfe" + struct.pack(">I", 0))
    if case == "an answer that is cut off":
        return packet(102, number + struct.pack(">I", 99) + b"x")
    if case == "an answer of another kind":
        return packet(103, number + text(b"surprise"))
    if kind in (3, 11):  # OPEN, OPENDIR
        return packet(102, number + text(b"h"))
    if kind in (7, 8):  # LSTAT, FSTAT
        size = 1 << 62 if case == "endless file" else 100
        return packet(105, number + struct.pack(">IQ", 1, size))
    if kind == 5:  # READ
        length = struct.unpack(">I", body[-4:])[0]
        more = 1 if case == "more than was asked for" else 0
        return packet(103, number + text(b"{" * (length + more)))
    if kind == 12:  # READDIR
        names = [b"../../evil", b"/etc/passwd", b"a/b", b"..", b""]
        listed = b"".join(text(name) + text(b"") + struct.pack(">I", 0) for name in names)
        return packet(104, number + struct.pack(">I", len(names)) + listed)
    return packet(101, number + struct.pack(">I", 0))


def main(case: str) -> None:
    if case == "says nothing":
        return
    if case == "endless words":
        while True:
            os.write(2, b"\x1b[2Jwords " * 1000)
    if case == "says garbage":
        return send(random.Random(1).randbytes(10_000))
    read(9)
    if case == "packet of 4 GB":
        return send(b"\xff\xff\xff\xff\x02" + bytes(1 << 20))
    if case == "packet of no length":
        return send(bytes(5))
    if case == "another version's answer":
        return send(packet(101, bytes(8)))
    send(packet(2, struct.pack(">I", 3)))
    while True:
        length, kind = struct.unpack(">IB", read(5))
        number = read(4)
        body = read(length - 5)
        if case == "dies":
            return None
        if case == "stands still at a write" and kind == 6:  # as where its disk does
            threading.Event().wait()
        send(answer(case, kind, number, body))


if __name__ == "__main__":
    main(sys.argv[sys.argv.index("--case") + 1].replace("_", " "))
