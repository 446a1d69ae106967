"""The document of a server's paths: it has every route, and is one that programs understand."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import lakelog
from lakelog.server.app import LakeServer
from lakelog.server.gate import Gate
from lakelog.server.limits import ServerLimits
from lakelog.server.openapi import document
from lakelog.server.pages import PAGES
from lakelog.server.tokens import TokenFile
from tests.support.requirements import need_module

_NOT_DESCRIBED = {"/ws", "/loki/api/v1/tail", "/tail", "/mcp", *(f"/{page}" for page in PAGES)}
"""What takes any method, as a route, and pages for people."""


def test_every_route_is_described_and_no_other(tmp_path: Path) -> None:
    need_module("uvicorn")
    with lakelog.open(tmp_path / "lake") as lake:
        gate = Gate(TokenFile(lake.path), is_local=True)
        server = LakeServer(lake, gate, ServerLimits())
        routes = {
            (method, route.path.replace(":path", ""))
            for route in server.application()._others.routes
            if route.path not in _NOT_DESCRIBED and not route.path.startswith("/dashboard/")
            for method in {*(route.methods or ())} - {"HEAD"}
        }
        described = document(server.dashboard.answerers())["paths"]
        asyncio.run(server.dashboard.close())
        server.alerts.close()
    operations = {
        (method.upper(), path) for path, methods in described.items() for method in methods
    }
    assert operations - {("POST", "/mcp"), ("GET", "/tail")} == routes


def test_bodies_and_answers_have_schemas() -> None:
    """Programs that make clients leave out operations without one, and lists without items."""

    def check(value: Any) -> None:
        if isinstance(value, dict):
            assert "array" not in value.get("type", ()) or "items" in value, value
            for media_type, content in value.get("content", {}).items():
                assert "schema" in content, media_type
        for inner in value.values() if isinstance(value, dict) else value:
            if isinstance(inner, dict | list):
                check(inner)

    check(document({("POST", "/api/tag"): lambda: None}))


def test_the_document_is_valid() -> None:
    need_module("openapi_spec_validator")
    from openapi_spec_validator import OpenAPIV31SpecValidator

    OpenAPIV31SpecValidator(document({})).validate()
