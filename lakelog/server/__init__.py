"""One lake over HTTP: other people's senders write to it, and readers send queries.

`serve` serves it as a `ServerPlan` says, `serve_stdio` to one agent; `require_packages` says
beforehand whether that could work. Queries take what `QueryLimits` allow. `TokenFile` keeps who
may use it, and a `TokenScope` is what a token allows.
It needs the extra `server`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.server.mcp.protocol_server import serve_stdio as serve_stdio
    from lakelog.server.run import PORT as PORT
    from lakelog.server.run import ServerPlan as ServerPlan
    from lakelog.server.run import require_packages as require_packages
    from lakelog.server.run import serve as serve
    from lakelog.server.sql.query_limits import QueryLimits as QueryLimits
    from lakelog.server.syslog import SyslogPlan as SyslogPlan
    from lakelog.server.tokens import TokenFile as TokenFile
    from lakelog.server.tokens import TokenScope as TokenScope

__getattr__, __all__ = lazy_face(__name__)
