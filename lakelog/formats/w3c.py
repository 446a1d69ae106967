"""Extended logs of the W3C, as IIS and CloudFront write them: #Fields names the columns.

`date` and `time` are the time, in UTC; where only a time is there, #Date gives the day. A dash is
null. The level comes from sc-status. Cells in quotes may hold spaces; where there are tabs, they
divide the cells, else one space or several. Headers further down count as those of Zeek do.
"""

from __future__ import annotations

import re

from lakelog.formats import columns
from lakelog.formats.columns import DATA, Column, LineTable
from lakelog.formats.hash_headers import HashHeaders

_DAY = re.compile(r"#(?:Start-)?Date:\s*(\d{4}-\d\d-\d\d)")
_FIELDS = "#Fields:"
_NUMBERS = re.compile(
    r"[a-z]*-?(?:status|substatus|bytes|port)|time-?taken\w*|.*-len|.*win32-status"
)


def _is_log(lines: list[bytes]) -> bool:
    """Whether this is such a log: its directives come first."""
    start = lines[0].lstrip(b" ") if lines else b""
    has_fields = any(line.startswith(_FIELDS.encode()) for line in lines)
    return has_fields and start.startswith((b"#Software:", b"#Version:", b"#Fields:"))


def _table(header: list[str]) -> LineTable | None:
    """The table that the lines of a header describe."""
    fields = [line.removeprefix(_FIELDS).split() for line in header if line.startswith(_FIELDS)]
    # The last #Fields counts: a server that was restarted writes its header again.
    if not fields or not fields[-1]:
        return None
    names = columns.distinct(fields[-1])
    # IIS may log the time of day alone; the day is in the header then.
    days = [match[1] for line in header if (match := _DAY.match(line))]
    date = next((n for n in ("date", "date-local") if n in names), "")
    time = next((n for n in ("time", "time-local") if n in names), "")
    moment: tuple[str | int, ...] = ()
    if time and (date or days):
        moment = (names.index(date) if date else days[-1], "T", names.index(time), "Z")
    # What makes up the time is not repeated in the payload.
    spent = {date, time} if moment else set()
    quoted, cells = columns.quoted(" "), columns.quoted_sql(" ")
    most = len(names)
    return LineTable(
        tuple(
            Column(
                n,
                "cell" if _NUMBERS.fullmatch(n.lower()) else "text",
                "time" if n in spent else DATA,
            )
            for n in names
        ),
        # CloudFront writes tabs, IIS spaces, and fields with spaces in quotes.
        lambda text: text.split("\t") if "\t" in text else _spaced(quoted(text), most),
        "CASE WHEN contains(text, chr(9)) THEN string_split(text, chr(9))"
        f" WHEN contains(text, '  ') AND len({cells}) > {most}"
        f" THEN list_filter({cells}, lambda x: x <> '') ELSE {cells} END",
        "access",
        moment,
        names.index("sc-status") if "sc-status" in names else None,
        unset="-",
        tabs=True,
    )


def _spaced(cells: list[str], most: int) -> list[str]:
    """The cells of a line in which several spaces may stand between two, where there are more than
    names: no cell is empty."""
    return cells if len(cells) <= most else [cell for cell in cells if cell]


FORM = HashHeaders("w3c", __doc__, "#Fields", _table, _is_log)
