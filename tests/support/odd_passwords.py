"""Passwords of odd characters, and whether a piece of one is in a text."""

from __future__ import annotations

import re

ODD = [
    *"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ \t\n\r\x7f",
    *(
        "%41",
        "%2F",
        "%%",
        "%zz",
        "%",
        "+ +",
        "@@",
        "://",
        "?a=b&c",
        "#1",
        "\\n",
        "${HOME}",
        "$(id)",
    ),
    *("é", "ß", "ﬀ", "＠", "℀", "密码", "🔑", "\u00a0", "\u202e", "ž\u030c"),
]
"""Each is one that some parser, shell or server treats in its own way."""
_FIRST, _LAST, _DIGITS = "Xq7Kd", "Wz9Rt", "7741"
_NUMBER = re.compile(rf"(?<![0-9A-Za-z]){_DIGITS}(?![0-9A-Za-z])")
LONG = f"{_FIRST}{''.join(ODD)}{_LAST}"
PASSWORDS = [*(f"{first}{odd}{_LAST}" for odd in ODD for first in (_FIRST, _DIGITS)), LONG]
"""Each odd one between two pieces, the first of which may be taken for a host or a port."""


def is_told(text: str) -> bool:
    """Whether a text has a piece of one of these passwords."""
    return _FIRST in text or _LAST in text or bool(_NUMBER.search(text))
