"""A server that answers with the surfaces alone."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer, TestClient

from olla.access.caller import Caller, of_address, of_key
from olla.access.keys import DEFAULT_RIGHTS, Key
from olla.dialects.dialect import Operation, Right
from olla.dialects.paths import Paths, ScopeSpec
from olla.fleet.profiles import PROFILES
from olla.proxy.internal.routes import OperationSurface
from tests.surfaces.known_fleet import KnownFleet, StillClock

Surface = Callable[[web.BaseRequest, Any], Awaitable[web.StreamResponse]]
ANYBODY = of_address("192.0.2.1", DEFAULT_RIGHTS)
ADMIN = of_key(Key("1", b"d", "oa-", "boss", rights=frozenset({Right.LIST, Right.ADMIN})))
Serve = Callable[..., Awaitable[TestClient[Any, Any]]]


@pytest.fixture
def clock() -> StillClock:
    """Time that stands still."""
    return StillClock()


@pytest.fixture
def fleet() -> KnownFleet:
    """A fleet of nobody, to be set."""
    return KnownFleet()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Makes a client of a server with just these surfaces."""
    clients: list[TestClient[Any, Any]] = []
    scopes = [ScopeSpec(row.name, row.prefixes, row.dialects) for row in PROFILES.values()]
    paths = Paths(scopes, root_enabled=True)

    async def started(
        routes: Mapping[str, Surface],
        operations: Mapping[Operation, OperationSurface] | None = None,
        caller: Caller = ANYBODY,
    ) -> TestClient[Any, Any]:
        asked = SimpleNamespace(
            quota=SimpleNamespace(caller=caller), record=SimpleNamespace(failure=None)
        )

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            surface = routes.get(request.path)
            if surface is not None:
                return await surface(request, asked)
            target = paths.resolve(request.method, request.raw_path)
            return await (operations or {})[target.operation](request, target, caller)

        client = TestClient(RawTestServer(handle))
        clients.append(client)
        await client.start_server()
        return client

    yield started
    for client in clients:
        await client.close()
