"""Compressed request bodies: decoded with a bound, and sent on as they are."""

import gzip
import json
import zlib
from collections.abc import Callable

import aiohttp
import pytest
from backports import zstd

from olla.failures import Kind
from tests.routers import Fleet
from tests.wire.conftest import MODEL, MakeRouter, answer, split

PACK: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstd.compress,
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
}
PATHS = ("/v1/responses", "/api/chat", "/v1/messages", "/olla/openai/v1/chat/completions")
DONE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def packed(path: str, coding: str, body: bytes, framing: str = "length") -> bytes:
    """A request whose body is compressed already."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Encoding: {coding}\r\n"
    if framing == "length":
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    half = len(body) // 2
    chunks = [body[:half], body[half:]]
    formed = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in chunks if each)
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + formed + b"0\r\n\r\n"


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("coding", sorted(PACK))
async def test_an_endpoint_gets_a_body_that_any_server_reads(
    make_router: MakeRouter, coding: str, path: str, framing: str
) -> None:
    """Decoded, with its own length and no word of a coding; and the model is known."""
    router = await make_router()
    router.endpoints[0].script = answer(DONE)
    body = json.dumps({"model": MODEL, "stream": False, "input": "x" * 300_000}).encode()
    told = await router.exchange(packed(path, coding, PACK[coding](body), framing))
    assert told.startswith(b"HTTP/1.1 200 ")
    head, sent = split(router.endpoints[0].requests[0])
    assert sent == body
    assert b"content-encoding" not in head.lower()
    assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"
    (record,) = router.records
    assert (record.model, record.bytes_in) == (MODEL, len(body))
    assert router.services.body_budget.taken == 0


@pytest.mark.parametrize("coding", ["zstd", "gzip", "deflate"])
@pytest.mark.parametrize("path", PATHS)
async def test_a_bomb_is_413(make_router: MakeRouter, coding: str, path: str) -> None:
    """In the dialect of the path. What it would have become is never there."""
    router = await make_router()
    bomb = PACK[coding](bytes(400 << 20))
    assert len(bomb) < 1 << 20
    head, body = split(await router.exchange(packed(path, coding, bomb)))
    assert head.startswith(b"HTTP/1.1 413 ")
    assert "error" in json.loads(body)
    assert router.endpoints[0].requests == []
    assert router.services.body_budget.taken == 0
    failure = router.records[0].failure
    assert failure is not None
    assert failure.kind is Kind.BODY_TOO_LARGE


async def test_what_is_decoded_counts_as_if_it_had_come_as_it_is(make_router: MakeRouter) -> None:
    """Against the memory for bodies, while it is decoded."""
    router = await make_router(bodies_max=200_000)
    body = json.dumps({"model": MODEL, "prompt": "x y " * 100_000}).encode()
    told = await router.exchange(packed("/api/generate", "zstd", zstd.compress(body)))
    assert told.startswith(b"HTTP/1.1 503 ")
    assert router.services.body_budget.taken == 0


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("br", b"\x0b\x02\x80{}\x03", 415),
        ("gzip, zstd", gzip.compress(b"{}"), 415),
        ("gzip", b'{"model": "m"}', 400),
        ("zstd", zstd.compress(b'{"model": "m"}')[:-3], 400),
        ("gzip", gzip.compress(b'{"model": "m"}') + b"x" * 30, 400),
    ],
    ids=["brotli", "two codings", "not compressed", "a part", "something after it"],
)
async def test_what_cannot_be_decoded_is_the_clients_fault(
    make_router: MakeRouter, path: str, coding: str, body: bytes, status: int
) -> None:
    """It says what can; nothing reaches an endpoint, and none looks broken."""
    router = await make_router()
    head, told = split(await router.exchange(packed(path, coding, body)))
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert "error" in json.loads(told)
    assert router.endpoints[0].requests == []
    assert router.fleet.observed == []


async def test_the_gateways_surfaces_take_them_too() -> None:
    """The same bodies as everywhere."""
    async with Fleet({"a": ("llama3.2:latest",)}) as fleet, aiohttp.ClientSession() as session:
        body = json.dumps({"message": "hi", "model": "llama3.2"}).encode()
        for coding in PACK:
            async with session.post(
                f"{fleet.url}/chat",
                data=PACK[coding](body),
                headers={"Content-Encoding": coding},
                skip_auto_headers=["Accept-Encoding"],
            ) as response:
                assert response.status == 200, await response.text()
        async with session.post(
            f"{fleet.url}/chat", data=b"x", headers={"Content-Encoding": "br"}
        ) as response:
            assert response.status == 415
        await fleet.check_clean()
