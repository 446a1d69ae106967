"""Abbreviations of time zones that stand for one offset; others are not guessed."""

from __future__ import annotations

ZONES = {
    **dict.fromkeys(("UTC", "GMT", "Z", "WET"), "Z"), "EST": "-05:00", "EDT": "-04:00",
    "CST": "-06:00", "CDT": "-05:00", "MST": "-07:00", "MDT": "-06:00", "PST": "-08:00",
    "PDT": "-07:00", **dict.fromkeys(("CET", "WEST", "BST"), "+01:00"),
    **dict.fromkeys(("CEST", "EET"), "+02:00"), **dict.fromkeys(("EEST", "MSK"), "+03:00"),
    **dict.fromkeys(("JST", "KST"), "+09:00"), "AEST": "+10:00", "AEDT": "+11:00",
}  # fmt: skip
"""Abbreviations of zones that mean one offset; those of RFC 822 as it has them."""
TZ = f"(?P<tz>{'|'.join(ZONES)})"
