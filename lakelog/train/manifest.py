"""What manifest.json of a training set may hold, checked before anything believes it.

A set may come from anywhere, so every value is checked for its type, its size and, where it is a
name, a digest or a time, for its form. Nothing of a manifest is ever part of a query: the roles of
columns are taken from the recipe, and files are opened only if the directory really lists them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from lakelog.errors import InvalidName
from lakelog.paths import encode_name
from lakelog.train.assign import REASONS
from lakelog.train.losses import WORDS
from lakelog.train.recipe import REDACTIONS, SPLITS
from lakelog.train.recipe_schema import SHAPES
from lakelog.train.tables import JsonMap

FORMAT = 1
BYTES_MAX = 8_000_000
_FAULTS_MAX = 20
CLASSES_MAX, CLASS_CHARS_MAX = 200, 200
"""A label with more values, or longer ones, is a text and no class."""
_TEXT_MAX, _NAMES_MAX, _FILES_MAX = 2_000, 10_000, 30_000
FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,99})?")
"""The names that files of a set have: plain, and in at most one folder."""
_SHARD = re.compile(r"(train|validation|test)-\d{5}-of-\d{5}\.parquet")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?(\+00:00|Z)")

Faults = Iterator[str]
Rule = Callable[[str, Any], Faults]


def parse(data: bytes) -> tuple[JsonMap, list[str]]:
    """Return the manifest in the bytes and its faults.

    With faults, nothing of it may be used. orjson is used because it refuses deep nesting.
    """
    if len(data) > BYTES_MAX:
        return {}, [f"it has {len(data):,} bytes; at most {BYTES_MAX:,} are read"]
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}, ["it is no JSON, or nested too deeply"]
    if not isinstance(parsed, dict) or parsed.get("format") != FORMAT:
        return {}, [f"it is no manifest of a training set of format {FORMAT}"]
    # At most _FAULTS_MAX: a hostile manifest could have millions.
    faults = [fault for _, fault in zip(range(_FAULTS_MAX), _MANIFEST("", parsed), strict=False)]
    if not faults and text_of(parsed) != data:
        # A name that comes twice would mean one thing to us and another to the next reader.
        faults = ["it is not as lakelog writes it: names come twice, or it was edited"]
    return parsed, faults


def text_of(manifest: JsonMap) -> bytes:
    """Return the bytes of a manifest."""
    return (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()


def _check(is_valid: Callable[[Any], object], noun: str) -> Rule:
    def rule(location: str, value: object) -> Faults:
        if not is_valid(value):
            yield f"{location} is {noun}"

    return rule


# bool is a subclass of int; above 2^53 other JSON readers lose digits.
_whole = _check(lambda n: type(n) is int and 0 <= n < 1 << 53, "no count")
_number = _check(lambda n: type(n) in (int, float), "no number")
_flag = _check(lambda flag: isinstance(flag, bool), "not true or false")
_text = _check(
    lambda text: isinstance(text, str) and len(text) <= _TEXT_MAX,
    f"no text of at most {_TEXT_MAX:,} characters",
)


def _anything(location: str, value: object) -> Faults:
    """A value that is only ever compared as a whole."""
    yield from ()


def _form(pattern: str, noun: str) -> Rule:
    return _check(lambda text: isinstance(text, str) and re.fullmatch(pattern, text), f"no {noun}")


def _branch(location: str, value: object) -> Faults:
    # Branch names appear in documents and commands that people copy.
    name = value if isinstance(value, str) else ""
    try:
        encode_name(name)
        is_invalid = bool(re.search(r"[';()\\]|\.\.|^[/.]", name))
    except InvalidName:
        is_invalid = True
    if is_invalid:
        yield f"{location} is no name of a branch"


def _maybe(inner: Rule) -> Rule:
    def rule(location: str, value: object) -> Faults:
        if value is not None:
            yield from inner(location, value)

    return rule


def _list(inner: Rule, count_max: int = _NAMES_MAX) -> Rule:
    def rule(location: str, value: object) -> Faults:
        if not isinstance(value, list) or len(value) > count_max:
            yield f"{location} is no list of at most {count_max:,}"
            return
        for place, item in enumerate(value):
            yield from inner(f"{location}[{place}]", item)

    return rule


def _map(key: Rule, inner: Rule, count_max: int = _NAMES_MAX) -> Rule:
    def rule(location: str, value: object) -> Faults:
        if not isinstance(value, dict) or len(value) > count_max:
            yield f"{location} is no table of at most {count_max:,}"
            return
        for name, item in value.items():
            yield from key(f"the name {name[:60]!r} in {location}", name)
            yield from inner(f"{location}.{name[:60]}", item)

    return rule


def _record(rules: dict[str, Rule], optional: tuple[str, ...] = ()) -> Rule:
    def rule(location: str, value: object) -> Faults:
        if not isinstance(value, dict):
            yield f"{location or 'it'} is no table"
            return
        dot = f"{location}." if location else ""
        yield from (f"{dot}{n} is missing" for n in rules if n not in value and n not in optional)
        for name, item in value.items():
            if name in rules:
                yield from rules[name](f"{dot}{name}", item)
            else:
                yield f"{dot}{name[:60]} is not known"

    return rule


def _one_of(*names: str) -> Rule:
    return _check(lambda value: value in names, f"not one of {', '.join(names)}")


_DIGEST = _form("[0-9a-f]{64}", "SHA-256 in hex")
_ID = _form("[0-9a-f]{16}", "id of an export")
_LENGTHS = _record({"edges": _list(_whole), "counts": _map(_one_of(*SPLITS), _list(_whole))})
_BALANCE = _maybe(
    _record(
        {
            "column": _text,
            "others": _whole,
            "values": _map(_anything, _map(_one_of(*SPLITS), _whole)),
        }
    )
)
_QUALITY = _record(
    {
        "lengths": _LENGTHS,
        "balance": _BALANCE,
        "classes": _map(_text, _list(_text, CLASSES_MAX), 1),
        "missing": _map(_text, _whole),
        "columns": _map(_text, _anything),
        "samples": _list(_text, 10),
        "drift": _map(_text, _number),
    }
)
_MANIFEST = _record(
    {
        "format": _whole,
        "id": _ID,
        "name": _text,
        "shape": _one_of(*SHAPES),
        "snapshot": _DIGEST,
        "recipe": _map(_text, _anything, 20),
        "versions": _map(
            _one_of("lakelog", "duckdb", "pyarrow", "numpy", "tiktoken", "tokenizers", "py3langid"),
            _form(r"\d[0-9A-Za-z.+!-]{0,40}", "version"),
        ),
        "roles": _record(
            dict.fromkeys(
                "content near threshold shingle group time until label text".split(), _anything
            )
        ),
        "fence": _maybe(_form(_TIME.pattern, "time")),
        "splits": _map(
            _one_of(*SPLITS),
            _record(
                {
                    "rows": _whole,
                    "tokens": _whole,
                    "bytes": _whole,
                    "files": _list(_form(_SHARD.pattern, "name of a data file")),
                }
            ),
        ),
        "left_out": _map(_one_of(*REASONS), _whole),
        "losses": _map(_one_of(*WORDS), _whole),
        "near": _maybe(_record({"pairs": _whole, "crowded": _whole})),
        "redaction": _record(
            {
                "kinds": _list(_one_of(*REDACTIONS)),
                "mode": _one_of("mask", "pseudonym"),
                "key": _form("[0-9a-f]{0,64}", "fingerprint of a key"),
                "found": _map(_one_of(*REDACTIONS), _whole),
            }
        ),
        "traced": _flag,
        "clean": _flag,
        "created": _form(_TIME.pattern, "time"),
        "branch": _branch,
        "previous": _maybe(
            _record({"id": _ID, "quality": _record({"lengths": _LENGTHS, "balance": _BALANCE})})
        ),
        "files": _map(
            _form(FILE.pattern, "plain file name"),
            _record({"bytes": _whole, "sha256": _DIGEST}),
            _FILES_MAX,
        ),
        "quality": _QUALITY,
        "erased": _map(_ID, _whole),
    },
    ("quality", "losses", "erased"),
)
