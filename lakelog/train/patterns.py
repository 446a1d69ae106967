"""Patterns of personal data and secrets: RE2, and SQL conditions that reject look-alikes.

Each kind has rules, applied in order. A rule has a `hint` (a cheap pattern that every match
contains), a `pattern`, and `holds`: a SQL condition on the match `m`, such as the Luhn checksum; it
may use `h`, the head of the match that is kept. A pattern includes the surrounding words where they
show that it is no match: `v1.2.3.4` is matched as a whole, and `holds` rejects it. Names are words
with a capital that stand in `names.txt`: the 10,000 most frequent given and family names of the
United States census of 1990 (public domain) that are no English words, months, places or products.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

from lakelog.segments.sql import literal
from lakelog.train import providers


@dataclass(frozen=True)
class Rule:
    """One form of a secret or personal datum."""

    hint: str
    pattern: str
    holds: str = "true"
    keeps: str = ""
    """A pattern of what stands before the find and is kept, such as `Bearer `."""
    tail: str = ""
    """A text that may stand after the find and is kept, such as `@`."""


@dataclass(frozen=True)
class Kind:
    """One kind of data to redact. `mark` replaces a match, between < and >."""

    name: str
    rules: tuple[Rule, ...]

    @property
    def mark(self) -> str:
        """`EMAIL` for email."""
        return self.name.upper()

    @property
    def hint(self) -> str:
        """A pattern that every text with a match of this kind contains."""
        return "|".join(f"(?:{rule.hint})" for rule in self.rules)


_BREAK = r"(?:[\s\x{fdd2}\x{fdd3}]|\\[nr]|\x{fdd0}[nr])"
"""A line's end in a key: as it is, as `redact` has JSON's escapes, or escaped once more."""
_BASE64 = r"[A-Za-z0-9+/=\x{fdd5}]"
_ARMOR = (
    r"-{4,5} ?BEGIN (?:[A-Z0-9]+ )*(?:PRIVATE KEY(?: BLOCK)?|PGP MESSAGE|PGP PUBLIC KEY BLOCK)"
    r" ?-{4,5}"
)
_HEADERS = rf"(?:{_BREAK}+[A-Za-z-]+: [A-Za-z0-9 ,.()/-]+)*"
_BLOCKS = (
    _ARMOR + r"[^\"<]*?-{4,5} ?END (?:[A-Z0-9]+ )*(?:KEY(?: BLOCK)?|MESSAGE) ?-{4,5}"
    rf"|{_ARMOR}{_HEADERS}(?:{_BREAK}+{_BASE64}{{16,}})*(?:{_BREAK}+{_BASE64}{{1,15}}\b)?"
)
"""A key up to its END line, or as far as its lines look like one; never past a quote."""

_OUTSIDE = r"\s\"'<>`\x{fdd0}-\x{fdd7}"
_QUOTE = r"(?:[\x{fdd0}\\]*[\"'`\x{fdd1}])"
"""A quote as it is, as `redact` has JSON's escapes, or behind backslashes."""
_ASSIGNS = rf"{_QUOTE}? ?(?:=>|:=|[:=]) ?{_QUOTE}?"
_SCHEME_HEAD = (
    rf"(?i:(?:proxy-)?authorization){_ASSIGNS}(?:SSWS|Token|token|ApiKey|GenieKey|Api-Token) "
)
_SCHEMES_KEEP = rf"{_SCHEME_HEAD}|[Bb]earer |[Bb]asic "
_SCHEMES = (
    r"\b[Bb]earer [A-Za-z0-9._~+/-]{20,}=*|\b[Bb]asic [A-Za-z0-9+/]{16,}={0,2}"
    rf"|\b{_SCHEME_HEAD}[^{_OUTSIDE},;]{{8,}}"
)
_URL_USER = r"\b[a-z][a-z0-9+.-]*://[^\s/:@\"'<>]*:"
_COOKIE_HEAD = rf"\b(?:[Ss]et-)?[Cc]ookie{_ASSIGNS}"
_COOKIE = rf"{_COOKIE_HEAD}[A-Za-z0-9_.%-]+=[^\"'<>\r\n\x{{fdd0}}-\x{{fdd7}}]+"

_BEFORE_WORD = "(?:--)?(?i:[a-z0-9_.-]{0,40}"
_SECRET_WORDS = (
    r"(?:api|access|account|app|application|auth|secret|private|encryption|signing|master|license"
    r"|licence|shared|subscription|service)[_-]?key(?:[_-]?id)?|token|secret|credential"
)
_PASSWORD_WORDS = "passw(?:or)?d|passphrase|passwd"
_SHORT_WORDS = "(?:[a-z0-9_.-]{0,40}[_.-])?(?:pass|pwd)"
_SECRET_HEAD = rf"\b{_BEFORE_WORD}(?:{_SECRET_WORDS})){_ASSIGNS}|[?&]sig="
_PASSWORD_HEAD = rf"\b(?:{_BEFORE_WORD}(?:{_PASSWORD_WORDS}))|(?i:{_SHORT_WORDS})){_ASSIGNS}"
_FLAG_HEAD = rf"--(?i:[a-z-]{{0,20}}(?:{_SECRET_WORDS}|{_PASSWORD_WORDS})) "
_SECRET = rf"(?:{_SECRET_HEAD})[A-Za-z0-9_.~+/=%:|!-]{{8,}}[(\[]?"
_PASSWORD = rf"{_PASSWORD_HEAD}[^{_OUTSIDE},;&)(\[]{{4,}}[(\[]?"
_EMPTY_WORDS = (
    "true|false|null|none|nil|undefined|required|optional|redacted|filtered|hidden|changeme|str|bool"
    "|string|int|bytes|[*x.#-]+|your[a-z_-]*|example[a-z_-]*|empty|invalid|incorrect|expired"
)


_VALUE = "substr(m, len(h) + 1)"
_WORDS_OR_DATES = (
    r"[a-z_.-]*[0-9]{1,4}|[0-9.]+[A-Za-z]{1,3}|[0-9]{4}-[0-9]{2}-[0-9]{2}.*"
    r"|[A-Za-z_]+(?:[.:/_-]+[A-Za-z_0-9]{1,11})+"
)
_CAMEL = "[A-Za-z]?[a-z]+(?:[A-Z][a-z]+)*"
_SECRET_HOLDS = rf"""NOT regexp_matches({_VALUE}, '[(\[]$|^[.$%-]|^/.{{0,36}}$|://') AND (
    regexp_matches({_VALUE}, '[0-9]') AND regexp_matches({_VALUE}, '[A-Za-z]')
        AND NOT regexp_full_match({_VALUE}, '{_WORDS_OR_DATES}')
    OR regexp_full_match({_VALUE}, '[A-Za-z0-9+/=_-]{{16,}}')
        AND regexp_matches({_VALUE}, '[A-Z].*[a-z].*[A-Z].*[a-z].*[A-Z]')
        AND NOT regexp_full_match({_VALUE}, '{_CAMEL}'))"""
"""A secret has letters and digits, or changes between upper and lower case as no word does."""
_PASSWORD_HOLDS = rf"""NOT regexp_matches({_VALUE}, '[(\[]$|^[$%/]|^[.]/|^self[.]')
    AND NOT regexp_full_match({_VALUE}, '[a-z_]+[.][a-z_.]+')
    AND NOT regexp_full_match({_VALUE}, '(?i)(?:{_EMPTY_WORDS})[.!]?')
    AND (regexp_matches({_VALUE}, '[^A-Za-z_]')
        OR regexp_matches({_VALUE}, '[A-Z].*[a-z].*[A-Z].*[a-z]')
            AND NOT regexp_full_match({_VALUE}, '{_CAMEL}')
        OR regexp_matches(m, {literal(rf"(?:=|:{_QUOTE}|: {_QUOTE})[A-Za-z_]+$")}))"""
"""After a colon without quotes a plain word is more likely prose than a password."""

_KEYS = (
    Rule(r"-----? ?BEGIN [A-Z0-9 ]*(?:PRIVATE|PGP)", _BLOCKS),
    *(Rule(hint, pattern) for hint, pattern in providers.groups()),
    Rule(
        r"[Bb]earer |[Bb]asic [A-Za-z0-9+/]{16}|(?i:authorization)[\"'\\\x{fdd0}\x{fdd1}]*[:=]",
        _SCHEMES,
        keeps=_SCHEMES_KEEP,
    ),
    Rule(
        r"://[^\s/:@\"'<>]*:[^\s/@\"'<>]+@",
        rf"{_URL_USER}[^\s/@\"'<>]+@",
        keeps=_URL_USER,
        tail="@",
    ),
    Rule(rf"[Cc]ookie{_QUOTE}?[:=]", _COOKIE, keeps=_COOKIE_HEAD),
    Rule(
        rf"(?i:key|key[_-]?id|token|secret|credential){_QUOTE}? ?[:=]|[?&]sig=",
        _SECRET,
        _SECRET_HOLDS,
        _SECRET_HEAD,
    ),
    Rule(
        rf"(?i:passw(?:or)?d|passphrase|pass|pwd){_QUOTE}? ?[:=]",
        _PASSWORD,
        _PASSWORD_HOLDS,
        _PASSWORD_HEAD,
    ),
    Rule(
        r"--(?i:[a-z-]*(?:key|token|secret|password|passwd|passphrase)) ",
        rf"{_FLAG_HEAD}[^{_OUTSIDE}]{{6,}}",
        keeps=_FLAG_HEAD,
    ),
)

_FILES = (
    "service|socket|target|timer|mount|slice|device|scope|path|png|jpe?g|gif|svg|webp|js|css|local"
)
_FOREIGN = (
    r"\x{c0}-\x{1fff}\x{2c00}-\x{2fff}\x{3040}-\x{d7ff}\x{f900}-\x{fdcf}\x{fe70}-\x{fefc}"
    r"\x{ff10}-\x{ffdc}\x{10000}-\x{1efff}\x{20000}-\x{3ffff}"
)
"""Letters beyond ASCII, in ranges: RE2 is slow to compile the property `L`."""
_LETTER = f"[A-Za-z0-9{_FOREIGN}]"
_LABEL = f"{_LETTER}(?:[A-Za-z0-9{_FOREIGN}-]*{_LETTER})?"
_EMAIL = (
    rf"{_LETTER}[A-Za-z0-9{_FOREIGN}._%+'-]*@{_LABEL}(?:\.{_LABEL})*\."
    rf"(?:[A-Za-z]{{2,24}}\b|xn--[a-z0-9-]{{2,59}}\b|[A-Za-z]*[{_FOREIGN}][A-Za-z{_FOREIGN}]*)"
)
_EMAIL_HOLDS = rf"NOT regexp_matches(m, '(?i)\.(?:{_FILES})$|^(?:git|hg|svn)@|@[0-9]+\.[0-9]')"

_BEFORE_NUMBER = (
    r"(?i:\b(?:(?:tele)?phone|tel|mobile|cell|fax|call)(?:[_ -]?(?:number|num|no|nr))?"
    r"(?: me| us)?(?: at| on)?[\"']?[.:=]{0,2} ?[\"']?)"
)
_ABROAD = r"\+[2-9][0-9]{0,2}[ .-]?(?:\([0-9]{1,4}\)[ .-]?)?"
_PHONE = (
    r"\+1[ .-]?(?:\([2-9][0-9]{2}\)|[2-9][0-9]{2})[ .-]?[2-9][0-9]{2}[ .-]?[0-9]{4}\b"
    rf"|{_ABROAD}[0-9]{{1,4}}(?:[ .-][0-9]{{2}}){{3,4}}\b"
    rf"|{_ABROAD}[0-9]{{2,5}}[ .-][0-9]{{3,4}}[ .-][0-9]{{3,4}}\b"
    rf"|{_ABROAD}[0-9]{{1,5}}[ .-][0-9]{{4,9}}\b|{_ABROAD}[0-9]{{6,12}}\b"
    r"|\([2-9][0-9]{2}\) ?[2-9][0-9]{2}[ .-][0-9]{4}\b"
    r"|\b(?:1[.-])?[2-9][0-9]{2}[.-][2-9][0-9]{2}[.-][0-9]{4}\b"
    rf"|{_BEFORE_NUMBER}\(?[0-9](?:[ ().-]{{0,2}}[0-9]){{6,14}}\b"
)
_PHONE_HINT = (
    r"\+[1-9][0-9 .(-]|\([2-9][0-9]{2}\) ?[2-9]|[2-9][0-9]{2}[.-][2-9][0-9]{2}[.-][0-9]"
    r"|(?i:phone|tel|call|mobile|cell|fax|no|nr|num|number| me| us| at| on)"
    r"[\"']?[.:=]{0,2} ?[\"']?\(?[0-9]"
)
_DIGITS = "regexp_replace(m, '[^0-9]', '', 'g')"
_PHONE_HOLDS = (
    f"len({_DIGITS}) BETWEEN 7 AND 15"
    r" AND NOT regexp_matches(m, '(?:19|20)[0-9]{2}-[01][0-9]-[0-3][0-9]')"
)

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_HEX = "[0-9A-Fa-f]{1,4}"
_QUAD = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
_VERSIONED = (
    r"(?i:(?:\b|_)(?:[a-z]{0,20}version|ver|rev|revision|release|build|firmware|update|section"
    r"|chapter|oid)s?[\"'\x{fdd1}]?[ :=]{0,2}[\"'\x{fdd1}]?v?)|\b[vV] ?"
    r"|\b[A-Z][A-Za-z]+/|[A-Za-z_]-v?|[=~<>!^]=? ?"
)
_RELEASED = (
    r"[-+_~](?:[A-Za-z]|[0-9]+[A-Za-z])[A-Za-z0-9]*"
    r"|\.(?:jar|tar|zip|gz|tgz|deb|rpm|whl|exe|msi|dll|so|dmg|apk|bin)\b"
)
_IPV4 = rf"(?:{_VERSIONED})?\b{_QUAD}(?:\.[0-9]+)*(?:{_RELEASED})?(?::[0-9]{{1,5}}\b)?"
_IPV4_HOLDS = rf"""regexp_full_match(m, '=?{_OCTET}(?:\.{_OCTET}){{3}}(?::[0-9]+)?'
        || '|[^.]*[/-]{_OCTET}(?:\.{_OCTET}){{3}}:[0-9]+')
    AND NOT regexp_matches(m, '(?:^|[^0-9.])(?:0\.|[0-9]+\.0\.0\.0)')"""
"""What follows `v`, `version`, `Chrome/` or `name-`, or ends in `-beta` or `.jar`, is a version."""
_IPV6 = (
    rf"\b(?:{_HEX}:){{6}}{_QUAD}\b|(?:\b{_HEX}(?::{_HEX}){{0,5}})?::(?:{_HEX}:){{0,5}}{_QUAD}\b"
    rf"|\b(?:{_HEX}:){{7}}{_HEX}\b|\b{_HEX}(?::{_HEX}){{0,5}}::(?:{_HEX}(?::{_HEX}){{0,5}}\b)?"
    rf"|::{_HEX}(?::{_HEX}){{0,6}}\b"
)
_IPV6_HOLDS = rf"""CASE
    WHEN contains(m, '.') THEN regexp_full_match(m, '.*:{_OCTET}(?:\.{_OCTET}){{3}}')
    WHEN contains(m, '::') THEN len(string_split(replace(m, '::', ':'), ':')) <= 8
        AND regexp_matches(m, '(?i)^(?:[23][0-9a-f]{{3}}|f[c-f][0-9a-f]{{2}}|64:ff9b|::ffff):'
            || '|(?:[0-9a-f]+:+){{3}}') AND regexp_matches(m, '[0-9]')
    ELSE NOT regexp_full_match(m, '(?:[0-9A-Fa-f]{{1,2}}:){{7}}[0-9A-Fa-f]{{1,2}}') END"""
"""Eight pairs of digits are a hardware address; short forms begin as assigned networks do."""

_CARD = (
    r"(?i:(?:id|seq|size|bytes|offset|nonce|serial|ts)[\"'\x{fdd1}]?[_:=#-]{1,3}"
    r"|(?:snowflake|epoch[a-z_]*|timestamp|blk|block)[\"'\x{fdd1}]?[_ :=#-]{0,3})?"
    r"\b(?:4[0-9]{12}(?:[0-9]{3}){0,2}|5[1-5][0-9]{14}|2(?:2[2-9]|[3-6][0-9]|7[0-2])[0-9]{13}"
    r"|3[47][0-9]{13}|3(?:0[0-5]|[689][0-9])[0-9]{11}|6(?:011|4[4-9][0-9]|5[0-9]{2})[0-9]{12}"
    r"|35(?:2[89]|[3-8][0-9])[0-9]{12}|62[0-9]{14}(?:[0-9]{3})?|(?:50|5[6-9]|6[37])[0-9]{14}(?:[0-9]{3})?)\b"
    r"|\b(?:4[0-9]{3}|5[1-5][0-9]{2}|2(?:2[2-9]|[3-6][0-9]|7[0-2])[0-9]"
    r"|6(?:011|4[4-9][0-9]|5[0-9]{2})|35(?:2[89]|[3-8][0-9])|62[0-9]{2})"
    r"[ -][0-9]{4}[ -][0-9]{4}[ -][0-9]{4}\b"
    r"|\b3[47][0-9]{2}[ -][0-9]{6}[ -][0-9]{5}\b"
    r"|\b3(?:0[0-5]|[689][0-9])[0-9][ -][0-9]{6}[ -][0-9]{4}\b"
)
_CARD_HOLDS = (
    "regexp_matches(m, '^[0-9]') AND"
    f" list_sum(list_transform(string_split(reverse({_DIGITS}), ''), lambda c, i: "
    "CASE WHEN i % 2 = 1 THEN c::INT WHEN c::INT > 4 THEN c::INT * 2 - 9 ELSE c::INT * 2 END))"
    " % 10 = 0"
)

IBAN_LENGTHS = {
    15: "NO",
    16: "BE",
    18: "DK FI FO GL NL FK SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU XK MN",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM TL SO",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
_COUNTRIES = "|".join(code for codes in IBAN_LENGTHS.values() for code in codes.split())
_IBAN = "|".join(
    rf"\b(?:{'|'.join(codes.split())})[0-9]{{2}}(?: ?[A-Z0-9]){{{length - 4}}}\b"
    for length, codes in IBAN_LENGTHS.items()
)
_IBAN_HOLDS = (
    "list_reduce(list_transform(string_split(substr(replace(m, ' ', ''), 5)"
    " || substr(replace(m, ' ', ''), 1, 4), ''),"
    " lambda c: CASE WHEN c <= '9' THEN c::INT ELSE ord(c) - 55 END),"
    " lambda a, b: (CASE WHEN b > 9 THEN a * 100 + b ELSE a * 10 + b END) % 97) = 1"
)

WORD = r"\b[A-Z][a-z]{2,15}\b"
_IN_CODE = (
    r"\b(?:class|def|func|function|fn|new|struct|enum|interface|trait|impl|import|package|module"
    r"|namespace|type|extends|implements|instanceof|throws|object"
    r"|public|private|protected|static|final|abstract|return|raise|throw|except|catch) "
    r"|-> ?|[A-Za-z0-9_)\]](?:\.|::|->)|[$]"
)
_NAME = rf"(?:{_IN_CODE})?{WORD}(?:\(|::|\.[a-z]{{1,4}}\b)?"
"""A word with what tells that it is code: matched with it, it is no name that is known."""

KINDS: dict[str, Kind] = {
    "key": Kind("key", _KEYS),
    "email": Kind("email", (Rule(r"@[^\x00-/:-@\[-`{-\x7f]", _EMAIL, _EMAIL_HOLDS),)),
    "iban": Kind("iban", (Rule(rf"\b(?:{_COUNTRIES})[0-9]{{2}} ?[A-Z0-9]", _IBAN, _IBAN_HOLDS),)),
    "card": Kind(
        "card", (Rule(r"[2-6][0-9]{11}|[2-6][0-9]{3}[ -][0-9]{4,6}[ -][0-9]", _CARD, _CARD_HOLDS),)
    ),
    "ip": Kind(
        "ip",
        (
            Rule(
                r"::|(?::[0-9A-Fa-f]{1,4}){7}|(?::[0-9A-Fa-f]{1,4}){5}:[0-9]{1,3}\.",
                _IPV6,
                _IPV6_HOLDS,
            ),
            Rule(
                r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]", _IPV4, _IPV4_HOLDS, _VERSIONED, ":[0-9]+"
            ),
        ),
    ),
    "phone": Kind("phone", (Rule(_PHONE_HINT, _PHONE, _PHONE_HOLDS, _BEFORE_NUMBER),)),
    "name": Kind("name", (Rule(WORD, _NAME),)),
}
"""In the order in which they are looked for: the more certain first."""


@functools.cache
def names() -> tuple[str, ...]:
    """The 10,000 names that are redacted."""
    path = os.path.join(os.path.dirname(__file__), "names.txt")
    with open(path, encoding="utf-8") as file:
        return tuple(file.read().split())
