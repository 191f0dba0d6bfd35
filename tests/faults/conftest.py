"""Provide the wire tests' routers over scripted endpoints."""

from tests.wire.conftest import make_router

__all__ = ["make_router"]
