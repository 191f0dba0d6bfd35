"""The heads of what olla answers itself, on a whole router."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.routers import Fleet

MODEL = "llama3.2:latest"
OPERATIONS = ("/", "/api/tags", "/api/ps", "/api/version", "/v1/models", f"/v1/models/{MODEL}")


async def head_of(fleet: Fleet, raw: bytes) -> dict[str, list[str]]:
    """The fields of the first answer to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(fleet.url.rsplit(":")[-1]))
    writer.write(raw)
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    writer.close()
    fields: dict[str, list[str]] = {}
    for line in head.split("\r\n")[1:-2]:
        name, _, value = line.partition(": ")
        fields.setdefault(name.lower(), []).append(value)
    return fields


async def test_every_answer_of_its_own_names_the_router_and_nothing_else(tmp_path: Path) -> None:
    """All own paths and lists, by several methods, errors included: `Server: olla`, a date, and no
    version of what it is made of."""
    store = f"store: {{url: 'sqlite:///{tmp_path}/keys.db'}}\n"
    async with Fleet({"only": (MODEL,)}, store) as fleet:
        own = [path.replace("*", "x") for path in fleet.app.downstream.internal_routes.paths]
        assert len(own) > 15
        for path in (*own, *OPERATIONS, "/nothing", "/olla/nothing"):
            for method in ("GET", "HEAD", "POST", "PUT"):
                raw = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
                fields = await head_of(fleet, raw.encode())
                assert fields["server"] == ["olla"], (method, path)
                assert len(fields["date"]) == 1, (method, path)
                told = json.dumps(fields)
                assert re.search(r"aiohttp|python", told, re.IGNORECASE) is None, told


STREAMS = {
    "/chat/stream": {"message": "hi", "model": MODEL},
    "/olla/management/chat": {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
    },
}


@pytest.mark.parametrize(("path", "body"), STREAMS.items())
async def test_own_streams_ask_a_proxy_in_front_not_to_hold_them_back(
    tmp_path: Path, path: str, body: dict[str, object]
) -> None:
    """As relayed ones do."""
    store = f"store: {{url: 'sqlite:///{tmp_path}/keys.db'}}\n"
    async with Fleet({"only": (MODEL,)}, store) as fleet:
        data = json.dumps(body).encode()
        for version in ("1.0", "1.1"):
            head = f"POST {path} HTTP/{version}\r\nHost: localhost\r\nContent-Length: {len(data)}"
            fields = await head_of(fleet, f"{head}\r\n\r\n".encode() + data)
            assert fields["x-accel-buffering"] == ["no"]
            assert fields["server"] == ["olla"]


@pytest.mark.parametrize("target", ["*", "http://localhost:{}"])
async def test_the_server_as_a_whole_tells_its_methods(target: str) -> None:
    """`OPTIONS *`, as it is and as a proxy would have it."""
    async with Fleet({"only": (MODEL,)}) as fleet:
        target = target.format(fleet.url.rsplit(":")[-1])
        fields = await head_of(
            fleet, f"OPTIONS {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        assert fields["allow"] == ["DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"]
        assert "content-type" not in fields


async def test_an_absolute_target_reaches_olla_s_own_paths() -> None:
    """With the rights and the methods that they have by their path."""
    async with Fleet({"only": (MODEL,)}) as fleet:
        port = fleet.url.rsplit(":")[-1]
        for host, allowed in (("localhost", True), ("evil.example", False)):
            raw = f"GET http://{host}:{port}/internal/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
            fields = await head_of(fleet, raw.encode())
            assert ("cache-control" in fields) is allowed


async def test_the_server_as_a_whole_tells_nothing_without_a_key_that_is_required() -> None:
    """`OPTIONS *` is no preflight."""
    extra = "access: {require_key: true, keys: [{name: ci, key: key-of-the-ci}]}\n"
    async with Fleet({"only": (MODEL,)}, extra) as fleet:
        for key, allowed in (("", False), ("Authorization: Bearer key-of-the-ci\r\n", True)):
            raw = f"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n{key}\r\n".encode()
            assert ("allow" in await head_of(fleet, raw)) is allowed
