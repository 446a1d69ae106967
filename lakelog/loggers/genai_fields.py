"""Requests to language models and their answers under the names of OpenTelemetry (`gen_ai.*`).

Four dialects: OpenAI's chats (and completions), its Responses, its embeddings, and Anthropic's
messages. Messages become `{role, parts, finish_reason}`; a part of a kind that is not known here
stays as it is. Nothing is shortened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import orjson

from lakelog.values import JsonObject

Fields = JsonObject

_PARAMETERS = {
    "model": "model",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "stop": "stop_sequences",
    "stop_sequences": "stop_sequences",
    "n": "choice.count",
    "encoding_format": "encoding_formats",
    "stream": "stream",
}
"""Members of a request that are stored, and their names behind `gen_ai.request.`; keys and headers
are in none of them."""
_LISTS = ("stop_sequences", "encoding_formats")
# Never redacted: without them a message has no form.
_STRUCTURE = frozenset(("role", "type", "id", "name", "finish_reason", "mime_type", "modality"))
_CALLS = ("function_call", "custom_tool_call", "tool_use")
_FINAL = ("completed", "failed", "incomplete", "cancelled")
_REPLIES = ("function_call_output", "custom_tool_call_output", "tool_result")
_READ = frozenset(
    "type text thinking id call_id tool_use_id name input arguments content output status".split()
)


# --- requests ---------------------------------------------------------------------------------


def request_fields(body: Fields) -> Fields:
    """The parameters of a request; `body` is its JSON."""
    fields: Fields = {}
    for member, name in _PARAMETERS.items():
        value = body.get(member)
        # Other values are objects of the clients, which stand for none.
        if isinstance(value, (str, int, float, list)):
            in_list = name in _LISTS and not isinstance(value, list)
            fields[f"gen_ai.request.{name}"] = [value] if in_list else value
    if isinstance(conversation := body.get("conversation"), str):
        fields["gen_ai.conversation.id"] = conversation
    return fields


def request_content(operation: str, body: Fields) -> Fields:
    """What a request says: instructions, messages, tools."""
    if operation == "embeddings":
        return {"lakelog.embeddings.input": body.get("input")}
    fields: Fields = {}
    if system := body.get("system", body.get("instructions")):
        fields["gen_ai.system_instructions"] = _parts(system)
    # The dialects name their messages differently; one of them is there.
    messages: object = next((body[k] for k in ("messages", "input", "prompt") if body.get(k)), [])
    # A text is a message, and so is a list of texts each; a prompt of token ids is one.
    if not isinstance(messages, list) or not all(isinstance(m, (str, dict)) for m in messages):
        messages = [{"role": "user", "content": messages}]
    fields["gen_ai.input.messages"] = [_message(message) for message in messages]
    if tools := body.get("tools"):
        fields["gen_ai.tool.definitions"] = tools
    return fields


# --- answers ----------------------------------------------------------------------------------


def answer_fields(answer: Fields) -> Fields:
    """Model, id, finish reasons and tokens of an answer of any dialect."""
    fields: Fields = {}
    for member, name in (("id", "id"), ("model", "model")):
        if isinstance(answer.get(member), str):
            fields[f"gen_ai.response.{name}"] = answer[member]
    if reasons := _finish_reasons(answer):
        fields["gen_ai.response.finish_reasons"] = reasons
    for member in ("service_tier", "system_fingerprint"):
        if isinstance(answer.get(member), str):
            fields[f"openai.response.{member}"] = answer[member]
    if answer.get("object") == "list" and (data := answer.get("data")):
        vector = data[0].get("embedding")
        if isinstance(vector, list):
            fields["gen_ai.embeddings.dimension.count"] = len(vector)
    return fields | usage_fields(answer.get("usage"))


def usage_fields(usage: object) -> Fields:
    """Tokens as OpenTelemetry counts them: cached ones are part of the input."""
    if not isinstance(usage, dict):
        return {}
    input_details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    output_details = (
        usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    )
    input_tokens = usage.get("prompt_tokens", usage.get("input_tokens"))
    cache_reads = usage.get("cache_read_input_tokens")
    cache_writes = usage.get("cache_creation_input_tokens")
    # Anthropic counts what was read from or written to its cache beside the input.
    if input_tokens is not None:
        input_tokens += (cache_reads or 0) + (cache_writes or 0)
    counts = {
        "input_tokens": input_tokens,
        "output_tokens": usage.get("completion_tokens", usage.get("output_tokens")),
        "cache_read.input_tokens": input_details.get("cached_tokens", cache_reads),
        "cache_creation.input_tokens": cache_writes,
        "reasoning.output_tokens": output_details.get("reasoning_tokens"),
    }
    return {f"gen_ai.usage.{k}": v for k, v in counts.items() if v is not None}


def answer_messages(answer: Fields) -> list[Fields]:
    """What a model answered, as messages."""
    reasons = iter(_finish_reasons(answer))
    if isinstance(choices := answer.get("choices"), list):
        messages = [
            _message(c.get("message") or {"role": "assistant", "content": c.get("text")})
            for c in choices
        ]
    elif isinstance(output := answer.get("output"), list):
        # Parts of Responses are items beside each other; together they are one answer.
        contents = [content for item in output for content in _message(item)["parts"]]
        contents = [p for p in contents if p != {"type": "reasoning", "content": ""}]
        messages = [{"role": "assistant", "parts": contents}]
    elif "content" in answer:
        messages = [_message(answer)]
    else:
        return []
    messages = [m | ({"finish_reason": r} if (r := next(reasons, None)) else {}) for m in messages]
    return [m for m in messages if m["parts"] or "finish_reason" in m]


def answer_error(answer: Fields) -> tuple[str, str] | None:
    """Return type and message of an error that an answer holds, as those of Responses may."""
    error = answer.get("error")
    if not isinstance(error, dict):
        return None
    error_code = error.get("code") or error.get("type") or "error"
    return str(error_code), str(error.get("message") or error_code)


def _finish_reasons(answer: Fields) -> list[str]:
    if isinstance(choices := answer.get("choices"), list):
        reasons = [choice.get("finish_reason") for choice in choices]
    elif answer.get("object") == "response":
        details = answer.get("incomplete_details") or {}
        status = answer.get("status")
        # Of a response that goes on, the status is no reason to finish.
        reasons = [details.get("reason") or (status if status in _FINAL else None)]
    else:
        reasons = [answer.get("stop_reason")]
    return [reason for reason in reasons if isinstance(reason, str)]


# --- messages ---------------------------------------------------------------------------------


def _message(value: object) -> Fields:
    if not isinstance(value, dict):
        return {"role": "user", "parts": _parts(value)}
    message_type = value.get("type")
    # An item of Responses beside its messages.
    if message_type != "message" and "role" not in value:
        is_reply = message_type in _REPLIES
        return {"role": "tool" if is_reply else "assistant", "parts": [_part(value)]}
    role = value.get("role", "assistant")
    if role == "tool":
        response = {"type": "tool_call_response", "id": value.get("tool_call_id")}
        return {"role": role, "parts": [{**response, "response": value.get("content")}]}
    contents = _parts(value.get("content"))
    for member in ("reasoning_content", "refusal"):
        if content := value.get(member):
            message_type = member.removesuffix("_content")
            # In front of the answer, as it was thought first.
            contents = [{"type": message_type, "content": content}, *contents]
    calls = value.get("tool_calls") or []
    contents += [
        _call(call.get("id"), call.get("function") or call.get("custom")) for call in calls
    ]
    if isinstance(value.get("function_call"), dict):
        contents.append(_call(None, value["function_call"]))
    name_member = {"name": value["name"]} if value.get("name") else {}
    return {"role": role, **name_member, "parts": contents}


def _parts(content: object) -> list[object]:
    if content is None:
        return []
    if not isinstance(content, list) or (content and isinstance(content[0], int)):
        content = [content]  # a list of numbers is one prompt of token ids
    return [_part(item) for item in content]


def _part(item: object) -> object:
    if not isinstance(item, dict):
        return {"type": "text", "content": item}
    item_type = str(item.get("type", ""))
    # What is not known stays with its part.
    attributes = {k: v for k, v in item.items() if k not in _READ and v not in (None, [], {})}
    if item_type in ("text", "input_text", "output_text") and "text" in item:
        return {"type": "text", "content": item["text"], **attributes}
    if item_type in _CALLS:
        return _call(item.get("call_id") or item.get("id"), item)
    if item_type in _REPLIES:
        name = item.get("call_id") or item.get("tool_use_id")
        response = item.get("output", item.get("content"))
        return {"type": "tool_call_response", "id": name, "response": response, **attributes}
    if item_type == "thinking":
        return {"type": "reasoning", "content": item.get("thinking"), **attributes}
    if item_type == "reasoning":
        summaries = [
            s.get("text") for s in [*(item.get("summary") or []), *(item.get("content") or [])]
        ]
        attributes.pop("summary", None)
        return {"type": item_type, "content": "\n".join(t for t in summaries if t), **attributes}
    # As it came: dialects grow, and nothing is to be lost.
    return item


def _call(name: object, call: object) -> Fields:
    call = call if isinstance(call, dict) else {}
    arguments = call.get("arguments", call.get("input"))
    if isinstance(arguments, str):
        # None of a stream that was cut, or of a tool that takes text.
        with suppress(orjson.JSONDecodeError):
            arguments = orjson.loads(arguments)
    return {"type": "tool_call", "id": name, "name": call.get("name"), "arguments": arguments}


# --- content ----------------------------------------------------------------------------------


def map_texts(value: object, function: Callable[[str], object]) -> Any:
    """Return a plain value whose texts went through a function; keys of objects stay."""
    if isinstance(value, str):
        return function(value)
    if isinstance(value, dict):
        return {k: map_texts(v, function) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [map_texts(v, function) for v in value]
    return value


def redacted(content: Fields, function: Callable[[str], object]) -> Fields:
    """Return content whose texts went through a function, but for roles, types, ids and names."""
    return {
        name: value if name == "gen_ai.tool.definitions" else _redacted(value, function)
        for name, value in content.items()
    }


def _redacted(value: object, function: Callable[[str], object]) -> object:
    # Of messages and their parts; the same keys in the arguments of a tool hold what a user said.
    if not isinstance(value, list):
        return map_texts(value, function)
    return [
        {k: v if k in _STRUCTURE else _inner(k, v, function) for k, v in member.items()}
        if isinstance(member, Mapping)
        else map_texts(member, function)
        for member in value
    ]


def _inner(key: str, value: object, function: Callable[[str], object]) -> object:
    return (_redacted if key == "parts" else map_texts)(value, function)


def tool_calls_only(messages: list[Fields]) -> list[Fields]:
    """Return messages without anything that was said: which tools were called, and their ids."""
    bare = []
    # Names of tools are the program's own, and nothing that anybody said.
    for message in messages:
        calls = [
            {k: item.get(k) for k in ("type", "id", "name")}
            for item in message["parts"]
            if isinstance(item, dict) and item.get("type") == "tool_call"
        ]
        if calls:
            bare.append({**message, "parts": calls})
    return bare
