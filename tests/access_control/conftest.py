"""Provide routers with a key store."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from olla.access.keys import SECRET_BYTES, Key, form_key
from tests.routers import Fleet

MODEL, OTHER = "llama3.2:latest", "mistral:latest"
NODES = {"gpu-1": (MODEL, OTHER), "gpu-2": (MODEL,)}
MakeFleet = Callable[..., Awaitable[Fleet]]


@pytest.fixture
async def make_fleet(tmp_path: Path) -> AsyncIterator[MakeFleet]:
    """Provide a function that runs a router over two nodes, with an empty store and more
    settings."""
    async with AsyncExitStack() as stack:

        async def make(extra: str = "", *, nodes: Any = None, store: str = "", **options: object):  # type: ignore[no-untyped-def]
            url = store or f"sqlite:///{tmp_path}/olla.db"
            text = f"store: {{url: '{url}'}}\n{extra}"
            return await stack.enter_async_context(Fleet(nodes or NODES, text, **options))

        yield make


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Provide a client."""
    async with aiohttp.ClientSession() as client:
        yield client


async def new_key(fleet: Fleet, number: int = 1, **changes: Any) -> str:
    """Store a new key in the router's store; returns its secret."""
    secret, digest, shown = form_key(bytes([number]) * SECRET_BYTES)
    key = Key(id="", digest=digest, shown=shown, **{"name": f"key-{number}", **changes})
    await fleet.app.access.store_service.create(key)
    return secret


def bearer(key: str) -> dict[str, str]:
    """Return the header that carries a key."""
    return {"Authorization": f"Bearer {key}"}


CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "native": (
        "/api/chat",
        {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": False},
    ),
    "openai": (
        "/v1/chat/completions",
        {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]},
    ),
    "anthropic": (
        "/v1/messages",
        {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]},
    ),
}
"""A short request in each dialect."""


def error_message(dialect: str, body: Any) -> str:
    """Return the message of an error, after checking the body's shape for the dialect."""
    if dialect == "native":
        assert set(body) == {"error"}
        message = body["error"]
    elif dialect == "openai":
        assert set(body["error"]) == {"message", "type", "param", "code"}
        message = body["error"]["message"]
    else:
        assert body["type"] == "error"
        message = body["error"]["message"]
    assert isinstance(message, str)
    return message
