"""What was written, what the disk holds, and what the lake holds of it: line by line."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zstandard

import lakelog
from tests.torture.logwriters import BANNER, LOGS, RECORD

_TOKEN = r"k(?P<first>\d{9})-(?P<pad>x*)-q(?P<last>\d{9})"
_SHAPES = {
    "json": r'\{"time":"[^"]+","level":"INFO","message":"%s"\}',
    "app": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO app: %s",
    "syslog": r"\d{4}-\d\d-\d\dT[0-9:.+Z-]+ \S+ app: %s",
    "access": r'127\.0\.0\.1 - - \[[^]]+\] "GET /%s HTTP/1\.1" 204 0 "-" "-"',
    "text": r"INFO did %s ok",
}
_LEDGER = r"""
WITH ledger AS (
    SELECT message, regexp_extract(message,
        '^(?:GET /|app: |INFO did |)k(\d{9})-(x*)-q(\d{9})(?: HTTP/1\.1| ok|)$',
        ['first', 'pad', 'last']) AS found
    FROM events WHERE origin IS NOT NULL)
"""
_WHOLE = """found.first = found.last AND found.first <> ''
    AND length(found.pad) = TRY_CAST(found.first AS BIGINT) * 7919 % 97"""
_SERIAL = re.compile(r"[kq](\d{9})(?!\d)")


@dataclass
class Written:
    """What a log was given: lines before the start, then those that its writer noted."""

    log: int
    form: str
    before: int
    banners: int
    progress: Path

    def records(self) -> list[tuple[float, int, int]]:
        """(time, lines, banners) as the writer noted them."""
        data = self.progress.read_bytes() if self.progress.exists() else b""
        whole = len(data) // RECORD.size * RECORD.size
        return [
            (at, max(lines, self.before), banners + self.banners)
            for at, lines, banners in RECORD.iter_unpack(data[:whole])
        ]

    def now(self) -> tuple[int, int]:
        """Lines and banners written until now."""
        data = self.progress.read_bytes()[-RECORD.size :] if self.progress.exists() else b""
        if len(data) < RECORD.size:
            return self.before, self.banners
        _, lines, banners = RECORD.unpack(data)
        return max(lines, self.before), banners + self.banners


@dataclass
class Holding:
    """How often each serial of a log is somewhere: `counts[n]`."""

    counts: Any

    def of(self, condition: Any) -> list[int]:
        """Serials for which a condition holds."""
        return [int(n) for n in np.nonzero(condition)[0]]


def on_disk(folders: list[Path], written: Written, stem: str) -> tuple[Holding, dict[str, int]]:
    """Count the whole lines of a log in all its files, and how many each file has."""
    counts = np.zeros(written.now()[0], dtype=np.int64)
    files = {}
    for path in sorted(p for f in folders for p in f.iterdir() if p.name.startswith(stem)):
        serials = _serials(_content(path), written.form)
        np.add.at(counts, serials[serials < len(counts)], 1)
        files[path.name] = len(serials)
    return Holding(counts), files


def _serials(data: bytes, form: str) -> Any:
    """The numbers of the whole lines of a file; NULs before a line are no part of it."""
    pattern = r"^\x00*" + _SHAPES[form] % _TOKEN + "$"
    lines = pa.array(data.split(b"\n"), pa.binary())
    found = pc.drop_null(pc.extract_regex(lines, pattern))
    first, pad, last = (pc.struct_field(found, name) for name in ("first", "pad", "last"))
    numbers = pc.cast(pc.cast(first, pa.string()), pa.int64()).to_numpy()
    whole = pc.equal(first, last).to_numpy(zero_copy_only=False)
    whole &= pc.binary_length(pad).to_numpy() == numbers * 7919 % 97
    return numbers[whole] % LOGS


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    openers = {".gz": gzip.decompress, ".xz": lzma.decompress, ".bz2": bz2.decompress}
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
    return openers[path.suffix](data) if path.suffix in openers else data


class Stored:
    """What a lake holds: read once."""

    def __init__(self, lake: lakelog.Lake) -> None:
        ask = f"SELECT TRY_CAST(found.first AS BIGINT) FROM ledger WHERE {_WHOLE}"
        rows = lake.sql(_LEDGER + ask).fetchall()
        self._serials = np.array([n for (n,) in rows], dtype=np.int64)
        ask = f"SELECT count(*) FROM ledger WHERE message = '{BANNER}'"
        self.banners: int = lake.sql(_LEDGER + ask).fetchall()[0][0]
        ask = f"SELECT message FROM ledger WHERE NOT coalesce({_WHOLE}, false)"
        ask += f" AND message IS DISTINCT FROM '{BANNER}'"
        self.others = [str(text) for (text,) in lake.sql(_LEDGER + ask).fetchall()]
        ask = "SELECT reason, line FROM quarantine"
        self.quarantine = [f"{why}: {text}" for why, text in lake.sql(ask).fetchall()]

    def of(self, written: Written) -> Holding:
        """How often each line of a log is there."""
        mine = self._serials[self._serials // LOGS == written.log] % LOGS
        return Holding(np.bincount(mine, minlength=written.now()[0]))


def torn(texts: list[str], whole: dict[int, Holding]) -> list[str]:
    """The texts that are parts of lines which are whole on the disk."""
    found = []
    for text in texts:
        serials = [int(n) for n in _SERIAL.findall(text)]
        if any(_is_whole(n, whole) for n in serials):
            found.append(text)
    return found


def _is_whole(serial: int, whole: dict[int, Holding]) -> bool:
    counts = whole[serial // LOGS].counts if serial // LOGS in whole else ()
    return serial % LOGS < len(counts) and bool(counts[serial % LOGS])


def lags(logs: list[Written], lost: list[Any], seen: list[tuple[float, int]]) -> tuple[Any, Any]:
    """When each line was written, and the seconds until a count showed it, infinite if none did.

    `lost` says of each log which serials are in no file: no count includes them.
    """
    ticks = sorted(
        (at, index, lines, banners)
        for index, log in enumerate(logs)
        for at, lines, banners in log.records()
    )
    current = {i: (log.before, log.banners) for i, log in enumerate(logs)}
    missing = [np.cumsum(flags) for flags in lost]
    times, counts = np.array([t for t, _ in seen]), np.maximum.accumulate([n for _, n in seen])
    written, found = [np.zeros(0)], [np.zeros(0)]
    for at, index, lines, banners in ticks:
        fresh = lines - current[index][0]
        current[index] = max(lines, current[index][0]), banners
        if fresh <= 0:
            continue
        wanted = sum(n + b - _gone(missing[i], n) for i, (n, b) in current.items())
        place = int(np.searchsorted(counts, wanted))
        lag = times[place] - at if place < len(times) else np.inf
        written.append(np.full(fresh, at))
        found.append(np.full(fresh, max(lag, 0.0)))
    return np.concatenate(written), np.concatenate(found)


def _gone(missing: Any, lines: int) -> int:
    return int(missing[min(lines, len(missing)) - 1]) if lines and len(missing) else 0
