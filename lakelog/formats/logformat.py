"""Access logs by the configuration of their server: a LogFormat of Apache or a log_format of nginx.

Directives (`%h`, `%>s`, `%{Referer}i`) and variables (`$remote_addr`) become the groups of a
pattern, under the names that `logformat.toml` lists: those of common access logs where they mean
the same. What is between quotes may hold escaped quotes; what is not ends at the next space, and
what comes last takes all.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import Any

from lakelog.errors import InvalidSetting
from lakelog.formats.pattern import MONTH, REQUEST, STATUS, Pattern
from lakelog.formats.pattern_format import PatternFormat
from lakelog.runtime.tables import ModuleFiles

_TOKEN = re.compile(
    r"%%|%[<>!,\d]*(?:\{(?P<of>[^}]*)\})?(?P<mark>\^t[io]|[A-Za-z])|\$(?:\{(\w+)\}|(?P<name>\w+))"
)
_PARTS = ("method", "path", "query", "protocol")
_LOCAL = rf"(?P<day>\d\d)/{MONTH}/(?P<year>\d{{4}}):(?P<clock>\d\d:\d\d:\d\d) (?P<zone>[+-]\d{{4}})"
_TIMES = {
    "time": (rf"\[{_LOCAL}\]", "{year}-{mon}-{day}T{clock}{zone}"),
    "local_time": (_LOCAL, "{year}-{mon}-{day}T{clock}{zone}"),
    "iso": (r"(?P<stamp>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d))", "{stamp}"),
    "epoch": (r"(?P<stamp>\d{1,19}(?:\.\d{1,6})?)", "{stamp}"),
}
_EPOCHS = ("sec", "msec", "usec")


@dataclass
class _Expansion:
    """The pattern of a format as far as its tokens are parsed."""

    text: str
    regex: str = ""
    time: str = "-"
    names: list[str] = field(default_factory=list)
    quoted: list[str] = field(default_factory=list)

    def name(self, name: str) -> str:
        """A name that no other group has."""
        if name in self.names:
            name = f"{name}_{1 + sum(n.rstrip('_0123456789') == name for n in self.names)}"
        self.names.append(name)
        return name


@functools.cache
def _table() -> dict[str, Any]:
    """The names of what directives and variables stand for."""
    return ModuleFiles(__file__).tables("logformat.toml")


def form(log_format: str) -> PatternFormat:
    """Return the format of access logs that a string describes. Raises InvalidSetting."""
    return PatternFormat(
        f"access:{log_format}", __doc__, (read(log_format),), f"no line of the format {log_format}"
    )


def read(log_format: str) -> Pattern:
    """Return the pattern of lines that a LogFormat or log_format describes.

    Raises InvalidSetting.
    """
    # As in the configuration file, where quotes and tabs are escaped.
    log_format = log_format.replace('\\"', '"').replace("\\t", "\t")
    tokens = [t for t in _TOKEN.finditer(log_format) if t[0] != "%%"]
    state, end = _Expansion(log_format), 0
    if not tokens:
        raise InvalidSetting(
            f"no directive in the log format {log_format!r}: such as %h or $remote_addr"
        )
    for number, token in enumerate(tokens):
        _literal(state, log_format[end : token.start()])
        end = token.end()
        is_final = number + 1 == len(tokens)
        after = log_format[end : len(log_format) if is_final else tokens[number + 1].start()]
        name = _name(state, token)
        # Two values in a row with nothing between them cannot be told apart.
        if not after and not is_final and _name(state, tokens[number + 1]) != "query":
            raise InvalidSetting(f"nothing follows {token[0]} in the log format {log_format!r}")
        _group(state, name, after, is_final)
    _literal(state, log_format[end:])
    # The request is the message, its parts are the payload.
    data = tuple(n for n in state.names if n not in ("request", "time"))
    return Pattern(
        state.regex,
        state.time,
        "access",
        STATUS if "status" in state.names else None,
        message="request" if "request" in state.names else "",
        data=data,
        numbers=tuple(n for n in data if n.rstrip("_23456789") in _table()["numbers"]),
        dashes=tuple(n for n in state.names if n != "time"),
        quoted=tuple(state.quoted),
    )


def _literal(state: _Expansion, separator: str) -> None:
    bad = re.search(r"%(?!%).?.?", separator)
    if bad:
        raise InvalidSetting(
            f"unknown directive {bad[0].strip()!r} in the log format {state.text!r}"
        )
    state.regex += re.escape(separator.replace("%%", "%")).replace("\\ ", " ")


def _name(state: _Expansion, token: re.Match[str]) -> str:
    """The name of what a directive or a variable stands for."""
    variable = token["name"] or token[3]
    if variable:
        return _table()["nginx"].get(variable) or variable.removeprefix("http_")
    argument, mark = token["of"], token["mark"]
    directives, prefixes = _table()["apache"], _table()["prefixes"]
    if argument is None and mark in directives:
        return str(directives[mark])
    if argument is not None and mark in prefixes:
        name = re.sub(r"\W", "_", argument.lower())
        return "agent" if name == "user_agent" and mark == "i" else f"{prefixes[mark]}{name}"
    if argument in _EPOCHS and mark == "t":
        return "epoch"
    if argument is not None and mark in ("a", "p", "P", "h", "T"):
        return f"{directives[mark]}_{argument.lower()}"
    raise InvalidSetting(f"unknown directive {token[0]!r} in the log format {state.text!r}")


def _group(state: _Expansion, name: str, after: str, is_final: bool) -> None:
    """Add the group of a token; `after` is the text up to the next one."""
    # An odd number of quotes so far: this value stands inside of some.
    within = state.regex.count('"') % 2 == 1
    # The first of several times counts; others are text.
    if name in _TIMES and state.time == "-":
        regex, state.time = _TIMES[name]
        state.regex += regex
        return
    # Cut into method, path, query and protocol only once, or names would come twice.
    if name == "request" and "request" not in state.names and not set(_PARTS) & set(state.names):
        state.names += ["request", *_PARTS]
        state.quoted += ["request", *_PARTS]
        state.regex += f"(?P<request>{REQUEST})"
        return
    group = state.name(name)
    if name in _table()["numbers"]:
        value = r"\d{3}" if name == "status" else r"\d{1,18}|-"
    elif within and state.regex.endswith('"') and after.startswith('"'):
        value = r'(?:[^"\\]|\\.)*'
        state.quoted.append(group)
    elif state.regex.endswith(r"\[") and after.startswith("]"):
        value = r"[^\]]*"
    elif is_final and not after:
        value = ".*"
    else:
        stop = re.escape(after[:1]) if after[:1] not in ("", " ") else ""
        # A host may be an IPv6 address.
        stop = "" if name == "host" and stop == ":" else stop
        value = f"[^ {stop}" + ('"' if within and '"' not in stop else "") + "]*"
        # The path of %U%q ends at the question mark, which %q brings along.
        value = value.replace("]*", "?]*") if name == "path" and not after else value
    state.regex += (
        rf"(?:\?(?P<{group}>{value}))?"
        if name == "query" and state.regex.endswith("?]*)")
        else f"(?P<{group}>{value})"
    )
