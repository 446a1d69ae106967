"""Levels: six severities, by whatever name a system has for them, and levels of a program's own."""

from __future__ import annotations

import re

from lakelog.values import JsonObject

_SEVERITIES = {
    "TRACE": "TRACE VERBOSE FINEST",
    "DEBUG": "DEBUG DBUG FINE",
    "INFO": "INFO INFORMATION INFORMATIONAL NOTICE",
    "WARN": "WARN WARNING",
    "ERROR": "ERROR ERR EROR SEVERE",
    "FATAL": "FATAL CRITICAL CRIT ALERT EMERG EMERGENCY PANIC DPANIC",
}
"""The six, the least severe first, with their names in other systems."""
_SEVERITY_OF = {name: severity for severity, names in _SEVERITIES.items() for name in names.split()}
_OFFSET = re.compile(r"(DEBUG|INFO|WARN|ERROR)[+-][0-9]{1,3}")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,23}")
"""What names a level that is no known severity."""


class Severity:
    """Names of levels, and the six severities they stand for."""

    ALL = tuple(_SEVERITIES)
    """The six, the least severe first."""

    @staticmethod
    def of(level: str) -> str | None:
        """Return the severity that a level's name stands for, None if it is not known."""
        return _SEVERITY_OF.get(level.strip().upper())

    @staticmethod
    def without_offset(word: str) -> str:
        """Return the name of a level without the number of Go's slog behind it (`ERROR+2`)."""
        match = _OFFSET.fullmatch(word)
        return match[1] if match else word

    @staticmethod
    def with_word(event: JsonObject, word: str) -> JsonObject:
        """Return an event whose payload has the word for its level as `level`, where that is
        another than the severity it stands for, in more than its case, or stands for none; a
        `level` of the payload stays."""
        name, data = Severity.of(event["level"]) if "level" in event else "", event.get("data")
        if name is None or word.strip().upper() == name:
            return event
        if data is None or (isinstance(data, dict) and "level" not in data):
            event["data"] = {**(data or {}), "level": word}
        return event

    @staticmethod
    def level_of(name: str) -> str | None:
        """Return a severity, or a level's own name in capitals if it is a word; None for other
        text."""
        own_name = name.strip().upper() if _WORD.fullmatch(name.strip()) else None
        return Severity.of(name) or own_name
