"""The Overview left open for hours: python -m tests.support.dashboard_day LAKE [HOURS [STEP]]

The hours are short ones: the page's clock is moved on by ten seconds at a time, after which it asks
again as it does in ten real ones, and meanwhile the server gets the events of a step, 1,000 for
each of its seconds, whose times are those of the short hours. A STEP longer than ten seconds has
the same events in fewer questions: the clock jumps over what is left of it. Prints the memory of
the page, of the server and of the processes that answer it, what moved on the page, and its tasks
of more than 50 ms: these in time of the processor, as a busy machine makes any task long.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.support.http_lake import JSON_LINES, HttpLake, serving
from tests.support.requirements import need

STEP = 10
_BATCH = 10_000
RATE = 1_000
LONG_MS = 50
_WATCH = """
window.shifts = 0;
new PerformanceObserver((list) => { for (const each of list.getEntries())
  if (!each.hadRecentInput) shifts += each.value;
}).observe({ type: "layout-shift", buffered: true });
"""
_LEVELS = ("INFO", "INFO", "INFO", "WARN", "ERROR")


@dataclass
class PageDay:
    """What was seen: heap of the page, and resident memory of server and answering processes, in
    MB, at 24 times; layout shift, and milliseconds of long tasks."""

    heap: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)
    answering: list[float] = field(default_factory=list)
    shift: float = 0.0
    long_tasks: list[float] = field(default_factory=list)
    events: int = 0
    requests: int = 0

    def memory(self) -> tuple[list[float], ...]:
        """Heap of the page, server, answering processes."""
        return self.heap, self.server, self.answering


def feed(server: HttpLake, moment: datetime, count: int, seconds: int = STEP) -> None:
    """Send the events of one step."""
    for start in range(0, count, _BATCH):
        batch = (
            f'{{"type":"log","level":"{_LEVELS[number % len(_LEVELS)]}",'
            f'"source":"web-{number % 7}","message":"GET /items/{number} in {number % 90} ms",'
            f'"time":"{(moment + timedelta(seconds=seconds * number / count)).isoformat()}"}}\n'
            for number in range(start, min(start + _BATCH, count))
        )
        reply = server.ask("/ingest", "".join(batch).encode(), JSON_LINES, timeout=120)
        assert reply.status == 200


def memory(pid: int) -> float:
    """Resident MB of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def children(pid: int) -> Iterator[int]:
    """The processes that a process has started."""
    yield from map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def long_tasks(trace: Path) -> list[float]:
    """Milliseconds of processor time of the page's tasks that took more than `LONG_MS`."""
    entries: list[dict[str, Any]] = json.loads(trace.read_bytes())["traceEvents"]
    mains = {
        (entry["pid"], entry["tid"])
        for entry in entries
        if entry["name"] == "thread_name" and entry["args"]["name"] == "CrRendererMain"
    }
    return [
        entry["tdur"] / 1000
        for entry in entries
        if entry.get("tdur", 0) > LONG_MS * 1000
        and entry["name"].endswith("RunTask")
        and (entry["pid"], entry["tid"]) in mains
    ]


def watched(
    browser: Any,
    server: HttpLake,
    steps: int,
    rate: int = RATE,
    page_name: str = "overview",
    step_seconds: int = STEP,
) -> PageDay:
    """Have a page open for so many steps of `step_seconds`, of which it asks in the last ten."""
    day = PageDay()
    started = datetime.now(UTC)
    feed(server, started - timedelta(seconds=STEP), rate * STEP)
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.add_init_script(_WATCH)
    page.clock.install()
    page.on("request", lambda _: setattr(day, "requests", day.requests + 1))
    page.goto(f"http://127.0.0.1:{server.port}/#/{page_name}")
    page.wait_for_selector("canvas", state="attached")
    devtools = context.new_cdp_session(page)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        for step in range(steps):
            moment = started + timedelta(seconds=step_seconds * step)
            feed(server, moment, rate * step_seconds, step_seconds)
            day.events += rate * step_seconds
            is_sample = step % max(1, steps // 24) == 0 or step == steps - 1
            if is_sample:
                browser.start_tracing(page=page, path=trace, categories=["toplevel"])
            if step_seconds > STEP:
                page.clock.fast_forward(1000 * (step_seconds - STEP))
            page.clock.run_for(1000 * STEP)
            _settle(page)
            if step == 0:  # from now on it is live, and nothing moves
                page.evaluate("window.shifts = 0")
            if is_sample:
                browser.stop_tracing()
                day.long_tasks += long_tasks(trace)
                devtools.send("HeapProfiler.collectGarbage")
                day.heap.append(devtools.send("Runtime.getHeapUsage")["usedSize"] / 1e6)
                day.server.append(memory(server.process.pid))
                day.answering.append(sum(map(memory, children(server.process.pid))))
                print(f"{day.events:,}", *(f"{v[-1]:.1f}" for v in day.memory()), "MB", flush=True)
    day.shift = page.evaluate("shifts")
    context.close()
    return day


def _settle(page: Any) -> None:
    for _ in range(3_000):
        if not page.evaluate("Boolean(document.querySelector('[aria-busy]'))"):
            return
        time.sleep(0.01)


def main() -> None:
    """Play a day over a copy of a lake, and print what was seen."""
    from playwright.sync_api import sync_playwright

    hours = float(sys.argv[2]) if len(sys.argv) > 2 else 8.0
    step_seconds = int(sys.argv[3]) if len(sys.argv) > 3 else STEP
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(sys.argv[1]))) as folder:
        shutil.copytree(sys.argv[1], f"{folder}/lake", copy_function=os.link)
        with serving(f"{folder}/lake") as server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=need("chromium"), args=["--no-sandbox"]
            )
            steps = int(hours * 3600 / step_seconds)
            day = watched(browser, server, steps, step_seconds=step_seconds)
            browser.close()
    print(f"{day.events:,} events, {day.requests:,} requests; shift {day.shift:.4f}")
    for name in ("heap", "server", "answering"):
        print(f"{name:10}", " ".join(f"{value:.0f}" for value in getattr(day, name)), "MB")
    print("tasks over 50 ms:", [round(value) for value in day.long_tasks])


if __name__ == "__main__":
    main()
