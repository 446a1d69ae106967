"""The recipe that `lakelog train init` writes: every key of a shape, with its meaning."""

from __future__ import annotations

import textwrap
from typing import Any

import orjson

from lakelog.train.recipe_schema import KEYS, Key

_HEAD = """\
# A recipe: `lakelog train export {name}.toml -o {name}/`
# Lines that begin with `# key =` show keys that may be set; the others are set.
# `name` is the family: in all its exports of one seed a group keeps its split.
name = "{name}"
"""
_ASKED: dict[str, dict[str, Any]] = {
    "text": {"text": "message"},
    "classification": {"text": "message", "label": "level"},
    "messages": {"by": "subject"},
    "decision": {"outcome": ["COMPLETE", "FAIL"]},
    "preference": {"prompt": "data.prompt", "chosen": "data.chosen", "rejected": "data.rejected"},
    "sequence": {"token": "type"},
}
_SHOWN: dict[tuple[str, str], Any] = {
    ("select", "sql"): "SELECT * FROM events",
    ("select", "at"): "v1",
    ("split", "train"): 0.8,
    ("split", "validation"): 0.1,
    ("split", "test"): 0.1,
    ("split", "group"): "subject",
    ("split", "before"): "2026-11-01T00:00:00Z",
    ("split", "stratify"): "type",
    ("dedupe", "exact"): True,
    ("dedupe", "near"): 0.8,
    ("redact", "kinds"): ["email", "phone", "ip", "card", "iban", "key", "name"],
    ("redact", "key_env"): "LAKELOG_REDACT_KEY",
    ("budget", "rows"): 100_000,
    ("budget", "tokens"): 10_000_000,
    ("budget", "tokenizer"): "tiktoken:o200k_base",
    ("filter", "quality"): ["gopher", "c4"],
    ("filter", "languages"): ["en"],
    ("filter", "drop"): "all",
    ("budget", "balance"): "label",
    ("card", "license"): "cc-by-4.0",
    ("card", "description"): "What it is and where it is from.",
    ("shape", "keep"): ["type"],
    ("shape", "role"): "data.role",
    ("shape", "content"): "data.content",
    ("shape", "system"): "You are helpful.",
    ("shape", "also"): ["openai"],
    ("shape", "reward"): "data.reward",
    ("shape", "label"): "level",
    ("shape", "text"): "message",
    ("shape", "rejected"): "data.rejected",
    ("shape", "chosen"): "data.chosen",
    ("shape", "response"): "data.response",
    ("shape", "score"): "data.score",
}
_IN_FORCE = {
    ("select", "sql"),
    ("shape", "kind"),
    ("split", "train"),
    ("split", "validation"),
    ("split", "test"),
    ("split", "group"),
    ("dedupe", "exact"),
    ("card", "title"),
}


def template(kind: str, name: str) -> str:
    """Return a commented recipe of a shape that is valid as it stands."""
    parts = [_HEAD.format(name=name)]
    required = _ASKED.get(kind, {})
    for section, keys in KEYS.items():
        parts.append(f"\n[{section}]\n")
        for key, spec in keys.items():
            if spec.shapes and kind not in spec.shapes:
                continue
            given = section == "shape" and (key == "kind" or key in required)
            parts += [f"# {line}\n" for line in textwrap.wrap(spec.doc, 76)]
            value = _value(section, key, spec, kind, name, required)
            # What every recipe should decide is active; the other keys show an example in a
            # comment.
            is_active = given or (section, key) in _IN_FORCE
            parts.append(f"{'' if is_active else '# '}{key} = {orjson.dumps(value).decode()}\n")
    return "".join(parts)


def _value(
    section: str, key: str, spec: Key, kind: str, name: str, required: dict[str, Any]
) -> Any:
    if (section, key) == ("shape", "kind"):
        return kind
    if (section, key) == ("card", "title"):
        return name
    if section == "shape" and key in required:
        return required[key]
    if (section, key) in _SHOWN:
        return _SHOWN[section, key]
    return spec.default_for(kind)
