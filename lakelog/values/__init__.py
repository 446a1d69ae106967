"""What is one value? JSON without loss, and moments.

`parse_value` and `parse_line` read JSON so that `to_json` gives back each digit; `parse_time` reads
a moment in whatever form, `to_micros` and `from_micros` count it in microseconds since 1970.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.values.exact import (
        kind,
        parse_line,
        parse_lines,
        parse_value,
        replace_surrogates,
        spell_numbers,
        text_of,
        to_json,
    )
    from lakelog.values.times import from_micros, parse_time, to_micros
    from lakelog.values.types import JsonObject

__all__ = [
    "JsonObject",
    "from_micros",
    "kind",
    "parse_line",
    "parse_lines",
    "parse_time",
    "parse_value",
    "replace_surrogates",
    "spell_numbers",
    "text_of",
    "to_json",
    "to_micros",
]

__getattr__ = lazy_face(
    __name__,
    exact="kind parse_line parse_lines parse_value replace_surrogates spell_numbers"
    " text_of to_json",
    times="from_micros parse_time to_micros",
    types="JsonObject",
)
