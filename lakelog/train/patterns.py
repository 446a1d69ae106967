"""What personal data and secrets look like: RE2 patterns, and SQL that tells true from alike.

Each kind has a `hint` (a cheap pattern that every find contains), a `pattern`, and `holds`: SQL of
a find `m` that must be true, such as Luhn's sum. Names are words with a capital that stand in
`names.txt`: the 10,000 most frequent given and family names of the United States census of 1990
(public domain) that are no English words, months, places or products.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of find. `mark` is what stands in its place, between < and >."""

    name: str
    hint: str
    pattern: str
    holds: str = "true"
    keeps: str = ""
    """A pattern of what stands before the find and is kept, such as `Bearer `."""

    @property
    def mark(self) -> str:
        """`EMAIL` for email."""
        return self.name.upper()


_PROVIDERS = (
    r"\b(?:AKIA|ASIA|AGPA|AIDA|AROA)[A-Z0-9]{16}\b",  # AWS key ids
    r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b",
    r"\bgithub_pat_[A-Za-z0-9_]{22,255}\b",
    r"\bglpat-[A-Za-z0-9_-]{20,}",
    r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    r"https://hooks\.slack\.com/services/T[A-Z0-9]+/B[A-Z0-9]+/[A-Za-z0-9]+",
    r"\bAIza[A-Za-z0-9_-]{35}",
    r"\bya29\.[A-Za-z0-9_-]{20,}",
    r"\b[srp]k_(?:live|test)_[A-Za-z0-9]{16,}\b",
    r"\bsk-(?:ant-|proj-|svcacct-|or-v1-)?[A-Za-z0-9_-]{20,}",
    r"\bhf_[A-Za-z0-9]{30,}\b",
    r"\bnpm_[A-Za-z0-9]{36}\b",
    r"\bpypi-[A-Za-z0-9_-]{16,}",
    r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    r"\b(?:AC|SK)[0-9a-f]{32}\b",
    r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.)*?-----END [A-Z ]*PRIVATE KEY-----",
    r"\bdop_v1_[0-9a-f]{64}\b",
    r"\bkey-[0-9a-f]{32}\b",
    r"\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}\b",
    r"\bdapi[0-9a-f]{32}\b",
    r"\b[0-9]{8,10}:AA[A-Za-z0-9_-]{33}",
    r"\bnvapi-[A-Za-z0-9_-]{40,}",
    r"\bgsk_[A-Za-z0-9]{40,}\b",
    r"\br8_[A-Za-z0-9]{37}\b",
)
_SECRET_BEFORE = (
    r"(?:[Bb]earer |[Bb]asic |AccountKey=|(?i:aws_?secret_?access_?key)[\"' ]{0,2}[:=][\"' ]{0,2}"
    r"|[a-z][a-z0-9+.-]*://[^\s/:@\"'<>]+:)"
)
_KEYED = (
    r"[Bb]earer [A-Za-z0-9._~+/-]{20,}=*",
    r"\b[Bb]asic [A-Za-z0-9+/]{16,}={0,2}",
    r"AccountKey=[A-Za-z0-9+/]{40,}={0,2}",
    r"(?i:aws_?secret_?access_?key)[\"' ]{0,2}[:=][\"' ]{0,2}[A-Za-z0-9/+]{40}",
    r"\b[a-z][a-z0-9+.-]*://[^\s/:@\"'<>]+:[^\s/@\"'<>]+@",
)
_KEY_HINT = (
    r"AKIA|ASIA|A[GIR][PDO]A|gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|hooks\.slack|AIza|ya29\."
    r"|[srp]k_(?:live|test)_|sk-|hf_|npm_|pypi-|SG\.|AC[0-9a-f]{8}|SK[0-9a-f]{8}|eyJ|-----BEGIN"
    r"|dop_v1_|key-[0-9a-f]{8}|shp(?:at|ca|pa|ss)_|dapi[0-9a-f]{8}|:AA|nvapi-|gsk_|r8_|[Bb]earer "
    r"|[Bb]asic [A-Za-z0-9+/]{16}|AccountKey=|(?i:aws_?secret)|://[^\s/:@\"'<>]+:[^\s/@\"'<>]+@"
)

_FILES = (
    "service|socket|target|timer|mount|slice|device|scope|path|png|jpe?g|gif|svg|webp|js|css|local"
)
_EMAIL = (
    r"[A-Za-z0-9][A-Za-z0-9._%+-]*@[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
    r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*\.[A-Za-z]{2,24}\b"
)

_BEFORE_NUMBER = (
    r"(?i:\b(?:phone|tel|call|mobile|cell|fax)[a-z_]{0,8}(?:no|nr)?[\"']? ?[.:=]? ?[\"']?)"
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
    r"|(?i:phone|tel|call|mobile|cell|fax)[a-z_]{0,8}[\"']? ?[.:=]? ?[\"']?\(?[0-9]"
)
_DIGITS = "regexp_replace(m, '[^0-9]', '', 'g')"
_PHONE_HOLDS = f"len({_DIGITS}) BETWEEN 7 AND 15"

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_HEX = "[0-9A-Fa-f]{1,4}"
_IP = (
    r"\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?:\.[0-9]+)*\b"
    rf"|\b(?:{_HEX}:){{7}}{_HEX}\b"
    rf"|\b{_HEX}(?::{_HEX}){{0,5}}::(?:{_HEX}(?::{_HEX}){{0,5}}\b)?"
    rf"|::{_HEX}(?::{_HEX}){{0,6}}\b"
)
_IP_HOLDS = (
    rf"CASE WHEN contains(m, ':') THEN regexp_matches(m, '[0-9]') AND"
    rf" len(string_split(replace(m, '::', ':'), ':')) BETWEEN 2 AND 8"
    rf" ELSE regexp_full_match(m, '{_OCTET}(?:\.{_OCTET}){{3}}') END"
)

_CARD = (
    r"\b(?:4[0-9]{12}(?:[0-9]{3}){0,2}|5[1-5][0-9]{14}|2(?:2[2-9]|[3-6][0-9]|7[0-2])[0-9]{13}"
    r"|3[47][0-9]{13}|3(?:0[0-5]|[689][0-9])[0-9]{11}|6(?:011|4[4-9][0-9]|5[0-9]{2})[0-9]{12}"
    r"|35(?:2[89]|[3-8][0-9])[0-9]{12}|62[0-9]{14,17}|(?:50|5[6-9]|6[37])[0-9]{10,17})\b"
    r"|\b(?:4[0-9]{3}|5[1-5][0-9]{2}|2(?:2[2-9]|[3-6][0-9]|7[0-2])[0-9]"
    r"|6(?:011|4[4-9][0-9]|5[0-9]{2})|35(?:2[89]|[3-8][0-9])|62[0-9]{2})"
    r"[ -][0-9]{4}[ -][0-9]{4}[ -][0-9]{4}\b"
    r"|\b3[47][0-9]{2}[ -][0-9]{6}[ -][0-9]{5}\b"
    r"|\b3(?:0[0-5]|[689][0-9])[0-9][ -][0-9]{6}[ -][0-9]{4}\b"
)
_CARD_HOLDS = (
    f"list_sum(list_transform(string_split(reverse({_DIGITS}), ''), lambda c, i: "
    "CASE WHEN i % 2 = 1 THEN c::INT WHEN c::INT > 4 THEN c::INT * 2 - 9 ELSE c::INT * 2 END))"
    " % 10 = 0"
)

IBAN_LENGTHS = {
    15: "NO", 16: "BE", 18: "DK FI FO GL NL FK SD", 19: "MK SI", 20: "AT BA EE KZ LT LU XK MN",
    21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM TL SO",
    24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC",
    32: "LC", 33: "RU",
}  # fmt: skip
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

KINDS: dict[str, Kind] = {
    "key": Kind("key", _KEY_HINT, "|".join([*_PROVIDERS, *_KEYED]), keeps=_SECRET_BEFORE),
    "email": Kind(
        "email", "@[A-Za-z0-9]", _EMAIL, rf"NOT regexp_matches(m, '(?i)\.(?:{_FILES})$')"
    ),
    "iban": Kind("iban", rf"\b(?:{_COUNTRIES})[0-9]{{2}} ?[A-Z0-9]", _IBAN, _IBAN_HOLDS),
    "card": Kind(
        "card", r"[2-6][0-9]{11}|[2-6][0-9]{3}[ -][0-9]{4,6}[ -][0-9]", _CARD, _CARD_HOLDS
    ),
    "ip": Kind(
        "ip", r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|::|(?::[0-9A-Fa-f]{1,4}){7}", _IP, _IP_HOLDS
    ),
    "phone": Kind("phone", _PHONE_HINT, _PHONE, _PHONE_HOLDS, _BEFORE_NUMBER),
    "name": Kind("name", WORD, WORD),
}
"""In the order in which they are looked for: the more certain first."""


@functools.cache
def names() -> tuple[str, ...]:
    """The 10,000 names that are taken out."""
    path = os.path.join(os.path.dirname(__file__), "names.txt")
    with open(path, encoding="utf-8") as file:
        return tuple(file.read().split())
