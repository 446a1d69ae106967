"""Detection of binary files that no format reads, by their first bytes."""

from __future__ import annotations

from lakelog.lines.pieces import visible

_MAGIC = {
    b"SQLite format 3\x00": "a SQLite database: export its tables as CSV or Parquet",
    b"\x7fELF": "an ELF program or library",
    b"MZ\x90\x00": "a Windows program",
    b"\xca\xfe\xba\xbe": "a compiled Java class",
    b"\x00asm": "a WebAssembly module",
    b"\x89PNG\r\n\x1a\n": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF87a": "a GIF image",
    b"GIF89a": "a GIF image",
    b"%PDF-": "a PDF document",
    b"PK\x03\x04": "a ZIP archive: unpack it first",
    b"PK\x05\x06": "a ZIP archive: unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive: unpack it first",
    b"Rar!\x1a\x07": "a RAR archive: unpack it first",
    b"\x04\x22\x4d\x18": "an LZ4 file: unpack it first, or compress it with gzip or zstd",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"Obj\x01": "an Avro file",
    b"ORC": "an ORC file",
    b"LPKSHHRH": "a journal of systemd: run `journalctl -o json` on it",
}
# Magic numbers that do not stand at the beginning, by their offset.
_AT = {
    257: (b"ustar", "a tar archive: unpack it first"),
    8: (b"DUCK", "a DuckDB database: export its tables as Parquet"),
}
_SOME = {b"ORC": bytes(range(32))}
"""Bytes that may follow a short magic number: text may begin with these letters, too."""
_ODD = bytes(b for b in range(32) if b not in b"\t\n\v\f\r\x1b")
_SAMPLE = 1 << 18
"""Bytes of the beginning that are inspected, however much was read at once."""
_SHARE, _FEW = 0.2, 0.05
"""Shares of control bytes from which on a file is binary; a torn log has fewer, or a run of zeros.
Where _SHARE of the bytes are not UTF-8 either, _FEW is enough: text of older encodings has none."""


def refusal(head: bytes) -> str:
    """Return why a file that begins so is not ingested; empty if it may hold lines."""
    for mark, format_name in _MAGIC.items():
        if head.startswith(mark) and head[len(mark) : len(mark) + 1] in _behind(mark, head):
            return f"not ingested: it is {format_name}"
    for offset, (mark, format_name) in _AT.items():
        if head[offset : offset + len(mark)] == mark:
            return f"not ingested: it is {format_name}"
    return "not ingested: it is binary, of no known format" if _is_binary(head[:_SAMPLE]) else ""


def _behind(mark: bytes, head: bytes) -> bytes:
    """The bytes that may follow a mark; any, for most."""
    return _SOME.get(mark, head[len(mark) : len(mark) + 1])


def _is_binary(head: bytes) -> bool:
    """Whether these can be no lines, though some may be damaged: neither UTF-8 nor UTF-16."""
    content = visible(head).strip(b"\0")  # a log that was cut while it was written has holes
    # Too short to judge by shares of bytes.
    if len(content) < 64 or content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return False
    odd = len(content) - len(content.translate(None, _ODD))
    # Every other byte of ASCII in UTF-16 is a NUL.
    even, uneven = content[::2].count(0), content[1::2].count(0)
    if max(even, uneven) > 0.8 * len(content) / 2 and min(even, uneven) < 0.1 * len(content) / 2:
        return False  # UTF-16 without its mark
    strange = len(content) - len(content.decode("utf-8", "ignore").encode())
    return odd > (_FEW if strange > _SHARE * len(content) else _SHARE) * len(content)
