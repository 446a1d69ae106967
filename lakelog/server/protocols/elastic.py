"""Elasticsearch's _bulk, as Filebeat, rsyslog, Fluent Bit and its own clients send it.

An action line, then its document; `_id` makes a document one that is stored once, and a `delete`
is refused in its item of the answer, as events stay. Senders ask for the server's version first,
and take none without the header X-Elastic-Product; then many look for what they need to be there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from lakelog import formats
from lakelog.server.arrivals import Arrivals, RecordReader, RequestRefused, joined
from lakelog.server.bodies import require_parsable
from lakelog.server.limits import ServerLimits
from lakelog.server.protocols.protocol import Answer, IngestProtocol, IngestRequest
from lakelog.values import JsonObject

PRODUCT = {"X-Elastic-Product": "Elasticsearch"}
VERSION = "8.17.0"
"""The version whose answers these are."""
ABOUT = {
    "name": "lakelog",
    "cluster_name": "lakelog",
    "cluster_uuid": "lakelog",
    "version": {
        "number": VERSION,
        "build_flavor": "default",
        "build_type": "tar",
        "lucene_version": "9.12.0",
        "minimum_wire_compatibility_version": "7.17.0",
        "minimum_index_compatibility_version": "7.0.0",
    },
    "tagline": "You Know, for Search",
}
PROBES: dict[str, Callable[[str], JsonObject]] = {
    "/_license": lambda _: {
        "license": {"uid": "lakelog", "type": "basic", "mode": "basic", "status": "active"}
    },
    "/_index_template/{name}": lambda name: {
        "index_templates": [{"name": name, "index_template": {"index_patterns": ["*"]}}]
    },
    "/_template/{name}": lambda name: {name: {"index_patterns": ["*"]}},
    "/_data_stream/{name}": lambda name: {"data_streams": [{"name": name, "status": "GREEN"}]},
    "/_ilm/policy/{name}": lambda name: {name: {"version": 1, "policy": {"phases": {}}}},
    "/_ingest/pipeline/{name}": lambda name: {name: {"processors": []}},
}
"""What senders ask before they send, and the answers. Documents are stored as they come, whatever
the index: each template, policy and pipeline is there, and does nothing."""
IGNORED: JsonObject = {"acknowledged": False}
"""The answer to one that is put all the same: it is not kept."""
_SLICE = 4 << 20
"""Bytes of documents that are parsed before they are encoded."""
_COMPATIBLE = "application/vnd.elasticsearch+json; compatible-with=%s"


@dataclass
class BulkArrivals(Arrivals):
    """The documents of a body, and all its actions in order."""

    actions: list[formats.BulkAction] = field(default_factory=list)


class ElasticBulk(IngestProtocol):
    """The protocol; its answer has an item for each action, in order."""

    routes = ("/_bulk", "/{index}/_bulk")
    methods = ("POST", "PUT")
    is_whole = False

    def receive(self, request: IngestRequest, body: bytes) -> Arrivals:
        """Return the documents of a body."""
        if not body.strip():
            raise RequestRefused(400, "request body is required")
        # Encoded slice by slice, so that a body may be as large as one of JSON lines.
        limits = ServerLimits()
        require_parsable(body, replace(limits, document_bytes=limits.text_bytes))
        slices, size = list[tuple[int, Arrivals]](), 0
        reader, actions = RecordReader(), list[formats.BulkAction]()
        lines = (line for line in body.split(b"\n") if line.strip())
        for number, line in enumerate(lines):
            action = _action(line, request.path.get("index"))
            # Senders match items with what they sent by their places: a line that is no action has
            # one.
            actions.append(action or formats.BulkAction("index", {}))
            if action is None:
                reader.refuse(number, "not an action line", line)
            elif action.name != "delete":
                document = next(lines, None)
                if document is None:
                    reader.refuse(number, "an action without its document", line)
                else:
                    reader.read(number, document, action.event)
                    size += len(document)
            if size > _SLICE:
                slices.append((0, reader.arrivals()))
                reader, size = RecordReader(), 0
        result = joined([*slices, (0, reader.arrivals())])
        return BulkArrivals(result.encoded, result.rejects, actions)

    def answer(self, request: IngestRequest, arrivals: Arrivals) -> Answer:
        """Return an item for each action."""
        assert isinstance(arrivals, BulkArrivals)
        reasons = {record.number: record.reason for record in arrivals.rejects}
        for number, (name, _) in enumerate(arrivals.actions):
            if name == "delete":
                reasons[number] = "events are not deleted one by one"
        items = [
            {name: _item(properties, reasons.get(number))}
            for number, (name, properties) in enumerate(arrivals.actions)
        ]
        content = {"took": 1, "errors": bool(reasons), "items": items}
        return Answer(200, content, PRODUCT, _media_type(request))

    def failure(self, request: IngestRequest, status: int, reason: str) -> Answer:
        """Return an error as Elasticsearch words it."""
        error = {"type": "illegal_argument_exception", "reason": reason}
        content = {"error": {"root_cause": [error], **error}, "status": status}
        return Answer(status, content, PRODUCT, _media_type(request))


def _action(line: bytes, index: str | None) -> formats.BulkAction | None:
    action = formats.BulkAction.of(line)
    if action is None or index is None:
        return action
    return action._replace(properties={"_index": index, **action.properties})


def _item(properties: JsonObject, reason: str | None) -> JsonObject:
    document = {"_index": properties.get("_index", ""), "_id": properties.get("_id", "")}
    if reason is None:
        return {**document, "status": 201, "result": "created", "_version": 1}
    error = {"type": "document_parsing_exception", "reason": reason}
    return {**document, "status": 400, "error": error}


def _media_type(request: IngestRequest) -> str:
    accepted = request.headers.get("accept", "")
    _, _, version = accepted.partition("compatible-with=")
    number = version.partition(",")[0].strip()
    return _COMPATIBLE % number if number.isdigit() else "application/json"
