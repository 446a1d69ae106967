"""Spans of moves in one file of the bucket, so that a new directory need not ask for each (F22.11).

    packs/<branch>/packed-<first>-<last>.jsonl.zst   SPAN moves, as gc packs them in a directory

They only save requests: each of these moves is in the bucket under its number, too.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import zstandard

from lakelog.disk import NotIntact
from lakelog.errors import TransferRefused, Unreachable
from lakelog.paths import encode_name
from lakelog.refs import Ref
from lakelog.remotes import remote as remotes
from lakelog.remotes import untrusted
from lakelog.remotes.remote import DOCUMENT_MAX
from lakelog.remotes.remote_volume import RemoteVolume
from lakelog.volume import MovePack

SPAN, GROWTH = 256, 8
"""Moves of a span, and after how many more of them its file is replaced by one that has these."""
_WINDOW = 16
_CONTENT_MAX = 64 << 20


@dataclass(frozen=True)
class MoveSpan:
    """Consecutive moves of a branch: their files by number."""

    moves: dict[int, bytes]
    has_erasure: bool


def spans_after(bucket: RemoteVolume, branch: str, newest: int, head: bytes) -> list[MoveSpan]:
    """Return the spans that follow move `newest`, whose file holds `head`, as far as they go; none
    where that does not end one. Raises Unreachable, TransferRefused."""
    spans, window = list[MoveSpan](), 1
    while newest % SPAN == 0:
        lows = [newest + 1 + n * SPAN for n in range(window)]
        files = dict(
            remotes.in_parallel(lambda low: _read(bucket, branch, low), lows, only_reads=True)
        )
        for low in lows:
            span = _checked(files[low], branch, low, head)
            if span is None:  # what is there under the numbers decides
                return spans
            newest, head = max(span.moves), span.moves[max(span.moves)]
            spans.append(span)
            if newest % SPAN:
                return spans
        window = min(2 * window, _WINDOW)
    return spans


def _read(bucket: RemoteVolume, branch: str, low: int) -> bytes:
    """Return the file of a span, b"" where there is none."""
    with contextlib.suppress(FileNotFoundError):
        return bucket.read(_key(branch, low))
    return b""


def _checked(data: bytes, branch: str, low: int, head: bytes) -> MoveSpan | None:
    """Return the span in a file, of which the last moves may be missing or damaged; None unless
    each of its moves follows the one before."""
    has_erasure = False
    try:
        # Before any of it is decompressed: the bucket may be anybody's.
        if not data or not 0 <= zstandard.frame_content_size(data) <= _CONTENT_MAX:
            return None
        moves = MovePack.readable(data)
        if list(moves) != list(range(low, low + len(moves))) or not moves:
            return None
        for number, file in moves.items():
            move = untrusted.move(file, branch, number)
            if number > 1 and Ref.digest_of(head) != move.prev:
                return None
            head = file
            has_erasure |= move.op == "erase"
    except (NotIntact, zstandard.ZstdError):
        return None
    return MoveSpan(moves, has_erasure)


def put_span(bucket: RemoteVolume, branch: str, moves: dict[int, bytes]) -> None:
    """Put down the span that begins with these moves, in the place of a shorter one."""
    low = min(moves)
    data = MovePack(branch, low, low + SPAN - 1).encode(moves)
    if len(data) <= DOCUMENT_MAX:
        # Without it a new directory makes more requests, and nothing else.
        with contextlib.suppress(Unreachable, TransferRefused, OSError):
            bucket.replace(_key(branch, low), data)


def _key(branch: str, low: int) -> str:
    return f"packs/{encode_name(branch)}/packed-{low:012d}-{low + SPAN - 1:012d}.jsonl.zst"
