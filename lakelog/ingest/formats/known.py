"""The formats by name, and which of them a file has by how it begins.

Surer ones win; of equally sure ones the first that is named here.
"""

from __future__ import annotations

from typing import Any

from lakelog.errors import InvalidSetting
from lakelog.ingest.formats import (
    access,
    applog,
    auditd,
    bulk,
    cloudevents,
    cri,
    delimited,
    dialects,
    docker,
    documents,
    journal,
    jsonl,
    logfmt,
    logformat,
    oos,
    otlp,
    plain,
    runtime,
    syslog,
    traffic,
    w3c,
    zeek,
)

FORMATS: dict[str, Any] = {
    form.NAME: form for form in (
        cloudevents.FORM, *dialects.LINES, docker, otlp, documents.FORM, jsonl, journal.FORM,
        oos, bulk, zeek, w3c, cri, auditd, access, syslog, traffic, runtime, logfmt, applog,
        delimited, plain,
    )
}  # fmt: skip
LAST = plain.NAME
"""The last resort."""
_SNIFFED, _SAMPLE, _HEAD = 50, 1 << 18, 4096
_TABLES = (".csv", ".tsv")
"""Files of these names hold tables, even if only the header is there yet."""
_BOM = b"\xef\xbb\xbf"
_JSON = (".jsonl", ".ndjson", ".json")
"""Files of these names hold JSON, however little of it can be read."""


def named(name: str) -> Any:
    """Return the format of a name; `access:` may be followed by a LogFormat. Raises
    InvalidSetting."""
    known, colon, rest = name.partition(":")
    form = FORMATS.get(known)
    if form is not None and not colon:
        return form
    if form is access and rest:
        return access if rest in ("common", "combined") else logformat.LogFormat(rest)
    raise InvalidSetting(f"no format {name!r}: choose from {', '.join(FORMATS)}")


def told(head: bytes, data: bytes, name: str) -> Any:
    """Return the format that a file's first bytes look most like, else what comes now."""
    words = False
    for part in (head[:_HEAD], data[:_SAMPLE]):
        lines = part.removeprefix(_BOM).split(b"\n")[:_SNIFFED]
        lines = lines[:-1] if len(lines) > 1 else lines  # the last one may be cut
        sure = {form.sniff(lines): form for form in reversed(FORMATS.values())}
        best = sure[max(sure)]
        if max(sure) > 0 and best is not plain:
            return best
        words = words or best is plain
    first = (head or data)[:_HEAD].partition(b"\n")[0].decode("utf-8", "replace").rstrip("\r")
    if _ends(name, _TABLES) and delimited.is_header(first):
        return delimited
    return plain if words and not _ends(name, _JSON) else jsonl


def fitted(form: Any, head: bytes) -> Any:
    """Return a format as a file's first bytes say it is meant, where they say so."""
    return form.fitted(head) if hasattr(form, "fitted") else form


def _ends(name: str, endings: tuple[str, ...]) -> bool:
    for ending in (".gz", ".zst"):
        name = name.removesuffix(ending)
    return name.endswith(endings)
