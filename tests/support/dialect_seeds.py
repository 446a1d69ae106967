"""One or two documents of each dialect of JSON lines, which tests edit at random."""

from __future__ import annotations

from typing import Any

SEEDS: dict[str, list[dict[str, Any]]] = {
    "journald": [
        {
            "__CURSOR": "s=1;i=2",
            "__REALTIME_TIMESTAMP": "1534860261221373",
            "PRIORITY": "3",
            "SYSLOG_IDENTIFIER": "python",
            "MESSAGE": "gone",
            "_PID": "184",
            "_SYSTEMD_UNIT": "a.service",
        },
        {
            "__REALTIME_TIMESTAMP": "1534860261221373",
            "MESSAGE": [104, 105, 195, 169],
            "_COMM": "sh",
            "_BOOT_ID": "0dc8",
            "PRIORITY": "9",
        },
    ],
    "cloudtrail": [
        {
            "eventVersion": "1.08",
            "userIdentity": {"type": "IAMUser"},
            "awsRegion": "eu-west-1",
            "eventTime": "2023-04-12T11:55:16Z",
            "eventSource": "s3.amazonaws.com",
            "eventID": "8-4",
            "eventName": "ListSecrets",
            "errorCode": "AccessDenied",
            "errorMessage": "no",
            "responseElements": None,
        },
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": "us-east-1",
            "eventTime": "1970-01-01T00:00:00.000Z",
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": "b"}, "object": {"key": "a/b.gz", "size": 1024}},
        },
    ],
    "zeek-json": [
        {"ts": 1588205198.89971, "uid": "Cw1", "id.orig_h": "10.0.1.4", "_path": "conn"},
        {"@stream": "dns", "@system": "host", "ts": "2020-04-30T00:06:38.899710Z", "uid": "C2"},
    ],
    "gelf": [
        {
            "version": "1.1",
            "host": "example.org",
            "short_message": "a short one",
            "level": 5,
            "timestamp": 1385053862.3072,
            "_user_id": 9001,
            "full_message": "one\n\nmore",
        }
    ],
    "bunyan": [
        {
            "name": "myapp",
            "hostname": "b.local",
            "pid": 123,
            "level": 30,
            "msg": "hi",
            "time": "2023-03-24T14:26:16.243Z",
            "v": 0,
        },
        {
            "level": 50,
            "time": 1531171074631,
            "msg": "hello",
            "pid": 657,
            "hostname": "D.local",
            "err": {"type": "Error", "stack": "x"},
        },
    ],
    "kubeaudit": [
        {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Request",
            "auditID": "57a",
            "stage": "ResponseComplete",
            "requestURI": "/api",
            "verb": "create",
            "user": {"username": "u"},
            "objectRef": {"name": "pod-1"},
            "responseStatus": {"code": 403},
            "requestReceivedTimestamp": "2023-05-17T15:08:22.763960Z",
            "stageTimestamp": "2023-05-17T15:08:23.1Z",
        }
    ],
    "cloudflare": [
        {
            "ClientIP": "1.2.3.4",
            "ClientRequestHost": "a.example",
            "ClientRequestURI": "/x",
            "EdgeStartTimestamp": 1712790000100000000,
            "EdgeResponseStatus": 503,
            "RayID": "8",
        }
    ],
    "nextcloud": [
        {
            "reqId": "U1",
            "level": 2,
            "time": "2022-01-16T15:42:37+00:00",
            "remoteAddr": "::1",
            "user": "--",
            "app": "core",
            "message": "Login failed: x",
        }
    ],
    "github": [
        {
            "id": "345",
            "type": "PushEvent",
            "actor": {"id": 6, "login": "me"},
            "repo": {"id": 1, "name": "me/it"},
            "payload": {},
            "created_at": "2024-01-01T10:00:00Z",
        }
    ],
    "ecs": [
        {
            "@timestamp": "2025-01-13T09:58:13.631Z",
            "log.level": "debug",
            "message": "m 39",
            "ecs.version": "1.6.0",
            "log": {"logger": "app", "original": "m"},
            "process": {"pid": 9},
        },
        {
            "@timestamp": "2025-01-13T09:58:13.631Z",
            "log": {"level": "WARNING"},
            "message": "m",
            "ecs": {"version": "8.0"},
            "service": {"name": "shop"},
            "event": {"action": "buy"},
        },
    ],
    "gcp": [
        {
            "severity": "NOTICE",
            "timestamp": "2024-01-01T10:00:00.123456789Z",
            "insertId": "x1",
            "jsonPayload": {"message": "inside", "a": 1},
            "logName": "projects/p/logs/l",
        },
        {
            "severity": "CRITICAL",
            "receiveTimestamp": "2024-01-01T10:00:00Z",
            "insertId": "x2",
            "textPayload": "text",
            "resource": {"type": "gce"},
        },
        {
            "timestamp": "2024-01-01T10:00:00Z",
            "insertId": "x3",
            "textPayload": "no severity",
            "logName": "projects/p/logs/l",
            "receiveTimestamp": "2024-01-01T10:00:01Z",
        },
    ],
    "cloudwatch": [
        {
            "timestamp": 1396035378988,
            "message": "START RequestId: 8",
            "ingestionTime": 1396035394997,
            "logStreamName": "2014/03/28/[1]ab",
            "eventId": "3" * 56,
        },
        {
            "id": "3" * 56,
            "timestamp": 1510109208016,
            "message": "[ERROR] no",
            "owner": "1234",
            "messageType": "DATA_MESSAGE",
            "logGroup": "/aws/lambda/f",
            "logStream": "s",
        },
        {
            "@timestamp": "2023-05-01 10:00:00.123",
            "@message": "hi",
            "@log": "1234:/g",
            "@logStream": "s",
            "@ptr": "Cm8KJg",
        },
    ],
    "laurel": [
        {
            "ID": "1688052525.815:33152",
            "NODE": "h",
            "SYSCALL": {
                "arch": "0xc000003e",
                "syscall": 59,
                "success": "yes",
                "uid": 1000,
                "SYSCALL": "execve",
                "UID": "vagrant",
            },
            "PROCTITLE": {"ARGV": ["base64", "-d"]},
        },
        {"ID": "1688052526.001:33153", "SYSCALL": {"syscall": 2, "success": "no", "exit": -13}},
        {"ID": "1688052527.002:33154", "USER_LOGIN": {"pid": 7, "res": "failed"}},
    ],
    "evtx": [
        {
            "Event": {
                "#attributes": {"xmlns": "http://schemas.microsoft.com/win/2004/08/events/event"},
                "System": {
                    "Provider": {"#attributes": {"Name": "Microsoft-Windows-Security-Auditing"}},
                    "EventID": 4625,
                    "Version": 0,
                    "Level": 0,
                    "Keywords": "0x8010000000000000",
                    "TimeCreated": {"#attributes": {"SystemTime": "2021-03-03T12:47:27.371669Z"}},
                    "EventRecordID": 16,
                    "Correlation": None,
                    "Execution": {"#attributes": {"ProcessID": 632, "ThreadID": 6404}},
                    "Channel": "Security",
                    "Computer": "dc01.example.com",
                    "Security": None,
                },
                "EventData": {"TargetUserName": "alice", "LogonType": 3},
            }
        },
        {
            "Event": {
                "System": {
                    "Provider_attributes": {"Name": "Service Control Manager"},
                    "EventID": 7036,
                    "EventID_attributes": {"Qualifiers": 16384},
                    "Level": 2,
                    "Channel": "System",
                    "TimeCreated_attributes": {"SystemTime": "2021-03-03T12:47:28Z"},
                }
            }
        },
    ],
    "github-webhook": [
        {
            "action": "created",
            "issue": {"number": 1, "updated_at": "2019-05-15T15:20:18Z"},
            "comment": {"id": 4, "updated_at": "2019-05-15T15:20:21Z"},
            "sender": {"login": "me"},
            "repository": {
                "id": 1,
                "full_name": "me/it",
                "pushed_at": "2019-05-15T15:20:20Z",
                "updated_at": "2019-05-15T15:19:27Z",
            },
        },
        {
            "ref": "refs/heads/main",
            "before": "6113",
            "after": "0000",
            "head_commit": None,
            "sender": {"login": "me"},
            "repository": {
                "full_name": "me/it",
                "pushed_at": 1557933657,
                "updated_at": "2019-05-15T15:20:41Z",
            },
        },
    ],
    "github-delivery": [
        {
            "event": "star",
            "file": "x",
            "payload": {
                "action": "created",
                "starred_at": "2019-05-15T15:20:40Z",
                "sender": {"login": "me"},
                "repository": {"full_name": "me/it", "updated_at": "2019-05-15T15:20:30Z"},
            },
        },
        {
            "headers": {"X-GitHub-Event": "membership"},
            "payload": {
                "action": "added",
                "sender": {"login": "me"},
                "organization": {"login": "us"},
                "installation": {"id": 5, "updated_at": 1557933591},
            },
        },
    ],
    "otel-log": [
        {
            "body": "hello",
            "severity_number": 13,
            "severity_text": "WARN",
            "attributes": {"a": 1},
            "timestamp": "2024-01-01T10:00:00.000000Z",
            "trace_id": "0x1",
            "resource": {"attributes": {"service.name": "shop"}, "schema_url": ""},
        }
    ],
    "mongodb": [
        {
            "t": {"$date": "2025-07-12T00:14:12.837+02:00"},
            "s": "W",
            "c": "NETWORK",
            "id": 22943,
            "ctx": "listener",
            "msg": "Connection accepted",
            "attr": {"n": 1},
        },
        {
            "t": {"$date": "2025-07-12T00:14:12.837Z"},
            "s": "D2",
            "c": "-",
            "id": 1,
            "ctx": "main",
            "msg": "x",
        },
    ],
    "python-json": [
        {
            "asctime": "2023-01-31 15:09:23,351",
            "name": "api.server",
            "levelname": "WARNING",
            "message": "who?",
            "funcName": "f",
        },
        {"created": 1675177763.351, "name": "a", "levelno": 40, "msg": "bad"},
    ],
    "logstash": [
        {
            "@timestamp": "2024-01-01T10:00:00.000+01:00",
            "@version": "1",
            "message": "m",
            "level": "ERROR",
            "logger_name": "a.b.C",
            "level_value": 40000,
            "stack_trace": "x",
        }
    ],
    "golog": [
        {
            "level": "error",
            "ts": 1711741827.9626286,
            "logger": "http.log.access.log0",
            "msg": "handled request",
            "status": 401,
            "duration": 0.000033987,
        },
        {
            "level": "warning",
            "msg": "slow",
            "time": "2024-05-01T10:00:00+02:00",
            "caller": "a.go:1",
        },
    ],
    "audiobookshelf": [
        {
            "timestamp": "2024-11-13 11:03:31.784",
            "source": "Auth.js:888",
            "message": "[Auth] no",
            "levelName": "ERROR",
            "level": 4,
        }
    ],
    "open-appsec": [
        {
            "eventTime": "2023-04-03T10:02:24.702",
            "eventName": "Web Request",
            "eventSeverity": "High",
            "eventPriority": "High",
            "eventLogLevel": "info",
            "eventSource": {"serviceName": "HTTP", "assetId": "Any"},
            "eventData": {"logIndex": 5},
        }
    ],
    "azure-monitor": [
        {
            "TenantId": "t",
            "SourceSystem": "Linux",
            "TimeGenerated": "2022-05-11T18:10:21.997Z",
            "Computer": "U5",
            "Facility": "user",
            "SeverityLevel": "warning",
            "SyslogMessage": "m",
            "EventType": "AUOMS_EXECVE",
            "ProcessName": "sshd",
        },
        {
            "TimeGenerated": "2022-05-11T18:10:21.9970123Z",
            "OperationName": "Sign-in",
            "Level": "Informational",
            "Category": "SignInLogs",
            "ResultDescription": "ok",
        },
    ],
    "clef": [
        {
            "@t": "2016-06-07T03:44:57.8532799Z",
            "@mt": "Hello, {User}",
            "@l": "Warning",
            "User": "nblumhardt",
            "SourceContext": "App.Main",
        },
        {"@t": "2016-06-07T03:44:57Z", "@m": "Hello", "@i": "7a8b9c0d"},
    ],
    "postgres-json": [
        {
            "timestamp": "2024-01-01T10:00:00.123Z",
            "user": "u",
            "dbname": "db",
            "pid": 7,
            "session_id": "65f0.7b",
            "line_num": 1,
            "error_severity": "ERROR",
            "state_code": "42P01",
            "message": "no relation",
            "statement": "select",
            "query_id": 0,
        },
        {
            "timestamp": "2024-01-01T10:00:00.123Z",
            "pid": 7,
            "backend_type": "checkpointer",
            "error_severity": "LOG",
            "message": "checkpoint starting",
        },
    ],
    "severity-json": [
        {
            "severity": "WARN",
            "time": "2024-01-01T10:00:00.123Z",
            "correlation_id": "c",
            "message": "slow",
            "service": "web",
        },
        {"severity": "critical", "ts": 1704103200.5, "msg": "gone", "logger": "a.b"},
    ],
    "dotnet-json": [
        {
            "Timestamp": "2023-10-11T22:14:15.1230000+02:00",
            "Level": "Error",
            "MessageTemplate": "no {User}",
            "RenderedMessage": "no Ada",
            "Properties": {"User": "Ada", "SourceContext": "Shop.Pay"},
        },
        {
            "Timestamp": "2023-10-11 22:14:15 ",
            "EventId": 14,
            "LogLevel": "Information",
            "Category": "Microsoft.Hosting.Lifetime",
            "Message": "Now listening",
            "State": {"address": "http://a"},
        },
    ],
    "log4j-json": [
        {
            "instant": {"epochSecond": 1493121664, "nanoOfSecond": 118000000},
            "thread": "main",
            "level": "INFO",
            "loggerName": "a.B",
            "message": "Hello",
            "endOfBatch": False,
        },
        {"timeMillis": 1493121664118, "thread": "main", "level": "WARN", "message": "late"},
    ],
    "zap-development": [
        {"L": "DPANIC", "T": "2023-10-11T22:14:15.123+0200", "C": "a/b.go:7", "M": "odd", "k": 1},
        {"L": "WARN", "T": "2023-10-11T22:14:15.123Z", "N": "http", "C": "a.go:1", "M": "slow"},
    ],
    "structlog": [
        {
            "event": "request 7 done in 3 ms",
            "level": "info",
            "logger": "app",
            "timestamp": "2023-10-11T22:14:15Z",
            "n": 7,
        },
        {"event": "it failed", "log_level": "error", "ts": 1697062455.5, "exception": "E: x"},
    ],
    "log15": [
        {"t": "2023-10-11T22:14:15Z", "lvl": "eror", "msg": "failed", "n": 7},
        {"ts": "2023-10-11T22:14:15Z", "lvl": "WARN", "msg": "late", "logger": "com.example"},
    ],
}
