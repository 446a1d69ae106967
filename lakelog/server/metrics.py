"""Figures of a server in Prometheus' text form."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lakelog.alerts import glance
from lakelog.lake import Lake
from lakelog.runtime.lazy import Lazy
from lakelog.settings import VERSION

if TYPE_CHECKING:
    import prometheus_client as prometheus
    from prometheus_client import core

    from lakelog.server.intake import EventIntake
    from lakelog.server.sql.workers import QueryWorkers
    from lakelog.server.tail_hub import TailHub
else:
    prometheus = Lazy("prometheus_client")
    core = Lazy("prometheus_client.core")


class ServerMetrics:
    """Counts requests, and reads what the intake and the lake count themselves."""

    def __init__(
        self, lake: Lake, intake: EventIntake[Any], workers: QueryWorkers, tails: TailHub
    ) -> None:
        self._lake, self._intake = lake, intake
        self._workers, self._tails = workers, tails
        self._started = time.time()
        self._requests: dict[tuple[str, int], int] = {}
        self._registry = prometheus.CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    @property
    def media_type(self) -> str:
        """The type of `text`."""
        return str(prometheus.CONTENT_TYPE_LATEST)

    def count(self, method: str, status: int) -> None:
        """Count a request by what it was answered."""
        key = method, status
        self._requests[key] = self._requests.get(key, 0) + 1

    def text(self) -> bytes:
        """Return all figures. It reads the lake, which may take a while."""
        return bytes(prometheus.generate_latest(self._registry))

    def collect(self) -> list[core.Metric]:
        """Return the families of figures, as prometheus_client asks for them."""
        requests = core.CounterMetricFamily(
            "lakelog_http_requests", "Requests by their answer.", labels=("method", "code")
        )
        for (method, status), count in sorted(self._requests.items()):
            requests.add_metric((method, str(status)), count)
        counters = {
            "lakelog_events_ingested": ("Events that are stored.", self._intake.stored),
            "lakelog_ingest_rejected": ("Records that were refused.", self._intake.rejects),
            "lakelog_syslog_lost": ("Datagrams thrown away.", self._intake.syslog_lost()),
            "lakelog_ingest_repeated": ("Requests that came again.", self._intake.repeated),
            "lakelog_queries_answered": ("Queries that were answered.", self._workers.answered),
            "lakelog_queries_refused": ("Queries that were refused.", self._workers.refused),
            "lakelog_query_processes_ended": (
                "Query processes that were killed, or ended under a query.",
                self._workers.killed,
            ),
        }
        alerts = glance(self._lake)
        gauges = {
            "lakelog_alert_rules": ("Alert rules.", alerts["rules"]),
            "lakelog_alert_rules_failing": ("Rules that cannot be answered.", alerts["errors"]),
            "lakelog_alert_rows_firing": ("Rows that fire by the last answers.", alerts["rows"]),
            "lakelog_queries_running": ("Queries being answered.", self._workers.running),
            "lakelog_events": ("Events of the lake.", self._lake.count()),
            "lakelog_tail_clients": ("Clients of live tails.", self._tails.clients),
            "lakelog_start_time_seconds": ("When the server started.", self._started),
        }
        build = core.GaugeMetricFamily(
            "lakelog_build_info", "The version of lakelog.", labels=("version",)
        )
        # Always 1, as Prometheus has figures of builds: a query joins the label to others.
        build.add_metric((VERSION,), 1)
        return [
            build,
            requests,
            *(core.CounterMetricFamily(n, about, v) for n, (about, v) in counters.items()),
            *(core.GaugeMetricFamily(n, about, v) for n, (about, v) in gauges.items()),
        ]
