"""Records of the Linux audit daemon: type=KIND msg=audit(SECONDS:SERIAL): pairs.

The type is the record's; all records of one event share their `subject`, SECONDS:SERIAL. The
pairs go into `data` as text, those within msg='…' and those that were translated (after a group
separator) too; values that are hexadecimal stay so. Words that are no pairs are the message. What
has failed (res, success) is a warning. Records that `ausearch -i` interpreted are read, too.
"""

from __future__ import annotations

import re

from lakelog.errors import InvalidEvent
from lakelog.formats import leading_times, pattern
from lakelog.formats.format import EventMembers, Format, Traits
from lakelog.formats.sqltext import IN_RANGE, time_sql
from lakelog.sql import literal
from lakelog.values import parse_time

_TYPE = r"(?:node=([^ ]+) )?type=([A-Z][A-Z0-9_]*|UNKNOWN\[\d+\])"
_HEAD = _TYPE + r" msg=audit\((\d{1,11}\.\d{1,6}):(\d{1,18})\):[ \x1d]*"
_INTERPRETED = re.compile(_TYPE + r" msg=audit\(([^()]{8,40}):(\d{1,18})\) : *", re.ASCII)
"""How `ausearch -i` writes a record, with a date and a clock."""
_INTERPRETED_PAIR = r" ([A-Za-z0-9_.-]+)=(.*?)(?= [A-Za-z0-9_.-]+=| *$)"
"""A pair of such a record, whose value may hold blanks."""
_NAMES = ["node", "kind", "stamp", "serial"]
_KEY = r"[A-Za-z0-9_.:-]+"
_VALUE = r"""(?:"[^"]*"|[^ \x1d"'=][^ \x1d"']*|)"""
_PAIRS = rf"(?:{_KEY}={_VALUE}(?:[ \x1d]+{_KEY}={_VALUE})*[ \x1d]*)?"
_PAIR = rf"({_KEY})=({_VALUE})"
_WITHIN = "msg='([^']*)'"
_FAILED = {"res": ("failed", "0"), "success": ("no",)}


class AuditRecords(Format):
    """The format of the records of auditd."""

    NAME = "auditd"
    traits = Traits(by_line=True)

    def sniff(self, lines: list[bytes]) -> float:
        """Return how likely it is (0 to 1) that these are records of auditd."""
        return pattern.timed_share(lines, self.parse)

    def parse(self, line: bytes) -> EventMembers:
        """Return the event of one record. Raises InvalidEvent."""
        record = pattern.decoded(line)
        head = re.match(_HEAD, record, re.ASCII)
        if not head:
            return _interpreted(record)
        node, record_type, stamp, serial = head.groups()
        # User-space records nest their own pairs in msg='…'; unquoted they are found like others.
        pairs_text = re.sub(_WITHIN, r"\1", record[head.end() :])
        # Up to Linux 2.6 the kernel says that a record is one of user space.
        pairs_text = re.sub(r"^ ?user(?= pid=)", "", pairs_text)
        event: EventMembers = {"time": stamp, "type": record_type, "subject": f"{stamp}:{serial}"}
        parse_time(stamp)
        if node:
            event["source"] = node
        data: dict[str, str] = {}
        repeats: dict[str, int] = {}
        message_parts, end = [], 0
        for pair in re.finditer(rf"(?:^|(?<=[ \x1d])){_PAIR}(?=[ \x1d]|$)", pairs_text, re.ASCII):
            key, value = pair.groups()
            message_parts.append(pairs_text[end : pair.start()])
            end = pair.end()
            repeats[key] = repeats.get(key, 0) + 1
            # A record may repeat a key; each value is kept under a name of its own.
            name = key if repeats[key] == 1 else f"{key}_{repeats[key]}"
            # The numbered name may be a key of the record itself.
            while name in data:
                name += "_"
            data[name] = value[1:-1] if value.startswith('"') else value
        message = " ".join(
            " ".join([*message_parts, pairs_text[end:]]).replace("\x1d", " ").split()
        )
        if message:
            event["message"] = message
        return event | _graded(data)

    def _query(self) -> str:
        failed = " OR ".join(
            f"coalesce(pairs['{key}'] IN ({', '.join(map(literal, values))}), false)"
            for key, values in _FAILED.items()
        )
        # A record without a result has no level at all.
        graded = " OR ".join(f"pairs['{key}'] IS NOT NULL" for key in _FAILED)
        # The head is matched twice, for its groups and as a whole: its length says where the pairs
        # begin.
        head = literal("^" + _HEAD)
        return f"""
WITH trimmed AS (SELECT {pattern.TRIMMED} AS text, position FROM lines),
headed AS (SELECT position, text, regexp_extract(text, {head}, {_NAMES}) AS h,
             regexp_extract(text, {head}, 0) AS head FROM trimmed),
bare AS (SELECT position, h,
           regexp_replace(substr(text, length(head) + 1), {literal(_WITHIN)}, '\\1', 'g') AS rest
           FROM headed WHERE head <> ''),
cut AS (SELECT position, h, regexp_extract_all(rest, {literal(_PAIR)}, 1) AS keys,
          regexp_extract_all(rest, {literal(_PAIR)}, 2) AS quoted
        FROM bare WHERE regexp_full_match(rest, {literal(_PAIRS)})),
paired AS (SELECT position, h, map_from_entries(list_zip(keys, list_transform(quoted,
             lambda v: CASE WHEN starts_with(v, '"') THEN v[2:-2] ELSE v END))) AS pairs
           FROM cut WHERE len(keys) = len(quoted) AND len(keys) = list_unique(keys)),
timed AS (SELECT *, {time_sql("h.stamp")} AS time FROM paired)
SELECT time, h.kind AS type, NULL::VARCHAR AS category, nullif(h.node, '') AS source,
  h.stamp || ':' || h.serial AS subject,
  CASE WHEN {failed} THEN 'WARN' WHEN {graded} THEN 'INFO' END AS level,
  NULL::VARCHAR AS message,
  CASE WHEN cardinality(pairs) > 0 THEN to_json(pairs)::VARCHAR END AS data,
  NULL::VARCHAR AS id, position, NOT coalesce({IN_RANGE}, false) AS slow
FROM timed"""


FORM = AuditRecords(__doc__)


def _interpreted(record: str) -> EventMembers:
    """The event of a record with words for its numbers. Raises InvalidEvent."""
    head = _INTERPRETED.match(record)
    moment = leading_times.whole(head[3]) if head else None
    if head is None or moment is None:
        raise InvalidEvent("not an auditd record")
    pairs_text = " " + re.sub(_WITHIN, r"\1", record[head.end() :])
    pairs = re.finditer(_INTERPRETED_PAIR, pairs_text, re.ASCII)
    data = {match[1]: match[2].strip('"') for match in pairs}
    event: EventMembers = {"time": moment.iso, "type": head[2], "subject": f"{head[3]}:{head[4]}"}
    if message := re.sub(_INTERPRETED_PAIR, "", pairs_text, flags=re.ASCII).strip():
        event["message"] = message
    return event | ({"source": head[1]} if head[1] else {}) | _graded(data)


def _graded(data: dict[str, str]) -> EventMembers:
    """The payload of a record, and the level that its result gives."""
    if not data:
        return {}
    if not data.keys() & _FAILED.keys():
        return {"data": data}
    failed = any(data.get(key) in values for key, values in _FAILED.items())
    return {"data": data, "level": "WARN" if failed else "INFO"}
