"""One lake over HTTP: other people's senders write to it.

`serve` serves it as a `ServerPlan` says, `TokenFile` keeps who may use it, and a `TokenScope`
is what a token allows. It needs the extra `server`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.server.run import PORT, ServerPlan, serve
    from lakelog.server.tokens import TokenFile, TokenScope

__all__ = ["PORT", "ServerPlan", "TokenFile", "TokenScope", "serve"]

__getattr__ = lazy_face(
    __name__, {"run": "PORT ServerPlan serve", "tokens": "TokenFile TokenScope"}
)
