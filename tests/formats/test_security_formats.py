"""Events of security products and of Windows: every field, as their vendors document them."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

import lakelog
from lakelog.audit.audit import audit
from lakelog.errors import InvalidEvent
from lakelog.event import EncodedBatch
from lakelog.formats import cef, dialects, winevent
from lakelog.formats.registry import FORMATS
from lakelog.ingest.transform import Transformer
from lakelog.lines.pieces import Chunk
from tests.support.effort import share
from tests.support.samples import lines_of
from tests.support.text_facts import SHARED
from tests.support.text_lines import edited

SCHEMA = "http://schemas.microsoft.com/win/2004/08/events/event"
SYSTEM = (
    "<System><Provider Name='Microsoft-Windows-Security-Auditing' Guid='{54849625-5478}'/>"
    "<EventID>4625</EventID><Version>0</Version><Level>2</Level><Task>12544</Task>"
    "<Opcode>0</Opcode><Keywords>0x8010000000000000</Keywords>"
    "<TimeCreated SystemTime='2023-05-01T10:00:00.1234567Z'/>"
    "<EventRecordID>229977</EventRecordID><Correlation/><Execution ProcessID='516' ThreadID='007'/>"
    "<Channel>Security</Channel><Computer>DC01.example.com</Computer><Security/></System>"
)
LOGON = (
    f"<Event xmlns='{SCHEMA}'>{SYSTEM}<EventData><Data Name='TargetUserName'>a&amp;b</Data>"
    "<Data Name='LogonType'>3</Data><Data Name='Empty'></Data></EventData>"
    "<RenderingInfo Culture='en-US'><Message>An account\n\tfailed to log on.</Message>"
    "</RenderingInfo></Event>"
)
SERVICE = (
    f'<Event xmlns="{SCHEMA}">\n  <System>\n    <Provider Name="Service Control Manager">\n'
    '    </Provider>\n    <EventID Qualifiers="16384">7036</EventID>\n    <Level>4</Level>\n'
    '    <TimeCreated SystemTime="2021-03-03T12:47:27.371669Z">\n    </TimeCreated>\n'
    "    <Channel>System</Channel>\n    <Computer>WIN</Computer>\n  </System>\n  <EventData>\n"
    "    <Data>Spooler</Data>\n    <Data>running</Data>\n    <Binary></Binary>\n  </EventData>\n"
    "</Event>"
)
XML = '<?xml version="1.0" encoding="utf-8"?>'
DUMP = f"Record 1\n{XML}\n{SERVICE}\nRecord 2\n{XML}\n{SERVICE}\n"
JSON_OF_SERVICE = {
    "Event": {
        "#attributes": {"xmlns": SCHEMA},
        "System": {
            "Provider": {"#attributes": {"Name": "Service Control Manager"}},
            "EventID": {"#attributes": {"Qualifiers": 16384}, "#text": 7036},
            "Level": 4,
            "TimeCreated": {"#attributes": {"SystemTime": "2021-03-03T12:47:27.371669Z"}},
            "Channel": "System",
            "Computer": "WIN",
        },
        "EventData": {"Data": {"#text": ["Spooler", "running"]}, "Binary": None},
    }
}
DUMPED = "".join(f"Record {n}\n{json.dumps(JSON_OF_SERVICE, indent=2)}\n" for n in (1, 2))


@settings(max_examples=share(100))
@given(line=edited([*lines_of("cef"), *lines_of("leef")]))
def test_whatever_becomes_of_a_line(line: bytes) -> None:
    """A line is an event that can be stored, or is refused with a reason."""
    for form in (cef.CEF, cef.LEEF):
        try:
            EncodedBatch.of([form.parse(line)])
        except InvalidEvent:
            continue


@pytest.mark.needs("../shared")
def test_a_real_file_of_cef(lake: lakelog.Lake) -> None:
    """With and without its name, and behind a syslog header: three events, an audit agrees."""
    report = lake.ingest(str(Path(SHARED) / "services/unifi-cef__cef-logs.log"))
    assert (report.files[0].format, report.events, report.quarantined) == ("cef", 3, 0)
    rows = lake.sql(
        "SELECT time::VARCHAR, level, source, category, data->>'name', data->>'src'"
        " FROM events ORDER BY position"
    ).fetchall()
    assert [row[0][:19] for row in rows[:2]] == ["2025-09-04 08:32:58", "2025-08-30 17:53:21"]
    assert [row[1:] for row in rows] == [
        ("INFO", "UniFi Network", "544", "Admin Accessed UniFi Network", "10.72.1.222"),
        ("ERROR", "UniFi Network", "201", "Threat Detected and Blocked", "10.0.0.100"),
        ("ERROR", "UniFi Network", "201", "Threat Detected and Blocked", "198.51.100.10"),
    ]
    assert [f.wrong for f in audit(lake.store, lake.branch_name, lake.engine, []).files] == [0]


def events(engine: Any, text: str) -> list[dict[str, Any]]:
    """What a file of Windows events holds."""
    data = text.encode()
    assert FORMATS.detect(data[:4096], data, "x.xml").NAME == "winevent"
    made = Transformer(lambda: engine, winevent.FORM, "o").run(Chunk(data, 0), final=True)
    assert not made.bad, made.bad
    return list(made.table.to_pylist())


def test_every_field_of_an_event_of_windows(engine: Any) -> None:
    """As wevtutil and Get-WinEvent write it: columns, and the payload of evtx_dump's JSON."""
    (found,) = events(engine, LOGON)
    assert found["time"] == dt.datetime(2023, 5, 1, 10, 0, 0, 123456, tzinfo=dt.UTC)
    columns = ("type", "category", "level", "source", "subject", "message", "id")
    assert [found[column] for column in columns] == [
        "winevent",
        "Security",
        "ERROR",
        "Microsoft-Windows-Security-Auditing",
        "DC01.example.com",
        "An account\n\tfailed to log on.",
        None,
    ]
    body = json.loads(found["data"])["Event"]
    assert body["EventData"] == {"TargetUserName": "a&b", "LogonType": "3", "Empty": None}
    assert body["System"] == {
        "Provider": {
            "#attributes": {
                "Name": "Microsoft-Windows-Security-Auditing",
                "Guid": "{54849625-5478}",
            }
        },
        "EventID": 4625,
        "Version": 0,
        "Level": 2,
        "Task": 12544,
        "Opcode": 0,
        "Keywords": "0x8010000000000000",
        "TimeCreated": {"#attributes": {"SystemTime": "2023-05-01T10:00:00.1234567Z"}},
        "EventRecordID": 229977,
        "Correlation": None,
        "Execution": {"#attributes": {"ProcessID": 516, "ThreadID": "007"}},
        "Channel": "Security",
        "Computer": "DC01.example.com",
        "Security": None,
    }


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (f"{LOGON}\r\n{LOGON}\r\n", 2),
        (f"\ufeff{XML}\n<Events>{LOGON}{LOGON}</Events>", 2),
        (f"{XML}\n<Events>\n  {SERVICE}\n  {SERVICE}\n</Events>\n", 2),
        (DUMP, 2),
        (DUMPED, 2),
        (f"{SERVICE}\n", 1),
    ],
)
def test_exports_of_every_shape(
    lake: lakelog.Lake, tmp_path: Path, engine: Any, text: str, count: int
) -> None:
    """A line each, all in one line, over many lines, and with a line before each, XML or JSON."""
    assert len(events(engine, text)) == count
    path = tmp_path / "e.xml"
    path.write_text(text)
    report = lake.ingest(str(path))
    assert (report.files[0].format, report.events, report.quarantined) == ("winevent", count, 0)
    assert [f.wrong for f in audit(lake.store, lake.branch_name, lake.engine, []).files] == [0]


def test_xml_means_what_its_json_means() -> None:
    """An event is the same one from XML and from the JSON of evtx_dump."""
    (found,) = winevent.FORM.parse(SERVICE.encode())
    assert found == dialects.NAMED["evtx"].parse(json.dumps(JSON_OF_SERVICE).encode())
    (dumped,) = winevent.FORM.parse(DUMPED.split("Record 2")[0].encode())
    assert dumped == found


BOMB = (
    '<!DOCTYPE Event [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    + LOGON.replace("a&amp;b", "&b;")
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "text outside"),
        (LOGON.replace("a&amp;b", "&b;"), "undefined entity"),
        (LOGON[:-9], "one without end"),
        (f"words {LOGON}", "text outside"),
        (LOGON.replace("</Data>", "", 1), "not XML"),
        (LOGON.replace("<Data ", "<a>" * 100_000 + "<Data ", 1), "nested deeper than 64"),
        (LOGON.replace("EventID", "X"), "no EventID"),
        (LOGON.replace("xmlns", "\x01"), "not XML"),
        (LOGON + "\xff", "text outside"),
    ],
)
def test_xml_that_is_spoilt_or_hostile_is_refused(text: str, reason: str) -> None:
    """No entity is expanded, no depth exhausted; what is no event is quarantined with a reason."""
    with pytest.raises(InvalidEvent) as caught:
        winevent.FORM.parse(text.encode())
    assert reason in caught.value.reason


def test_a_spoilt_event_among_others_is_kept() -> None:
    """The others of its line are events, and it is one with its text as the message."""
    spoilt = LOGON.replace("</Data>", "", 1)
    first, second = winevent.FORM.parse(f"<Events>{spoilt}{LOGON}</Events>".encode())
    assert (first["message"], second["source"]) == (spoilt, "Microsoft-Windows-Security-Auditing")


def test_an_event_that_is_still_written_is_held_back(engine: Any) -> None:
    """While a file is followed an event waits for its end."""
    for end, taken in ((len(SERVICE) - 20, 0), (len(SERVICE), 1)):
        data = (SERVICE[:end] + "\n").encode()
        made = Transformer(lambda: engine, winevent.FORM, "o", mode="follow").run(Chunk(data, 0))
        assert (0 if made.table is None else made.table.num_rows) == taken
        assert not made.bad
