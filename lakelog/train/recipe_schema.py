"""The grammar of recipes: every section and key, its values, and its meaning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

SHAPES = ("events", "text", "classification", "messages", "decision", "preference", "sequence")
TEXTUAL = ("text", "classification", "messages", "preference")
"""Shapes whose rows are compared as texts, so that near duplicates never straddle a split."""


NEEDS = {
    "events": "rows of any kind",
    "text": "rows with text in the column that [shape] text names",
    "classification": "rows with a text and a label",
    "messages": "events with a role and a content, or bodies of a chat API",
    "decision": "subjects with an event that [shape] outcome names",
    "preference": "events with a chosen and a rejected answer",
    "sequence": "subjects with events",
}
"""What each shape needs to form a row."""
_COMPARED = ("events", *TEXTUAL)


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _time(value: Any) -> bool:
    return _text(value) or isinstance(value, date)


def _exact(value: Any) -> bool:
    return isinstance(value, bool) or _texts(value)


def _near(value: Any) -> bool:
    return isinstance(value, bool) or _number(value)


def _kinds(value: Any) -> bool:
    return value == "all" or _texts(value)


def _tokenizer(value: Any) -> bool:
    library, _, name = value.partition(":") if isinstance(value, str) else ("", "", "")
    return library in ("tiktoken", "tokenizers") and bool(name)


def _above(value: Any) -> bool:
    return _whole(value) and value >= 1


@dataclass(frozen=True)
class Key:
    """One key: its values, its default, and the shapes it belongs to (all, if empty)."""

    doc: str
    words: str
    takes: Callable[[Any], bool]
    default: Any = None
    shapes: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    example: str = ""

    def is_needed(self, kind: Any) -> bool:
        """Whether a recipe of that shape must give it."""
        return "*" in self.needed or kind in self.needed

    def default_for(self, kind: Any) -> Any:
        """The value of a recipe that leaves it out."""
        default = self.default.get(kind) if isinstance(self.default, dict) else self.default
        return list(default) if isinstance(default, list) else default


def _one_of(*names: str) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(names)}", lambda value: value in names


_COLUMN = "a column of the selection, or a path such as data.title"
_SUBJECT = {"messages": "subject", "decision": "subject", "sequence": "subject"}

KEYS: dict[str, dict[str, Key]] = {
    "select": {
        "sql": Key(
            "the query whose rows are trained on",
            "text",
            _text,
            needed=("*",),
            example='"SELECT * FROM events"',
        ),
        "at": Key("tag, branch, snapshot or time; the present state by default", "text", _text),
        "bookkeeping": Key(
            "true: `events` has what lakelog itself appends too, such as its notes on exports",
            "true or false",
            lambda value: isinstance(value, bool),
            False,
        ),
    },
    "shape": {
        "kind": Key("the shape of a row", *_one_of(*SHAPES), needed=("*",), example='"text"'),
        "text": Key(
            f"the text: {_COLUMN}",
            "text",
            _text,
            {"text": "message", "classification": "message"},
            ("events", "text", "classification"),
        ),
        "label": Key(
            f"the class to predict: {_COLUMN}",
            "text",
            _text,
            None,
            ("events", "classification"),
            needed=("classification",),
        ),
        "keep": Key(
            "other columns to keep",
            "a list of columns",
            _texts,
            [],
            ("text", "classification", "messages", "decision", "preference"),
        ),
        "data": Key(
            "`json` keeps the payload as text, `typed` makes a struct of it",
            *_one_of("json", "typed"),
            "json",
            ("events",),
        ),
        "by": Key(
            "whose events belong together",
            "a column",
            _text,
            _SUBJECT,
            ("messages", "decision", "sequence"),
        ),
        "role": Key(f"who speaks: {_COLUMN}", "text", _text, None, ("messages",)),
        "content": Key(f"what is said: {_COLUMN}", "text", _text, None, ("messages",)),
        "system": Key("a system message put first", "text", _text, None, ("messages",)),
        "drop": Key(
            "what may be left out whole: unknown_payload, unknown_role, no_user, no_answer,"
            " broken_call; otherwise such a loss is refused",
            'a list of reasons, or "all"',
            _kinds,
            [],
            ("messages",),
        ),
        "also": Key(
            "JSON lines beside the Parquet files",
            "a list of openai, sharegpt",
            _texts,
            [],
            ("messages",),
        ),
        "decision": Key(
            "the type of decision events", "text", _text, {"decision": "AI_DECISION"}, ("decision",)
        ),
        "options": Key(
            f"the options: {_COLUMN}", "text", _text, {"decision": "data.options"}, ("decision",)
        ),
        "chosen": Key(
            f"what was chosen, or the better answer: {_COLUMN}",
            "text",
            _text,
            {"decision": "data.chosen"},
            ("decision", "preference"),
        ),
        "outcome": Key(
            "the types of outcome events",
            "a list of types",
            _texts,
            {"decision": []},
            ("decision",),
            needed=("decision",),
        ),
        "reward": Key(f"the outcome's value: {_COLUMN}", "text", _text, None, ("decision",)),
        "window": Key(
            "how long an outcome may take",
            "a duration such as 1h",
            _text,
            {"decision": "1h"},
            ("decision",),
        ),
        "history": Key(
            "how many earlier events are the context",
            "a number above 0",
            _above,
            {"decision": 16},
            ("decision",),
        ),
        "prompt": Key(
            f"the prompt: {_COLUMN}", "text", _text, {"preference": "data.prompt"}, ("preference",)
        ),
        "rejected": Key(f"the worse answer: {_COLUMN}", "text", _text, None, ("preference",)),
        "response": Key(f"an answer: {_COLUMN}", "text", _text, None, ("preference",)),
        "score": Key(f"an answer's score: {_COLUMN}", "text", _text, None, ("preference",)),
        "token": Key(
            f"what a sequence consists of: {_COLUMN}",
            "text",
            _text,
            {"sequence": "type"},
            ("sequence",),
        ),
        "length": Key(
            "events in a window", "a number above 0", _above, {"sequence": 8}, ("sequence",)
        ),
    },
    "filter": {
        "quality": Key(
            "published rules of quality: gopher, gopher_repetition, c4, or single ones of theirs",
            "a list of rules",
            _texts,
            [],
            _COMPARED,
        ),
        "languages": Key(
            "texts in other languages are left out",
            "a list of ISO 639-1 codes such as en",
            _texts,
            [],
            _COMPARED,
        ),
        "drop": Key(
            "the rules that may leave rows out; otherwise such a loss is refused",
            'a list of rules and sets, or "all"',
            _kinds,
            [],
            _COMPARED,
        ),
    },
    "split": {
        "train": Key("share of the groups in train", "a number", _number),
        "validation": Key("share of the groups in validation", "a number", _number),
        "test": Key("share of the groups in test", "a number", _number),
        "group": Key(
            "rows of a group are all in one split; by default the column `by`", "a column", _text
        ),
        "before": Key("rows from this time on are test, earlier ones the rest", "a time", _time),
        "stratify": Key(
            "a column whose values have the same shares in each split", "a column", _text
        ),
        "seed": Key("another seed gives another split", "a whole number", _whole, 0),
    },
    "dedupe": {
        "exact": Key(
            "drop equal rows; a list of columns compares only those",
            "true, false or columns",
            _exact,
            False,
        ),
        "near": Key(
            "drop near duplicates, of at least this Jaccard similarity; false compares nothing",
            "a number such as 0.8, or true or false",
            _near,
            None,
            _COMPARED,
        ),
        "keep": Key("which of equal rows is kept", *_one_of("first", "last"), "first"),
        "shingle": Key("words per shingle, for `near`", "a number above 0", _above, 1, _COMPARED),
    },
    "redact": {
        "kinds": Key(
            "what is redacted: email, phone, ip, card, iban, key, name",
            'a list, or "all"',
            _kinds,
            [],
        ),
        "mode": Key(
            "mask gives <EMAIL>, pseudonym <EMAIL:keyed hash>",
            *_one_of("mask", "pseudonym"),
            "mask",
        ),
        "key_env": Key("the variable that holds the key of pseudonyms", "text", _text),
        "deep": Key(
            "a second pass by the library datafog (`lakelog[redact]`)",
            "true or false",
            lambda value: isinstance(value, bool),
            False,
        ),
    },
    "budget": {
        "rows": Key("at most so many rows", "a whole number", _whole),
        "tokens": Key("at most so many tokens", "a whole number", _whole),
        "tokenizer": Key(
            "what counts tokens: tiktoken:o200k_base, or tokenizers:tokenizer.json; else 4 bytes"
            " are one",
            "tiktoken:ENCODING or tokenizers:FILE",
            _tokenizer,
        ),
        "download": Key(
            "true: tiktoken may fetch a vocabulary that is not on this machine",
            "true or false",
            lambda value: isinstance(value, bool),
            False,
        ),
        "balance": Key("keep equally many rows of each value of this column", "a column", _text),
    },
    "card": {
        "title": Key("name of the data set", "text", _text),
        "license": Key("such as mit or cc-by-4.0", "text", _text),
        "description": Key("a few sentences", "text", _text),
    },
}
