"""A model of searches: which of some events a query finds, by plain Python, character by
character."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

WORDS = """timeout Time out error ERROR café CAFÉ naïve Straße 東京 駅 ไทย x-ray a_b 10.0.0.5 10 0.5
    /var/log/app.log deadbeef 0xDEAD 42 user@example.com {brace} 100% a/b/c 😀""".split()
WORDS += ["C:\\new\\t", 'say "hi"', "line\nbreak", "tab\there", "e\u0301a", "\\", "\x7f\x01"]
SINGLE = """timeout time out error ERROR x ray a b 10 0 5 var log app 42 com web db 1 null true n
    line break new t hi deadbeef caf list zzz""".split()
NAMES = ("type", "source", "subject", "message", "id")
Event = dict[str, Any]
Check = Callable[[Event], bool]


@dataclass(frozen=True)
class Asked:
    """A query, and what it means."""

    text: str
    holds: Check


def random_event(dice: random.Random, number: int) -> Event:
    """An event whose texts are random words, with a number in `subject` by which it is known."""

    def words() -> str:
        return dice.choice(["", " "]) + dice.choice([" ", " ", "-", "", ": "]).join(
            dice.choices(WORDS, k=dice.randint(1, 4))
        )

    payload: Any = dice.choice(
        [
            None,
            {"a": words(), "n": dice.randint(-5, 120)},
            {"a": {"b": words()}, "list": [words(), dice.random()]},
            {"ключ": words(), "null": None, "ok": True},
            [words()],
            words(),
        ]
    )
    event = {"type": dice.choice(["log", "Timeout", "東京"]), "subject": f"s{number}"}
    optional = {
        "source": dice.choice([None, "web", "db-1", words()]),
        "message": dice.choice([None, words(), words()]),
        "id": dice.choice([None, None, f"id-{number}"]),
        "level": dice.choice([None, "INFO", "WARN", "ERROR"]),
        "data": payload,
    }
    return event | {name: value for name, value in optional.items() if value is not None}


def random_query(dice: random.Random, depth: int = 2) -> Asked:
    """A query that finds some of such events, by chance."""
    kind = dice.choice(["text", "text", "text", "field", "level", "not", "and", "or"])
    if depth and kind in ("and", "or"):
        parts = [random_query(dice, depth - 1) for _ in range(dice.randint(2, 3))]
        word = dice.choice([" ", " AND "]) if kind == "and" else " OR "
        test = all if kind == "and" else any
        return Asked(
            f"({word.join(part.text for part in parts)})",
            lambda event: test(part.holds(event) for part in parts),
        )
    if depth and kind == "not":
        inner = random_query(dice, depth - 1)
        return Asked(f"{dice.choice(['-', 'NOT '])}{inner.text}", lambda e: not inner.holds(e))
    if kind == "level":
        levels = ["INFO", "WARN", "ERROR"]
        wanted = dice.choice(levels)
        higher = levels[levels.index(wanted) :]
        return Asked(f"level>={wanted}", lambda event: event.get("level") in higher)
    if kind == "field":
        return _of_field(dice)
    text, test = _text(dice)
    return Asked(text, lambda event: any(test(each) for each in _texts(event)))


def random_word(dice: random.Random) -> Asked:
    """A query for one word of ASCII, or a piece of one, of which word indexes know how many rows
    have it."""
    word, front, behind = dice.choice(SINGLE), dice.random() < 0.3, dice.random() < 0.3
    return Asked(
        f"{'*' * front}{word}{'*' * behind}",
        lambda event: any(found(t, word, front, behind) for t in _texts(event)),
    )


def _of_field(dice: random.Random) -> Asked:
    if dice.random() < 0.3:
        bound = dice.randint(-5, 120)
        return Asked(f"n>={bound}", lambda event: _number(event) >= bound)
    name = dice.choice(["type", "source", "message", "a", "a.b"])
    text, test = _text(dice)

    def holds(event: Event) -> bool:
        value = event.get(name) if name in NAMES else _member(event, name)
        return value is not None and test(str(value))

    return Asked(f"{name}:{text}", holds)


def _text(dice: random.Random) -> tuple[str, Callable[[str], bool]]:
    """A word, part or phrase as it is written, and whether a text holds it."""
    source = dice.choice([" ", "-", ""]).join(dice.choices(WORDS, k=dice.randint(1, 2)))
    start = dice.randrange(len(source)) if dice.random() < 0.5 else 0
    part = source[start : start + dice.randint(1, 8)] if dice.random() < 0.6 else source
    part = part.strip() or "timeout"
    part = dice.choice([str, str.upper])(part) if part.isascii() else part
    form = dice.choice(["phrase", "phrase", "prefix", "plain"])
    is_plain = re.fullmatch(r"[\w.@%/]+", part) and part not in ("OR", "AND", "NOT")
    if form == "plain" and is_plain and not part.startswith("/"):
        front, behind = dice.random() < 0.3, dice.random() < 0.3
        return f"{'*' * front}{part}{'*' * behind}", lambda t: found(t, part, front, behind)
    escaped = part.replace("\\", "\\\\").replace('"', '\\"')
    is_open = form == "prefix"
    return f'"{escaped}"{"*" * is_open}', lambda text: found(text, part, False, is_open)


def found(text: str, part: str, is_open_before: bool, is_open_behind: bool) -> bool:
    """Whether a part stands in a text, whole but for the ends that are open."""
    text, part = text.lower(), part.lower()
    for start in range(len(text) - len(part) + 1):
        stop = start + len(part)
        if text[start:stop] != part:
            continue
        before = start > 0 and is_joined(text[start - 1]) and is_joined(part[0])
        behind = stop < len(text) and is_joined(text[stop]) and is_joined(part[-1])
        if (is_open_before or not before) and (is_open_behind or not behind):
            return True
    return False


def is_joined(character: str) -> bool:
    """Whether a character belongs to one word with those of its kind beside it."""
    if unicodedata.name(character, "").split(" ")[0] in ("CJK", "THAI", "HIRAGANA", "KATAKANA"):
        return False
    return unicodedata.category(character)[0] in "LNM"


def words_of(event: Event) -> list[str]:
    """The words of an event, in small letters, and one more for a payload with escapes."""
    words = list[str]()
    for text in _texts(event):
        before = False
        for character in text.lower():
            is_part = unicodedata.category(character)[0] in "LNM"
            if is_part and before and is_joined(character):
                words[-1] += character
            elif is_part:
                words.append(character)
            before = is_part and is_joined(character)
    return words + ["\\"] * ("\\" in orjson.dumps(event.get("data")).decode())


def _texts(event: Event) -> list[str]:
    texts = [event[name] for name in NAMES if event.get(name) is not None]
    if "data" in event:
        texts.append(_unescaped(orjson.dumps(event["data"]).decode()))
    return texts


def _unescaped(text: str) -> str:
    return re.sub(r"\\(u[0-9a-f]{4}|.)", lambda m: orjson.loads(f'"{m[0]}"'), text)


def _number(event: Event) -> float:
    value = _member(event, "n")
    return float(value) if value is not None else float("-inf")


def _member(event: Event, path: str) -> Any:
    value = event.get("data")
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return orjson.dumps(value).decode() if isinstance(value, (dict, list)) else value
