"""Tests of one GET over a real socket, and its verdict."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import msgspec
import pytest

from olla.clock import SystemClock
from olla.fleet.endpoint import EndpointSpec
from olla.probing.probe_client import LIST_MAX, ProbeClient, Verdict
from tests.probing.scripted import HANG, ScriptedServer, endpoint

Raw = Callable[[bytes], Awaitable[EndpointSpec]]


@pytest.fixture
async def probe_client() -> AsyncIterator[ProbeClient]:
    """Return a client that is closed after the test."""
    made = ProbeClient(SystemClock())
    yield made
    await made.close()


@pytest.fixture
async def raw() -> AsyncIterator[Raw]:
    """Return a function that starts a server which sends the given bytes and hangs up."""
    servers: list[asyncio.Server] = []

    async def serve(answer: bytes) -> EndpointSpec:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        servers.append(server)
        port = server.sockets[0].getsockname()[1]
        return EndpointSpec("raw", "127.0.0.1", port, authority=f"127.0.0.1:{port}")

    yield serve
    for server in servers:
        server.close()
        await server.wait_closed()


async def test_a_response_is_read(probe_client: ProbeClient) -> None:
    """Its body, and the name of the server."""
    answer = (200, b'{"a": 1}', {"Server": "llama.cpp"})
    async with ScriptedServer({"/x": answer}) as server:
        reply = await probe_client.get(endpoint(server.url), "/x")
    assert reply.verdict is Verdict.OK
    assert reply.json() == {"a": 1}
    assert reply.server == "llama.cpp"
    assert reply.error is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"\xff\xfe", b"[" * 5000, b'{"a":'])
async def test_a_body_that_is_not_a_json_object_is_none(
    probe_client: ProbeClient, body: bytes
) -> None:
    """No exception is raised."""
    async with ScriptedServer({"/x": (200, body, {})}) as server:
        assert (await probe_client.get(endpoint(server.url), "/x")).json() is None


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (204, b"", Verdict.OK),
        (301, b"", Verdict.BROKEN),
        (400, b"", Verdict.BROKEN),
        (401, b"", Verdict.UNAUTHORIZED),
        (403, b"", Verdict.UNAUTHORIZED),
        (404, b"", Verdict.ABSENT),
        (405, b"", Verdict.ABSENT),
        (429, b"", Verdict.RATE_LIMITED),
        (500, b"", Verdict.BROKEN),
        (500, b"error loading model", Verdict.BROKEN),
        (501, b"", Verdict.ABSENT),
        (503, b"server busy", Verdict.BROKEN),
        (503, b'{"error":{"message":"Loading model","code":503}}', Verdict.LOADING),
        (503, b'{"error":{"type":"unavailable_error"}}', Verdict.LOADING),
    ],
)
async def test_each_status_has_its_verdict(
    probe_client: ProbeClient, status: int, body: bytes, verdict: Verdict
) -> None:
    """The error contains the path and the status."""
    async with ScriptedServer({"/x": (status, body, {})}) as server:
        reply = await probe_client.get(endpoint(server.url), "/x")
    assert reply.verdict is verdict
    if verdict not in (Verdict.OK, Verdict.LOADING):
        assert reply.error is not None
        assert f"GET /x answered {status}" in reply.error


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("²", None),
        ("9" * 400, 86_400.0),
    ],
)
async def test_retry_after_is_parsed(
    probe_client: ProbeClient, retry_after: str, seconds: float | None
) -> None:
    """In seconds, a day at most; invalid values are ignored."""
    answer = (429, b"", {"Retry-After": retry_after})
    async with ScriptedServer({"/x": answer}) as server:
        assert (await probe_client.get(endpoint(server.url), "/x")).retry_after == seconds


async def test_retry_after_may_be_a_date(probe_client: ProbeClient) -> None:
    """It becomes the seconds until then; 0 for a date in the past."""
    for ahead, low, high in ((90, 80.0, 90.0), (-90, 0.0, 0.0)):
        moment = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)
        answer = (429, b"", {"Retry-After": moment})
        async with ScriptedServer({"/x": answer}) as server:
            seconds = (await probe_client.get(endpoint(server.url), "/x")).retry_after
        assert seconds is not None
        assert low <= seconds <= high


async def test_the_configured_address_and_headers_are_used(probe_client: ProbeClient) -> None:
    """Base path, Host and credentials; no other headers such as cookies."""
    async with ScriptedServer({"/llm/x": {}}) as server:
        spec = endpoint(server.url, base_path="/llm", headers=(("authorization", "Bearer k"),))
        spec = msgspec.structs.replace(spec, authority="gpu-1.internal")
        assert (await probe_client.get(spec, "/x")).verdict is Verdict.OK
        headers = server.headers
    assert headers["Host"] == "gpu-1.internal"
    assert headers["Authorization"] == "Bearer k"
    assert "Cookie" not in headers


async def test_a_configured_host_header_takes_precedence(probe_client: ProbeClient) -> None:
    """The request has a single Host header."""
    async with ScriptedServer({"/x": {}}) as server:
        await probe_client.get(endpoint(server.url, headers=(("host", "llm.example"),)), "/x")
        assert server.headers.getall("Host") == ["llm.example"]


async def test_redirects_are_not_followed(probe_client: ProbeClient) -> None:
    """Credentials are sent to the configured endpoint only."""
    answer = (302, b"", {"Location": "/y"})
    async with ScriptedServer({"/x": answer, "/y": {}}) as server:
        assert (await probe_client.get(endpoint(server.url), "/x")).verdict is Verdict.BROKEN
        assert set(server.request_counts) == {"/x"}


async def test_a_late_response_times_out(probe_client: ProbeClient) -> None:
    """After the endpoint's `check_timeout`, which the error contains."""
    async with ScriptedServer({"/x": HANG}) as server:
        reply = await probe_client.get(endpoint(server.url, check_timeout=0.05), "/x")
    assert reply.verdict is Verdict.TIMEOUT
    assert reply.error == "GET /x timed out after 0.05 s"


async def test_a_refused_connection_is_unreachable(
    probe_client: ProbeClient, free_port: int
) -> None:
    """The error says that the connection was refused."""
    spec = EndpointSpec("a", "127.0.0.1", free_port, authority=f"127.0.0.1:{free_port}")
    reply = await probe_client.get(spec, "/x")
    assert (reply.verdict, reply.error) == (Verdict.UNREACHABLE, "connection refused")


async def test_an_unknown_host_name_is_unreachable(probe_client: ProbeClient) -> None:
    """No name server resolves names under `.invalid`."""
    spec = EndpointSpec("a", "nowhere.invalid", 80, authority="nowhere.invalid", check_timeout=10)
    reply = await probe_client.get(spec, "/x")
    assert reply.verdict in (Verdict.UNREACHABLE, Verdict.TIMEOUT)
    if reply.verdict is Verdict.UNREACHABLE:
        assert reply.error == "the host name cannot be resolved"


async def test_plain_http_where_tls_is_expected_is_unreachable(probe_client: ProbeClient) -> None:
    """The error says that TLS failed."""
    async with ScriptedServer({"/x": {}}) as server:
        reply = await probe_client.get(endpoint(server.url, tls=True), "/x")
    assert reply.verdict is Verdict.UNREACHABLE
    assert reply.error is not None
    assert reply.error.startswith("TLS failed")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"220 smtp.example ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
    ids=["nothing", "smtp", "cut", "bad chunk", "bad gzip", "huge head"],
)
async def test_malformed_responses_are_broken(
    probe_client: ProbeClient, raw: Raw, answer: bytes
) -> None:
    """No bytes raise an exception, and the error is short."""
    reply = await probe_client.get(await raw(answer), "/x")
    assert reply.verdict is Verdict.BROKEN
    assert reply.error is not None
    assert len(reply.error) <= 200


async def test_a_long_body_is_cut(probe_client: ProbeClient) -> None:
    """Compressed or not, memory for the body is bounded."""
    packed = gzip.compress(b" " * (17 * 1024 * 1024), 1)
    answer = (200, packed, {"Content-Encoding": "gzip"})
    async with ScriptedServer({"/x": answer}) as server:
        short = await probe_client.get(endpoint(server.url), "/x")
        long = await probe_client.get(endpoint(server.url), "/x", LIST_MAX)
        whole = await probe_client.get(endpoint(server.url), "/x", 4 * LIST_MAX)
    assert (short.verdict, len(short.body), short.more) == (Verdict.OK, 65_536, True)
    assert (long.verdict, len(long.body), long.more) == (Verdict.OK, LIST_MAX, True)
    assert (len(whole.body), whole.more) == (17 * 1024 * 1024, False)


async def test_an_invalid_address_is_reported_as_a_failure(probe_client: ProbeClient) -> None:
    """No exception is raised."""
    spec = EndpointSpec("a", "not a host", 80, authority="x")
    assert (await probe_client.get(spec, "/x")).verdict in (Verdict.BROKEN, Verdict.UNREACHABLE)
