"""The dialects of JSON lines that are known, each declared by its members.

Audit records have no level; one that failed is an ERROR, any other INFO.
"""

from __future__ import annotations

from typing import Any

from lakelog.event.encode import encode
from lakelog.formats import jsonl
from lakelog.formats.dialect import OTEL, PINO, PYTHON, STATUS, SYSLOG, WINDOWS, Dialect
from lakelog.formats.logger_dialects import LOGGERS

_APP = ("logger", "logger_name", "caller")
_NEXTCLOUD = ((0, "DEBUG"), (1, "INFO"), (2, "WARN"), (3, "ERROR"), (4, "FATAL"), (5, ""))
_MONGODB = (
    ("F", "FATAL"),
    ("E", "ERROR"),
    ("W", "WARN"),
    ("I", "INFO"),
    ("D", "DEBUG"),
    *((f"D{n}", "DEBUG") for n in range(1, 6)),
)
_BYTE = range(256)


def _with_text(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of the journal whose message is text where it was written as a list of bytes."""
    message = entry.get("MESSAGE")
    if not isinstance(message, list) or not all(type(b) is int and b in _BYTE for b in message):
        return entry
    try:
        return entry | {"MESSAGE": bytes(message).decode("utf-8")}
    except UnicodeDecodeError:
        return entry


JOURNALD = Dialect(
    "journald",
    "The journal of systemd as `journalctl -o json` prints it.",
    fits=("__REALTIME_TIMESTAMP", "__CURSOR|_BOOT_ID|MESSAGE"),
    time=("__REALTIME_TIMESTAMP",),
    level=("PRIORITY",),
    scale=SYSLOG,
    type="journal",
    message=("MESSAGE",),
    source=("SYSLOG_IDENTIFIER", "_SYSTEMD_UNIT", "_COMM"),
    prepared=_with_text,
)
"""systemd's journal as `journalctl -o json` writes it."""
CLOUDTRAIL = Dialect(
    "cloudtrail",
    "Events of AWS CloudTrail.",
    fits=("eventName", "eventSource", "eventVersion", "awsRegion"),
    time=("eventTime", "@timestamp"),
    failure="errorCode",
    types=("eventName",),
    message=("errorMessage",),
    source=("eventSource",),
    subject=("s3/object/key",),
    id=("eventID",),
)
"""AWS CloudTrail, and notifications of S3."""
ZEEK = Dialect(
    "zeek-json",
    "Logs of Zeek written as JSON.",
    fits=("ts", "_path|@stream|id.orig_h|id_orig_h", "uid|_path|@stream"),
    time=("ts",),
    type="zeek",
    types=("_path", "@stream"),
    source=("_system_name", "@system"),
)
GELF = Dialect(
    "gelf",
    "Graylog's GELF 1.0 and 1.1.",
    fits=("version=1\\.[01]", "host", "short_message"),
    time=("timestamp",),
    level=("level",),
    scale=SYSLOG,
    message=("short_message",),
    source=("host",),
)
"""Graylog's extended format."""
BUNYAN = Dialect(
    "bunyan",
    "bunyan and pino (Node.js), with levels as numbers.",
    fits=("level=[0-9]{2}", "time", "msg", "hostname|pid|v"),
    time=("time",),
    level=("level",),
    scale=PINO,
    message=("msg",),
    source=("name", "hostname"),
)
"""bunyan and pino, whose levels are numbers from 10 to 60."""
ECS = Dialect(
    "ecs",
    "Elastic Common Schema.",
    fits=("@timestamp", "ecs.version|ecs/version|log.level|log/level"),
    time=("@timestamp",),
    level=("log.level", "log/level"),
    types=("event.action", "event/action"),
    message=("message",),
    source=("service.name", "service/name", "log.logger", "log/logger"),
)
"""Elastic's common schema, its names nested or with dots."""
GCP = Dialect(
    "gcp",
    "Google Cloud Logging entries.",
    fits=(
        "severity|insertId",
        "timestamp|receiveTimestamp|time",
        "logName|insertId|textPayload|jsonPayload|protoPayload|logging.googleapis.com/trace",
    ),
    time=("timestamp", "receiveTimestamp", "time"),
    level=("severity",),
    types=("protoPayload/methodName",),
    message=("textPayload", "jsonPayload/message", "protoPayload/status/message", "message"),
    source=("logName",),
)
"""Entries of Google Cloud's logging."""
KUBEAUDIT = Dialect(
    "kubeaudit",
    "Audit events of Kubernetes.",
    fits=("apiVersion=audit\\.k8s\\.io/.*", "auditID", "stage"),
    time=("stageTimestamp", "requestReceivedTimestamp"),
    level=("responseStatus/code",),
    scale=STATUS,
    type="audit",
    types=("verb",),
    message=("requestURI",),
    source=("user/username",),
    subject=("objectRef/name",),
)
"""Audit events of Kubernetes; their level is that of the answer's status."""
LOGSTASH = Dialect(
    "logstash",
    "Logstash's JSON encoders, with `@timestamp` and `@version`.",
    fits=("@timestamp", "@version", "message"),
    time=("@timestamp",),
    level=("level", "log.level", "severity"),
    types=("type",),
    message=("message",),
    source=("logger_name", "host", "service"),
)
"""Logstash, and logback's encoder for it."""
PYTHON_JSON = Dialect(
    "python-json",
    "JSON formatters of Python's logging (python-json-logger).",
    fits=("levelname|levelno", "message|msg", "asctime|created|timestamp|time"),
    time=("asctime", "timestamp", "time", "created"),
    level=("levelname", "levelno"),
    scale=PYTHON,
    message=("message", "msg"),
    source=("name",),
)
"""Python's logging with the names of its records."""
NEXTCLOUD = Dialect(
    "nextcloud",
    "The log of Nextcloud.",
    fits=("reqId", "level=[0-4]", "app", "message", "remoteAddr"),
    time=("time",),
    level=("level",),
    scale=_NEXTCLOUD,
    message=("message",),
    source=("app",),
)
CLOUDFLARE = Dialect(
    "cloudflare",
    "Cloudflare's HTTP request logs (Logpush).",
    fits=("RayID", "EdgeStartTimestamp", "ClientRequestHost"),
    time=("EdgeStartTimestamp",),
    level=("EdgeResponseStatus",),
    scale=STATUS,
    type="access",
    message=("ClientRequestURI",),
    source=("ClientRequestHost",),
)
GITHUB = Dialect(
    "github",
    "Events of GitHub's API and GH Archive.",
    fits=("id", "type", "actor", "repo", "created_at"),
    time=("created_at",),
    types=("type",),
    source=("repo/name",),
    subject=("actor/login",),
    id=("id",),
)
OTEL_LOG = Dialect(
    "otel-log",
    "Log records of OpenTelemetry's SDKs.",
    fits=("severity_number|severity_text", "body", "timestamp|observed_timestamp"),
    time=("timestamp", "observed_timestamp"),
    level=("severity_number", "severity_text"),
    scale=OTEL,
    message=("body",),
    source=("resource/attributes/service.name",),
)
"""Log records of OpenTelemetry as its software kits print them, a line each."""
CLOUDWATCH = Dialect(
    "cloudwatch",
    "AWS CloudWatch log events, as exported or queried.",
    fits=(
        "timestamp=[0-9]{10,13}|@timestamp",
        "message|@message",
        "ingestionTime|eventId|id=[0-9]{56}|@ptr|@logStream",
    ),
    time=("timestamp", "@timestamp"),
    message=("message", "@message"),
    source=("logGroup", "logGroupName", "@log"),
    subject=("logStream", "logStreamName", "@logStream"),
    id=("eventId", "id"),
)
"""Events of CloudWatch as its interface, its subscriptions and Insights give them."""
LAUREL = Dialect(
    "laurel",
    "Linux audit events as LAUREL writes them.",
    fits=("ID=[0-9]+\\.[0-9]+:[0-9]+",),
    time=("ID=([0-9]+\\.[0-9]+):[0-9]+",),
    level=("SYSCALL/success",),
    words=(("yes", "INFO"), ("no", "WARN")),
    type="audit",
    source=("NODE",),
    subject=("ID",),
)
"""Events of the Linux audit daemon as laurel writes them, the records of each in one object."""
_SYSTEM = "Event/System/"
EVTX = Dialect(
    "evtx",
    "Windows events converted to JSON by evtx_dump.",
    fits=(
        _SYSTEM + "EventID",
        _SYSTEM
        + "TimeCreated/#attributes/SystemTime|"
        + _SYSTEM
        + "TimeCreated_attributes/SystemTime",
    ),
    time=(
        _SYSTEM + "TimeCreated/#attributes/SystemTime",
        _SYSTEM + "TimeCreated_attributes/SystemTime",
    ),
    level=(_SYSTEM + "Level",),
    scale=WINDOWS,
    type="winevent",
    category=(_SYSTEM + "Channel",),
    message=("Event/RenderingInfo/Message",),
    source=(_SYSTEM + "Provider/#attributes/Name", _SYSTEM + "Provider_attributes/Name"),
    subject=(_SYSTEM + "Computer",),
)
"""Events of Windows as evtx_dump writes them as JSON; `category` is the channel, `subject` the
computer."""


def _webhook(name: str, about: str, body: str, types: tuple[str, ...]) -> Dialect:
    """A dialect of what GitHub sends, whose body is under a prefix: the time is that of what the
    event is about, the first that is there, and of a push that of the repository."""
    # The most specific first: a comment before its issue, repository and installation last.
    times = (
        "starred_at",
        "effective_date",
        "comment/updated_at",
        "review/submitted_at",
        "answer/updated_at",
        "issue/updated_at",
        "pull_request/updated_at",
        "discussion/updated_at",
        "check_run/completed_at",
        "check_run/started_at",
        "check_suite/updated_at",
        "workflow_job/completed_at",
        "workflow_job/started_at",
        "workflow_run/updated_at",
        "deployment_status/updated_at",
        "deployment/updated_at",
        "release/published_at",
        "package/updated_at",
        "project_card/updated_at",
        "projects_v2_item/updated_at",
        "milestone/updated_at",
        "alert/dismissed_at",
        "alert/created_at",
        "security_advisory/updated_at",
        "rule/updated_at",
        "key/created_at",
        "forkee/created_at",
        "hook/updated_at",
        # Only in a push is this an epoch and its own time; elsewhere it is ISO text, of an earlier
        # push.
        "repository/pushed_at=([0-9]{10})",
        "repository/updated_at",
        "installation/updated_at",
    )
    return Dialect(
        name,
        about,
        fits=(
            f"{body}sender/login|{body}security_advisory/ghsa_id",
            f"{body}action|{body}ref|{body}zen|{body}repository/full_name",
            "|".join(
                f"{body}{member}"
                for member in (
                    "repository/full_name",
                    "organization/login",
                    "installation/id",
                    "marketplace_purchase/account",
                    "security_advisory/ghsa_id",
                )
            ),
        ),
        time=tuple(f"{body}{member}" for member in times),
        type="webhook",
        types=types,
        category=(f"{body}action",),
        source=(f"{body}repository/full_name", f"{body}organization/login"),
        subject=(f"{body}sender/login",),
        # Thirty members that may hold the time would each be looked up in large objects.
        exact=True,
    )


WEBHOOK = _webhook("github-webhook", "Bodies of GitHub's webhooks.", "", ())
"""Bodies of GitHub's webhooks, which do not name their event."""
WEBHOOK_EVENT = _webhook(
    "github-delivery",
    "Deliveries of GitHub's webhooks, with the name of the event.",
    "payload/",
    ("event", "headers/X-GitHub-Event"),
)
"""The same under `payload`, beside the name of the event."""
MONGODB = Dialect(
    "mongodb",
    "MongoDB since 4.4.",
    fits=("t/$date", "s", "c", "id", "ctx", "msg"),
    time=("t/$date",),
    level=("s",),
    words=_MONGODB,
    message=("msg",),
    source=("c",),
)
"""MongoDB since 4.4; its `id` is that of a kind of message, which many lines share."""
GOLOG = Dialect(
    "golog",
    "Go programs: zap, logrus, slog, Caddy, Grafana.",
    fits=("level=[A-Za-z]+(?:[+-][0-9]{1,3})?", "msg", "ts|time|t=[0-9]{4}-.*"),
    time=("ts", "time", "t=([0-9]{4}-.*)"),
    level=("level",),
    message=("msg",),
    source=_APP,
)
"""Caddy and others that log with zap, logrus or slog: level, msg, and ts or time; Grafana's t."""
AUDIOBOOKSHELF = Dialect(
    "audiobookshelf",
    "audiobookshelf.",
    fits=("timestamp", "levelName=[A-Za-z]+", "source", "message"),
    time=("timestamp",),
    level=("levelName",),
    message=("message",),
    source=("source",),
)
"""audiobookshelf's daily files, whose `level` is a number of its own."""
OPEN_APPSEC = Dialect(
    "open-appsec",
    "Events of open-appsec.",
    fits=("eventTime", "eventName", "eventSeverity", "eventSource|eventData"),
    time=("eventTime",),
    level=("eventSeverity",),
    words=(("Low", "INFO"), ("Medium", "WARN"), ("High", "ERROR")),
    types=("eventName",),
    source=("eventSource/serviceName",),
)
"""open-appsec, a firewall of web applications."""
AZURE_MONITOR = Dialect(
    "azure-monitor",
    "Tables of Azure Monitor and Sentinel, exported.",
    fits=("TimeGenerated", "TenantId|SourceSystem|Computer|OperationName|Category|_ResourceId"),
    time=("time", "TimeGenerated"),  # which is kept, as all that a table has
    level=("SeverityLevel", "Level", "EventLevelName"),
    types=("EventType", "Type", "OperationName"),
    message=("Message", "SyslogMessage", "RenderedDescription", "ResultDescription"),
    source=("ProcessName", "SourceName", "Category", "Computer"),
)
"""Rows of Azure Monitor's tables, Syslog among them."""
CLEF = Dialect(
    "clef",
    "Serilog's compact JSON.",
    fits=("@t", "@mt|@m|@i|@x|@l"),
    time=("@t",),
    level=("@l",),
    message=("@m", "@mt"),
    source=("SourceContext",),
)
"""The compact log event format of Serilog; without a level it is one of information."""
POSTGRES_JSON = Dialect(
    "postgres-json",
    "PostgreSQL's jsonlog.",
    fits=("error_severity", "timestamp", "pid", "session_id|backend_type|line_num"),
    time=("timestamp",),
    level=("error_severity",),
    words=(("LOG", "INFO"), *((f"DEBUG{n}", "DEBUG") for n in range(1, 6))),
    message=("message",),
    source=("dbname",),
)
LINES = (
    JOURNALD,
    CLOUDTRAIL,
    ZEEK,
    GELF,
    BUNYAN,
    KUBEAUDIT,
    CLOUDFLARE,
    NEXTCLOUD,
    GITHUB,
    ECS,
    GCP,
    CLOUDWATCH,
    LAUREL,
    EVTX,
    WEBHOOK,
    WEBHOOK_EVENT,
    OTEL_LOG,
    MONGODB,
    PYTHON_JSON,
    LOGSTASH,
    GOLOG,
    AUDIOBOOKSHELF,
    OPEN_APPSEC,
    AZURE_MONITOR,
    CLEF,
    POSTGRES_JSON,
    *LOGGERS,
)
"""All of them; of those that fit equally well the first is taken."""


def event_of(members: dict[str, Any]) -> dict[str, Any]:
    """Return the event of an object by its dialect, or as plain JSON lines are read. Raises
    InvalidEvent."""
    dialect = next((d for d in LINES if d.is_one(members)), None)
    event = dialect.event(members) if dialect else jsonl.typed(members)
    encode([event])
    return event
