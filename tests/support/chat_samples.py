"""One conversation with a tool call as each API, SDK and trace writes it, by their documents."""

from __future__ import annotations

import json
from typing import Any

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
NAME, ABOUT = "get_weather", "Weather of a city"
FUNCTION = {"name": NAME, "description": ABOUT, "parameters": PARAMETERS}
TOOL = {"type": "function", "function": FUNCTION}
ARGUMENTS = {"city": "Paris"}
SYSTEM, ASK, RESULT, ANSWER = "Be brief.", "Weather in Paris?", "18 C", "It is 18 C."
SCHEMA = {"description": ABOUT, "name": NAME}


def _json(value: Any) -> str:
    return json.dumps(value)


_CALL = {"id": "c1", "type": "function", "function": {"name": NAME, "arguments": _json(ARGUMENTS)}}
OPENAI_MESSAGES = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": ASK},
    {"role": "assistant", "content": None, "refusal": None, "tool_calls": [_CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": RESULT},
]
_COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "logprobs": None,
            "message": {"role": "assistant", "content": ANSWER, "refusal": None, "annotations": []},
        }
    ],
    "usage": {"total_tokens": 9},
}
_CHAT = {"model": "gpt-4o", "messages": OPENAI_MESSAGES, "tools": [TOOL], "temperature": 0}
_ITEMS = [
    {"role": "user", "content": [{"type": "input_text", "text": ASK}]},
    {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "c1",
        "name": NAME,
        "arguments": _json(ARGUMENTS),
        "status": "completed",
    },
    {"type": "function_call_output", "call_id": "c1", "output": RESULT},
]
_RESPONSES = {
    "model": "gpt-5",
    "instructions": SYSTEM,
    "input": _ITEMS,
    "tools": [{"type": "function", **FUNCTION}],
}
_RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "instructions": SYSTEM,
    "output": [
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": ANSWER, "annotations": []}],
        }
    ],
    "tools": [{"type": "function", **FUNCTION}],
}
_ANTHROPIC = {
    "model": "claude",
    "max_tokens": 100,
    "system": [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": ASK},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "c1", "name": NAME, "input": ARGUMENTS}],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "c1",
                    "content": [{"type": "text", "text": RESULT}],
                }
            ],
        },
    ],
    "tools": [{**SCHEMA, "input_schema": PARAMETERS, "cache_control": {"type": "ephemeral"}}],
}
_ANTHROPIC_ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": ANSWER}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1},
}
_GEMINI = {
    "systemInstruction": {"parts": [{"text": SYSTEM}]},
    "contents": [
        {"role": "user", "parts": [{"text": ASK}]},
        {"role": "model", "parts": [{"functionCall": {"name": NAME, "args": ARGUMENTS}}]},
        {
            "role": "user",
            "parts": [{"functionResponse": {"name": NAME, "response": {"result": RESULT}}}],
        },
    ],
    "tools": [{"functionDeclarations": [FUNCTION]}],
    "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}},
}
_GEMINI_ANSWER = {
    "candidates": [
        {"content": {"role": "model", "parts": [{"text": ANSWER}]}, "finishReason": "STOP"}
    ],
    "usageMetadata": {"totalTokenCount": 9},
}
_BEDROCK = {
    "modelId": "m",
    "system": [{"text": SYSTEM}, {"cachePoint": {"type": "default"}}],
    "messages": [
        {"role": "user", "content": [{"text": ASK}]},
        {
            "role": "assistant",
            "content": [{"toolUse": {"toolUseId": "c1", "name": NAME, "input": ARGUMENTS}}],
        },
        {
            "role": "user",
            "content": [
                {
                    "toolResult": {
                        "toolUseId": "c1",
                        "content": [{"text": RESULT}],
                        "status": "success",
                    }
                }
            ],
        },
    ],
    "toolConfig": {"tools": [{"toolSpec": {**SCHEMA, "inputSchema": {"json": PARAMETERS}}}]},
}
_BEDROCK_ANSWER = {
    "output": {"message": {"role": "assistant", "content": [{"text": ANSWER}]}},
    "stopReason": "end_turn",
    "usage": {"totalTokens": 9},
    "metrics": {"latencyMs": 5},
}


def _lc(name: str, **fields: Any) -> dict[str, Any]:
    """A message as LangChain serializes it."""
    path = ["langchain", "schema", "messages", name]
    return {"lc": 1, "type": "constructor", "id": path, "kwargs": fields}


_LC_CALL = {"name": NAME, "args": ARGUMENTS, "id": "c1", "type": "tool_call"}
_LANGCHAIN = [
    _lc("SystemMessage", content=SYSTEM, type="system"),
    _lc("HumanMessage", content=ASK, type="human", additional_kwargs={}),
    _lc(
        "AIMessage",
        content="",
        type="ai",
        tool_calls=[_LC_CALL],
        invalid_tool_calls=[],
        additional_kwargs={"tool_calls": [_CALL]},
    ),
    _lc("ToolMessage", content=RESULT, type="tool", tool_call_id="c1", status="success"),
]
_LC_DICTS = [
    {"type": "system", "data": {"content": SYSTEM}},
    {"type": "human", "data": {"content": ASK, "additional_kwargs": {}}},
    {"type": "ai", "data": {"content": "", "tool_calls": [_LC_CALL]}},
    {"type": "tool", "data": {"content": RESULT, "tool_call_id": "c1"}},
    {"type": "ai", "data": {"content": ANSWER, "response_metadata": {"model": "m"}}},
]
_LC_DUMPED = [{"type": m["type"], **m["data"]} for m in _LC_DICTS]  # type: ignore[dict-item]


def _attributes(**fields: Any) -> list[dict[str, Any]]:
    return [{"key": k, "value": {"stringValue": v}} for k, v in fields.items()]


def _event(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "timeUnixNano": "1", "attributes": _attributes(**fields)}


_PARTS = [
    {"role": "user", "parts": [{"type": "text", "content": ASK}]},
    {
        "role": "assistant",
        "parts": [{"type": "tool_call", "id": "c1", "name": NAME, "arguments": ARGUMENTS}],
    },
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": RESULT}]},
]
_OTEL_NEW = {
    "gen_ai.system_instructions": _json([{"type": "text", "content": SYSTEM}]),
    "gen_ai.input.messages": _json(_PARTS),
    "gen_ai.output.messages": _json(
        [
            {
                "role": "assistant",
                "parts": [{"type": "text", "content": ANSWER}],
                "finish_reason": "stop",
            }
        ]
    ),
    "gen_ai.tool.definitions": _json([{"type": "function", **FUNCTION}]),
}
_OTEL_EVENTS = [
    _event("gen_ai.system.message", content=SYSTEM),
    _event("gen_ai.user.message", content=ASK),
    _event("gen_ai.assistant.message", tool_calls=_json([_CALL])),
    _event("gen_ai.tool.message", id="c1", content=RESULT),
    _event(
        "gen_ai.choice",
        index="0",
        finish_reason="stop",
        message=_json({"role": "assistant", "content": ANSWER}),
    ),
]
_TRACELOOP = {
    "gen_ai.prompt.0.role": "system",
    "gen_ai.prompt.0.content": SYSTEM,
    "gen_ai.prompt.1.role": "user",
    "gen_ai.prompt.1.content": ASK,
    "gen_ai.prompt.2.role": "assistant",
    "gen_ai.prompt.2.tool_calls.0.id": "c1",
    "gen_ai.prompt.2.tool_calls.0.name": NAME,
    "gen_ai.prompt.2.tool_calls.0.arguments": _json(ARGUMENTS),
    "gen_ai.prompt.3.role": "tool",
    "gen_ai.prompt.3.content": RESULT,
    "gen_ai.prompt.3.tool_call_id": "c1",
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.content": ANSWER,
    "gen_ai.completion.0.finish_reason": "stop",
    "llm.request.functions.0.name": NAME,
    "llm.request.functions.0.description": ABOUT,
    "llm.request.functions.0.parameters": _json(PARAMETERS),
}
_OPENINFERENCE = {
    "openinference.span.kind": "LLM",
    "llm.input_messages.0.message.role": "system",
    "llm.input_messages.0.message.content": SYSTEM,
    "llm.input_messages.1.message.role": "user",
    "llm.input_messages.1.message.contents.0.message_content.type": "text",
    "llm.input_messages.1.message.contents.0.message_content.text": ASK,
    "llm.input_messages.2.message.role": "assistant",
    "llm.input_messages.2.message.tool_calls.0.tool_call.id": "c1",
    "llm.input_messages.2.message.tool_calls.0.tool_call.function.name": NAME,
    "llm.input_messages.2.message.tool_calls.0.tool_call.function.arguments": _json(ARGUMENTS),
    "llm.input_messages.3.message.role": "tool",
    "llm.input_messages.3.message.content": RESULT,
    "llm.input_messages.3.message.tool_call_id": "c1",
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": ANSWER,
    "llm.tools.0.tool.json_schema": _json(TOOL),
}
_SHAREGPT = {
    "system": SYSTEM,
    "tools": _json([FUNCTION]),
    "conversations": [
        {"from": "human", "value": ASK},
        {"from": "function_call", "value": _json({"name": NAME, "arguments": ARGUMENTS})},
        {"from": "observation", "value": RESULT},
        {"from": "gpt", "value": ANSWER},
    ],
}
_AI_SDK = {
    "ai.prompt.messages": _json(
        [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": [{"type": "text", "text": ASK}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "tool-call", "toolCallId": "c1", "toolName": NAME, "input": ARGUMENTS}
                ],
            },
            {
                "role": "tool",
                "content": [
                    {
                        "type": "tool-result",
                        "toolCallId": "c1",
                        "toolName": NAME,
                        "output": {"type": "text", "value": RESULT},
                    }
                ],
            },
        ]
    ),
    "ai.prompt.tools": [_json({"type": "function", **SCHEMA, "inputSchema": PARAMETERS})],
    "ai.response.text": ANSWER,
}
_AI_SDK_UI = {
    "messages": [
        {"id": "1", "role": "system", "parts": [{"type": "text", "text": SYSTEM}]},
        {"id": "2", "role": "user", "parts": [{"type": "text", "text": ASK}]},
        {
            "id": "3",
            "role": "assistant",
            "parts": [
                {"type": "step-start"},
                {
                    "type": f"tool-{NAME}",
                    "toolCallId": "c1",
                    "state": "output-available",
                    "input": ARGUMENTS,
                    "output": RESULT,
                },
                {"type": "text", "text": ANSWER, "state": "done"},
            ],
        },
    ],
    "tools": [TOOL],
}
_RAN = {"run_type": "llm", "extra": {"invocation_params": {"tools": [TOOL]}}}

_HALVES = (ANSWER[:7], ANSWER[7:])
_CHUNKS = [
    {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}
    for delta in (
        {"role": "assistant", "content": "", "refusal": None},
        *({"content": half} for half in _HALVES),
        {},
    )
]
_ANTHROPIC_EVENTS = [
    {"type": "message_start", "message": {**_ANTHROPIC_ANSWER, "content": []}},
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    *(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": half}}
        for half in _HALVES
    ),
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
]
_BEDROCK_EVENTS = [
    {"messageStart": {"role": "assistant"}},
    *({"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": half}}} for half in _HALVES),
    {"contentBlockStop": {"contentBlockIndex": 0}},
    {"messageStop": {"stopReason": "end_turn"}},
]
_GEMINI_CHUNKS = [
    {"candidates": [{"content": {"role": "model", "parts": [{"text": half}]}}]} for half in _HALVES
]
_RESPONSES_EVENTS = [
    {"type": "response.created", "response": {"object": "response", "output": []}},
    *({"type": "response.output_text.delta", "delta": half} for half in _HALVES),
    {"type": "response.completed", "response": _RESPONSE},
]
_OLLAMA_CHUNKS = [
    {"message": {"role": "assistant", "content": half}, "done": half == ANSWER[7:]}
    for half in _HALVES
]


def _sse(events: list[Any]) -> str:
    return "".join(f"data: {_json(event)}\n\n" for event in events) + "data: [DONE]\n\n"


SAMPLES: dict[str, dict[str, Any]] = {
    "openai chat, request and response": {"request": _CHAT, "response": _COMPLETION},
    "openai chat, one body": {**_CHAT, **_COMPLETION},
    "openai chat, streamed": {"request": _CHAT, "response": _CHUNKS},
    "openai chat, server-sent events": {"request": _CHAT, "response": _sse(_CHUNKS)},
    "openai responses, streamed": {"request": _RESPONSES, "response": _RESPONSES_EVENTS},
    "anthropic, one body": {**_ANTHROPIC, **_ANTHROPIC_ANSWER},
    "anthropic, streamed": {"request": _ANTHROPIC, "response": _ANTHROPIC_EVENTS},
    "anthropic, server-sent events": {"request": _ANTHROPIC, "response": _sse(_ANTHROPIC_EVENTS)},
    "gemini, streamed": {"request": _GEMINI, "response": _GEMINI_CHUNKS},
    "bedrock, streamed": {"request": _BEDROCK, "response": _BEDROCK_EVENTS},
    "ollama, streamed": {"request": _CHAT, "response": _OLLAMA_CHUNKS},
    "openai chat, text as parts": {
        **_CHAT,
        "response": ANSWER,
        "messages": [
            {**m, "content": [{"type": "text", "text": m["content"]}] if m["content"] else None}
            for m in OPENAI_MESSAGES
        ],
    },
    "openai batch": {
        "custom_id": "1",
        "body": _CHAT,
        "response": {"status_code": 200, "body": _COMPLETION},
    },
    "openai fine-tuning": {
        "messages": [*OPENAI_MESSAGES, {"role": "assistant", "content": ANSWER}],
        "tools": [TOOL],
    },
    "openai functions": {
        **_CHAT,
        **_COMPLETION,
        "tools": None,
        "functions": [FUNCTION],
        "messages": [
            *OPENAI_MESSAGES[:2],
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": NAME, "arguments": _json(ARGUMENTS)},
            },
            {"role": "function", "name": NAME, "content": RESULT},
        ],
    },
    "openai responses": {"request": _RESPONSES, "response": _RESPONSE},
    "openai responses, one body": {**_RESPONSES, **_RESPONSE},
    "anthropic": {"request": _ANTHROPIC, "response": _ANTHROPIC_ANSWER},
    "anthropic, system text": {**_ANTHROPIC, "system": SYSTEM, "response": _ANTHROPIC_ANSWER},
    "gemini": {"request": _GEMINI, "response": _GEMINI_ANSWER},
    "gemini, python": {
        "input": {
            "model": "gemini",
            "contents": _GEMINI["contents"],
            "config": {
                "system_instruction": SYSTEM,
                "tools": [{"function_declarations": [FUNCTION]}],
            },
        },
        "output": _GEMINI_ANSWER["candidates"][0],
    },  # type: ignore[index]
    "bedrock converse": {"request": _BEDROCK, "response": _BEDROCK_ANSWER},
    "bedrock, one body": {**_BEDROCK, **_BEDROCK_ANSWER},
    "bedrock invocation log": {
        "schemaType": "ModelInvocationLog",
        "operation": "Converse",
        "input": {"inputContentType": "application/json", "inputBodyJson": _BEDROCK},
        "output": {"outputBodyJson": _BEDROCK_ANSWER},
    },
    "ollama": {
        "request": _CHAT,
        "response": {
            "model": "m",
            "message": {"role": "assistant", "content": ANSWER},
            "done": True,
        },
    },
    "langchain, langsmith run": {
        **_RAN,
        "inputs": {"messages": [_LANGCHAIN]},
        "outputs": {
            "generations": [
                [
                    {
                        "text": ANSWER,
                        "type": "ChatGeneration",
                        "message": _lc("AIMessage", content=ANSWER, type="ai"),
                    }
                ]
            ],
            "llm_output": {},
        },
    },
    "langchain, messages_to_dict": {"messages": _LC_DICTS, "tools": [TOOL]},
    "langchain, model_dump": {"messages": _LC_DUMPED, "tools": [TOOL]},
    "langgraph state": {
        "inputs": {"messages": _LC_DUMPED[:2]},
        "outputs": {"messages": _LC_DUMPED},
        "tools": [TOOL],
    },
    "otel, attributes": {"traceId": "t", "attributes": _OTEL_NEW},
    "otel, otlp attributes": {"traceId": "t", "attributes": _attributes(**_OTEL_NEW)},
    "otel, details event": {
        "eventName": "gen_ai.client.inference.operation.details",
        "attributes": _OTEL_NEW,
    },
    "otel, span events": {
        "traceId": "t",
        "events": _OTEL_EVENTS,
        "attributes": _attributes(**{"gen_ai.tool.definitions": _json([TOOL])}),
    },
    "otel, prompt event": {
        "attributes": {"gen_ai.tool.definitions": _json([TOOL])},
        "events": [
            _event("gen_ai.content.prompt", **{"gen_ai.prompt": _json(OPENAI_MESSAGES)}),
            _event(
                "gen_ai.content.completion",
                **{"gen_ai.completion": _json([{"role": "assistant", "content": ANSWER}])},
            ),
        ],
    },
    "otel, indexed attributes": {"traceId": "t", "attributes": _TRACELOOP},
    "openinference": {"attributes": _OPENINFERENCE},
    "ai sdk span": {"attributes": _AI_SDK},
    "ai sdk ui messages": _AI_SDK_UI,
    "langfuse": {
        "type": "GENERATION",
        "traceId": "t",
        "input": _json(OPENAI_MESSAGES),
        "output": _json({"role": "assistant", "content": ANSWER}),
        "toolDefinitions": {NAME: _json({"description": ABOUT, "parameters": PARAMETERS})},
    },
    "langfuse, body as input": {
        "type": "GENERATION",
        "input": {"messages": OPENAI_MESSAGES, "tools": [TOOL]},
        "output": ANSWER,
    },
    "langfuse, definitions as messages": {
        "type": "GENERATION",
        "output": ANSWER,
        "input": [*OPENAI_MESSAGES, {"role": "tool", "content": TOOL}],
    },
    "sharegpt": _SHAREGPT,
}

RECORDS: list[dict[str, Any]] = [
    {"eventName": "gen_ai.system.message", "body": {"content": SYSTEM}},
    {"attributes": {"event.name": "gen_ai.user.message"}, "body": {"content": ASK}},
    {"eventName": "gen_ai.assistant.message", "body": {"tool_calls": [_CALL]}},
    {"eventName": "gen_ai.tool.message", "body": {"id": "c1", "content": RESULT}},
    {
        "eventName": "gen_ai.choice",
        "body": {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": ANSWER},
        },
    },
]
"""The same as five log records of OpenTelemetry's older conventions."""
