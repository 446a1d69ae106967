"""The rows of the table: what stands in them, out of which figures, and whether more is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.peers import PEERS

Got = dict[str, Any]
Figures = dict[str, dict[str, Got]]
"""What was measured, by part of the work, then by peer."""


@dataclass(frozen=True)
class Row:
    """One line of the table; `pick` gives a figure out of what a part measured, or None."""

    key: str
    title: str
    unit: str
    part: str
    pick: Callable[[Got], float | None]
    most: bool = False

    def values(self, figures: Figures) -> dict[str, float]:
        """The figure of every peer that has one."""
        found = {}
        for peer, got in figures.get(self.part, {}).items():
            only = PEERS[peer].only
            if only and not self.key.endswith(only):
                continue
            value = None if "error" in got else self.pick(got)
            if value is not None:
                found[peer] = value
        return found


def _ms(*path: str) -> Callable[[Got], float | None]:
    return lambda got: _times(_at(got, path), 1000)


def _micros(*path: str) -> Callable[[Got], float | None]:
    return lambda got: _times(_at(got, path), 1e6)


def _plain(*path: str) -> Callable[[Got], float | None]:
    return lambda got: _at(got, path)


def _at(got: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        got = got.get(name) if isinstance(got, dict) else None
    return got


def _times(value: float | None, by: float) -> float | None:
    return None if value is None else value * by


def _rate(got: Got) -> float | None:
    """Events a second of a load; of one that ran out of time, those it had done."""
    return got.get("count", got["events"]) / got["load"]


def _each(name: str) -> Callable[[Got], float | None]:
    def pick(got: Got) -> float | None:
        held = got.get(name)
        return None if held is None else held / got.get("count", got["events"])

    return pick


def _small(got: Got) -> float | None:
    """Bytes an event once the peer has made itself small, if it can."""
    return _each("tidy_bytes")(got) or _each("bytes")(got)


def _whole(pick: Callable[[Got], float | None]) -> Callable[[Got], float | None]:
    """A figure only of who got everything in: others would be asked less."""
    return lambda got: pick(got) if got.get("count", got["events"]) >= got["events"] else None


def _five(got: Got) -> float | None:
    asked = got.get("ask")
    five = ("status", "throughput", "errors", "reliability", "health")
    return 1000 * sum(asked[name] for name in five) if asked else None


def _tidied(pick: Callable[[Got], float | None]) -> Callable[[Got], float | None]:
    """A figure once the peer has made itself small; of who cannot, the figure as loaded."""
    return lambda got: pick(got | {"ask": got.get("ask_tidy") or got.get("ask")})


def _needle(got: Got) -> float | None:
    """The needle, with the index for it where the peer has one to offer."""
    times = [t for t in (_at(got, ("ask", "needle")), got.get("indexed")) if t is not None]
    return 1000 * min(times) if times else None


def _growth(got: Got) -> float | None:
    curve = _at(got, ("of", "100 by 1", "curve"))
    return curve[-1][1] / curve[0][1] if curve else None


def _loaded(part: str, size: str) -> list[Row]:
    """Rows of a load and of the questions over it."""
    of = f" of {size}"
    return [
        Row(f"{part}-rate", f"load {size} events", "ev/s", part, _rate, True),
        Row(f"{part}-peak", f"peak memory of the load{of}", "MB", part, _plain("load_peak")),
        Row(f"{part}-peak-asked", "  with the questions", "MB", part, _whole(_plain("peak"))),
        Row(f"{part}-bytes", f"bytes an event as loaded,{of}", "B", part, _each("bytes")),
        Row(
            f"{part}-first",
            f"open and first query{of}, new process",
            "ms",
            part,
            _whole(_ms("first")),
        ),
        Row(f"{part}-five", f"five views as SQL{of}", "ms", part, _whole(_five)),
        Row(f"{part}-status", "  latest state by item", "ms", part, _whole(_ms("ask", "status"))),
        Row(
            f"{part}-throughput",
            "  throughput by hour",
            "ms",
            part,
            _whole(_ms("ask", "throughput")),
        ),
        Row(f"{part}-errors", "  errors, a nested field", "ms", part, _whole(_ms("ask", "errors"))),
        Row(
            f"{part}-reliability",
            "  reliability by source",
            "ms",
            part,
            _whole(_ms("ask", "reliability")),
        ),
        Row(f"{part}-health", "  health, the last hour", "ms", part, _whole(_ms("ask", "health"))),
        Row(
            f"{part}-nested",
            f"mean of a nested field{of}",
            "ms",
            part,
            _whole(_ms("ask", "nested")),
        ),
        Row(f"{part}-needle", f"needle by subject{of}", "ms", part, _whole(_needle)),
        Row(f"{part}-export", f"export{of} to Parquet", "s", part, _whole(_plain("export"))),
    ]


def _changed(size: str) -> list[Row]:
    """Rows of what changes a load."""
    return [
        Row("load-small", f"bytes an event, made small, of {size}", "B", "load", _small),
        Row("load-five-small", "five views as SQL, made small", "ms", "load", _tidied(_five)),
        Row(
            "load-nested-small",
            "mean of a nested field, made small",
            "ms",
            "load",
            _tidied(_ms("ask", "nested")),
        ),
        Row("views-first", "five views as kept, the first time", "ms", "load", _ms("views_first")),
        Row("views-later", "five views, 1,000 events later", "ms", "load", _ms("views_later")),
        Row("tag", "tag a state", "ms", "load", _ms("tag")),
        Row("past", "count at a past state", "ms", "load", _ms("past")),
        Row("back", "roll back to it", "ms", "load", _ms("back")),
    ]


def _committed() -> list[Row]:
    """Rows of small commits by size and threads."""
    rows = []
    for each in (1, 10, 100):
        for threads in (1, 4, 16):
            name, who = f"{each} by {threads}", f"{threads} thread{'s' * (threads > 1)}"
            title = f"append {each} a commit, {who}"
            rows.append(
                Row(f"rate {name}", title, "ev/s", "commits", _plain("of", name, "rate"), True)
            )
            for what in ("p50", "p99"):
                rows.append(
                    Row(f"{what} {name}", f"  {what}", "ms", "commits", _ms("of", name, what))
                )
    rows.append(Row("growth", "last commits of 100 to the first", "x", "commits", _growth))
    return rows


def _crowded(counts: list[str]) -> list[Row]:
    """Rows of processes that commit at once."""
    rows = []
    for count in counts:
        who = f"{count} process{'es' * (count != '1')}"
        rows.append(
            Row(
                f"processes-{count}",
                f"append 10 a commit, {who}",
                "ev/s",
                "processes",
                _plain("of", count, "rate"),
                True,
            )
        )
        rows.append(
            Row(
                f"refused-{count}",
                "  commits refused, processes shut out",
                "",
                "processes",
                lambda got, n=count: _refused(got, n),
            )
        )
    return rows


def _refused(got: Got, count: str) -> float | None:
    held = _at(got, ("of", count))
    return held["refused"] + held["shut_out"] if held else None


def _searched(size: str) -> list[Row]:
    """Rows of the search of texts, in processor time: another word each time."""
    titles = {
        "id": "the event of an id",
        "rare": "events with a name of two words",
        "count": "how many have a common word",
        "first": "the newest 100 that have it",
        "phrase": "the newest 100 with two words side by side",
        "hours": "how many in each span of time",
        "inside": "how many have five characters inside of words",
    }
    rows = [
        Row("text-bytes", f"bytes an event with index, of {size}", "B", "search", _plain("each")),
        Row("text-index", "  of the index", "B", "search", lambda got: got.get("index") or None),
        Row(
            "text-build",
            "load and index",
            "µs CPU/ev",
            "search",
            lambda got: _times(got.get("build"), 1e6),
        ),
    ]
    return rows + [
        Row(f"text-{name}", title, "ms CPU", "search", _ms("cpu", name))
        for name, title in titles.items()
    ]


def _served() -> list[Row]:
    """Rows of events over HTTP, and the processor time of the server."""
    titles = {
        "lines": "JSON lines, 1,000 a request, 4 connections",
        "single": "one event a request, 64 connections",
        "otlp": "OTLP log records in protobuf, 1,000 a request",
    }
    rows = []
    for name, title in titles.items():
        rows += [
            Row(f"http-{name}", title, "ev/s", "http", _plain("of", name, "rate"), True),
            Row(f"http-{name} cpu", "  server", "µs CPU/ev", "http", _micros("of", name, "cpu")),
            Row(f"http-{name} p99", "  p99 of an answer", "ms", "http", _ms("of", name, "p99")),
        ]
    peak = _plain("of", "server_peak")
    return [*rows, Row("http-memory", "peak memory of the server", "MB", "http", peak)]


def _versioned() -> list[Row]:
    """Rows of appends that expect a version, and of reading what they made."""
    rows = []
    for count in ("1", "8", "32"):
        who = f"{count} client{'s' * (count != '1')}"
        title = f"append 1 at an expected version, {who}"
        rate, p99 = _plain("of", count, "rate"), _ms("of", count, "p99")
        rows.append(Row(f"expect-{count}", title, "ev/s", "streams", rate, True))
        rows.append(Row(f"expect-{count} p99", "  p99", "ms", "streams", p99))
    read = _ms("of", "read")
    return [*rows, Row("expect-read", "read a subject of 100 events", "ms", "streams", read)]


def _mined(figures: Figures) -> list[Row]:
    """Rows of the templates of messages."""

    def rate(got: Got) -> float | None:
        return got["count"] / got["mined"]

    def grouped(got: Got) -> float | None:
        return 100 * got["grouped"]

    counts = [got["count"] for got in figures.get("templates", {}).values() if "count" in got]
    title = f"from a file of {max(counts, default=0):,} messages to the template of each"
    return [
        Row("templates-mined", title, "ev/s", "templates", rate, True),
        Row("templates-right", "  messages grouped right", "%", "templates", grouped, True),
    ]


def _shared(figures: Figures) -> list[Row]:
    """Rows of several machines and one table."""
    rows = []
    for count in _at(figures, ("shared", "lakelog", "of")) or ():
        if count.isdigit():
            who = f"{count} machine{'s' * (count != '1')}"
            rate = _plain("of", count, "rate")
            title = f"10 a commit until all can see it, {who}"
            rows.append(Row(f"shared-{count}", title, "ev/s", "shared", rate, True))
    seen = _ms("of", "seen")
    return [
        *rows,
        Row("shared-seen", "a commit until another machine counts it", "ms", "shared", seen),
    ]


def _grown(part: str, what: str, figures: Figures) -> list[Row]:
    """Rows of the curves, at their end."""
    sizes = list(_at(figures, (part, "lakelog", "of")) or ())
    if not sizes:
        return []
    most = sizes[-1]
    steps = ("open and count", "question", "append one", "publish it", "tag", "roll back")
    return [
        Row(f"{part}-{step}", f"{step}, {int(most):,} {what}", "ms", part, _ms("of", most, step))
        for step in steps
    ]


def sections(figures: Figures) -> dict[str, list[Row]]:
    """Every row, by the heading it stands under."""
    sizes = {name: _size(figures, name) for name in ("load", "many")}
    counts = list(_at(figures, ("processes", "lakelog", "of")) or ())
    found = {
        "Small durable commits": _committed(),
        "Processes": _crowded(counts),
        "Bulk load and questions": [*_loaded("load", sizes["load"]), *_changed(sizes["load"])],
        "Ten times as much": _loaded("many", sizes["many"]),
        "Recovery": [
            Row(
                "recovery",
                "open and first query after kill -9, new process",
                "ms",
                "killed",
                _ms("recovery"),
            ),
            Row(
                "unsealed",
                "  events committed before, none lost",
                "",
                "killed",
                _plain("unsealed"),
                True,
            ),
        ],
        "Training set": [
            Row("train", "redacted, deduped, split by subject", "s", "train", _plain("train"))
        ],
        "Search of texts": _searched(_size(figures, "search")),
        "Over HTTP": _served(),
        "Streams": _versioned(),
        "Templates of messages": _mined(figures),
        "Several machines": _shared(figures),
        "What grows": [
            *_grown("segments", "segments", figures),
            *_grown("history", "moves", figures),
        ],
    }
    return {name: [r for r in rows if r.values(figures)] for name, rows in found.items()}


def _size(figures: Figures, part: str) -> str:
    counts = {got["events"] for got in figures.get(part, {}).values()}
    count = max(counts, default=0)
    return f"{count / 1_000_000:g} M" if count >= 1_000_000 else f"{count:,}"
