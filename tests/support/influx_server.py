"""Servers that take line protocol: one of ours that checks every byte of it, and InfluxDB itself.

Ours answers the queries and deletes of a sync, of 1.x and of 2.x; the end of a range to delete is
left out in 2.x, as its documentation has it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.support.redis_server import free_port
from tests.support.requirements import need
from tests.support.strict_server import ProtocolError, Refused, Request, StrictServer
from tests.support.sync_places import COMPARED, Place, Rows

Key = tuple[str, tuple[tuple[str, str], ...], int]
"""What makes a point: measurement, tags, time."""
_INTEGER = re.compile(r"-?\d+i")
_FLOAT = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_TIMES = r"time >= (?P<a>-?\d+) AND time <= (?P<b>-?\d+)"
_NAME, _TEXT = r'"(?:[^"\\]|\\.)*"', r"'(?:[^'\\]|\\.)*'"


def parse_line(line: str) -> tuple[Key, dict[str, Any]]:
    """A point of line protocol. Raises ProtocolError."""
    head, at = _until(line, 0, " ")
    parts = _split(head, ",")
    tags = [tuple(_unescaped(x) for x in _split(part, "=")) for part in parts[1:]]
    if any(len(pair) != 2 or not all(pair) for pair in tags) or len(dict(tags)) != len(tags):  # type: ignore[arg-type]
        raise ProtocolError(f"tags of {line!r}")
    fields: dict[str, Any] = {}
    while True:
        key, at = _until(line, at + 1, "=")
        value, at = _value(line, at + 1)
        if not key or _unescaped(key) in fields:
            raise ProtocolError(f"fields of {line!r}")
        fields[_unescaped(key)] = value
        if at >= len(line) or line[at] != ",":
            break
    if not re.fullmatch(r" -?\d+", line[at:]):
        raise ProtocolError(f"the time of {line!r}")
    return (_unescaped(parts[0]), tuple(sorted(tags)), int(line[at + 1 :])), fields  # type: ignore[arg-type]


def _until(line: str, at: int, mark: str) -> tuple[str, int]:
    start = at
    while at < len(line) and line[at] != mark:
        at += 2 if line[at] == "\\" and line[at + 1 : at + 2] in (",", "=", " ") else 1
    if at >= len(line) or at == start:
        raise ProtocolError(f"no {mark!r} in {line!r}")
    return line[start:at], at


def _split(text: str, mark: str) -> list[str]:
    return re.split(rf"(?<!\\){mark}", text)


def _unescaped(text: str) -> str:
    # A backslash at the end would escape what follows it.
    if text.endswith("\\") or re.search(r"[\x00-\x1f]", text):
        raise ProtocolError(f"characters of {text!r}")
    return re.sub(r"\\([,= ])", r"\1", text)


def _value(line: str, at: int) -> tuple[Any, int]:
    if line[at : at + 1] == '"':
        match = re.compile(r'"((?:[^"\\]|\\["\\])*)"', re.DOTALL).match(line, at)
        if not match:
            raise ProtocolError(f"a text of {line!r}")
        return re.sub(r'\\(["\\])', r"\1", match[1]), match.end()
    end = min(x for x in (line.find(",", at), line.find(" ", at), len(line)) if x >= 0)
    text = line[at:end]
    if text in ("true", "false"):
        return text == "true", end
    if _INTEGER.fullmatch(text) and -(2**63) <= int(text[:-1]) < 2**63:
        return int(text[:-1]), end
    if _FLOAT.fullmatch(text):
        return float(text), end
    raise ProtocolError(f"the value {text!r} of {line!r}")


def lines_of(body: str) -> Iterator[str]:
    """Lines: a break within a text is none."""
    start, is_text, at = 0, False, 0
    while at < len(body):
        if body[at] == "\\":
            at += 1
        elif body[at] == '"':
            is_text = not is_text
        elif body[at] == "\n" and not is_text:
            yield body[start:at]
            start = at + 1
        at += 1
    if start < len(body):
        yield body[start:]


class InfluxServer(StrictServer):
    """A server with one bucket, `events`, which is a database as well."""

    def __init__(self, bytes_max: int = 1 << 25) -> None:
        self.points: dict[Key, dict[str, Any]] = {}
        self.bytes_max = bytes_max
        self.login: str | None = None
        self.is_write_only = False
        super().__init__()

    def answer(self, request: Request) -> tuple[int, bytes]:
        if request.path == "/ping":
            return 204, b""
        is_read = request.path == "/query"
        if self.login and request.headers.get("Authorization") != self.login:
            raise Refused(401, b'{"code":"unauthorized","message":"unauthorized access"}')
        if is_read and self.is_write_only:
            raise Refused(403, b'{"message":"insufficient permissions"}')
        if len(request.body) > self.bytes_max:
            raise Refused(413, b'{"error":"Request Entity Too Large"}')
        if is_read:
            assert "Content-Encoding" not in request.headers
            return 200, self._query(dict(urllib.parse.parse_qsl(request.body.decode())))
        if request.path == "/api/v2/delete":
            return self._delete_v2(request)
        options = request.options
        named = options.get("db") if request.path == "/write" else options.get("bucket")
        if request.path == "/api/v2/write":
            assert options["org"] == "acme"
        elif request.path != "/write":
            raise ProtocolError(request.path)
        if named != "events":
            raise Refused(404, b'{"error":"database not found: \\"nope\\""}')
        assert options["precision"] == "ns"
        return self._write(request)

    def _write(self, request: Request) -> tuple[int, bytes]:
        refused = ""
        for line in lines_of(request.body.decode()):
            key, fields = parse_line(line)
            known = {
                name: type(value)
                for other, each in list(self.points.items())[:50]
                if other[0] == key[0]
                for name, value in each.items()
            }
            wrong = [n for n, v in fields.items() if known.get(n, type(v)) is not type(v)]
            if wrong:
                refused = (
                    "partial write: field type conflict: input field"
                    f" '{wrong[0]}' on measurement '{key[0]}' is another type dropped=1"
                )
                continue
            # Fields of a point that is there already stay, as InfluxDB has it.
            self.points[key] = {**self.points.get(key, {}), **fields}
        if refused:
            status = 422 if "org" in request.options else 400
            raise Refused(status, json.dumps({"error": refused}).encode())
        return 204, b""

    def _delete_v2(self, request: Request) -> tuple[int, bytes]:
        assert request.options == {"org": "acme", "bucket": "events"}
        body = json.loads(request.body)
        named = dict(re.findall(r'"(\w+)"=("(?:[^"\\]|\\.)*")', body["predicate"]))
        tags = {name: json.loads(value) for name, value in named.items()}
        start, stop = _nanos(body["start"]), _nanos(body["stop"])
        self._remove(tags.pop("_measurement"), start, stop - 1, tags)
        return 204, b""

    def _remove(self, measurement: str, start: int, end: int, tags: dict[str, str]) -> None:
        for key in list(self.points):
            is_meant = key[0] == measurement and start <= key[2] <= end
            if is_meant and tags.items() <= dict(key[1]).items():
                del self.points[key]

    def _query(self, options: dict[str, str]) -> bytes:
        assert options["epoch"] == "ns"
        if options["db"] != "events":
            return b'{"results":[{"error":"database not found: nope"}]}'
        results = [self._statement(each) for each in options["q"].split("; ")]
        return json.dumps({"results": [{"series": series} for series in results]}).encode()

    def _statement(self, text: str) -> list[dict[str, Any]]:
        match = re.fullmatch(
            rf"(?:DELETE|SELECT (?P<what>\*|{_NAME}|count\({_NAME}\))) FROM (?P<from>{_NAME})"
            rf"(?: WHERE (?P<where>.*?))?(?P<group> GROUP BY (?:\*|{_NAME}))?"
            r"(?P<newest> ORDER BY time DESC)?(?: LIMIT 1)?",
            text,
        )
        if not match:
            raise ProtocolError(text)
        name = json.loads(match["from"])
        found = {
            key: fields
            for key, fields in self.points.items()
            if key[0] == name and self._holds(match["where"], key, fields)
        }
        if text.startswith("DELETE"):
            for key in found:
                del self.points[key]
            return []
        what = match["what"]
        if what.startswith("count"):
            return [{"columns": ["time", "count"], "values": [[0, len(found)]]}] if found else []
        groups: dict[Any, list[Key]] = {}
        for key in sorted(found, key=lambda k: k[2], reverse=bool(match["newest"])):
            groups.setdefault(key[1] if match["group"] else (), []).append(key)
        series = []
        for tags, keys in groups.items():
            keys = keys[:1] if text.endswith("LIMIT 1") else keys
            every = {n for key in keys for n in found[key]}
            names = sorted(every) if what == "*" else [json.loads(what)]
            values = [[key[2], *(found[key].get(n) for n in names)] for key in keys]
            # A tag that others have is there, and empty.
            others = ("type", "source", "level") if "*" in str(match["group"]) else ()
            shared = dict.fromkeys(others, "")
            row = {"columns": ["time", *names], "values": values}
            series.append({"tags": shared | dict(tags), **row})
        return series

    def _holds(self, where: str | None, key: Key, fields: dict[str, Any]) -> bool:
        for condition in where.split(" AND ") if where else ():
            match = re.fullmatch(rf"(time|{_NAME}) (=|>=|<=) (-?\d+|{_TEXT})", condition)
            if not match:
                raise ProtocolError(str(where))
            name = match[1].strip('"')
            text = match[3]
            wanted: Any = text[1:-1].replace("\\'", "'") if text[0] == "'" else int(text)
            value = key[2] if name == "time" else fields.get(name, dict(key[1]).get(name, ""))
            if not {"=": value == wanted, ">=": value >= wanted, "<=": value <= wanted}[match[2]]:
                return False
        return True


def _nanos(text: str) -> int:
    seconds, _, rest = text.removesuffix("Z").partition(".")
    moment = datetime.fromisoformat(f"{seconds}+00:00")
    whole = (moment - datetime.fromisoformat("1970-01-01T00:00:00+00:00")).total_seconds()
    return int(whole) * 10**9 + int(rest)


class RealInflux:
    """InfluxDB 1.x in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.port, rpc = free_port(), free_port()
        self.folder, self._config = folder, folder / "influxdb.conf"
        self._config.write_text(
            f'reporting-disabled = true\nbind-address = "127.0.0.1:{rpc}"\n'
            f'[meta]\ndir = "{folder}/meta"\n'
            f'[data]\ndir = "{folder}/data"\nwal-dir = "{folder}/wal"\nquery-log-enabled = false\n'
            f'[http]\nbind-address = "127.0.0.1:{self.port}"\nlog-enabled = false\n'
            "[monitor]\nstore-enabled = false\n"
        )
        self.start()
        self.ask("CREATE DATABASE events")

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._process = subprocess.Popen(
            [need("influxd"), "-config", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(10_000):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=5).close()
                return
            time.sleep(0.02)
        raise AssertionError("influxd does not start")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def ask(self, query: str) -> Any:
        body = urllib.parse.urlencode({"db": "events", "epoch": "ns", "q": query}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/query", body) as reply:
            return json.load(reply)["results"][0].get("series", [])


class InfluxPlace(Place):
    """A database, by the same strict server or by InfluxDB."""

    def __init__(self, server: Any, org: str = "") -> None:
        self.server, self.url = server, f"influxdb://127.0.0.1:{server.port}/events{org}"

    def rows(self, table: str = "events", columns: str = COMPARED) -> Rows:
        """By seq, as a query of the lake has them."""
        if isinstance(self.server, RealInflux):
            series = self.server.ask('SELECT * FROM "events"')
            found = [
                dict(zip(s["columns"], row, strict=True)) for s in series for row in s["values"]
            ]
        else:
            points = [(k, v) for k, v in self.server.points.items() if k[0] == "events"]
            found = [{**dict(key[1]), **fields} for key, fields in points]
        names = columns.split(", ")
        return sorted(tuple(each.get(name) for name in names) for each in found)


@contextlib.contextmanager
def real_influx() -> Iterator[RealInflux]:
    """A server for the tests of a module; skips where there is none."""
    need("influxd")
    folder = Path(tempfile.mkdtemp("", "lakelog-influx-", os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    server = RealInflux(folder)
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
