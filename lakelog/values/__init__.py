"""What is one value? JSON without loss, and moments.

`parse_value` and `parse_line` read JSON so that `to_json` gives back each digit; `parse_time` reads
a moment in whatever form, `to_micros` and `from_micros` count it in microseconds since 1970.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.values.exact import kind as kind
    from lakelog.values.exact import parse_line as parse_line
    from lakelog.values.exact import parse_lines as parse_lines
    from lakelog.values.exact import parse_value as parse_value
    from lakelog.values.exact import replace_surrogates as replace_surrogates
    from lakelog.values.exact import spell_numbers as spell_numbers
    from lakelog.values.exact import text_of as text_of
    from lakelog.values.exact import to_json as to_json
    from lakelog.values.times import from_micros as from_micros
    from lakelog.values.times import parse_time as parse_time
    from lakelog.values.times import to_micros as to_micros
    from lakelog.values.types import JsonObject as JsonObject

__getattr__, __all__ = lazy_face(__name__)
