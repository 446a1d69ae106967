"""Moments: read in whatever form they are written, and counted in microseconds since 1970."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, tzinfo

import orjson

from lakelog.errors import InvalidEvent
from lakelog.values.exact import kind, text_of, to_json

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_iso = datetime.fromisoformat
_COMPACT = re.compile(r"(?:19|20)[0-9]{12}(?:[0-9]{3}){,2}")
_GENERALIZED = re.compile(r"\A((?:19|20)[0-9]{6})([0-9]{6})(?=[-.+Zz])")
"""As directories write moments (GeneralizedTime, X.680): with a fraction or a zone."""


def to_micros(moment: datetime) -> int:
    """Return microseconds since 1970 of an aware datetime."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """Return the aware UTC datetime of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=micros)


def parse_time(value: object, zone: tzinfo = UTC) -> datetime:
    """Convert ISO text, epoch s/ms/us/ns (recognized by magnitude), YYYYMMDDhhmmss of the years
    1900 to 2099 with digits of a fraction, eight digits as text or a datetime to UTC.

    Text without a zone is of `zone`; where clocks were set back and it may be either of two
    moments, it is the later. Raises InvalidEvent outside the years 1 to 9999.
    """
    try:
        if type(value) is str:
            # The common form first; everything else is looked at more closely.
            try:
                moment = _iso(value) if value[4:5] == "-" else _time_of_text(value)
            except ValueError:
                moment = _time_of_text(value)
            if moment.tzinfo is UTC:
                return moment
        elif isinstance(value, datetime):
            if value != value:  # pandas' NaT
                raise ValueError
            moment = value
        elif isinstance(value, date):
            moment = datetime(value.year, value.month, value.day)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            moment = _time_of_number(value)
        elif hasattr(value, "tolist"):  # numpy's
            return parse_time(to_json(value), zone)
        elif (spelled := text_of(value)) is not None:
            return parse_time(spelled, zone)
        elif isinstance(value, orjson.Fragment):  # more digits than a double holds
            moment = _time_of_text(orjson.dumps(value).decode())
        else:
            raise ValueError
        if moment.tzinfo is None:
            return moment.replace(tzinfo=UTC) if zone is UTC else _localized(moment, zone)
        return moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        if isinstance(value, orjson.Fragment):
            value = orjson.dumps(value).decode()
        boxed = isinstance(value, (dict, list, bool))
        described = f"({kind(value)})" if boxed else repr(str(value)[:40])
        raise InvalidEvent(f"time {described} is not a date from year 1 to 9999") from None


def _localized(moment: datetime, zone: tzinfo) -> datetime:
    """The later of the moments that a clock in a zone may mean, which is the engine's choice."""
    return max(moment.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))


def _time_of_text(spelled: str) -> datetime:
    # A comma before the milliseconds, as Python's logging writes it.
    spelled = _GENERALIZED.sub(r"\1T\2", spelled.strip().replace(",", "."))
    if re.fullmatch(r"-?\d+(\.\d+)?", spelled) and not re.fullmatch(r"[0-9]{8}", spelled):
        return _time_of_number(float(spelled) if "." in spelled else int(spelled))
    return datetime.fromisoformat(re.sub(r"\s*(UTC|GMT|z)$", "Z", spelled))


def _time_of_number(value: int | float) -> datetime:
    # Seconds up to the year 5138, milliseconds from 1973 on, then micro- and nanoseconds.
    size = abs(value)
    if not size < 1e20:
        raise ValueError
    # As an epoch these would be of the years 2572 to 2639.
    if size > 1e13 and isinstance(value, int) and _COMPACT.fullmatch(digits := str(value)):
        return _iso(f"{digits[:8]}T{digits[8:14]}.{digits[14:] or 0}")
    unit = 10**6 if size < 1e11 else 10**3 if size < 1e14 else 1 if size < 1e17 else 0
    if unit == 0:
        return from_micros(int(value) // 1000)
    if isinstance(value, int):
        return from_micros(value * unit)
    return from_micros(round(value * unit))
