"""One lake over HTTP: other people's senders write to it, and readers send queries.

`serve` serves it as a `ServerPlan` says, `serve_stdio` to one agent; `require_packages` says
beforehand whether that could work. Queries take what `QueryLimits` allow. `TokenFile` keeps who
may use it, and a `TokenScope` is what a token allows.
It needs the extra `server`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.server.mcp.protocol_server import serve_stdio
    from lakelog.server.run import PORT, ServerPlan, require_packages, serve
    from lakelog.server.sql.query_limits import QueryLimits
    from lakelog.server.syslog import SyslogPlan
    from lakelog.server.tokens import TokenFile, TokenScope

__all__ = [
    "PORT",
    "QueryLimits",
    "ServerPlan",
    "SyslogPlan",
    "TokenFile",
    "TokenScope",
    "require_packages",
    "serve",
    "serve_stdio",
]

__getattr__ = lazy_face(
    __name__,
    **{
        "mcp.protocol_server": "serve_stdio",
        "run": "PORT ServerPlan require_packages serve",
        "sql.query_limits": "QueryLimits",
        "syslog": "SyslogPlan",
        "tokens": "TokenFile TokenScope",
    },
)
