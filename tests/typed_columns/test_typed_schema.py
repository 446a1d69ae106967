"""Schemas of typed segments: their JSON, the structs that they read and the text they give back."""

from __future__ import annotations

import json

import duckdb
import orjson
import pytest

from lakelog import typed_columns
from lakelog.entries.entry import MalformedEntry, parse
from lakelog.typed_columns import Member, Schema

EVERY = Schema(
    (
        Member("text", "text"),
        Member('odd "name\\', "int"),
        Member("float", "float"),
        Member("number", "number"),
        Member("bool", "bool", null=True),
        Member("json", "json"),
        Member("object", "object", False, (Member("x", "int", null=True), Member("y", "text"))),
        Member("list", "list", False, (Member("", "text", null=True),)),
        Member("floats", "list", False, (Member("", "float", null=True),)),
        Member(
            "objects",
            "list",
            False,
            (
                Member(
                    "",
                    "object",
                    True,
                    (Member("a", "int"), Member("l", "list", False, (Member("", "number", True),))),
                ),
            ),
        ),
    )
)
TEXTS = [
    '{"bool":null}',
    '{"text":"","bool":true}',
    '{"text":"a\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001Fé","odd \\"name\\\\":-5,"bool":false}',
    '{"float":0.1,"number":3,"bool":null}',
    '{"float":1e+16,"number":0.5,"bool":null,"json":{"a":[1,"2",null]}}',
    '{"bool":null,"object":{"x":null}}',
    '{"bool":null,"object":{"x":1,"y":"z"},"list":[]}',
    '{"bool":null,"list":["a",null,"b"],"floats":[1.0,null,-0.0]}',
    '{"bool":null,"objects":[]}',
    '{"bool":null,"objects":[{},null,{"a":1,"l":[1,2.5,null]},{"l":[]}]}',
]


def _rebuilt(schema: Schema, texts: list[str | None]) -> list[str | None]:
    shape = schema.structure().replace("'", "''")
    query = f"""SELECT {schema.text_sql()}
        FROM (SELECT from_json(unnest(?::VARCHAR[]), '{shape}') AS fields)"""
    return [row[0] for row in duckdb.execute(query, [texts]).fetchall()]


def test_structs_give_back_the_text_of_every_kind() -> None:
    """Members of every kind, absent, null and nested ones, are written as they were."""
    assert _rebuilt(EVERY, TEXTS) == TEXTS


def test_structs_give_back_spaced_text() -> None:
    """A spaced schema writes `, ` and `: `, as json.dumps does."""
    texts = [json.dumps(json.loads(text), ensure_ascii=False) for text in TEXTS]
    plain = [t for t in texts if '"json"' not in t and "u001f" not in t]
    assert _rebuilt(Schema(EVERY.members, True), plain) == plain


def test_a_null_struct_has_no_text() -> None:
    """Rows without a payload, and those whose payload is text, are NULL and not `{}`."""
    assert _rebuilt(EVERY, [None, "{}"]) == [None, '{"bool":null}']


def test_a_schema_is_its_json() -> None:
    """A schema comes back from its JSON, and its key is that of the JSON."""
    assert typed_columns.Schema.from_json(EVERY.to_json()) == EVERY
    assert len(EVERY.key) == 16
    assert EVERY.key != Schema(EVERY.members, True).key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"spaced":false,"members":[]}',
        '{"spaced":0,"members":[{"name":"a","kind":"int","null":false}]}',
        '{"spaced":false,"members":[{"name":"","kind":"int","null":false}]}',
        '{"spaced":false,"members":[{"name":"a","kind":"date","null":false}]}',
        '{"spaced":false,"members":[{"name":"a","kind":"object","null":false}]}',
        '{"spaced":false,"members":[{"name":"a","kind":"list","null":false}]}',
        '{"spaced":false,"members":[{"name":"a","kind":"numbers","null":false}]}',
        '{"spaced":false,"members":[{"name":"a","kind":"numbers","null":false,"pieces":["a"]}]}',
        '{"spaced":false,"members":[{"name":"a","kind":"numbers","null":false,"pieces":[19]}]}',
        '{"spaced":false,"members":[{"name":"a","kind":"numbers","null":false,"pieces":[1,"\\n"]}]}',
        '{"spaced":false,"members":[{"name":"a","kind":"text","null":false,"pieces":["a"]}]}',
        '{"spaced":false,"members":[{"name":"a","kind":"int","null":false},'
        '{"name":"A","kind":"int","null":false}]}',
        orjson.dumps({"spaced": False, "members": [{"name": "a\0", "kind": "int"}]}).decode(),
    ],
)
def test_what_is_no_schema_is_refused(text: str) -> None:
    """Text that stands for no schema, or for one that no struct can have, is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        typed_columns.Schema.from_json(text)


_BODY = {
    "add": "segment",
    "key": "ab",
    "bytes": 1,
    "kind": "events",
    "events": 2,
    "layout": "sorted",
    "time": (1, 2),
    "types": {},
    "sources": {},
    "levels": {},
    "subject": None,
    "seq": (0, 1),
}


@pytest.mark.parametrize(
    "more", [{}, {"fields": "00ff", "texts": 0}, {"fields": "00ff", "texts": 2}]
)
@pytest.mark.parametrize("other", [{}, {"later": 1}])
@pytest.mark.parametrize("made_from", [{}, {"from": ("cd",)}])
def test_entries_of_typed_segments_come_back(
    more: dict[str, object], other: dict[str, object], made_from: dict[str, object]
) -> None:
    """An entry keeps the key of its schema and its texts, beside members of later versions."""
    body = {**_BODY, **made_from, **more, **other}
    (entry,) = parse([dict(body)])
    assert entry.to_json() == body


@pytest.mark.parametrize("more", [{"fields": 5, "texts": 0}, {"fields": "00ff"}])
def test_malformed_fields_of_an_entry_are_refused(more: dict[str, object]) -> None:
    """A key that is no text, or one without the number of texts, makes the entry malformed."""
    with pytest.raises(MalformedEntry):
        parse([{**_BODY, **more}])
