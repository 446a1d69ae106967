"""Records of a chunk: the lines of one event, one or several.

A format whose events may span lines says how a first line begins (`begins`); lines that begin
otherwise continue the record before them. Or it says of all lines which begin one and whether the
last one is open (`heads`). The last record of a chunk may continue, so it is held back until its
end is seen, or the caller says that nothing more comes. A record that grows beyond RECORD_MAX is
none: each of its lines is a record of its own.
"""

from __future__ import annotations

import itertools
import re
from codecs import BOM_UTF8
from dataclasses import dataclass, replace

from lakelog import arrays
from lakelog.errors import InvalidEvent
from lakelog.formats import Format, LeadingTime, LineEncoding
from lakelog.libraries import np, pa, pc
from lakelog.lines import Chunk, Source

RECORD_MAX = 1 << 20
# Control bytes that no line of text holds, of whatever encoding.
_NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1f]")


@dataclass(frozen=True)
class Records:
    """The records of the first `length` bytes of a chunk.

    `lines` holds their first lines (whole records where the format wants them `whole`), `more` what
    continues them, or None where nothing does; `starts` is where each begins, and the end.
    """

    lines: pa.Array
    more: pa.Array | None
    starts: np.ndarray
    length: int


def records(chunk: Chunk, form: Format, mode: str, *, final: bool) -> Records:
    """Return the records of a chunk; after a `final` one nothing follows.

    `mode` says what happens at the end: "once" accepts a last line without newline if it is
    complete, "ended" if it is an event, "last" accepts it as it is, "follow" holds back the last
    record, "settled" only an unfinished line and the record it may belong to.
    """
    if not joins(form):
        chunk = chunk if not chunk.open_end else without_cut_line(chunk, form, mode)
        return Records(chunk.lines[0], None, chunk.lines[1], len(chunk.data))
    array, starts = chunk.lines
    if not len(array):
        return Records(array, None, starts, 0)
    whole = form.traits.whole
    # A document may be as large as a line; text in which no line begins a record is cut off sooner,
    # lest all of it be held back.
    bytes_max = form.traits.record_max or (Source.LINE_MAX if whole else RECORD_MAX)
    is_head, is_open = _first(chunk, form)
    heads = _bounded(is_head, starts, bytes_max)
    if _goes_on(chunk, int(starts[heads[-1]]), form, mode, final, is_open):
        starts = starts[: heads[-1] + 1]
        heads = heads[:-1]
    return _joined(chunk.text, starts, heads, whole)


def joins(form: Format) -> bool:
    """Whether events of a format may span lines."""
    return bool(form.traits.begins)


def simple(form: Format) -> bool:
    """Whether every line that is not blank gives one event or is quarantined."""
    return not (joins(form) or form.traits.many or form.traits.pairs)


def is_cut(line: bytes, form: Format) -> bool:
    """Whether a last line without newline may continue, so that it is left for next time.

    One that the format parses is complete, unless more digits may follow (the end of a message in
    prose says nothing); one with bytes that no text has is damaged, whatever follows.
    """
    if not line:
        return False
    # Waiting cannot mend it, and would keep the file unfinished for ever.
    if _NO_TEXT.search(line):
        return False
    line = line if is_text(line) else LineEncoding.as_utf8(line)
    if form.complete is not None:
        return not form.complete(line)
    if not _is_event(line, form):
        return True
    # A number at the end may have more digits, an OOS line its JSON, in the bytes to come.
    return not form.traits.prose and (line[-1:].isdigit() or line[-1:] == b"|")


def is_left(line: bytes, form: Format, mode: str) -> bool:
    """Whether a last line without newline is left for next time. Of a file that has "ended" it is
    only if it is no event as it stands, not even text: nothing says that more will follow."""
    if mode == "ended":
        return is_cut(line, form) and not _is_taken(line, form)
    return mode in ("follow", "settled") or (mode == "once" and is_cut(line, form))


def _is_event(line: bytes, form: Format) -> bool:
    """Whether a line is an event as it stands."""
    try:
        # A tolerant format would take any text; whether a line is complete only its own rule knows.
        form.parse_own(line)
    except InvalidEvent:
        return False
    return True


def _is_taken(line: bytes, form: Format) -> bool:
    """Whether a line becomes an event in any way, also of another style or as text."""
    return form.is_event(LineEncoding.as_utf8(line))


def is_text(data: bytes) -> bool:
    """Whether bytes are UTF-8, the last character perhaps cut."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return True


def without_cut_line(chunk: Chunk, form: Format, mode: str) -> Chunk:
    """Leave out a last line that is not finished."""
    start = chunk.text.rfind(b"\n") + 1
    last_line = chunk.text[start:].strip().removeprefix(BOM_UTF8)
    is_unfinished = last_line and is_left(last_line, form, mode)
    return replace(chunk, data=chunk.data[:start], open_end=False) if is_unfinished else chunk


def _first(chunk: Chunk, form: Format) -> tuple[np.ndarray, bool | None]:
    """A mask of the lines that begin a record, and whether the last one is open, where the format
    knows. The first line of a file always begins one."""
    (array, starts), files, is_open = chunk.lines, _files(chunk), None
    if form.heads is not None:
        # One file at a time: an open record at the end of one does not swallow the lines of the
        # next.
        ends = itertools.pairwise([*files.tolist(), len(array)])
        answers = [form.heads(array[low:high], starts[low : high + 1]) for low, high in ends]
        is_head, is_open = np.concatenate([mask for mask, _ in answers]), answers[-1][1]
    else:
        array = _searchable(chunk)
        if form.traits.by_line and b"\x1b" in chunk.text:
            array = LineEncoding.uncoloured(array)
        is_head = arrays.truths(pc.match_substring_regex(array, form.traits.begins))
        # A line with a time of its own belongs to no other, though the format does not read it.
        undecided = np.flatnonzero(~is_head) if form.traits.by_line else is_head[:0]
        if len(undecided):
            undecided = undecided[LeadingTime.beginning(array.take(arrays.integers(undecided)))]
            is_head[undecided] = True
        if form.traits.continues:
            is_head &= ~arrays.truths(pc.match_substring_regex(array, form.traits.continues))
        if form.traits.leads:
            leads = arrays.truths(pc.match_substring_regex(array, form.traits.leads))
            is_head[1:] &= ~leads[:-1]
    is_head[files] = True
    return is_head, is_open


def _searchable(chunk: Chunk) -> pa.Array:
    """The lines of a chunk for a regex: as bytes where some are not UTF-8."""
    array = chunk.lines[0]
    if not chunk.text.isascii():
        try:
            array.validate(full=True)
        except pa.ArrowInvalid:
            return array.view(pa.large_binary())
    return array


def _files(chunk: Chunk) -> np.ndarray:
    """The indexes of the lines that begin a file, or stand at or after a hole."""
    return np.searchsorted(chunk.lines[1], np.array([0, *chunk.breaks]))


def _bounded(is_head: np.ndarray, starts: np.ndarray, bytes_max: int) -> np.ndarray:
    """The indexes of the lines that begin a record, those of a record that is too large too."""
    heads = np.flatnonzero(is_head)
    bounds = np.append(heads, len(is_head))
    sizes = starts[bounds[1:]] - starts[heads]
    # Each line of a record that is too large stands for itself: nothing is held back for an end
    # that may never come.
    for large in np.flatnonzero(sizes > bytes_max).tolist():
        is_head[bounds[large] : bounds[large + 1]] = True
    return np.flatnonzero(is_head) if (sizes > bytes_max).any() else heads


def _goes_on(
    chunk: Chunk, start: int, form: Format, mode: str, final: bool, is_open: bool | None
) -> bool:
    """Whether the last record, which begins at `start`, is held back."""

    def text() -> bytes:
        return chunk.text[start:].strip().removeprefix(BOM_UTF8)

    if is_open is not None:
        tail = text() if chunk.open_end else b""
        is_unfinished = bool(tail) and is_left(tail, form, mode)
        return is_unfinished or (is_open and not final)
    # A record with a visible end (a closing bracket) need not wait for the next one.
    if mode == "follow" and not (final or chunk.open_end) and form.complete is not None:
        return not form.complete(text())
    if mode == "follow":
        return not final
    if mode == "settled":
        return chunk.open_end or not final
    if not (final or chunk.open_end):
        return True
    return chunk.open_end and is_left(text(), form, mode)


def _joined(data: bytes, starts: np.ndarray, heads: np.ndarray, whole: bool) -> Records:
    """Records that begin at some lines, the last ending where `starts` ends."""
    places = np.append(starts[heads], starts[-1]).astype(np.int64)
    if whole or len(heads) == len(starts) - 1:
        # No copy: the text of the chunk is the data of the array, only the offsets are new.
        buffers = [None, pa.py_buffer(places), pa.py_buffer(data)]
        array = pa.Array.from_buffers(pa.large_string(), len(heads), buffers)
        return Records(array, None, places, int(places[-1]))
    # First lines and what continues them alternate in one array over the same bytes; even elements
    # are the former, odd the latter.
    bounds = np.empty(2 * len(heads) + 1, np.int64)
    bounds[::2], bounds[1::2] = places, starts[heads + 1]
    buffers = [None, pa.py_buffer(bounds), pa.py_buffer(data)]
    halves = pa.Array.from_buffers(pa.large_string(), 2 * len(heads), buffers)
    even = arrays.integers(np.arange(0, 2 * len(heads), 2))
    odd = arrays.integers(np.arange(1, 2 * len(heads), 2))
    return Records(halves.take(even), halves.take(odd), places, int(places[-1]))
