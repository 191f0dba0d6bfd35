"""No route answers a caller that lacks the right to it, whatever the method and the kind of caller.

The routes come from the tables that the router itself goes by, so that a new one is tested by
existing. Requests are sent over a real connection, one caller and one configuration a test.
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
"""What needs no key, also where keys are required: health checks, and pages without any data."""
PREFIXES = ("", "/olla/ollama", "/olla/anthropic", "/olla/llamacpp")
"""One of each kind; that all others go by the same rule is shown without a connection."""
SETTINGS = """
access:
  require_key: %s
  keys: [{name: ci, key: static-key-of-ci}]
  tiers: {anonymous: {}, standard: {}}
"""
"""Without the limits that surfaces bring."""
BODY = json.dumps(
    {
        **{"model": MODEL, "source": MODEL, "destination": "mine", "from": MODEL, "name": "x"},
        **{"prompt": "x", "input": "x", "message": "x", "stream": False, "max_tokens": 1},
        "messages": [{"role": "user", "content": "x"}],
    }
).encode()
DIGEST = "sha256:" + "0" * 64


class Shown(NamedTuple):
    """The field that a caller shows itself by, and what it may do: nothing, if None."""

    field: str
    caller: Caller | None


Make = Callable[[Fleet, bool], Awaitable[Shown]]


def with_key(**changes: object) -> Make:
    """A caller with a key in the store."""

    async def make(fleet: Fleet, required: bool) -> Shown:
        secret = await new_key(fleet, **changes)
        key = Key("1", b"", "", "", **changes)  # type: ignore[arg-type]
        return Shown(f"Authorization: Bearer {secret}\r\n", of_key(key))

    return make


def without_key(field: str = "") -> Make:
    """A caller that shows no key, or what is none."""

    async def make(fleet: Fleet, required: bool) -> Shown:
        return Shown(field, None if required else of_address("127.0.0.1", DEFAULT_RIGHTS))

    return make


def refused(field: str = "", **changes: object) -> Make:
    """A caller whose key is not accepted."""

    async def make(fleet: Fleet, required: bool) -> Shown:
        secret = await new_key(fleet, **changes) if changes else ""
        return Shown(field or f"Authorization: Bearer {secret}\r\n", None)

    return make


async def revoked(fleet: Fleet, required: bool) -> Shown:
    """A caller whose key was revoked."""
    secret = await new_key(fleet, rights=frozenset(Right))
    await fleet.app.access.store_service.revoke("1")
    return Shown(f"Authorization: Bearer {secret}\r\n", None)


CALLERS: dict[str, Make] = {
    "keyless": without_key(),
    "keyless through a proxy": without_key("X-Forwarded-For: 203.0.113.9\r\nVia: 1.1 nginx\r\n"),
    "basic": without_key("Authorization: Basic YWRtaW46YWRtaW4=\r\n"),
    "empty key": without_key("Authorization: Bearer \r\nX-API-Key: \r\n"),
    "unknown key": refused("Authorization: Bearer oa-nobody-has-this\r\n"),
    "revoked": revoked,
    "expired": refused(rights=frozenset(Right), expires=10.0),
    "restricted": with_key(models=("none*",), endpoints=("gpu-2",)),
    "nothing": with_key(rights=frozenset()),
    **{right.value: with_key(rights=frozenset({right})) for right in Right},
    "all": with_key(rights=frozenset(Right)),
}


def known_paths(fleet: Fleet, prefixes: tuple[str, ...] | None) -> Iterator[str]:
    """Every path of the tables, parameters filled in; under these prefixes only, if any."""
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


def refusal_due(fleet: Fleet, method: str, path: str, caller: Caller | None) -> bool | None:
    """Whether the caller has no right to it; None where there is nothing, or not by that method."""
    if path == "*" and method != "OPTIONS":
        return None
    own = fleet.app.downstream.internal_routes.own(path)
    if own is not None:
        if own.right is None:
            return False
        if caller is None:
            return True
        if isinstance(own.right, Right):
            return own.right not in caller.rights
        return own.right(caller) is not None
    try:
        target = fleet.app.downstream._paths.resolve(method, path)
    except Failed:
        return None
    return caller is None or target.right not in caller.rights


class Client:
    """Sends requests one after the other on a connection, and reads their statuses."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rsplit(":", 1)[1])
        self._writer: asyncio.StreamWriter | None = None

    async def status(self, method: str, path: str, field: str) -> int:
        """The status of a request with the same body for all paths."""
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
        """Close the connection, if there is one."""
        if self._writer is not None:
            self._writer.close()
            await self._writer.wait_closed()
            self._writer = None


@pytest.mark.parametrize("required", [True, False], ids=["keys required", "open"])
@pytest.mark.parametrize("name", CALLERS)
async def test_no_route_answers_a_caller_without_the_right(
    name: str, required: bool, make_fleet: MakeFleet
) -> None:
    """401 or 403, never an answer; and a caller with the right is not refused."""
    fleet = await make_fleet(SETTINGS % str(required).lower())
    shown = await CALLERS[name](fleet, required)
    client = Client(fleet.url)
    wrong: list[tuple[str, str, int]] = []
    counted = {True: 0, False: 0, None: 0}
    for path in known_paths(fleet, PREFIXES):
        for method in METHODS:
            due = refusal_due(fleet, method, path, shown.caller)
            status = await client.status(method, path, shown.field)
            counted[due] += 1
            limited = name == "restricted" and status == 403  # for its models
            if due is None:
                right = status in (400, 404, 405)
            elif due:
                right = status in (401, 403)
            else:
                right = status not in (401, 403) or limited
            if path in OPEN:
                right = right and status not in (401, 403)
            elif shown.caller is None:
                right = right and status >= 400
            if not right:
                wrong.append((method, path, status))
    await client.close()
    assert wrong == []
    assert counted[False] >= len(OPEN)
    assert counted[True] > 50 or name == "all"


async def test_only_health_checks_and_empty_pages_are_open_to_all(make_fleet: MakeFleet) -> None:
    """The table of what needs no key is this one."""
    fleet = await make_fleet()
    paths = fleet.app.downstream.internal_routes.paths
    assert {path for path, own in paths.items() if own.right is None} == OPEN


async def test_every_prefix_goes_by_the_same_rule(make_fleet: MakeFleet) -> None:
    """Of all kinds of server: let in with the right, refused without, before anything is asked."""
    fleet = await make_fleet()
    authenticator, paths = fleet.app.access.authenticator, fleet.app.downstream._paths
    rights = [frozenset[Right](), *(frozenset({right}) for right in Right), frozenset(Right)]
    tried = 0
    for may in rights:
        authenticator.adopt(AccessPolicy(anonymous=may))
        for path in known_paths(fleet, None):
            for method in METHODS:
                try:
                    target = paths.resolve(method, path)
                except Failed:
                    continue
                tried += 1
                incoming = SubrequestIncoming(method, path, b"{}", "127.0.0.1")
                refused: int | None = None
                try:
                    authorize(authenticator, incoming, target, None)
                except Failed as failed:
                    refused = failed.failure.status
                # All of them have a body, which may order anything where the path is not known.
                due = Right.MANAGE if target.operation is Operation.OTHER else target.right
                assert refused == (None if due in may else 403), (method, path)
    assert tried > 1000
