"""The built-in views in plain Python over a list of events: what the projections must give."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from typing import Any

import orjson

HOUR = 3_600_000_000
Row = tuple[Any, ...]


def events(lake: Any) -> list[dict[str, Any]]:
    """Every event of a lake or view in its order: by time, then seq, the tail last."""
    table = lake.sql(
        "SELECT epoch_us(time) AS time, type, category, source, subject, data, seq FROM events"
    ).to_arrow_table()
    rows = table.to_pylist()
    for index, row in enumerate(rows):
        row["seq"] = (1, index) if row["seq"] is None else (0, row["seq"])
        row["data"] = orjson.loads(row["data"]) if row["data"] else {}
    return sorted(rows, key=lambda row: (row["time"], row["seq"]))


def status(rows: list[dict[str, Any]]) -> list[Row]:
    """(category, status, items)"""
    latest = {(r["subject"], r["category"]): r["type"] for r in rows if r["subject"] is not None}
    counts = Counter((category, kind) for (_, category), kind in latest.items())
    return [(*key, n) for key, n in counts.items()]


def throughput(rows: list[dict[str, Any]]) -> list[Row]:
    """(bucket in us, completions)"""
    return list(Counter(r["time"] // HOUR * HOUR for r in rows if r["type"] == "COMPLETE").items())


def rates(rows: list[dict[str, Any]]) -> list[Row]:
    """(bucket in us, type, source, events)"""
    counts = Counter((r["time"] // HOUR * HOUR, r["type"], r["source"]) for r in rows)
    return [(*key, n) for key, n in counts.items()]


def errors(rows: list[dict[str, Any]]) -> list[Row]:
    """(error, failures, sources)"""
    found = defaultdict(list)
    for r in rows:
        if r["type"] == "FAIL":
            found[r["data"].get("error") or "unknown"].append(r["source"])
    return [(error, len(s), len(set(s) - {None})) for error, s in found.items()]


def reliability(rows: list[dict[str, Any]]) -> list[Row]:
    """(source, completed, failed)"""
    done = Counter(r["source"] for r in rows if r["type"] == "COMPLETE")
    failed = Counter(r["source"] for r in rows if r["type"] == "FAIL")
    return [(s, done[s], failed[s]) for s in {*done, *failed}]


STEPS = ("DISCOVER", "PROCESS", "COMPLETE")


def funnel(rows: list[dict[str, Any]], steps: tuple[str, ...] = STEPS) -> list[Row]:
    """(step, subjects)"""
    moments = sorted(
        (r["subject"], r["time"], steps.index(r["type"]))
        for r in rows
        if r["type"] in steps and r["subject"] is not None
    )
    reached: Counter[str] = Counter()
    for subject, _, step in moments:
        if step == reached[subject]:
            reached[subject] += 1
    return [(k, sum(n >= k for n in reached.values())) for k in range(1, len(steps) + 1)]


def sessions(rows: list[dict[str, Any]]) -> list[Row]:
    """(category, subjects, sessions, events, all seconds)"""
    by: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for r in rows:
        if r["subject"] is not None:
            by[r["subject"]].append(r)
    sums: dict[str | None, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for mine in by.values():
        times = [r["time"] for r in mine]
        gaps = [b - a for a, b in itertools.pairwise(times)]
        kind = min(r["category"] or "" for r in mine) or None
        add = (
            1,
            1 + sum(g > HOUR // 2 for g in gaps),
            len(mine),
            sum(g for g in gaps if g <= HOUR // 2),
        )
        sums[kind] = [a + b for a, b in zip(sums[kind], add, strict=True)]
    return [(kind, *numbers) for kind, numbers in sums.items()]


def durations(rows: list[dict[str, Any]]) -> list[Row]:
    """(done, open, mean seconds)"""
    began: dict[str, int] = {}
    took: dict[str, int] = {}
    for r in rows:
        if r["type"] == "DISCOVER" and r["subject"] is not None:
            began.setdefault(r["subject"], r["time"])
    for r in rows:
        start = began.get(r["subject"])
        if r["type"] == "COMPLETE" and start is not None and r["time"] >= start:
            took.setdefault(r["subject"], r["time"] - start)
    mean = round(sum(took.values()) / len(took) / 1e6, 6) if took else None
    return [(len(took), len(began) - len(took), mean)]


def percentiles(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """The values of data.duration_ms by type, sorted."""
    found = defaultdict(list)
    for r in rows:
        if isinstance(r["data"].get("duration_ms"), (int, float)):
            found[r["type"]].append(r["data"]["duration_ms"])
    return {kind: sorted(values) for kind, values in found.items()}


def quantile(values: list[float], share: float) -> float:
    """The smallest value that `share` of the values do not exceed."""
    return values[max(math.ceil(share * len(values) - 1e-9) - 1, 0)]


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    return dict(row["data"].get("attributes", {})) if row["type"] == "span" else {}


def _model_calls(rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Rows that are calls of a model, with their attributes."""
    calls = [(r, _fields(r)) for r in rows]
    return [(r, a) for r, a in calls if a.get("gen_ai.operation.name") == "chat"]


def llm_usage(rows: list[dict[str, Any]]) -> list[Row]:
    """(bucket in us, model, calls, errors, input tokens)"""
    found: dict[tuple[int, str], list[tuple[bool, int | None]]] = defaultdict(list)
    for r, fields in _model_calls(rows):
        key = r["time"] // (24 * HOUR) * 24 * HOUR, fields["gen_ai.request.model"]
        found[key].append((bool(r["data"]["status"]), fields.get("gen_ai.usage.input_tokens")))
    answer = []
    for key, calls in found.items():
        tokens = [n for _, n in calls if n is not None]
        errors = sum(failed for failed, _ in calls)
        answer.append((*key, len(calls), errors, sum(tokens) if tokens else None))
    return answer


def llm_errors(rows: list[dict[str, Any]]) -> list[Row]:
    """(error, model, failures, newest message)"""
    failed = [(r, a) for r, a in _model_calls(rows) if r["data"]["status"]]
    counts = Counter((a["error.type"], a["gen_ai.request.model"]) for _, a in failed)
    return [(*key, n, key[0]) for key, n in counts.items()]


def tool_calls(rows: list[dict[str, Any]]) -> list[Row]:
    """(id, tool, status, arguments, result, error)"""
    called: dict[str, str] = {}
    answered: dict[str, str] = {}
    ran: dict[str, str | None] = {}
    for r in rows:
        fields = _fields(r)
        if name := fields.get("gen_ai.tool.call.id"):
            ran[name] = r["data"]["status"].get("message")
        for message in fields.get("gen_ai.output.messages", ()):
            for part in message["parts"]:
                arguments = orjson.dumps(part["arguments"]).decode()
                called.setdefault(part["id"], arguments)
        for message in orjson.loads(fields.get("gen_ai.input.messages", "[]")):
            for part in message["parts"]:
                answered.setdefault(part["id"], str(part["response"]))
    answer: list[Row] = []
    for name in {*called, *ran}:
        done = "failed" if ran.get(name) else "done" if name in ran or name in answered else "open"
        tool = "search" if name in called else None
        answer.append((name, tool, done, called.get(name), answered.get(name), ran.get(name)))
    return answer


def decisions(rows: list[dict[str, Any]]) -> list[Row]:
    """(decision_id, chosen, outcome, reward, seconds)"""
    latest = {(r["subject"], r["type"]): r for r in rows if r["type"] in ("decision", "outcome")}
    answer: list[Row] = []
    for name in {subject for subject, _ in latest}:
        decision, outcome = (latest.get((name, kind)) for kind in ("decision", "outcome"))
        chosen = decision["data"]["details"]["chosen"] if decision else None
        result = outcome["data"] if outcome else {"outcome": None, "reward": None}
        both = decision and outcome
        seconds = (outcome["time"] - decision["time"]) / 1e6 if both else None
        answer.append((name, chosen, result["outcome"], result["reward"], seconds))
    return answer


def schema(rows: list[dict[str, Any]]) -> list[Row]:
    """(type, path, kind, events)"""
    counts: Counter[tuple[str, str]] = Counter()
    kinds: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for r in rows:
        seen: set[tuple[str, str]] = {("$", "null")} if r["data"] == {} else set()
        _kinds("$", r["data"], seen)
        if r["data"] == {}:
            seen.discard(("$", "object"))
        counts.update((r["type"], path) for path in {path for path, _ in seen})
        for path, kind in seen:
            kinds[r["type"], path].add(kind)
    return [(*key, _joined(kinds[key]), n) for key, n in counts.items()]


def _kinds(path: str, value: Any, seen: set[tuple[str, str]]) -> None:
    """Add (path, kind) of a value and of what is in it."""
    names = {type(None): "null", bool: "bool", int: "int", float: "float", str: "text"}
    seen.add((path, names.get(type(value), "object" if isinstance(value, dict) else "list")))
    if isinstance(value, dict):
        for name, member in value.items():
            quoted = name if name.replace("_", "a").isalnum() else orjson.dumps(name).decode()
            _kinds(quoted if path == "$" else f"{path}.{quoted}", member, seen)
    for element in value if isinstance(value, list) else ():
        _kinds(f"{path}[]", element, seen)


def _joined(kinds: set[str]) -> str:
    kinds = kinds - {"null"}
    if kinds >= {"int", "float"}:
        kinds = kinds - {"int", "float"} | {"number"}
    return "|".join(sorted(kinds)) or "null"


def given(name: str, table: Any) -> list[Row]:
    """A projection's answer in the model's columns."""
    picked = {
        "status": "category status items",
        "throughput": "bucket events",
        "rates": "bucket type source events",
        "errors": "error failures sources",
        "reliability": "source completed failed",
        "funnel": "step subjects",
        "sessions": "category subjects sessions events seconds",
        "durations": "done open mean",
        "llm_usage": "bucket model calls errors input_tokens",
        "llm_errors": "error model failures message",
        "tool_calls": "id tool status arguments result error",
        "decisions": "decision_id chosen outcome reward seconds",
        "schema": "type path kind events",
    }[name].split()
    found = []
    for row in table.to_pylist():
        if "bucket" in row:
            row["bucket"] = int(row["bucket"].timestamp()) * 1_000_000
        if name == "sessions":
            row["seconds"] = round(row["mean_seconds"] * row["sessions"] * 1e6)
        if name == "durations" and row["mean"] is not None:
            row["mean"] = round(row["mean"], 6)
        found.append(tuple(row[column] for column in picked))
    return found


MODEL = {
    f.__name__: f
    for f in (
        *(status, throughput, rates, errors, reliability, funnel, sessions, durations),
        *(llm_usage, llm_errors, tool_calls, decisions, schema),
    )
}
