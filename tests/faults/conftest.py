"""Routers over scripted endpoints, as the wire tests have them."""

from tests.wire.conftest import make_router

__all__ = ["make_router"]
