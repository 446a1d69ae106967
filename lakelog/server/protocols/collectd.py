"""collectd's write_http plugin with `Format "JSON"`: an array of readings.

A reading is an event of the type `metric`: its host is the source, `plugin-instance/type-instance`
as in collectd's own names the subject, and its values are in `data.values` by the names that their
data set gives them (collectd.org/documentation, write_http; types.db).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from lakelog.errors import InvalidEvent
from lakelog.formats import EventMembers
from lakelog.server.arrivals import Arrivals, RecordReader, RequestRefused
from lakelog.server.protocols.protocol import Answer, IngestProtocol, IngestRequest, counts
from lakelog.values import JsonObject, parse_value

_NAMES = ("plugin", "plugin_instance", "type", "type_instance", "interval", "meta")


class CollectdWrite(IngestProtocol):
    """The protocol, at /collectd."""

    routes = ("/collectd",)

    def receive(self, request: IngestRequest, body: bytes) -> Arrivals:
        """Return the readings of a body."""
        try:
            values = parse_value(body) if body.strip() else None
        except InvalidEvent as error:
            raise RequestRefused(400, error.reason) from None
        if not isinstance(values, list):
            raise RequestRefused(400, 'a body is an array of readings: set Format "JSON"')
        reader = RecordReader()
        for number, reading in enumerate(values):
            reader.read(number, reading, _event)
        return reader.arrivals()

    def answer(self, request: IngestRequest, arrivals: Arrivals) -> Answer:
        """Counts. collectd sends what is answered with an error once more, so there is none."""
        return Answer(200, counts(arrivals))


def _event(reading: Any) -> EventMembers:
    """Return the event of a reading. Raises InvalidEvent."""
    if not isinstance(reading, dict) or not isinstance(reading.get("values"), list):
        raise InvalidEvent("a reading has values")
    values, names = reading["values"], reading.get("dsnames")
    if not isinstance(names, list) or len(names) != len(values):
        raise InvalidEvent("a reading has as many dsnames as values")
    data: JsonObject = {name: reading[name] for name in _NAMES if reading.get(name)}
    data["values"] = dict(zip(map(str, names), values, strict=True))
    if types := reading.get("dstypes"):
        data["dstypes"] = types
    event: EventMembers = {"type": "metric", "source": str(reading.get("host") or "collectd")}
    pairs = (("plugin", "plugin_instance"), ("type", "type_instance"))
    subjects = ("-".join(str(reading[n]) for n in pair if reading.get(n)) for pair in pairs)
    event["subject"] = "/".join(filter(None, subjects))
    if (moment := reading.get("time")) is not None:
        try:
            event["time"] = datetime.fromtimestamp(float(moment), UTC).isoformat()
        except (TypeError, ValueError, OverflowError, OSError):
            raise InvalidEvent(f"not a time in seconds: {moment!r:.40}") from None
    return event | {"data": data}
