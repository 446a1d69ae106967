"""Which targets a sync knows, and which one a URL names."""

from __future__ import annotations

from collections.abc import Callable

from lakelog.errors import InvalidSetting
from lakelog.runtime.closest import did_you_mean
from lakelog.sync.databases.duckdb_file import DuckdbTarget
from lakelog.sync.databases.mysql import MysqlTarget
from lakelog.sync.databases.postgres import PostgresTarget
from lakelog.sync.databases.sqlite import SqliteTarget
from lakelog.sync.services.elasticsearch import ElasticsearchTarget
from lakelog.sync.services.influxdb import InfluxTarget
from lakelog.sync.services.kafka_sink import KafkaTarget
from lakelog.sync.target import SyncTarget


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
        examples = (
            "postgresql://USER@HOST/DATABASE, mysql://…, sqlite:PATH, duckdb:PATH,"
            " elasticsearch://HOST/INDEX, influxdb://HOST/BUCKET?org=ORG or kafka://HOST/TOPIC"
        )
        hint = did_you_mean(scheme, list(_TARGETS)) if ":" in url else ""
        raise InvalidSetting(f"a target is {examples}{f'; {hint}' if hint else ''}")
    return _TARGETS[scheme](url)
