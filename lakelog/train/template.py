"""The recipe that `lakelog train init` writes: every key of a shape, with its meaning."""

from __future__ import annotations

import textwrap

import orjson

from lakelog.train.recipe_schema import KEYS

_HEAD = """\
# A recipe: `lakelog train export {name}.toml -o {name}/`
# Lines that begin with `# key =` show keys that may be set; the others are set.
# `name` is the family: in all its exports of one seed a group keeps its split.
name = "{name}"
"""


def template(shape: str, name: str) -> str:
    """Return a commented recipe of a shape that is valid as it stands."""
    lines = [_HEAD.format(name=name)]
    own_values = {("shape", "kind"): shape, ("card", "title"): name}
    for section, keys in KEYS.items():
        lines.append(f"\n[{section}]\n")
        for key, spec in keys.items():
            if spec.shapes and shape not in spec.shapes:
                continue
            lines += [f"# {line}\n" for line in textwrap.wrap(spec.meaning, 76)]
            example = spec.default_for(shape) if spec.example is None else spec.example
            value = orjson.dumps(own_values.get((section, key), example)).decode()
            # What every recipe should decide is active; the other keys show an example in a
            # comment.
            lines.append(f"{'' if spec.is_active(shape) else '# '}{key} = {value}\n")
    return "".join(lines)
