"""The dashboard's files: served as they are, and allowed to load nothing from elsewhere.

The policy has no `unsafe-inline`, and no text becomes HTML in a browser that knows trusted types.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping

from lakelog.server.arrivals import RequestRefused
from lakelog.server.protocols.protocol import Answer

FOLDER = "/dashboard/"
_ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "dashboard")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Kept by the browser, and asked for by its tag: an upgraded server has other files.
    "Cache-Control": "no-cache",
}


PAGES = "overview explore traces patterns history sources alerts settings".split()
"""Paths that links of other programs may name, such as /explore?q=…: the page of that name."""


def moved(name: str, query: str) -> Answer:
    """Send a browser to a page; what is asked stands behind # there, where no server sees it."""
    return Answer(302, b"", {"Location": f"/#/{name}{f'?{query}' if query else ''}"}, "text/plain")


@functools.cache
def _files() -> Mapping[str, tuple[bytes, str, str]]:
    """Every file by its path below the folder: bytes, type, and tag."""
    files = {}
    for folder, _, names in os.walk(_ROOT):
        for name in names:
            media_type = _TYPES.get(os.path.splitext(name)[1])
            path = os.path.join(folder, name)
            if media_type:
                with open(path, "rb") as file:
                    content = file.read()
                tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
                files[os.path.relpath(path, _ROOT).replace(os.sep, "/")] = content, media_type, tag
    return files


def page(name: str, headers: Mapping[str, str]) -> Answer:
    """Return a file of the dashboard, 304 if the browser has it. Raises RequestRefused."""
    try:
        content, media_type, tag = _files()[name]
    except KeyError:
        raise RequestRefused(404, "there is nothing at that path") from None
    answered = {**_HEADERS, "ETag": tag}
    if headers.get("if-none-match") == tag:
        return Answer(304, b"", answered, media_type)
    return Answer(200, content, answered, media_type)
