"""Recipes: the TOML that defines a training set, validated key by key.

`recipe_schema.KEYS` is the grammar, with the defaults and the texts that `lakelog train init`
prints. An error is one line that names the file and the key, raised before any data is read.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import os
import re
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from lakelog.errors import InvalidRecipe, InvalidSetting
from lakelog.settings import span_us
from lakelog.train import filters
from lakelog.train.losses import ROWS
from lakelog.train.recipe_schema import KEYS, SHAPES, template
from lakelog.train.tables import JsonMap

SPLITS = ("train", "validation", "test")
REDACTIONS = ("email", "phone", "ip", "card", "iban", "key", "name")
NEAR_DEFAULT = 0.8


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. Sections are dicts with every key of the grammar, defaults filled in."""

    name: str
    text: str
    select: JsonMap
    shape: JsonMap
    filter: JsonMap
    split: JsonMap
    dedupe: JsonMap
    redact: JsonMap
    budget: JsonMap
    card: JsonMap
    where: str = field(default="recipe", compare=False)

    SHAPES: ClassVar = SHAPES
    template = staticmethod(template)

    @property
    def digest(self) -> str:
        """SHA-256 of the recipe's text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def kind(self) -> str:
        """The shape's kind."""
        return str(self.shape["kind"])

    @property
    def salt(self) -> str:
        """The salt of the group hash: the family's name and the seed."""
        return f"{self.name}\x1f{self.split['seed']}"

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that must have rows."""
        return tuple(split for split in SPLITS if self.split[split] > 0)


def load(recipe: Any) -> Recipe:
    """Return a recipe from a path, TOML text, a dict, or a Recipe. Raises InvalidRecipe."""
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, dict):
        return check(recipe, _as_toml(recipe), "recipe")
    origin = os.fspath(recipe)
    # A path has no line break, a recipe of even one key has.
    if "\n" in origin:
        return parse(origin, "recipe")
    try:
        with open(origin, encoding="utf-8") as file:
            toml = file.read()
    except UnicodeDecodeError:
        raise InvalidRecipe(f"{origin}: it is not UTF-8 text") from None
    except FileNotFoundError:
        raise InvalidRecipe(
            f"{origin}: no such recipe; write one with `lakelog train init`"
        ) from None
    return parse(toml, origin)


def parse(toml: str, origin: str) -> Recipe:
    """Return the recipe that a TOML text holds. Raises InvalidRecipe."""
    try:
        document = tomllib.loads(toml)
    except tomllib.TOMLDecodeError as error:
        raise InvalidRecipe(f"{origin}: {error}") from None
    return check(document, toml, origin)


def check(document: JsonMap, toml: str, origin: str) -> Recipe:
    """Validate the keys and values of a recipe. Raises InvalidRecipe."""
    sections = {name: dict(_section(document, name, origin)) for name in KEYS}
    for name in document:
        if name != "name" and name not in KEYS:
            raise InvalidRecipe(f"{origin}: unknown key {name!r}{_near(name, [*KEYS, 'name'])}")
    # The kind comes first: it decides which keys are valid and what their defaults are.
    shape = sections["shape"].get("kind")
    for name, section in sections.items():
        _check_section(name, section, shape, origin)
    stem = os.path.splitext(os.path.basename(origin))[0] if origin != "recipe" else ""
    family = document.get("name") or sections["card"]["title"] or stem or "dataset"
    if not isinstance(family, str):
        raise InvalidRecipe(f"{origin}: name is text, not {family!r}")
    _check_shape(sections["shape"], origin)
    _check_filter(sections["filter"], sections["shape"], origin)
    # Shapes that assemble rows per subject are grouped by it, or one subject would be in two
    # splits.
    if sections["split"]["group"] is None:
        sections["split"]["group"] = sections["shape"]["by"]
    _check_split(sections["split"], origin)
    _check_keep(sections["shape"], sections["split"], origin)
    _check_dedupe(sections["dedupe"], sections["shape"], origin)
    _check_redact(sections["redact"], origin)
    _check_budget(sections["budget"], origin)
    return Recipe(family, toml, where=origin, **sections)


def _section(document: JsonMap, name: str, origin: str) -> JsonMap:
    section = document.get(name, {})
    if not isinstance(section, dict):
        raise InvalidRecipe(f"{origin}: [{name}] is a table of keys, not {section!r}")
    return section


def _check_section(name: str, section: JsonMap, shape: object, origin: str) -> None:
    """Check names and types; fill in defaults."""
    keys = KEYS[name]
    for key, value in section.items():
        if key not in keys:
            raise InvalidRecipe(f"{origin}: unknown key [{name}] {key}{_near(key, list(keys))}")
        spec = keys[key]
        if not spec.accepts(value):
            raise InvalidRecipe(f"{origin}: [{name}] {key} is {spec.values}, not {value!r}")
        # An unknown kind has its own error; complaining about its keys first would mislead.
        if spec.shapes and shape in SHAPES and shape not in spec.shapes:
            listing = ", ".join(spec.shapes)
            raise InvalidRecipe(f"{origin}: [{name}] {key} belongs to {listing}, not to {shape}")
    for key, spec in keys.items():
        if key not in section:
            if spec.is_needed(shape):
                raise InvalidRecipe(f"{origin}: [{name}] {key} is missing: {spec.meaning}")
            section[key] = spec.default_for(shape)


def _near(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, 1)
    return f": did you mean {close[0]}?" if close else f": known are {', '.join(names)}"


def _names_of(names: str | list[str], choices: list[str], place: str) -> list[str]:
    """The names of a list, or of "all"; each is one of the choices. Raises InvalidRecipe."""
    names = choices if names == "all" else names
    for name in names:
        if name not in choices:
            raise InvalidRecipe(f"{place} has no {name!r}{_near(name, choices)}")
    return list(names)


def _check_shape(shape: JsonMap, origin: str) -> None:
    if shape["window"] is not None:
        try:
            span_us(shape["window"])
        except InvalidSetting as error:
            raise InvalidRecipe(f"{origin}: [shape] window: {error}") from None
    if shape["kind"] == "preference":
        pair, scored = ("chosen", "rejected"), ("response", "score")
        present = {k for k in (*pair, *scored) if shape[k] is not None}
        if present not in (set(pair), set(scored)):
            raise InvalidRecipe(
                f"{origin}: [shape] preference needs chosen and rejected, or response and score"
            )
    shape["drop"] = _names_of(shape["drop"], list(ROWS), f"{origin}: [shape] drop")
    for name in shape["also"]:
        if name not in ("openai", "sharegpt"):
            raise InvalidRecipe(f"{origin}: [shape] also lists openai and sharegpt, not {name!r}")


def _check_filter(filter: JsonMap, shape: JsonMap, origin: str) -> None:
    rules = [*filters.SETS, *filters.RULE_NAMES]
    _names_of(filter["quality"], rules, f"{origin}: [filter] quality")
    names = _names_of(filter["drop"], [*rules, "language"], f"{origin}: [filter] drop")
    filter["drop"] = filters.expand(names)
    for code in filter["languages"]:
        if not re.fullmatch("[a-z]{2,3}", code):
            raise InvalidRecipe(f"{origin}: [filter] languages has codes such as en, not {code!r}")
    is_wanted = bool(filter["quality"] or filter["languages"])
    if is_wanted and shape["kind"] == "events" and shape["text"] is None:
        raise InvalidRecipe(f"{origin}: [filter] needs [shape] text, the column to look at")


def _check_split(split: JsonMap, origin: str) -> None:
    shares = {name: split[name] for name in SPLITS if split[name] is not None}
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise InvalidRecipe(f"{origin}: [split] {name} is a part from 0 to 1, not {share}")
    if not shares:
        shares = {"train": 0.8, "validation": 0.1, "test": 0.1}
    # Given validation or test, train is what remains.
    if len(shares) < 3 and "train" not in shares:
        shares["train"] = 1 - sum(shares.values())
    # Decimal shares rarely add up to 1 exactly in binary.
    if abs(sum(shares.values()) - 1) > 1e-6:
        sums = " + ".join(f"{name} {share:g}" for name, share in shares.items())
        raise InvalidRecipe(f"{origin}: [split] {sums} is {sum(shares.values()):g}, it must be 1")
    split.update({name: float(shares.get(name, 0)) for name in SPLITS})
    if split["before"] is not None:
        split["before"] = _instant(split["before"], origin)
        if not split["test"]:
            raise InvalidRecipe(f"{origin}: [split] before needs a test part: what comes after it")
    if split["stratify"] is not None and split["stratify"] == split["group"]:
        raise InvalidRecipe(f"{origin}: [split] stratify and group are the same column")


_OWN_COLUMNS = {
    "text": ("text",),
    "classification": ("text", "label"),
    "messages": ("conversation", "messages", "tools"),
    "preference": ("prompt", "chosen", "rejected", "chosen_score", "rejected_score"),
    "decision": (
        *("subject", "time", "context", "options"),
        *("chosen", "outcome", "reward", "label_time"),
    ),
}
"""The columns that rows of a shape have in any case."""


def _check_keep(shape: JsonMap, split: JsonMap, origin: str) -> None:
    """Refuse columns of one name, of which rows could have but one."""
    names: dict[str, str] = {}
    for name in shape["keep"] or ():
        column = name.rpartition(".")[2]
        is_own = column in _OWN_COLUMNS.get(shape["kind"], ())
        # Of these shapes a column that is kept once more is that column.
        is_own = is_own and (shape["kind"] == "decision" or shape.get(column) != name)
        if is_own or names.setdefault(column, name) != name:
            raise InvalidRecipe(f"{origin}: [shape] keep: {name}: {_clash(column)}")
    group = None if split["group"] == shape["by"] else split["group"]
    for name in filter(None, (group, split["stratify"], split["before"] and "time")):
        column = name.rpartition(".")[2]
        if names.get(column, name) != name:
            raise InvalidRecipe(f"{origin}: [shape] keep: {names[column]}: {_clash(column)}")


def _clash(column: str) -> str:
    return f"rows have another column {column!r}: give this one another name in [select] sql"


def _instant(value: Any, origin: str) -> str:
    """Return a time as ISO text in UTC, to the microsecond."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        # TOML also has dates without a time; they mean midnight UTC.
        if not isinstance(moment, datetime):
            moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    except (ValueError, AttributeError):
        raise InvalidRecipe(
            f"{origin}: [split] before is a time such as 2026-11-20T08:00:00Z, not {value!r}"
        ) from None
    # Local time would make the same recipe split differently on another machine.
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")


def _check_dedupe(dedupe: JsonMap, shape: JsonMap, origin: str) -> None:
    near = dedupe["near"]
    if near is True:
        dedupe["near"] = near = NEAR_DEFAULT
    if near is not None and near is not False and not 0.5 <= near <= 1:
        raise InvalidRecipe(f"{origin}: [dedupe] near is a Jaccard index from 0.5 to 1, not {near}")
    if near and shape["kind"] == "events" and shape["text"] is None:
        raise InvalidRecipe(f"{origin}: [dedupe] near needs [shape] text, the column to compare")


def _check_redact(redact: JsonMap, origin: str) -> None:
    redact["kinds"] = _names_of(redact["kinds"], list(REDACTIONS), f"{origin}: [redact] kinds")
    if redact["mode"] == "pseudonym" and not redact["key_env"]:
        raise InvalidRecipe(
            f"{origin}: [redact] key_env is missing: the variable that holds the key of pseudonyms"
        )
    # A key pasted here would be published with the set in recipe.toml.
    if redact["key_env"] and not re.fullmatch(r"[A-Za-z_]\w*", redact["key_env"]):
        raise InvalidRecipe(
            f"{origin}: [redact] key_env is the name of a variable, never the key itself"
        )


def _check_budget(budget: JsonMap, origin: str) -> None:
    for key in ("rows", "tokens"):
        if budget[key] is not None and budget[key] < 1:
            raise InvalidRecipe(f"{origin}: [budget] {key} is a number above 0, not {budget[key]}")


def _as_toml(document: JsonMap) -> str:
    """Serialize a dict as TOML."""
    lines = [f"{k} = {_toml_value(v)}" for k, v in document.items() if not isinstance(v, dict)]
    for name, section in document.items():
        if isinstance(section, dict):
            lines += ["", f"[{name}]"]
            lines += [f"{k} = {_toml_value(v)}" for k, v in section.items() if v is not None]
    return "\n".join(lines) + "\n"


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, dict):
        inner = ", ".join(f"{_toml_value(str(k))} = {_toml_value(v)}" for k, v in value.items())
        return f"{{ {inner} }}"
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    # tomllib only reads; TOML basic strings need these escapes and no others.
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda m: f"\\u{ord(m[0]):04x}", escaped) + '"'


def as_dict(recipe: Recipe) -> JsonMap:
    """Return the checked sections in the form of the manifest."""
    sections = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe)}
    return {k: v for k, v in sections.items() if k not in ("text", "where")}
