"""The tools as a server of the Model Context Protocol, by its official SDK (extra `mcp`)."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import orjson

from lakelog.errors import LakelogError, MissingPackage
from lakelog.lake import Lake
from lakelog.runtime.lazy import Lazy
from lakelog.server.mcp.tools import INSTRUCTIONS, TOOLS, LakeTools
from lakelog.server.sql.query_limits import QueryLimits, QueryRefused
from lakelog.server.sql.workers import QueryWorkers
from lakelog.settings import VERSION

if TYPE_CHECKING:
    import mcp_types as types
    from mcp import MCPError
    from mcp.server import Server, stdio
else:
    types = Lazy("mcp_types")
    stdio = Lazy("mcp.server.stdio")

_TAGS = "lakelog://tags/"
_JSON = "application/json"
_NOT_FOUND = -32602


def require_package() -> None:
    """Load the SDK, which takes a while. Raises MissingPackage."""
    with MissingPackage.unless("mcp", "agents need a package of their own"):
        importlib.import_module("mcp.server.stdio")


def protocol_server(tools: LakeTools) -> Server[Any]:
    """Return the server of some tools, for any transport; the SDK is loaded."""
    server_module = importlib.import_module("mcp.server")
    requests = _Requests(tools)
    server: Server[Any] = server_module.Server(
        "lakelog",
        version=VERSION,
        title="lakelog",
        instructions=INSTRUCTIONS,
        on_list_tools=requests.list_tools,
        on_call_tool=requests.call_tool,
        on_list_resources=requests.list_resources,
        on_read_resource=requests.read_resource,
    )
    return server


async def serve_stdio(lake: Lake, limits: QueryLimits) -> bool:
    """Serve one client over standard input and output, until it ends. Return whether nothing of it
    is left: a diff or an audit cannot be ended. Raises MissingPackage."""
    require_package()
    workers = QueryWorkers(lake.path, lake.branch_name, limits)
    tools = LakeTools(lake, workers)
    server = protocol_server(tools)
    try:
        async with stdio.stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())
    finally:
        await workers.close()
    return not tools.is_reading


class _Requests:
    """Answers the requests of the protocol."""

    def __init__(self, tools: LakeTools) -> None:
        self._tools = tools

    async def list_tools(self, context: object, params: object) -> types.ListToolsResult:
        """The tools; all of them only read."""
        return types.ListToolsResult(
            tools=[
                types.Tool(
                    name=tool.name,
                    description=tool.description,
                    input_schema=tool.schema(),
                    annotations=types.ToolAnnotations(
                        read_only_hint=True, idempotent_hint=True, open_world_hint=False
                    ),
                )
                for tool in TOOLS
            ]
        )

    async def call_tool(
        self, context: object, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        """The answer of a tool, as text and as structure; or its error, for the agent to read."""
        try:
            answer = await self._tools.call(params.name, params.arguments or {})
        except QueryRefused as error:
            hint = f" ({error.hint})" if error.hint else ""
            message = f"{error.code}: {error}{hint}"
            return types.CallToolResult(
                content=[types.TextContent(type="text", text=message)], is_error=True
            )
        # Twice, as clients of revisions before 2025-06-18 read the text alone.
        text = orjson.dumps(answer).decode()
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=text)], structured_content=answer
        )

    async def list_resources(self, context: object, params: object) -> types.ListResourcesResult:
        """The tags of the lake."""
        return types.ListResourcesResult(
            resources=[
                types.Resource(
                    name=tag["name"],
                    uri=_TAGS + quote(tag["name"], safe=""),
                    description=tag["message"] or f"the state of {tag['time']}",
                    mime_type=_JSON,
                )
                for tag in await asyncio.to_thread(self._tools.tags)
            ]
        )

    async def read_resource(
        self, context: object, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        """What the state of a tag holds. Raises the protocol's error for anything else."""
        uri = str(params.uri)
        error_type: type[MCPError] = importlib.import_module("mcp").MCPError
        if not uri.startswith(_TAGS):
            raise error_type(_NOT_FOUND, f"there is no resource {uri}")
        try:
            tag = await self._tools.tag(unquote(uri.removeprefix(_TAGS)))
        except LakelogError as error:
            raise error_type(_NOT_FOUND, str(error)) from None
        content = types.TextResourceContents(
            uri=uri, mime_type=_JSON, text=orjson.dumps(tag).decode()
        )
        return types.ReadResourceResult(contents=[content])
