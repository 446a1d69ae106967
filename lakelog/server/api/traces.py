"""Traces: the newest ones, and one as a tree with what its spans say of models and tools."""

from __future__ import annotations

import dataclasses
from datetime import UTC
from typing import Any

import orjson

from lakelog.search import Search, search_condition
from lakelog.server.api.counts import between, range_of, span_of
from lakelog.server.api.question import DashboardQuestion, cut, milliseconds
from lakelog.server.arrivals import RequestRefused
from lakelog.trace import ORDERS, TraceEvent, trace_of
from lakelog.trace import traces as listed_traces
from lakelog.values import to_micros

_EVENTS_MAX = 2_000
_TEXT_MAX = 4_000
_TEXTS = ("input.messages", "output.messages", "system_instructions", "prompt", "completion")
_MORE_TEXTS = ("tool.call.arguments", "tool.call.result")
_KINDS = {
    "invoke_agent": "agent",
    "create_agent": "agent",
    "invoke_workflow": "agent",
    "execute_tool": "tool",
    "chat": "model",
    "text_completion": "model",
    "generate_content": "model",
    "embeddings": "retrieval",
    "retrieval": "retrieval",
}


def traces(question: DashboardQuestion) -> dict[str, object]:
    """Traces of a range of time, of events that `q` finds; in the `order` newest, slowest, dearest
    or failed."""
    order = question.text("order", "newest")
    if order not in ORDERS:
        raise RequestRefused(400, f"'order' is one of {', '.join(ORDERS)}, not {order[:40]!r}")
    condition = search_condition(Search.of(question.text("q") or "*").node)
    span = range_of(question, span_of(question))
    summaries = listed_traces(
        question.sql,
        f"{between(span.since, span.until)} AND {condition}",
        question.number("limit", 200),
        order,
    )
    return {
        "traces": [
            {name: cut(value) for name, value in dataclasses.asdict(summary).items()}
            | {"begins": milliseconds(summary.begins)}
            for summary in summaries
        ]
    }


def trace(question: DashboardQuestion) -> dict[str, object]:
    """One trace by any `id` of it, the first 2,000 events. Raises UnknownRef."""
    tree = trace_of(question.sql, question.text("id"))
    placed_events = tree.events[:_EVENTS_MAX]
    payloads = _payloads(question, [placed.event.seq for placed in placed_events])
    return {
        "id": tree.id,
        "events": len(tree),
        "spans": [_span(placed, payloads.get(placed.event.seq, {})) for placed in placed_events],
    }


def _payloads(question: DashboardQuestion, numbers: list[int]) -> dict[int, dict[str, Any]]:
    if not numbers:
        return {}
    rows = question.sql(
        f"SELECT seq, data FROM events WHERE seq IN ({', '.join(map(str, numbers))})"
    ).fetchall()
    payloads = {}
    for seq, payload_text in rows:
        try:
            payload = orjson.loads(payload_text or "{}")
        except (orjson.JSONDecodeError, UnicodeEncodeError):
            continue
        if isinstance(payload, dict):
            payloads[seq] = payload
    return payloads


def _span(placed: TraceEvent, payload: dict[str, Any]) -> dict[str, object]:
    event = placed.event
    attributes = payload.get("attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    operation = str(attributes.get("gen_ai.operation.name", ""))
    status = payload.get("status")
    code = status.get("code") if isinstance(status, dict) else None
    # The number or the name of the enum of OTLP, by how a span was exported.
    is_error = event.level in ("ERROR", "FATAL") or str(code) in ("2", "STATUS_CODE_ERROR")
    begin = to_micros(event.time.astimezone(UTC)) / 1000
    return {
        "seq": event.seq,
        "time": begin,
        "depth": placed.depth,
        "offset": placed.offset_ms,
        "duration": event.duration_ms,
        "orphan": placed.is_orphan,
        "cycle": placed.is_cycle,
        "name": cut(payload.get("name") or event.message or event.type),
        "type": cut(event.type),
        "source": cut(event.source),
        "level": event.level,
        "error": is_error,
        "says": cut(status.get("message")) if isinstance(status, dict) else None,
        "kind": _KINDS.get(operation, "other"),
        "model": cut(
            attributes.get("gen_ai.request.model") or attributes.get("gen_ai.response.model")
        ),
        "input_tokens": _number(attributes, "input_tokens", "prompt_tokens"),
        "output_tokens": _number(attributes, "output_tokens", "completion_tokens"),
        "cost": _number(attributes, "cost"),
        "texts": _texts(attributes),
    }


def _number(attributes: dict[str, Any], *names: str) -> float | None:
    for name in names:
        value = attributes.get(f"gen_ai.usage.{name}")
        try:
            return None if value is None else float(value)
        except (TypeError, ValueError):
            continue
    return None


def _texts(attributes: dict[str, Any]) -> list[list[str]]:
    """Prompts, answers, and what tools got and gave, by name; their beginnings."""
    excerpts = []
    for name in (*_TEXTS, *_MORE_TEXTS):
        value = attributes.get(f"gen_ai.{name}")
        if value is not None and value != "":
            content = value if isinstance(value, str) else orjson.dumps(value).decode()
            excerpts.append([name, str(cut(content, _TEXT_MAX))])
    return excerpts
