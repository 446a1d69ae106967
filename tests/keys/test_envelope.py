"""The envelope: what was written opens, and nothing else does."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from lakelog.keys import envelope
from lakelog.keys.envelope import EnvelopeReader, EnvelopeSeries, NotDecrypted
from tests.support import encrypted

KEY_ID, SECRET = b"12345678", bytes(range(32))
STEP = 1 << envelope.CHUNK_BITS
LENGTHS = (0, 1, 100, STEP - 1, STEP, STEP + 1, 3 * STEP, 3 * STEP + 5)


def sealed(size: int, context: bytes = b"") -> tuple[bytes, bytes]:
    """Random bytes, and the envelope of them."""
    plain = random.Random(size).randbytes(size)
    return plain, envelope.encrypt(plain, KEY_ID, SECRET, context)


def of_series(size: int) -> tuple[bytes, bytes]:
    """Random bytes, and the envelope of them, the third of a series."""
    plain, series = random.Random(size).randbytes(size), EnvelopeSeries(KEY_ID, SECRET)
    return plain, [series.encrypt(plain) for _ in range(3)][2]


@pytest.mark.parametrize("size", LENGTHS)
def test_what_was_encrypted_opens_with_the_same_key(size: int) -> None:
    """Any length, that of whole chunks too; the envelope is as long as `sealed_size` says."""
    for plain, data in (sealed(size), of_series(size)):
        assert envelope.decrypt(data, SECRET) == encrypted.opened(data, SECRET) == plain
        assert len(data) == envelope.sealed_size(size)
        assert data[8:16] == KEY_ID


@pytest.mark.parametrize("make", [sealed, of_series])
@pytest.mark.parametrize("size", [100, 2 * STEP + 100])
def test_a_flipped_bit_is_named_and_opens_nothing(
    size: int, make: Callable[[int], tuple[bytes, bytes]]
) -> None:
    """500 bits anywhere: in the header, in a chunk, in a tag."""
    _, data = make(size)
    rng = random.Random(1)
    for place in [*range(8 * 44), *(rng.randrange(8 * len(data)) for _ in range(148))]:
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        if 64 <= place < 128:  # the id of the key: it is looked up, and so is another one's
            assert bytes(flipped[8:16]) != KEY_ID
        with pytest.raises(NotDecrypted):
            envelope.decrypt(bytes(flipped), SECRET)


def test_chunks_that_are_cut_off_moved_or_repeated_are_noticed() -> None:
    """An envelope cut between two chunks, one with two exchanged, one that goes on."""
    _, data = sealed(4 * STEP)
    stride = STEP + envelope.TAG_BYTES
    chunks = [
        data[start : start + stride] for start in range(envelope.HEAD_BYTES, len(data), stride)
    ]
    head = data[: envelope.HEAD_BYTES]
    for wrong in (
        chunks[:3],
        [*chunks[:2], chunks[3]],
        [chunks[1], chunks[0], *chunks[2:]],
        [*chunks, chunks[3]],
        [*chunks[:3], chunks[3][:-1]],
        [],
    ):
        with pytest.raises(NotDecrypted, match=r"cut off|moved"):
            envelope.decrypt(head + b"".join(wrong), SECRET)


def test_another_key_or_context_opens_nothing() -> None:
    """The key of another lake; an envelope in a place where it does not belong."""
    _, data = sealed(100, b"here")
    for secret, context in ((bytes(32), b"here"), (SECRET, b"there"), (SECRET, b"")):
        with pytest.raises(NotDecrypted, match="its last chunk was changed, moved or cut off"):
            envelope.decrypt(data, secret, context)


def test_single_chunks_open_by_their_place() -> None:
    """A reader of ranges needs the header and the chunks that it reads."""
    plain, data = sealed(5 * STEP + 7)
    opened = EnvelopeReader(data[: envelope.HEAD_BYTES], len(data), SECRET)
    assert (opened.count, opened.plain_bytes) == (6, len(plain))
    for first, stop in ((0, 1), (2, 4), (5, 6), (0, 6)):
        begin, end = opened.span(first, stop)
        assert opened.chunks(first, stop, data[begin:end]) == plain[first * STEP : stop * STEP]
    begin, end = opened.span(1, 2)
    with pytest.raises(NotDecrypted, match="its chunk 2 was changed"):
        opened.chunks(2, 3, data[begin:end])


def test_two_envelopes_of_equal_bytes_differ_unless_the_salt_is_given() -> None:
    """Nobody sees by its bytes that something was stored twice."""
    first, second = (envelope.encrypt(b"same", KEY_ID, SECRET) for _ in range(2))
    assert first != second
    salt = bytes(16)
    fixed = [envelope.encrypt(b"same", KEY_ID, SECRET, b"", salt) for _ in range(2)]
    assert fixed[0] == fixed[1]


def _numbers(series: EnvelopeSeries, count: int) -> list[bytes]:
    """Return the salts of envelopes of one text."""
    return [series.encrypt(b"same")[16:32] for _ in range(count)]


def _numbers_in_child(series: EnvelopeSeries) -> list[bytes]:
    """The same of five envelopes that a child of fork makes."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, b"".join(_numbers(series, 5)))
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    return [data[start : start + 16] for start in range(0, len(data), 16)]


def test_no_nonce_of_a_series_comes_twice_in_threads_and_forks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Equal nonces under one key would give both texts away: not from four threads, not in a child
    of fork, which goes on with the same number, and not where one series follows another."""
    monkeypatch.setattr(envelope, "_SERIES_MAX", 700)
    series = EnvelopeSeries(KEY_ID, SECRET)
    with ThreadPoolExecutor(4) as threads:
        salts = [
            salt for part in threads.map(lambda _: _numbers(series, 500), range(4)) for salt in part
        ]
    salts += _numbers_in_child(series) + _numbers_in_child(series)
    salts += _numbers(series, 5)
    assert len(set(salts)) == len(salts) == 2015
    assert len({salt[:8] for salt in salts}) == 3


def test_threads_that_end_a_series_together_go_on_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader keeps the cipher of each series: there are as many as the envelopes need."""
    monkeypatch.setattr(envelope, "_SERIES_MAX", 10)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            series = EnvelopeSeries(KEY_ID, SECRET)
            with ThreadPoolExecutor(4) as threads:
                salts = list(threads.map(lambda _, made=series: made.encrypt(b""), range(100)))
            assert len({salt[16:24] for salt in salts}) == 10
    finally:
        sys.setswitchinterval(interval)
