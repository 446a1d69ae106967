"""Running syncs in rounds: one, or several side by side, each of which waits for itself alone."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lakelog.disk import File, disk
from lakelog.errors import InvalidSetting, LakelogError
from lakelog.lake import Lake
from lakelog.sync.plan import SyncPlan
from lakelog.sync.syncer import Syncer, SyncResult

_REST = 30.0
"""Seconds after which one of several is tried again that was refused."""
_HELP = {
    "up": ("gauge", "Whether the last round of the sync was completed."),
    "rows": ("gauge", "Rows of the table."),
    "rows_written_total": ("counter", "Rows written since the start."),
    "rows_deleted_total": ("counter", "Rows deleted since the start."),
    "rows_refused_total": ("counter", "Rows put into the quarantine since the start."),
    "rebuilds_total": ("counter", "Times that the table was filled again since the start."),
    "last_success_timestamp_seconds": ("gauge", "When the last round was completed."),
}


@dataclass
class _Figures:
    """What one sync did."""

    target: str
    table: str
    values: dict[str, float]


class Runner:
    """Runs syncs of one lake, once or until a signal.

    `metrics` is a file that has figures of each as Prometheus reads them, written after each round;
    `say` gets what goes wrong, `report` each result that did something and its seconds.
    """

    def __init__(
        self,
        lake: Lake,
        plans: Sequence[SyncPlan],
        *,
        once: bool,
        say: Callable[[str], None],
        report: Callable[[SyncResult, float], None],
        metrics: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Check what was asked. Raises InvalidSetting, QueryFailed."""
        self._once, self._say, self._report, self._metrics = once, say, report, metrics
        self._mutex = threading.Lock()
        self._jobs: list[tuple[SyncPlan, Syncer, _Figures]] = []
        self.has_failed = False
        """Whether one of several was refused."""
        for plan in plans:
            syncer = Syncer(
                lake,
                plan.target,
                plan.table,
                plan.query,
                mode=plan.mode,
                on_rewind=plan.on_rewind,
                on_error=plan.on_error,
                batch_rows=plan.batch_rows,
                columns=plan.columns,
                continuous=not once,
                progress=progress if len(plans) == 1 else None,
                say=self._hear,
            )
            figures = _Figures(syncer.address, syncer.table, dict.fromkeys(_HELP, 0.0))
            # Of another query or mode each would fill the table again after the other.
            if any((p.target, s.table) == (plan.target, syncer.table) for p, s, _ in self._jobs):
                raise InvalidSetting(
                    f"{syncer.address}: two syncs write to the table {syncer.table}: give each a"
                    " table of its own"
                )
            self._jobs.append((plan, syncer, figures))

    def run(self, stop: threading.Event) -> list[SyncResult]:
        """Work until all is done, or `stop` is set; return the last result of each that has one.

        A single one raises what it is refused for; of several the others go on.
        """
        if len(self._jobs) == 1:
            results = [self._work(*self._jobs[0], stop)]
        else:
            # A thread for each: one target that waits must not hold up the others.
            with ThreadPoolExecutor(len(self._jobs), "lakelog-sync") as pool:
                futures = [pool.submit(self._guarded, *job, stop) for job in self._jobs]
                results = [future.result() for future in futures]
        return [result for result in results if result is not None]

    def close(self) -> None:
        """Close all connections."""
        for _, syncer, _ in self._jobs:
            syncer.close()

    def _guarded(
        self, plan: SyncPlan, syncer: Syncer, figures: _Figures, stop: threading.Event
    ) -> SyncResult | None:
        try:
            return self._work(plan, syncer, figures, stop)
        except BaseException:
            stop.set()  # else nobody would hear of it as long as the others go on
            raise

    def _work(
        self, plan: SyncPlan, syncer: Syncer, figures: _Figures, stop: threading.Event
    ) -> SyncResult | None:
        result: SyncResult | None = None
        while True:
            began, pause = time.monotonic(), plan.every
            try:
                result = syncer.run(stop)
            except LakelogError as error:
                self._note(figures, None)
                if len(self._jobs) == 1:
                    raise
                self._say(str(error))
                # Not at once: what was refused will mostly be refused again.
                self.has_failed, pause = True, max(pause, _REST)
            else:
                # A continuous sync that waits for its server has completed a round without success.
                self._note(figures, None if syncer.is_away else result)
                if result.commits or self._once:
                    self._report(result, time.monotonic() - began)
            if self._once or stop.wait(pause):
                return result

    def _hear(self, message: str) -> None:
        """Pass on what a sync says: one that waits for a server is not up meanwhile."""
        self._say(message)
        for _, syncer, figures in self._jobs:
            if syncer.is_away and figures.values["up"]:
                self._note(figures, None)

    def _note(self, figures: _Figures, result: SyncResult | None) -> None:
        """Count a round, None for one that failed, and write the figures of all."""
        with self._mutex:
            values = figures.values
            values["up"] = float(result is not None)
            if result is not None:
                values["rows"] = result.total
                values["rows_written_total"] += result.written
                values["rows_deleted_total"] += result.deleted
                values["rows_refused_total"] += result.quarantined
                values["rebuilds_total"] += result.is_rebuilt
                values["last_success_timestamp_seconds"] = disk.now_us() / 1e6
            if self._metrics:
                # A full disk at the metrics must not stop the rows.
                with contextlib.suppress(OSError):
                    path = os.path.abspath(self._metrics)
                    File(path).replace(self._text().encode(), sync=False)

    def _text(self) -> str:
        lines = []
        for name, (metric_type, description) in _HELP.items():
            full = f"lakelog_sync_{name}"
            lines += [f"# HELP {full} {description}", f"# TYPE {full} {metric_type}"]
            for _, _, figures in self._jobs:
                labels = f'target="{_label(figures.target)}",table="{_label(figures.table)}"'
                lines.append(f"{full}{{{labels}}} {figures.values[name]:.15g}")
        return "\n".join(lines) + "\n"


def _label(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
