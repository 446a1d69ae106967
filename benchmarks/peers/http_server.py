"""A peer behind the framework that lakelog's server has: Starlette, uvicorn, httptools, uvloop.

python -m benchmarks.peers.http_server PEER DIRECTORY

`POST /ingest` stores JSON lines, answers once they are synced, and says how many there were. The
first line printed is the port.
"""

from __future__ import annotations

import asyncio
import socket
import sys

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.peers.steps import Maker


def main() -> None:
    """Serve a peer until a signal."""
    name, root = sys.argv[1:]
    peer = Maker(name, root)()

    def store(body: bytes) -> int:
        events = [orjson.loads(line) for line in body.splitlines()]
        peer.commit(events)
        return len(events)

    async def ingest(request: Request) -> JSONResponse:
        body = await request.body()
        loop = asyncio.get_running_loop()
        return JSONResponse({"accepted": await loop.run_in_executor(None, store, body)})

    application = Starlette(routes=[Route("/ingest", ingest, methods=["POST"])])
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(application, access_log=False, log_level="error", lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
