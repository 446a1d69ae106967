"""Abbreviations of time zones: those that stand for one offset, and those that may be several.

A time whose word may be several is of the zone that its source is configured for, else UTC; the
word stays in the event's `data`, so that it can be seen.
"""

from __future__ import annotations

ZONES = {
    **dict.fromkeys(("UTC", "GMT", "Z", "WET"), "Z"),
    "EST": "-05:00",
    "EDT": "-04:00",
    "CDT": "-05:00",
    "MST": "-07:00",
    "MDT": "-06:00",
    "PST": "-08:00",
    "PDT": "-07:00",
    "AKST": "-09:00",
    "AKDT": "-08:00",
    "HST": "-10:00",
    "NDT": "-02:30",
    "BRT": "-03:00",
    "ART": "-03:00",
    "CLT": "-04:00",
    "PET": "-05:00",
    **dict.fromkeys(("CET", "WEST", "MET", "WAT"), "+01:00"),
    "SAST": "+02:00",
    "CAT": "+02:00",
    **dict.fromkeys(("CEST", "EET", "MEST"), "+02:00"),
    **dict.fromkeys(("EEST", "MSK", "EAT", "TRT"), "+03:00"),
    "SAMT": "+04:00",
    "PKT": "+05:00",
    "YEKT": "+05:00",
    "NPT": "+05:45",
    "NOVT": "+07:00",
    "WIB": "+07:00",
    "ICT": "+07:00",
    "HKT": "+08:00",
    "SGT": "+08:00",
    "AWST": "+08:00",
    "PHT": "+08:00",
    **dict.fromkeys(("JST", "KST"), "+09:00"),
    "ACST": "+09:30",
    "ACDT": "+10:30",
    "AEST": "+10:00",
    "AEDT": "+11:00",
    "NZST": "+12:00",
    "NZDT": "+13:00",
}
"""Abbreviations of zones that mean one offset."""
SEVERAL = (
    "CST",
    "BST",
    "IST",
    "AST",
    "ADT",
    "AMT",
    "GST",
    "SST",
    "NST",
    "ECT",
    "WST",
    "PYT",
    "LMT",
    "LOCAL",
)
"""Abbreviations that mean several: Central and China, British and Bangladesh, India, Israel and
Ireland, and so on."""
TZ = f"(?P<tz>{'|'.join((*ZONES, *SEVERAL))})"
