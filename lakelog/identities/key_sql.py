"""The SQL for the identity key of a row, which `event.identity_key` makes in Python."""

from __future__ import annotations

from lakelog.appends import StreamSubject


def id_key(row: str = "", *, of_streams: bool = False) -> str:
    """Return the identity key of a row's source and id (FORMAT.md, F13.1), where it has an id; with
    `of_streams` that of its stream and version where it has these (F13.6), NULL without any.

    `row` stands before the names, such as `j.`.
    """
    key = f"sha256(coalesce({row}source, '') || chr(0) || {row}id)[1:24]"
    if not of_streams:
        return key
    subject = f"substr({row}origin, {len(StreamSubject.ORIGIN) + 1})"
    text = f"'{StreamSubject.ORIGIN}' || sha256({subject}) || ':' || {row}position::VARCHAR"
    return (
        f"CASE WHEN starts_with({row}origin, '{StreamSubject.ORIGIN}') THEN sha256({text})[1:24]"
        f" WHEN {row}id <> '' THEN {key} END"
    )
