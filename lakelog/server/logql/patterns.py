"""Templates and patterns of LogQL: what lakelog reads of them, as literals and names of labels."""

from __future__ import annotations

import re

from lakelog.server.logql.syntax import LogQLFault

LINE = "__line__"
_FIELD = re.compile(r"\{\{-?\s*(?:\.([A-Za-z_][A-Za-z0-9_]*)|(__line__))\s*-?\}\}")
_CAPTURE = re.compile(r"<([A-Za-z_][A-Za-z0-9_]*)>")
_STEP = re.compile(r'\.?([A-Za-z_][A-Za-z0-9_-]*)|\[([0-9]+)\]|\["((?:[^"\\]|\\.)*)"\]')


def template_parts(template: str) -> list[tuple[str, bool]]:
    """Return a template as (text, whether it names a label). Raises LogQLFault."""
    fragments, place = [], 0
    for match in _FIELD.finditer(template):
        fragments.append((template[place : match.start()], False))
        fragments.append((match[1] or match[2], True))
        place = match.end()
    fragments.append((template[place:], False))
    if any("{{" in fragment for fragment, is_name in fragments if not is_name):
        raise LogQLFault("a template may have {{.label}} and {{__line__}}, and no functions")
    return [(fragment, is_name) for fragment, is_name in fragments if fragment]


def named_groups(pattern: str) -> dict[str, int]:
    """Return the named groups of a regular expression, by number. Raises LogQLFault."""
    try:
        groups = dict(re.compile(pattern).groupindex)
    except (re.error, RecursionError, OverflowError) as error:
        raise LogQLFault(f"the regular expression {pattern[:60]!r} is wrong: {error}") from None
    if not groups:
        raise LogQLFault("| regexp takes labels from groups with names: (?P<name>…)")
    return groups


def capture_pattern(pattern: str) -> str:
    """Return the regular expression of a pattern such as `<ip> - <_> <path>`."""
    fragments = _CAPTURE.split(pattern)
    names = [name for name in fragments[1::2] if name != "_"]
    if not names or len({*names}) < len(names):
        raise LogQLFault("| pattern takes labels from captures with different names: <name>")
    # A pattern that begins with a capture begins with the line: that would begin anywhere else.
    expression = "" if fragments[0] else "^"
    for number, fragment in enumerate(fragments):
        if number % 2 == 0:
            if not fragment and 0 < number < len(fragments) - 1:
                raise LogQLFault("two captures of a pattern need a text between them")
            expression += re.escape(fragment)
            continue
        is_final = number == len(fragments) - 2 and not fragments[-1]
        # The last one goes to the end of the line, each other one up to the text behind it.
        body = ".*" if is_final else ".*?"
        expression += f"(?:{body})" if fragment == "_" else f"(?P<{fragment}>{body})"
    return expression


def json_steps(expression: str) -> list[str | int]:
    """Return the steps of a path such as a.b[0]["c d"]. Raises LogQLFault."""
    steps, place = list[str | int](), 0
    while place < len(expression):
        match = _STEP.match(expression, place)
        if match is None:
            raise LogQLFault(f"{expression[:60]!r} is no path into JSON, such as a.b[0]")
        plain, index, quoted = match.groups()
        steps.append(int(index) if index else plain or re.sub(r"\\(.)", r"\1", quoted))
        place = match.end()
    if not steps:
        raise LogQLFault("a path into JSON is empty")
    return steps
