"""Plans of syncs: what a file of TOML asks for, and addresses that may stand where others read.

every = "5s"                      # of all that name no other

[[sync]]
target = "postgresql://app@db/logs"
table = "errors"
query = "SELECT time, message FROM events WHERE level = 'ERROR'"
on_error = "quarantine"
columns = { message = "varchar(500)" }
"""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lakelog.errors import InvalidSetting
from lakelog.runtime.closest import did_you_mean
from lakelog.settings import span_us
from lakelog.sync.databases.database_files import DuckdbTarget, SqliteTarget
from lakelog.sync.databases.mysql import MysqlTarget
from lakelog.sync.databases.postgres import PostgresTarget
from lakelog.sync.services.elasticsearch import ElasticsearchTarget
from lakelog.sync.services.influxdb import InfluxTarget
from lakelog.sync.services.kafka_sink import KafkaTarget
from lakelog.sync.target import SyncTarget

_VARIABLES = {
    "postgres": "PGPASSWORD",
    "mysql": "MYSQL_PWD",
    "mariadb": "MYSQL_PWD",
    "elasticsearch": "ELASTICSEARCH_PASSWORD",
    "opensearch": "ELASTICSEARCH_PASSWORD",
    "influxdb": "INFLUX_PASSWORD",
    "kafka": "KAFKA_SASL_PASSWORD",
}
_SECRET = re.compile(r"(?i)(?:ssl)?password|token|[\w.]*secret[\w.]*")
_URL = re.compile(r"(?s)([a-z][\w+.-]*)://([^/?#]*)([^?#]*)(?:\?(.*))?")


@dataclass(frozen=True)
class SyncPlan:
    """One target and how it is synced; `every` is in seconds."""

    target: str
    table: str | None = None
    query: str | None = None
    mode: str = "upsert"
    on_rewind: str = "propagate"
    on_error: str = "stop"
    batch_rows: int | None = None
    every: float = 1.0
    columns: dict[str, str] = dataclasses.field(default_factory=dict)

    @staticmethod
    def read_all(path: str) -> list[SyncPlan]:
        """Return the plans of a file. Raises InvalidSetting, which repeats no address; OSError."""
        with open(path, "rb") as file:
            try:
                document = tomllib.load(file)
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise InvalidSetting(f"{path}: {error}") from None
        # `every` may stand once for all; what is left over is a spelling mistake.
        every = document.pop("every", "1s")
        tables = document.pop("sync", [])
        if document or not isinstance(tables, list) or not tables:
            raise InvalidSetting(f"{path}: it has `every` and tables [[sync]], and nothing else")
        return [_plan(f"{path}, sync {n}", {"every": every} | t) for n, t in enumerate(tables, 1)]

    def public_target(self) -> tuple[str, str]:
        """Return the target without its secrets, and the variable that the password may come from.

        The path of a file becomes absolute. Raises InvalidSetting.
        """
        return _public(self.target)


_KINDS: dict[str, type] = {
    **dict.fromkeys(("target", "table", "query", "mode", "on_rewind", "on_error", "every"), str),
    "batch_rows": int,
    "columns": dict,
}


def _public(url: str) -> tuple[str, str]:
    target_of(url)
    scheme, _, location = url.partition(":")
    match = _URL.fullmatch(url)
    if scheme in ("sqlite", "duckdb") or match is None:
        path = location[3:] if location.startswith("///") else location
        return f"{scheme}:{os.path.abspath(path)}", ""
    userinfo, separator, hosts = match[2].rpartition("@")
    # Options stay, but for those that hold secrets: a unit file is readable by everybody.
    options = [o for o in (match[4] or "").split("&") if not _SECRET.fullmatch(o.split("=")[0])]
    suffix = f"?{'&'.join(options)}" if any(options) else ""
    public_url = f"{match[1]}://{userinfo.partition(':')[0]}{separator}{hosts}{match[3]}{suffix}"
    variables = (name for start, name in _VARIABLES.items() if scheme.startswith(start))
    return public_url, next(variables, "")


def _plan(place: str, values: dict[str, Any]) -> SyncPlan:
    for name, value in values.items():
        if name not in _KINDS:
            hint = did_you_mean(name, list(_KINDS)) or f"it is one of {', '.join(_KINDS)}"
            raise InvalidSetting(f"{place}: there is no setting {name!r}: {hint}")
        if not isinstance(value, _KINDS[name]) or isinstance(value, bool):
            raise InvalidSetting(f"{place}: {name} is {_KINDS[name].__name__} in TOML")
        if isinstance(value, dict) and not all(isinstance(t, str) for t in value.values()):
            raise InvalidSetting(f'{place}: {name} is a table such as {{ data = "jsonb" }}')
    if not values.get("target"):
        raise InvalidSetting(f"{place}: it needs a target, such as sqlite:events.db")
    plan = SyncPlan(**{**values, "every": span_us(values["every"]) / 1e6})
    if plan.every < 0.01:
        raise InvalidSetting(f"{place}: every is 10ms or more, such as 5s")
    return plan


def _over_http(*names: str) -> list[str]:
    """Schemes of a server that is reached with or without TLS."""
    return [f"{name}{ending}" for name in names for ending in ("", "+http", "+https")]


_TARGETS: dict[str, Callable[[str], SyncTarget]] = {
    "postgresql": PostgresTarget,
    "postgres": lambda url: PostgresTarget("postgresql:" + url.partition(":")[2]),
    "mysql": MysqlTarget,
    "mariadb": lambda url: MysqlTarget("mysql:" + url.partition(":")[2]),
    "sqlite": SqliteTarget,
    "duckdb": DuckdbTarget,
    **dict.fromkeys(_over_http("elasticsearch", "opensearch"), ElasticsearchTarget),
    **dict.fromkeys(_over_http("influxdb"), InfluxTarget),
    "kafka": KafkaTarget,
}


def target_of(url: str) -> SyncTarget:
    """Return the target of a URL, not connected. Raises InvalidSetting, without the URL."""
    scheme = url.partition(":")[0].lower()
    if scheme not in _TARGETS or ":" not in url:
        # Not the URL: it may hold a password.
        examples = (
            "postgresql://USER@HOST/DATABASE, mysql://…, sqlite:PATH, duckdb:PATH,"
            " elasticsearch://HOST/INDEX, influxdb://HOST/BUCKET?org=ORG or kafka://HOST/TOPIC"
        )
        hint = did_you_mean(scheme, list(_TARGETS)) if ":" in url else ""
        raise InvalidSetting(f"a target is {examples}{f'; {hint}' if hint else ''}")
    return _TARGETS[scheme](url)
