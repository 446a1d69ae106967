"""The time of the line before, across the files of a chunk."""

from __future__ import annotations

import numpy as np

from lakelog.formats import FORMATS
from lakelog.ingest.time_carry import TimeCarry
from lakelog.lines import Chunk
from tests.support.linear_time import assert_linear


def test_many_messages_take_linear_time() -> None:
    """Each message of a stream is a file of its own, and a batch has tens of thousands."""

    def read(messages: str) -> None:
        begins = range(len(messages))
        chunk = Chunk(messages.encode(), 0, seams=tuple(begins[1:]))
        carry = TimeCarry(FORMATS.by_name("jsonl"), b"", dict.fromkeys(begins, b""))
        starts, index = np.arange(len(messages) + 1), np.arange(len(messages))
        assert list(carry.in_files(chunk, starts, index)) == list(begins)

    assert_linear(read, "", "1", "")
