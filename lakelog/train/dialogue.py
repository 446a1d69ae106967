"""The shape `messages`: conversations for supervised fine-tuning, by subject, trace or any column.

With `role` and `content` every event is one message. Without them the payloads are read as
`chats.py` understands them: a payload with the conversation so far replaces a shorter one that it
begins with, messages that answer a call are put behind it, what begins anew is a row of its own.

A row keeps whole tool calls only: each call has its answer, each answer its call. It ends with an
answer of the assistant that calls nothing; what comes after that is left out. Conversations
without a user and an assistant, or with a broken call, are left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import orjson

from lakelog.errors import ExportRefused
from lakelog.train.chats import ROLES, Message, chats
from lakelog.train.events import carried
from lakelog.train.recipe import Recipe
from lakelog.train.selecting import Selection, column_of, text_of

if TYPE_CHECKING:
    import pyarrow as pa

TYPE = (
    'STRUCT("role" VARCHAR, "content" VARCHAR, "name" VARCHAR, "tool_calls" STRUCT("id" VARCHAR,'
    ' "type" VARCHAR, "function" STRUCT("name" VARCHAR, "arguments" VARCHAR))[],'
    ' "tool_call_id" VARCHAR)'
)
_BATCH = 4096
_CALLS = '[{"id":"VARCHAR","type":"VARCHAR","function":{"name":"VARCHAR","arguments":"VARCHAR"}}]'


def told(selection: Selection, recipe: Recipe) -> str:
    """SQL of conversations whose events are single messages."""
    shape = recipe.shape
    role = f"lower(({selection.value(shape['role'], '[shape] role')})::VARCHAR)"
    content = f"({selection.value(shape['content'], '[shape] content')})::VARCHAR"
    by = _key(selection, recipe)
    roles = " ".join(f"WHEN {text_of(a)} THEN {text_of(b)}" for a, b in ROLES.items())
    path, _, _ = shape["content"].rpartition(".")

    def beside(name: str, json: bool = False) -> str:
        full = f"{path}.{name}" if path else name
        if not path and name not in selection.columns:
            return "NULL"
        return (selection.json if json else selection.value)(full, "[shape] content")

    calls = f"from_json({beside('tool_calls', True)}, {text_of(_CALLS)})"
    made = (
        f"{{'role': CASE {role} {roles} END, 'content': {content}, 'name': {beside('name')},"
        f" 'tool_calls': {calls}, 'tool_call_id': {beside('tool_call_id')}}}::{TYPE}"
    )
    kept = carried(selection, recipe, {"messages", "time"})
    names = [k.rpartition(" AS ")[2] for k in kept]
    inner = "".join(f", {k}" for k in kept)
    shown = "".join(f", any_value({n} ORDER BY __when, __seq0) AS {n}" for n in names)
    timed = ", min(__when) AS time" if recipe.split["before"] is not None else ""
    return f"""
    SELECT __key AS conversation, list(__message ORDER BY __when, __seq0) AS messages{shown}{timed},
        list(__seq0 ORDER BY __when, __seq0)::BIGINT[] AS __seqs, min(__when) AS __time,
        max(__when) AS __until, any_value(__grouped ORDER BY __when, __seq0) AS __group,
        any_value(__strata ORDER BY __when, __seq0) AS __stratum, min(__seq0)::BIGINT AS __at
    FROM (SELECT {by} AS __key, {made} AS __message, {selection.time}::TIMESTAMPTZ AS __when,
            {selection.seq} AS __seq0, {_grouped(selection, recipe)} AS __grouped,
            {_strata(selection, recipe)} AS __strata{inner}
        FROM ({selection.sql}) WHERE {role} IN ({", ".join(map(text_of, ROLES))}))
    GROUP BY __key ORDER BY min(__when), min(__seq0), __key
    """


def understood(selection: Selection, recipe: Recipe) -> pa.RecordBatchReader:
    """Conversations out of payloads, in order of their keys, as Arrow."""
    import pyarrow as pa

    if "data" not in selection.columns:
        raise ExportRefused("[shape] messages needs the column data, or role and content")
    query = (
        f"SELECT {_key(selection, recipe)} AS k, {_grouped(selection, recipe)} AS g,"
        f" {_strata(selection, recipe)} AS s, {selection.time}::TIMESTAMPTZ AS t,"
        f" {selection.seq}::BIGINT AS q, data::VARCHAR AS d FROM ({selection.sql}) ORDER BY k, t, q"
    )
    reader = selection.session.sql(query, at=selection.digest).to_arrow_reader(_BATCH)
    schema = _schema(recipe)

    def batches() -> Iterator[pa.RecordBatch]:
        rows: list[dict[str, Any]] = []
        for conversation in _conversations(reader):
            rows += conversation.rows(recipe)
            if len(rows) >= _BATCH:
                yield pa.RecordBatch.from_pylist(rows, schema)
                rows = []
        if rows:
            yield pa.RecordBatch.from_pylist(rows, schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _schema(recipe: Recipe) -> pa.Schema:
    import pyarrow as pa

    text, when = pa.string(), pa.timestamp("us", "UTC")
    call = pa.struct([
        ("id", text), ("type", text),
        ("function", pa.struct([("name", text), ("arguments", text)])),
    ])  # fmt: skip
    message = pa.struct([
        ("role", text), ("content", text), ("name", text), ("tool_calls", pa.list_(call)),
        ("tool_call_id", text),
    ])  # fmt: skip
    fields = [("conversation", text), ("messages", pa.list_(message))]
    if recipe.split["group"]:
        fields.append((column_of(recipe.split["group"]), text))
    if recipe.split["before"] is not None:
        fields.append(("time", when))
    hidden = [
        ("__seqs", pa.list_(pa.int64())), ("__time", when), ("__until", when), ("__group", text),
        ("__stratum", text), ("__at", pa.int64()),
    ]  # fmt: skip
    return pa.schema([*fields, *hidden])


class _Conversation:
    """The chats of one key, as they come."""

    def __init__(self, key: Any, group: Any, stratum: Any) -> None:
        self.key, self.group, self.stratum = key, group, stratum
        self._made: list[tuple[list[Message], list[Any]]] = []

    def take(self, messages: list[Message], whole: bool, time: Any, seq: Any) -> None:
        """Add a chat: longer than one that is there, behind one, or a new one."""
        event = (time, seq)
        if whole and messages[0]["role"] != "tool":
            for place, (known, events) in enumerate(self._made):
                if _begins(messages, known) or _begins(known, messages):
                    longer = messages if len(messages) >= len(known) else known
                    self._made[place] = longer, [*events, event]
                    return
        elif self._made:
            known, events = self._made[-1]
            self._made[-1] = [*known, *messages], [*events, event]
            return
        self._made.append((messages, [event]))

    def rows(self, recipe: Recipe) -> list[dict[str, Any]]:
        """The rows of this key."""
        made = []
        for number, (messages, events) in enumerate(self._made):
            times = [t for t, _ in events if t is not None]
            first, last = (min(times), max(times)) if times else (None, None)
            seqs = sorted({s for _, s in events if s is not None})
            name = self.key if len(self._made) == 1 else f"{self.key}#{number}"
            made.append({
                "conversation": name, "messages": _paired(messages), "time": first,
                column_of(recipe.split["group"]): self.group, "__seqs": seqs, "__time": first,
                "__until": last, "__group": self.group, "__stratum": self.stratum,
                "__at": seqs[0] if seqs else None,
            })  # fmt: skip
        return made


def _conversations(reader: pa.RecordBatchReader) -> Iterator[_Conversation]:
    """Group sorted events into conversations."""
    current: _Conversation | None = None
    for batch in reader:
        for key, group, stratum, time, seq, data in zip(
            *(c.to_pylist() for c in batch.columns), strict=True
        ):
            found = sorted(chats(orjson.loads(data)) if data else (), key=lambda c: c.time)
            for chat in found:
                own = key if key is not None else chat.trace
                if current is None or current.key != own or own is None:
                    if current is not None:
                        yield current
                    current = _Conversation(own, group if group is not None else own, stratum)
                current.take(chat.messages, chat.whole, time, seq)
    if current is not None:
        yield current


def _begins(longer: list[Message], shorter: list[Message]) -> bool:
    pairs = zip(longer, shorter, strict=False)
    return len(longer) >= len(shorter) and all(
        (a["role"], a["content"]) == (b["role"], b["content"]) for a, b in pairs
    )


def _paired(messages: list[Message]) -> list[Message]:
    """Give answers that name no call the next one that is open, in order."""
    made, waiting = [], []
    for message in messages:
        waiting += [call["id"] for call in message["tool_calls"] or []]
        if message["role"] == "tool":
            if message["tool_call_id"] in waiting:
                waiting.remove(message["tool_call_id"])
            elif waiting and message["tool_call_id"] is None:
                message = {**message, "tool_call_id": waiting.pop(0)}
        made.append(message)
    return made


def whole(sql: str, recipe: Recipe) -> str:
    """SQL of conversations cut to their last answer; the broken ones are left out."""
    system = recipe.shape["system"]
    head = (
        f"[{{'role': 'system', 'content': {text_of(system)}, 'name': NULL, 'tool_calls': NULL,"
        f" 'tool_call_id': NULL}}::{TYPE}]"
        if system
        else f"[]::{TYPE}[]"
    )
    return f"""
    SELECT * FROM (
        SELECT * REPLACE (
            list_concat(CASE WHEN messages[1].role = 'system' THEN []::{TYPE}[] ELSE {head} END,
                messages[1:list_max(list_transform(messages, lambda m, i:
                    CASE WHEN m.role = 'assistant' AND len(coalesce(m.tool_calls, [])) = 0
                        AND coalesce(m.content, '') <> '' THEN i ELSE 0 END))]) AS messages)
        FROM ({sql})
    )
    WHERE len(list_filter(messages, lambda m: m.role = 'user')) > 0
        AND len(list_filter(messages, lambda m: m.role = 'assistant')) > 0
        AND coalesce(list_sort(list_distinct(list_transform(flatten(list_transform(list_filter(
                messages, lambda m: len(coalesce(m.tool_calls, [])) > 0),
                lambda m: m.tool_calls)), lambda c: c.id))), []::VARCHAR[])
            = coalesce(list_sort(list_distinct(list_transform(list_filter(messages,
                lambda m: m.role = 'tool'), lambda m: coalesce(m.tool_call_id, '?')))),
                []::VARCHAR[])
    """


def _key(selection: Selection, recipe: Recipe) -> str:
    return f"({selection.value(recipe.shape['by'], '[shape] by')})::VARCHAR"


def _grouped(selection: Selection, recipe: Recipe) -> str:
    group = recipe.split["group"] or recipe.shape["by"]
    return f"({selection.value(group, '[split] group')})::VARCHAR"


def _strata(selection: Selection, recipe: Recipe) -> str:
    stratum = recipe.split["stratify"]
    value = selection.value(stratum, "[split] stratify") if stratum else "NULL"
    return f"({value})::VARCHAR"
