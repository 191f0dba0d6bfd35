"""No route answers a caller that lacks the right to it, for every method and kind of caller.

The routes come from the router's own tables, so that new routes are tested automatically. Each test
sends requests over a real connection, for one caller and one configuration.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple

import pytest

from olla.access.caller import Caller, of_address, of_key
from olla.access.keys import DEFAULT_RIGHTS, Key
from olla.access.policy import AccessPolicy
from olla.dialects.dialect import Operation, Right
from olla.failures import Failed
from olla.proxy.auth.authorize import authorize
from olla.proxy.internal.subrequest import SubrequestIncoming
from olla.surfaces.pages import PAGES
from tests.access_control.conftest import MODEL, MakeFleet, new_key
from tests.routers import Fleet

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OPEN = {"/internal/health", "/internal/ready", "/version", *PAGES}
"""Paths that never need a key: health checks, and pages without data."""
PREFIXES = ("", "/olla/ollama", "/olla/anthropic", "/olla/llamacpp")
"""One prefix of each kind; a test without connections covers the others."""
SETTINGS = """
access:
  require_key: %s
  keys: [{name: ci, key: static-key-of-ci}]
  tiers: {anonymous: {}, standard: {}}
"""
"""The empty tiers turn off the limits that the gateway APIs set by default."""
BODY = json.dumps(
    {
        **{"model": MODEL, "source": MODEL, "destination": "mine", "from": MODEL, "name": "x"},
        **{"prompt": "x", "input": "x", "message": "x", "stream": False, "max_tokens": 1},
        "messages": [{"role": "user", "content": "x"}],
    }
).encode()
DIGEST = "sha256:" + "0" * 64


class Credentials(NamedTuple):
    """The header field that a caller sends, and its rights; None means no rights."""

    field: str
    caller: Caller | None


Make = Callable[[Fleet, bool], Awaitable[Credentials]]


def with_key(**changes: object) -> Make:
    """A caller with a stored key."""

    async def make(fleet: Fleet, required: bool) -> Credentials:
        secret = await new_key(fleet, **changes)
        key = Key("1", b"", "", "", **changes)  # type: ignore[arg-type]
        return Credentials(f"Authorization: Bearer {secret}\r\n", of_key(key))

    return make


def without_key(field: str = "") -> Make:
    """A caller without a key, or with a field that is not a key."""

    async def make(fleet: Fleet, required: bool) -> Credentials:
        return Credentials(field, None if required else of_address("127.0.0.1", DEFAULT_RIGHTS))

    return make


def rejected(field: str = "", **changes: object) -> Make:
    """A caller whose key is rejected."""

    async def make(fleet: Fleet, required: bool) -> Credentials:
        secret = await new_key(fleet, **changes) if changes else ""
        return Credentials(field or f"Authorization: Bearer {secret}\r\n", None)

    return make


async def revoked(fleet: Fleet, required: bool) -> Credentials:
    """A caller whose key was revoked."""
    secret = await new_key(fleet, rights=frozenset(Right))
    await fleet.app.access.store_service.revoke("1")
    return Credentials(f"Authorization: Bearer {secret}\r\n", None)


CALLERS: dict[str, Make] = {
    "keyless": without_key(),
    "keyless through a proxy": without_key("X-Forwarded-For: 203.0.113.9\r\nVia: 1.1 nginx\r\n"),
    "basic": without_key("Authorization: Basic YWRtaW46YWRtaW4=\r\n"),
    "empty key": without_key("Authorization: Bearer \r\nX-API-Key: \r\n"),
    "unknown key": rejected("Authorization: Bearer oa-unknown-key\r\n"),
    "revoked": revoked,
    "expired": rejected(rights=frozenset(Right), expires=10.0),
    "restricted": with_key(models=("none*",), endpoints=("gpu-2",)),
    "nothing": with_key(rights=frozenset()),
    **{right.value: with_key(rights=frozenset({right})) for right in Right},
    "all": with_key(rights=frozenset(Right)),
}


def known_paths(fleet: Fleet, prefixes: tuple[str, ...] | None) -> Iterator[str]:
    """Yield every path of the tables with parameters filled in, optionally limited to some
    prefixes."""
    downstream = fleet.app.downstream
    if prefixes is not None:
        yield "*"
    for path in downstream.internal_routes.paths:
        yield path.replace("/*", "/9999")
    scopes = [*downstream._paths._scopes.values(), downstream._paths._root]
    for scope in scopes:
        assert scope is not None
        if prefixes is None or scope.prefix in prefixes:
            for path in (*scope.exact, "/api/unknown", "/slots/0"):
                yield scope.prefix + path
            for start, _ in scope.open_ended:
                yield scope.prefix + start + (DIGEST if "blobs" in start else "llama3.2")


def expects_rejection(fleet: Fleet, method: str, path: str, caller: Caller | None) -> bool | None:
    """Return whether the caller lacks the right; None if the path or method does not exist."""
    if path == "*" and method != "OPTIONS":
        return None
    route = fleet.app.downstream.internal_routes.find(path)
    if route is not None:
        if route.right is None:
            return False
        if caller is None:
            return True
        if isinstance(route.right, Right):
            return route.right not in caller.rights
        return route.right(caller) is not None
    try:
        target = fleet.app.downstream._paths.resolve(method, path)
    except Failed:
        return None
    return caller is None or target.right not in caller.rights


class Client:
    """A connection that sends requests one after the other, and reads their statuses."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rsplit(":", 1)[1])
        self._writer: asyncio.StreamWriter | None = None

    async def status(self, method: str, path: str, field: str) -> int:
        """Send a request, with the same body for all paths; returns the response status."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        body = b"" if method in ("GET", "HEAD", "OPTIONS") else BODY
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost:{self._port}\r\n{field}"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self._writer.write(head.encode() + b"\r\n" + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        lines = answer.decode("latin-1").lower().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:] if line)
        if method != "HEAD":
            if fields.get("transfer-encoding") == "chunked":
                while size := int(await self._reader.readline(), 16):
                    await self._reader.readexactly(size + 2)
                await self._reader.readuntil(b"\r\n")
            else:
                await self._reader.readexactly(int(fields.get("content-length", 0)))
        if fields.get("connection") == "close":
            await self.close()
        return int(lines[0].split()[1])

    async def close(self) -> None:
        """Close the connection, if it is open."""
        if self._writer is not None:
            self._writer.close()
            await self._writer.wait_closed()
            self._writer = None


@pytest.mark.parametrize("required", [True, False], ids=["keys required", "open"])
@pytest.mark.parametrize("name", CALLERS)
async def test_no_route_answers_a_caller_without_the_right(
    name: str, required: bool, make_fleet: MakeFleet
) -> None:
    """It gets 401 or 403; a caller with the right is not rejected."""
    fleet = await make_fleet(SETTINGS % str(required).lower())
    credentials = await CALLERS[name](fleet, required)
    client = Client(fleet.url)
    wrong: list[tuple[str, str, int]] = []
    counted = {True: 0, False: 0, None: 0}
    for path in known_paths(fleet, PREFIXES):
        for method in METHODS:
            expected = expects_rejection(fleet, method, path, credentials.caller)
            status = await client.status(method, path, credentials.field)
            counted[expected] += 1
            restricted = name == "restricted" and status == 403  # because of its models
            if expected is None:
                correct = status in (400, 404, 405)
            elif expected:
                correct = status in (401, 403)
            else:
                correct = status not in (401, 403) or restricted
            if path in OPEN:
                correct = correct and status not in (401, 403)
            elif credentials.caller is None:
                correct = correct and status >= 400
            if not correct:
                wrong.append((method, path, status))
    await client.close()
    assert wrong == []
    assert counted[False] >= len(OPEN)
    assert counted[True] > 50 or name == "all"


async def test_only_health_checks_and_empty_pages_need_no_key(make_fleet: MakeFleet) -> None:
    """The router's table of open paths equals the one of this test."""
    fleet = await make_fleet()
    paths = fleet.app.downstream.internal_routes.paths
    assert {path for path, route in paths.items() if route.right is None} == OPEN


async def test_every_prefix_checks_rights_alike(make_fleet: MakeFleet) -> None:
    """For all kinds of server, requests pass with the right, and are rejected without it before
    they are forwarded."""
    fleet = await make_fleet()
    authenticator, paths = fleet.app.access.authenticator, fleet.app.downstream._paths
    rights = [frozenset[Right](), *(frozenset({right}) for right in Right), frozenset(Right)]
    checked = 0
    for granted in rights:
        authenticator.adopt(AccessPolicy(anonymous=granted))
        for path in known_paths(fleet, None):
            for method in METHODS:
                try:
                    target = paths.resolve(method, path)
                except Failed:
                    continue
                checked += 1
                incoming = SubrequestIncoming(method, path, b"{}", "127.0.0.1")
                status: int | None = None
                try:
                    authorize(authenticator, incoming, target, None)
                except Failed as failed:
                    status = failed.failure.status
                # All of them have a body, which may order anything if the path is not known.
                needed = Right.MANAGE if target.operation is Operation.OTHER else target.right
                assert status == (None if needed in granted else 403), (method, path)
    assert checked > 1000
