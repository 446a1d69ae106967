"""JSON documents that parsers accept, spelled in every way that RFC 8259 allows on one line."""

from __future__ import annotations

from hypothesis import strategies as st

NUMBERS = """0 -0 1 -1 0.0 -0.0 1.0 1.5 1.50 10 100 1e2 1E2 1e+2 1e-2 1E-2 1.0e2 0e0 0e+1 -0e-1
1e400 -1e400 1e-400 5e-324 2.2250738585072014e-308 1.7976931348623157e308 1e16 1e15 1e+16 1e-05 1e-5
1e22 0.1 0.10 0.30000000000000004 123456789.123456789 9007199254740991 9007199254740992
9007199254740993 9223372036854775807 9223372036854775808 -9223372036854775808 -9223372036854775809
18446744073709551615 18446744073709551616 100000000000000000000000 3.141592653589793238462643
""".split()
STRINGS = [
    '""',
    '"a"',
    '" "',
    '"\\""',
    '"\\\\"',
    '"\\/"',
    '"/"',
    '"\\b\\f\\n\\r\\t"',
    '"\\u0000"',
    '"\\u001f"',
    '"\\u001F"',
    '"\\u007f"',
    '"\x7f"',
    '"\\u00e9"',
    '"é"',
    '"e\u0301"',
    '"\\ud83d\\ude00"',
    '"😀"',
    '"\\u2028\\u2029"',
    '"\u2028\u2029"',
    '"\\ufeff"',
    '"\ufeff"',
    '"\ufffe\U0010ffff"',
    '"null"',
    '"true"',
    '"1"',
    '"{}"',
    '"[1,2]"',
    '"2026-01-01T00:00:00Z"',
    '"\\u0041"',
    '"#%$\'|;--"',
    '"' + "x" * 3_000 + '"',
]
_WHOLE = [
    "{}",
    "[]",
    "{ }",
    "[ ]",
    "true",
    "false",
    '"text"',
    "[[]]",
    "[{}]",
    '{"a":{}}',
    '{"a":[]}',
    '{"a":{"b":{}}}',
    '{"a":null}',
    '{"a":[null]}',
    '{"a":[null,1]}',
    '{"a":[1,"1",true,null,{"b":[]}]}',
    '{"a":1,"a":2}',
    '{"a":1,"a":1}',
    '{"a":1,"A":2}',
    '{"A":2}',
    '{"é":1,"É":2}',
    '{"":1}',
    '{" ":1}',
    '{"a b":1}',
    '{"a.b":1}',
    '{"a":{"b":1},"a.b":2}',
    '{"a\\"b":1}',
    '{"\\u0061":1}',
    '{"a\\u0000b":1}',
    '{"a\\nb":1}',
    '{"\'":1}',
    '{"$":1,"*":2,"[0]":3}',
    '{"seq":1,"data":2,"fields":3,"time":4}',
    '{"data":{"data":{"data":1}}}',
    '{"a" : 1}',
    '{"a": 1, "b": [1, 2]}',
    '{"a": 1,"b":2}',
    ' {"a":1}',
    '{"a":1} ',
    '\t{"a":\t1}',
    '{"a":1 ,"b":2}',
    '{"b":1,"a":2}',
    '{"a":2,"b":1}',
    '{"a":[[[[[[[[[[1]]]]]]]]]]}',
    '{"a":' * 64 + "1" + "}" * 64,
    "[" * 64 + "]" * 64,
    '{"a":["x",null,"y"],"b":[1.0,2.5],"c":[true]}',
    '{"a":[{"b":1},{"b":null},{},null,{"c":"d"}]}',
    '{"half":"\\ud83d"}',
    '{"half":"\\ude00\\ud83d"}',
]
ACCEPTED = [
    *_WHOLE,
    *(f'{{"number":{text}}}' for text in NUMBERS),
    *(f'{{"numbers":[{text},{text}]}}' for text in NUMBERS[::4]),
    *(f'{{"text":{text}}}' for text in STRINGS),
]

_NAMES = st.sampled_from(["a", "b", "c", "A", "a b", "é", "x.y", ""]) | st.text(max_size=3)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
)
VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)
"""Values of every kind and shape, most of them unlike each other."""
RECORDS = st.fixed_dictionaries(
    {"kind": st.sampled_from(["x", "y"]), "n": st.integers(0, 1 << 40)},
    optional={
        "ratio": st.floats(0, 1),
        "note": st.none() | st.text(max_size=9),
        "tags": st.lists(st.text(max_size=4), max_size=3),
        "inner": st.fixed_dictionaries({}, optional={"p": st.integers(), "q": st.booleans()}),
        "odd": VALUES,
    },
)
"""Payloads of one program: mostly alike, which is what becomes typed."""
