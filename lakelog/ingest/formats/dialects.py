"""The dialects of JSON lines that are known, each declared by its members.

Audit records have no level; one that failed is an ERROR, any other INFO.
"""

from __future__ import annotations

from typing import Any

from lakelog.ingest.formats.dialect import OTEL, PINO, PYTHON, STATUS, SYSLOG, Dialect

_APP = ("logger", "logger_name", "caller")
_NEXTCLOUD = ((0, "DEBUG"), (1, "INFO"), (2, "WARN"), (3, "ERROR"), (4, "FATAL"), (5, ""))
_BYTE = range(256)


def _with_text(found: dict[str, Any]) -> dict[str, Any]:
    """An entry of the journal whose message is text where it was written as a list of bytes."""
    message = found.get("MESSAGE")
    if not isinstance(message, list) or not all(type(b) is int and b in _BYTE for b in message):
        return found
    try:
        return found | {"MESSAGE": bytes(message).decode("utf-8")}
    except UnicodeDecodeError:
        return found


JOURNALD = Dialect(
    "journald",
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
    fits=("ts", "_path|@stream|id.orig_h|id_orig_h", "uid|_path|@stream"),
    time=("ts",),
    type="zeek",
    types=("_path", "@stream"),
    source=("_system_name", "@system"),
)
GELF = Dialect(
    "gelf",
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
    fits=("severity", "timestamp|receiveTimestamp|time", "logName|insertId|textPayload|jsonPayload|"
          "protoPayload|logging.googleapis.com/trace"),
    time=("timestamp", "receiveTimestamp", "time"),
    level=("severity",),
    types=("protoPayload/methodName",),
    message=("textPayload", "jsonPayload/message", "protoPayload/status/message", "message"),
    source=("logName",),
)  # fmt: skip
"""Entries of Google Cloud's logging."""
KUBEAUDIT = Dialect(
    "kubeaudit",
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
    fits=("reqId", "level=[0-4]", "app", "message", "remoteAddr"),
    time=("time",),
    level=("level",),
    scale=_NEXTCLOUD,
    message=("message",),
    source=("app",),
)
CLOUDFLARE = Dialect(
    "cloudflare",
    fits=("RayID", "EdgeStartTimestamp", "ClientRequestHost"),
    time=("EdgeStartTimestamp",),
    level=("EdgeResponseStatus",),
    scale=STATUS,
    type="access",
    message=("ClientRequestURI",),
    source=("ClientRequestHost",),
)
"""Requests as Cloudflare pushes them."""
GITHUB = Dialect(
    "github",
    fits=("id", "type", "actor", "repo", "created_at"),
    time=("created_at",),
    types=("type",),
    source=("repo/name",),
    subject=("actor/login",),
    id=("id",),
)
"""Events of GitHub's archive."""
OTEL_LOG = Dialect(
    "otel-log",
    fits=("severity_number|severity_text", "body", "timestamp|observed_timestamp"),
    time=("timestamp", "observed_timestamp"),
    level=("severity_number", "severity_text"),
    scale=OTEL,
    message=("body",),
    source=("resource/attributes/service.name",),
)
"""Log records of OpenTelemetry as its software kits print them, a line each."""
GOLOG = Dialect(
    "golog",
    fits=("level=[A-Za-z]+", "msg", "ts|time"),
    time=("ts", "time"),
    level=("level",),
    message=("msg",),
    source=_APP,
)
"""Caddy and others that log with zap, logrus or slog: level, msg, and ts or time."""
LINES = (
    JOURNALD, CLOUDTRAIL, ZEEK, GELF, BUNYAN, KUBEAUDIT, CLOUDFLARE, NEXTCLOUD, GITHUB, ECS, GCP,
    OTEL_LOG, PYTHON_JSON, LOGSTASH, GOLOG,
)  # fmt: skip
"""All of them; of those that fit equally well the first is taken."""
