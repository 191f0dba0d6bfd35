"""Compressed request bodies are decoded within a bound and forwarded uncompressed."""

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

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstd.compress,
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
}
PATHS = ("/v1/responses", "/api/chat", "/v1/messages", "/olla/openai/v1/chat/completions")
DONE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def compressed_request(path: str, coding: str, body: bytes, framing: str = "length") -> bytes:
    """Build a request with a compressed body."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Encoding: {coding}\r\n"
    if framing == "length":
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    half = len(body) // 2
    chunks = [body[:half], body[half:]]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in chunks if each)
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + framed + b"0\r\n\r\n"


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("coding", sorted(COMPRESSORS))
async def test_a_compressed_body_reaches_the_endpoint_decoded(
    make_router: MakeRouter, coding: str, path: str, framing: str
) -> None:
    """It is sent with its own length and without a coding, and olla knows its model."""
    router = await make_router()
    router.endpoints[0].script = answer(DONE)
    body = json.dumps({"model": MODEL, "stream": False, "input": "x" * 300_000}).encode()
    compressed = COMPRESSORS[coding](body)
    response = await router.exchange(compressed_request(path, coding, compressed, framing))
    assert response.startswith(b"HTTP/1.1 200 ")
    head, sent = split(router.endpoints[0].requests[0])
    assert sent == body
    assert b"content-encoding" not in head.lower()
    assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"
    (record,) = router.records
    assert (record.model, record.bytes_in) == (MODEL, len(body))
    assert router.services.body_budget.taken == 0


@pytest.mark.parametrize("coding", ["zstd", "gzip", "deflate"])
@pytest.mark.parametrize("path", PATHS)
async def test_a_decompression_bomb_is_413(make_router: MakeRouter, coding: str, path: str) -> None:
    """It is rejected in the path's dialect and never decoded as a whole."""
    router = await make_router()
    bomb = COMPRESSORS[coding](bytes(400 << 20))
    assert len(bomb) < 1 << 20
    head, body = split(await router.exchange(compressed_request(path, coding, bomb)))
    assert head.startswith(b"HTTP/1.1 413 ")
    assert "error" in json.loads(body)
    assert router.endpoints[0].requests == []
    assert router.services.body_budget.taken == 0
    failure = router.records[0].failure
    assert failure is not None
    assert failure.kind is Kind.BODY_TOO_LARGE


async def test_decoded_bytes_count_toward_the_body_budget(make_router: MakeRouter) -> None:
    """The budget is checked while the body is decoded."""
    router = await make_router(bodies_max=200_000)
    body = json.dumps({"model": MODEL, "prompt": "x y " * 100_000}).encode()
    response = await router.exchange(
        compressed_request("/api/generate", "zstd", zstd.compress(body))
    )
    assert response.startswith(b"HTTP/1.1 503 ")
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
    ids=["brotli", "two codings", "not compressed", "truncated", "trailing bytes"],
)
async def test_a_body_that_cannot_be_decoded_is_a_client_error(
    make_router: MakeRouter, path: str, coding: str, body: bytes, status: int
) -> None:
    """Nothing is forwarded, and no endpoint counts as failed."""
    router = await make_router()
    head, error = split(await router.exchange(compressed_request(path, coding, body)))
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert "error" in json.loads(error)
    assert router.endpoints[0].requests == []
    assert router.fleet.observed == []


async def test_the_gateway_apis_accept_compressed_bodies() -> None:
    """They accept the same codings as the other paths."""
    async with Fleet({"a": ("llama3.2:latest",)}) as fleet, aiohttp.ClientSession() as session:
        body = json.dumps({"message": "hi", "model": "llama3.2"}).encode()
        for coding in COMPRESSORS:
            async with session.post(
                f"{fleet.url}/chat",
                data=COMPRESSORS[coding](body),
                headers={"Content-Encoding": coding},
                skip_auto_headers=["Accept-Encoding"],
            ) as response:
                assert response.status == 200, await response.text()
        async with session.post(
            f"{fleet.url}/chat", data=b"x", headers={"Content-Encoding": "br"}
        ) as response:
            assert response.status == 415
        await fleet.check_clean()
