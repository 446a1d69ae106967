"""Events in lists, values cut, and single ones whole, with where they came from."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from lakelog import sql
from lakelog.errors import UnknownRef
from lakelog.manifest import Manifest
from lakelog.pinned import PinnedLake
from lakelog.search import Search, highlighter, search_condition
from lakelog.server.api.counts import LATEST, SLICE_EVENTS, between, range_of, span_of
from lakelog.server.api.question import VALUE_MAX, DashboardQuestion, cut, milliseconds
from lakelog.server.arrivals import RequestRefused
from lakelog.values import from_micros, to_micros

_ROWS = 200
_COLUMNS_MAX = 20
_DATA_MAX = 200_000
"""Characters of a payload that come with an event; `whole=1` fetches all."""
_NAMES = ("level", "type", "source", "subject", "category", "message")
_MESSAGE = _NAMES.index("message")


def events(question: DashboardQuestion) -> dict[str, object]:
    """The newest events that `q` finds, `limit` of them, before the `after` of an earlier answer.

    Rows are [seq, time (ms), level, type, source, subject, category, message, data, size of data,
    further `columns`…]; of texts, the first 300 characters. Data is of rows without a message.
    """
    search = Search.of(question.text("q") or "*")
    limit = question.number("limit", _ROWS)
    conditions = [search_condition(search.node)]
    since, until = question.since, question.until
    if since is not None or until is not None:
        span = range_of(question, span_of(question))
        conditions.append(between(span.since, span.until))
    if question.text("after"):
        micros, seq = _place(question.text("after"))
        # The first condition is for the statistics of segments.
        moment = between(micros, micros + 1).partition(" AND ")[2]
        conditions.append(f"{moment} AND (epoch_us(time), seq) < ({micros}, {seq})")
    names = [name for name in question.text("columns").split(",") if name][:_COLUMNS_MAX]
    cuts = [f"left({name}, {VALUE_MAX + 1}) AS {name}_cut" for name in _NAMES]
    further = [
        f"left({Search.value(name)}, {VALUE_MAX + 1}) AS column_{number}"
        for number, name in enumerate(names)
    ]
    # Of this form, with no query around it, so that it begins with the newest events.
    selection = ", ".join(["seq", "time", *cuts, *further])
    rows = question.sql(
        f"SELECT {selection} FROM events WHERE {' AND '.join(conditions)}"
        f" ORDER BY time DESC, seq DESC LIMIT {limit}"
    ).fetchall()
    previews = _previews(question, [row for row in rows if row[2 + _MESSAGE] is None])
    last_row = rows[-1] if rows and len(rows) == limit else None
    pattern = highlighter(search.node)
    return {
        "rows": [
            [
                seq,
                milliseconds(time),
                *map(cut, values[: len(_NAMES)]),
                *map(cut, previews.get(seq, (None, None))),
                *map(cut, values[len(_NAMES) :]),
            ]
            for seq, time, *values in rows
        ],
        "after": f"{to_micros(last_row[1].astimezone(UTC))}:{last_row[0]}" if last_row else None,
        "columns": names,
        "marks": pattern.pattern if pattern else None,
    }


def _previews(
    question: DashboardQuestion, rows: list[tuple[Any, ...]]
) -> dict[int, tuple[str, int]]:
    """The beginning of the payloads of some rows, and their size, by seq. They are read apart:
    payloads of a megabyte would be read for all rows among which the newest are looked for."""
    if not rows:
        return {}
    times = [to_micros(row[1].astimezone(UTC)) for row in rows]
    numbers = ", ".join(str(row[0]) for row in rows)
    payloads = question.sql(
        f"SELECT seq, left(data, {VALUE_MAX + 1}), strlen(data) FROM events"
        f" WHERE {between(min(times), max(times) + 1)} AND seq IN ({numbers})"
    ).fetchall()
    return {seq: (data, size) for seq, data, size in payloads}


def _place(value: str) -> tuple[int, int]:
    micros, _, seq = value.partition(":")
    try:
        from_micros(int(micros))
        return int(micros), int(seq)
    except (ValueError, OverflowError):
        raise RequestRefused(400, f"'after' is that of an earlier answer, not {value!r}") from None


def event(question: DashboardQuestion) -> dict[str, object]:
    """One event by its `seq` and `time` (ms), whole, with its provenance. Raises UnknownRef."""
    seq = question.number("seq", 0, 1 << 62)
    conditions = [f"seq = {seq}"]
    if moment := question.text("time"):
        try:
            # Milliseconds as a fraction may be off by a microsecond after their way through
            # JavaScript.
            micros = round(float(moment) * 1000)
            conditions.append(between(micros - 1, micros + 2))
        except (ValueError, OverflowError):
            raise RequestRefused(400, f"'time' is in milliseconds, not {moment!r}") from None
    table = question.sql(
        f"SELECT * FROM events WHERE {' AND '.join(conditions)} LIMIT 1"
    ).to_arrow_table()
    if not table.num_rows and moment:
        # An event that was live has another number once it is sealed: the time may tell which.
        # Two would leave open which one is meant.
        same_time = question.sql(f"SELECT * FROM events WHERE {conditions[1]} LIMIT 2")
        table = same_time.to_arrow_table()
    if table.num_rows != 1:
        raise UnknownRef(f"there is no event {seq} in this state: it may have been rolled back")
    row: dict[str, Any] = table.to_pylist()[0]
    payload = row.pop("data")
    is_whole = bool(question.text("whole")) or payload is None or len(payload) <= _DATA_MAX
    fields = {
        name: milliseconds(value) if name in ("time", "ingested_at") else value
        for name, value in row.items()
    }
    return {
        "event": fields,
        "data": payload if is_whole else payload[:_DATA_MAX],
        "size": 0 if payload is None else len(payload.encode("utf-8", "surrogatepass")),
        "whole": is_whole,
        "from": _provenance(question, row),
    }


def _provenance(question: DashboardQuestion, row: dict[str, Any]) -> dict[str, object]:
    """Where an event came from: file or writer, offset, segment and snapshot."""
    lake, state = question.lake, question.state
    manifest: Manifest = (
        lake.store.manifests.load(state.id)
        if isinstance(state, PinnedLake)
        else lake.store.state(lake.branch_name)
    )
    entries = lake.store.manifests.segments(manifest, "events")
    within = [entry for entry in entries if entry.seq[0] <= row["seq"] <= entry.seq[1]]
    origin = sql.literal(row["origin"] or "")
    files = state.sql(f"SELECT path, host FROM files WHERE origin = {origin}").fetchall()
    return {
        "origin": row["origin"],
        "position": row["position"],
        "path": files[0][0] if files else None,
        "host": files[0][1] if files else None,
        "segment": within[0].key if within else None,
        "snapshot": manifest.digest if within else None,
    }


def values(question: DashboardQuestion) -> dict[str, object]:
    """The most frequent values of a `field` of what `q` finds: of the newest events alone where
    there are many, back to `counted_from` (ms)."""
    field = question.text("field")
    whole = span_of(question)
    span = range_of(question, whole)
    begin = span.since
    if whole.events > SLICE_EVENTS:
        # Of the newest a share of the time that holds about as many as can be read at once.
        length = (span.until - span.since) * SLICE_EVENTS // whole.events
        begin = max(begin, span.until - length)
    until = from_micros(span.until).isoformat() if span.until <= LATEST else None
    search = Search.of(question.text("q") or "*", from_micros(begin).isoformat(), until)
    rows = question.sql(search.fields([field])).fetchall()
    value = f"try_cast({Search.value(field)} AS DOUBLE)"
    # One NaN or infinity would spoil the mean of all.
    number = f"(CASE WHEN isfinite({value}) THEN {value} END)"
    statistics = question.sql(
        f"SELECT count(*), count({Search.value(field)}),"
        f" approx_count_distinct({Search.value(field)}), count({number}), min({number}),"
        f" max({number}), avg({number}), approx_quantile({number}, 0.5),"
        f" approx_quantile({number}, 0.95)"
        f" FROM events WHERE {search_condition(search.node)}"
    ).fetchall()[0]
    names = "events present distinct numbers min max mean median p95".split()
    return {
        "field": field,
        "values": [[cut(value), count] for _, value, count in rows],
        "statistics": dict(zip(names, statistics, strict=True)),
        "counted_from": begin / 1000,
    }
