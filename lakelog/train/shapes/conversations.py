"""The shape `messages`: conversations for supervised fine-tuning, by subject, trace or any column.

With `role` and `content` every event is one message. Without them the payloads are read as
`chats.py` understands them: a payload with the conversation so far replaces a shorter one that it
begins with, messages that answer a call are appended to it, and a new beginning is a new row.

Each tool call of a row has its result, each result its call. It ends with a message of the
assistant, an answer or calls of functions, which alone need no results; later messages are left
out. Conversations
without a user and an assistant, or with a broken call, are left out if the recipe consents. Losses
are counted by the reasons of `losses.py`. `tools` contains the definitions of a conversation's
tools as JSON, in OpenAI's form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson

from lakelog.errors import ExportRefused
from lakelog.libraries import pa
from lakelog.train.losses import LOST, REASON, Losses
from lakelog.train.recipe import Recipe
from lakelog.train.selection import RowQuery, column_of, text_of
from lakelog.train.shapes import chat_exports
from lakelog.train.shapes.chat_exports import Line
from lakelog.train.shapes.chats import Chat, agree, chats
from lakelog.train.shapes.messages import ROLES, pair_calls
from lakelog.train.shapes.parts import ChatMessage, JsonList, Payload, from_json
from lakelog.train.shapes.rows import carry_columns, group_sql, stratum_sql, text_member
from lakelog.train.shapes.schemas import ToolSchema, unique

TYPE = (
    'STRUCT("role" VARCHAR, "content" VARCHAR, "name" VARCHAR, "tool_calls" STRUCT("id" VARCHAR,'
    ' "type" VARCHAR, "function" STRUCT("name" VARCHAR, "arguments" VARCHAR))[],'
    ' "tool_call_id" VARCHAR)'
)
_BATCH = 4096
_FIXED = 6  # key, group, stratum, time, seq and data stand before the columns that are kept
_CALLS = '[{"id":"VARCHAR","type":"VARCHAR","function":{"name":"VARCHAR","arguments":"VARCHAR"}}]'


def from_messages(selection: RowQuery, recipe: Recipe, losses: Losses) -> str:
    """SQL of conversations whose events are single messages; others are counted in `losses`."""
    shape = recipe.shape
    role = f"lower({text_member(selection, recipe, 'role')})"
    content = text_member(selection, recipe, "content")
    key_sql = text_member(selection, recipe, "by")
    has_role = f"{role} IN ({', '.join(map(text_of, ROLES))})"
    # Counted in a query of its own before the rows are read: consent is needed for the loss of
    # events, and the main query groups them away.
    query = f"SELECT count(*), min({selection.seq}) FROM ({selection.sql})"
    unknown = f"{query} WHERE NOT coalesce({has_role}, false)"
    count, first_seq = selection.session.sql(unknown, digest=selection.digest).fetchall()[0]
    losses.add("unknown_role", count, f"seq {first_seq}" if first_seq is not None else None)
    roles = " ".join(f"WHEN {text_of(a)} THEN {text_of(b)}" for a, b in ROLES.items())
    path, _, _ = shape["content"].rpartition(".")

    # Name, calls and tools are looked for next to the content: `data.message.content` means
    # `data.message.name`. A path that does not exist is null, but a top-level column that does not
    # exist is an error in SQL.
    def sibling(name: str, json: bool = False) -> str:
        full = f"{path}.{name}" if path else name
        if not path and name not in selection.columns:
            return "NULL"
        return (selection.json if json else selection.value)(full, "[shape] content")

    calls = f"from_json({sibling('tool_calls', True)}, {text_of(_CALLS)})"
    message = (
        f"{{'role': CASE {role} {roles} END, 'content': {content}, 'name': {sibling('name')},"
        f" 'tool_calls': {calls}, 'tool_call_id': {sibling('tool_call_id')}}}::{TYPE}"
    )
    # Columns of a conversation are those of its first event, the order being time and then seq.
    carried_columns = carry_columns(
        selection, recipe, {"conversation", "messages", "tools", "time"}
    )
    names = [k.rpartition(" AS ")[2] for k in carried_columns]
    inner = "".join(f", {k}" for k in carried_columns)
    carried_values = "".join(f", any_value({n} ORDER BY __when, __seq0) AS {n}" for n in names)
    timed = ", min(__when) AS time" if _is_timed(recipe) else ""
    tools = f"({sibling('tools', True)})::VARCHAR"
    return f"""
    SELECT __key AS conversation, list(__message ORDER BY __when, __seq0) AS messages,
        first(__tools ORDER BY __when, __seq0) FILTER (__tools IS NOT NULL) AS tools
        {carried_values}{timed},
        NULL::VARCHAR AS {LOST},
        list(__seq0 ORDER BY __when, __seq0)::BIGINT[] AS __seqs, min(__when) AS __time,
        max(__when) AS __until, any_value(__grouped ORDER BY __when, __seq0) AS __group,
        any_value(__strata ORDER BY __when, __seq0) AS __stratum, min(__seq0)::BIGINT AS __at
    FROM (SELECT {key_sql} AS __key, {message} AS __message, {tools} AS __tools,
            {selection.time}::TIMESTAMPTZ AS __when,
            {selection.seq} AS __seq0, {_group(selection, recipe)} AS __grouped,
            {stratum_sql(selection, recipe)} AS __strata{inner}
        FROM ({selection.sql}) WHERE {has_role})
    GROUP BY __key ORDER BY min(__when), min(__seq0), __key
    """


def from_payloads(selection: RowQuery, recipe: Recipe, losses: Losses) -> pa.RecordBatchReader:
    """Conversations out of payloads, in order of their keys, as Arrow.

    Events that no chat can be read from are counted in `losses`.
    """
    if "data" not in selection.columns:
        raise ExportRefused("[shape] messages needs the column data, or role and content")
    # The group and the time come from the conversation, not from its first event.
    carry = _first_event_columns(selection, recipe)
    # Sorted by key in SQL, so that Python holds one conversation at a time.
    query = (
        f"SELECT {text_member(selection, recipe, 'by')} AS k, {_group(selection, recipe)} AS g,"
        f" {stratum_sql(selection, recipe)} AS s, {selection.time}::TIMESTAMPTZ AS t,"
        f" {selection.seq}::BIGINT AS q, data::VARCHAR AS d{''.join(f', {c}' for c in carry)}"
        f" FROM ({selection.sql}) ORDER BY k, t, q"
    )
    reader = selection.session.sql(query, digest=selection.digest).to_arrow_reader(_BATCH)
    extra = [reader.schema.field(place) for place in range(_FIXED, len(reader.schema))]
    schema = _schema(recipe, extra, weighted=_has_weights(selection))

    def batches() -> Iterator[pa.RecordBatch]:
        rows: list[Payload] = []
        for conversation in _conversations(reader, losses):
            # A conversation may have several rows, so batches are cut by rows and not by
            # conversations.
            rows += conversation.rows(recipe)
            if len(rows) >= _BATCH:
                yield pa.RecordBatch.from_pylist(rows, schema)
                rows = []
        if rows:
            yield pa.RecordBatch.from_pylist(rows, schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _first_event_columns(selection: RowQuery, recipe: Recipe) -> list[str]:
    """Columns that a conversation has from its first event, besides its group and its time."""
    own_columns = {"conversation", "messages", "tools", "time"}
    if recipe.split["group"]:
        own_columns.add(column_of(recipe.split["group"]))
    return carry_columns(selection, recipe, own_columns)


def _is_timed(recipe: Recipe) -> bool:
    return recipe.split["before"] is not None or "time" in map(column_of, recipe.shape["keep"])


def _has_weights(selection: RowQuery) -> bool:
    """Whether some message may be one that is not to be learnt."""
    has_weight = "regexp_matches(data::VARCHAR, '\"weight\\\\?\" *: *0')"
    sql = f"SELECT coalesce(bool_or({has_weight}), false) FROM ({selection.sql})"
    return bool(selection.session.sql(sql, digest=selection.digest).fetchall()[0][0])


def _schema(recipe: Recipe, extra: list[pa.Field], *, weighted: bool) -> pa.Schema:
    string, instant = pa.string(), pa.timestamp("us", "UTC")
    # Must be equal to TYPE: the SQL path and this one produce the same columns, and `trim` runs
    # over both.
    call = pa.struct(
        [
            ("id", string),
            ("type", string),
            ("function", pa.struct([("name", string), ("arguments", string)])),
        ]
    )
    message = pa.struct(
        [
            ("role", string),
            ("content", string),
            ("name", string),
            ("tool_calls", pa.list_(call)),
            ("tool_call_id", string),
            # Only where it says something: most sets have rows as they always were.
            *([("weight", pa.int64())] if weighted else []),
        ]
    )
    fields = [("conversation", string), ("messages", pa.list_(message)), ("tools", string)]
    if recipe.split["group"]:
        fields.append((column_of(recipe.split["group"]), string))
    # Group before carried columns before time, the order of the SQL path.
    fields += extra
    if _is_timed(recipe):
        fields.append(("time", instant))
    hidden = [
        ("__seqs", pa.list_(pa.int64())),
        ("__time", instant),
        ("__until", instant),
        ("__group", string),
        ("__stratum", string),
        ("__at", pa.int64()),
        (LOST, string),
    ]
    return pa.schema([*fields, *hidden])


@dataclass
class _Thread:
    """One conversation of a key: its messages, events and tools, and what it is without."""

    messages: list[ChatMessage]
    events: JsonList
    tools: list[ToolSchema]
    losses: Counter[str]
    columns: Payload
    side_chain: str = ""
    lines: list[Line] = field(default_factory=list)
    """The tree of a session, of which the messages are one branch."""


class _Conversation:
    """The chats of one key, as they come."""

    def __init__(self, key: object, group: object, stratum: object) -> None:
        self.key, self.group, self.stratum = key, group, stratum
        self._threads: list[_Thread] = []

    def add(self, chat: Chat, event: object, carry: Payload) -> None:
        """Add a chat: longer than one that is there, behind one, or a new one."""
        # A whole chat repeats the conversation so far: it extends the thread it begins with, and
        # the longer of the two is kept. A chat that begins with a tool result can only continue
        # one.
        if chat.line is not None:
            self._add_line(chat.line, chat, event, carry)
            return
        if chat.whole and chat.messages[0]["role"] != "tool":
            for thread in self._threads:
                if agree(chat.messages, thread.messages):
                    if len(chat.messages) >= len(thread.messages):
                        thread.messages, thread.losses = chat.messages, chat.losses
                    self._extend(thread, chat, event)
                    return
        elif self._threads:
            # A fragment names no thread, so it continues the latest one.
            thread = self._threads[-1]
            thread.messages = [*thread.messages, *chat.messages]
            thread.losses = thread.losses + chat.losses
            self._extend(thread, chat, event)
            return
        self._threads.append(_Thread(chat.messages, [event], chat.tools, chat.losses, carry))

    def _add_line(self, line: Line, chat: Chat, event: object, carry: Payload) -> None:
        """Add a line of a session to its tree; each side chain has its own."""
        thread = next(
            (t for t in self._threads if t.lines and t.side_chain == chat.side_chain), None
        )
        if thread is None:
            thread = _Thread([], [], [], Counter(), carry, chat.side_chain)
            self._threads.append(thread)
        thread.lines.append(line)
        thread.events.append(event)
        thread.losses = thread.losses + chat.losses

    def _extend(self, thread: _Thread, chat: Chat, event: object) -> None:
        thread.events = [*thread.events, event]
        thread.tools = unique([*thread.tools, *chat.tools])

    def rows(self, recipe: Recipe) -> list[Payload]:
        """The rows of this key."""
        rows = []
        for thread in self._threads:
            if thread.lines:
                thread.messages = chat_exports.conversation(thread.lines)
        self._threads = [thread for thread in self._threads if thread.messages]
        for number, thread in enumerate(self._threads):
            # Spans of one trace need not have times; the row then has none, and a cutoff refuses it
            # with a message.
            times = [t for t, _ in thread.events if t is not None]
            start, end = (min(times), max(times)) if times else (None, None)
            seqs = sorted({s for _, s in thread.events if s is not None})
            # Separate threads of one key need separate names; the group stays the key, so they
            # share a split.
            name = self.key if len(self._threads) == 1 else f"{self.key}#{number}"
            rows.append(
                {
                    **thread.columns,
                    "conversation": name,
                    # Paired only now: while a conversation grows, prefixes are compared, and
                    # generated ids would make equal messages differ.
                    "messages": pair_calls(_learnt(thread)),
                    "tools": orjson.dumps(thread.tools).decode() if thread.tools else None,
                    "time": start,
                    column_of(recipe.split["group"]): self.group,
                    "__seqs": seqs,
                    "__time": start,
                    "__until": end,
                    "__group": self.group,
                    "__stratum": self.stratum,
                    "__at": seqs[0] if seqs else None,
                    LOST: orjson.dumps(thread.losses).decode() if thread.losses else None,
                }
            )
        return rows


def _learnt(thread: _Thread) -> list[ChatMessage]:
    """The messages of a thread up to the last that is to be learnt; those behind it are counted."""
    messages = thread.messages
    if all(message.get("weight") != 0 for message in messages):
        return messages
    answers = (
        place
        for place, message in enumerate(messages, 1)
        if message["role"] == "assistant" and message.get("weight") != 0
    )
    end = max(answers, default=0)
    if not end:  # a conversation without an answer
        return [message for message in messages if message["role"] != "assistant"]
    thread.losses["trailing"] += len(messages) - end
    thread.losses = +thread.losses
    return messages[:end]


def _conversations(reader: pa.RecordBatchReader, losses: Losses) -> Iterator[_Conversation]:
    """Group sorted events into conversations."""
    names = reader.schema.names[_FIXED:]
    current: _Conversation | None = None
    for batch in reader:
        for key, group, stratum, time, seq, data, *carry in zip(
            *(c.to_pylist() for c in batch.columns), strict=True
        ):
            unreadable: Counter[str] = Counter()
            parsed_chats = sorted(chats(from_json(data), unreadable), key=lambda c: c.time)
            for reason, count in unreadable.items():
                losses.add(reason, count, f"seq {seq}" if seq is not None else None)
            for chat in parsed_chats:
                # Events without a key of their own belong to their trace; without either, each is a
                # conversation by itself.
                own_key = key if key is not None else chat.trace
                if current is None or current.key != own_key or own_key is None:
                    if current is not None:
                        yield current
                    current = _Conversation(
                        own_key, group if group is not None else own_key, stratum
                    )
                current.add(chat, (time, seq), dict(zip(names, carry, strict=True)))
    if current is not None:
        yield current


def trim(sql: str, recipe: Recipe) -> str:
    """SQL of conversations cut to their last answer; `__reason` says why one is left out.

    `__lost` counts what a conversation is without, the messages after its last answer included.
    """
    system = recipe.shape["system"]
    # The system prompt of the recipe is a default: a conversation with its own keeps that.
    # Made of another message, as those of a set may have more fields than those of another.
    head = (
        "list_transform(messages[1:1], lambda m: struct_update(m, role := 'system',"
        f" content := {text_of(system)}, name := NULL::VARCHAR,"
        " tool_calls := messages[1:0][1].tool_calls, tool_call_id := NULL::VARCHAR))"
        if system
        else "messages[1:0]"
    )
    # The last message with text or calls: to call a function is an answer, too.
    answer = (
        "list_max(list_transform(messages, lambda m, i: CASE WHEN m.role = 'assistant'"
        " AND (len(coalesce(m.tool_calls, [])) > 0 OR coalesce(m.content, '') <> '')"
        " THEN i ELSE 0 END))"
    )
    # The calls that end a row wait for no result.
    calls = (
        "flatten(list_transform(list_filter(messages[1:len(messages) - 1],"
        " lambda m: len(coalesce(m.tool_calls, [])) > 0), lambda m: m.tool_calls))"
    )
    # After the cut the ids of calls and of results must be the same set, or a call has lost its
    # counterpart.
    results = "list_filter(messages, lambda m: m.role = 'tool')"
    # Innermost first: find the last answer, cut, name the reason, then count what was cut; messages
    # of a rejected conversation are not counted as trailing as well.
    return f"""
    SELECT * EXCLUDE (__answer, __length) REPLACE (
            list_concat(CASE WHEN messages[1].role = 'system' THEN messages[1:0] ELSE {head} END,
                messages) AS messages,
            CASE WHEN __length > len(messages) AND {REASON} IS NULL
                THEN json_merge_patch(coalesce({LOST}, '{{}}')::JSON,
                    json_object('trailing', __length - len(messages)))::VARCHAR
                ELSE {LOST} END AS {LOST})
    FROM (SELECT *, CASE
            WHEN len(list_filter(messages, lambda m: m.role = 'user')) = 0 THEN 'no_user'
            WHEN __answer = 0 THEN 'no_answer'
            WHEN {_distinct_sql(calls, "c.id")}
                <> {_distinct_sql(results, "coalesce(c.tool_call_id, '?')")}
                THEN 'broken_call' END AS {REASON}
        FROM (SELECT * REPLACE (CASE WHEN __answer > 0 THEN messages[1:__answer]
                    ELSE messages END AS messages)
            FROM (SELECT *, {answer} AS __answer, len(messages) AS __length FROM ({sql}))))
    """


def _distinct_sql(items: str, value: str) -> str:
    """SQL of the distinct values of a list, in order."""
    ids = f"list_sort(list_distinct(list_transform({items}, lambda c: {value})))"
    return f"coalesce({ids}, []::VARCHAR[])"


def _group(selection: RowQuery, recipe: Recipe) -> str:
    return (
        group_sql(selection, recipe)
        if recipe.split["group"]
        else text_member(selection, recipe, "by")
    )
