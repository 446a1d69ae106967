"""A number has one spelling, however long the file is that it is in: equal events are equal."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import orjson
import pytest

import lakelog
from lakelog.event.encode import EncodedBatch
from lakelog.values import parse_line, parse_lines

MakeLake = Callable[..., lakelog.Lake]
NUMBERS = """7e16 7e+16 70000000000000000.0 1e20 1e21 1e+21 1e22 1.5e300 1e-7 1E5 1e15 1e16 -7e16
    123456789012345680000.0 9007199254740993.0 12345678901234568.0 1234567890e7 12345678.9e9
    9999999.9e9 0.7e17 -0.0 1e400 1e-400 1.10 123456789012345678901234567890""".split()
LAYOUTS = {
    "cut": '{"time":"2026-01-01T00:00:00Z","type":"A","data":{"x":@}}',
    "bare": '{"time":"2026-01-01T00:00:00Z","type":"A","data":@}',
    "flat": '{"ts":"2026-01-01T00:00:00Z","type":"A","x":@,"y":[@]}',
    "spaced": '{"ts": "2026-01-01T00:00:00Z", "type": "A", "x": @}',
    "odd": '{"type": "A",  "data": {"x": [1, @]}}',
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_number_is_spelled_alike_in_files_of_any_length(
    make_lake: MakeLake, home: Path, layout: str
) -> None:
    line = LAYOUTS[layout]
    given = [line.replace("@", number) for number in NUMBERS]
    one_by_one = make_lake("one by one")
    one_by_one.append([parse_line(text.encode()) for text in given])
    (home / "long.jsonl").write_text("\n".join([line.replace("@", "1.5")] * 1000 + given) + "\n")
    together = make_lake("together")
    together.ingest(home / "long.jsonl")
    rows = [data for (data,) in one_by_one.sql("SELECT data FROM events").fetchall()]
    query = "SELECT data FROM events ORDER BY position OFFSET 1000"
    assert [data for (data,) in together.sql(query).fetchall()] == rows


def test_numbers_are_kept_whoever_wrote_them() -> None:
    """Doubles as programs write them, and any other digits: one by one, together, and as lines that
    are stored as they are."""
    rng = random.Random(7)

    def number() -> str:
        value = rng.choice((rng.random(), rng.gauss(0, 1) * 10.0 ** rng.randrange(-30, 30)))
        if rng.random() < 0.5:
            return rng.choice((repr(value), orjson.dumps(value).decode(), f"{value:.17g}"))
        digits = "".join(rng.choices("0123456789", k=rng.randrange(1, 22))).lstrip("0") or "0"
        fraction = rng.choice(("", ".5", ".1000000000000000000", f".{rng.getrandbits(64)}"))
        return rng.choice(("", "-")) + digits + fraction + rng.choice(("", "e-07", "E+2", "e-5"))

    for _ in range(3_000):
        fields = ", ".join(f'"f{n}": {number()}' for n in range(rng.randrange(1, 4)))
        text = f'{{"time": "2026-01-01T00:00:00Z", "type": "A", "data": {{{fields}, "s": "e-05"}}}}'
        line = rng.choice((text, text.replace(" ", ""))).encode()
        expected = _exact(line)
        assert _exact(orjson.dumps(parse_line(line))) == expected, line
        (together,) = parse_lines([line])
        assert _exact(orjson.dumps(together)) == expected, line
        if batch := EncodedBatch.of_lines(line, {}):
            assert _exact(batch.lines[0]) == expected, line


def _exact(encoded: bytes) -> object:
    return json.loads(encoded, parse_float=Decimal, parse_int=Decimal)
