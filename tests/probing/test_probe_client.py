"""One GET over a real socket, and the verdict on what came."""

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
async def asker() -> AsyncIterator[ProbeClient]:
    """One that is closed with the test."""
    made = ProbeClient(SystemClock())
    yield made
    await made.close()


@pytest.fixture
async def raw() -> AsyncIterator[Raw]:
    """An endpoint that sends these bytes to whoever connects, and hangs up."""
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


async def test_an_answer_is_read(asker: ProbeClient) -> None:
    """Its body, and who says he is the server."""
    answer = (200, b'{"a": 1}', {"Server": "llama.cpp"})
    async with ScriptedServer({"/x": answer}) as server:
        reply = await asker.get(endpoint(server.url), "/x")
    assert reply.verdict is Verdict.OK
    assert reply.json() == {"a": 1}
    assert reply.server == "llama.cpp"
    assert reply.error is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"\xff\xfe", b"[" * 5000, b'{"a":'])
async def test_a_body_that_is_no_json_object_is_none(asker: ProbeClient, body: bytes) -> None:
    """And raises nothing."""
    async with ScriptedServer({"/x": (200, body, {})}) as server:
        assert (await asker.get(endpoint(server.url), "/x")).json() is None


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
async def test_a_status_has_its_verdict(
    asker: ProbeClient, status: int, body: bytes, verdict: Verdict
) -> None:
    """And what was wrong is said in words, with the path and the status."""
    async with ScriptedServer({"/x": (status, body, {})}) as server:
        reply = await asker.get(endpoint(server.url), "/x")
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
async def test_retry_after_is_read(
    asker: ProbeClient, retry_after: str, seconds: float | None
) -> None:
    """Seconds, a day at most; what is none is not told."""
    answer = (429, b"", {"Retry-After": retry_after})
    async with ScriptedServer({"/x": answer}) as server:
        assert (await asker.get(endpoint(server.url), "/x")).retry_after == seconds


async def test_retry_after_may_be_a_date(asker: ProbeClient) -> None:
    """The seconds from now until then, and none for one that is past."""
    for ahead, low, high in ((90, 80.0, 90.0), (-90, 0.0, 0.0)):
        moment = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)
        answer = (429, b"", {"Retry-After": moment})
        async with ScriptedServer({"/x": answer}) as server:
            seconds = (await asker.get(endpoint(server.url), "/x")).retry_after
        assert seconds is not None
        assert low <= seconds <= high


async def test_the_address_and_the_headers_are_the_operators(asker: ProbeClient) -> None:
    """Base path, own authority as Host, credentials; nothing that was not asked for."""
    async with ScriptedServer({"/llm/x": {}}) as server:
        spec = endpoint(server.url, base_path="/llm", headers=(("authorization", "Bearer k"),))
        spec = msgspec.structs.replace(spec, authority="gpu-1.internal")
        assert (await asker.get(spec, "/x")).verdict is Verdict.OK
        headers = server.headers
    assert headers["Host"] == "gpu-1.internal"
    assert headers["Authorization"] == "Bearer k"
    assert "Cookie" not in headers


async def test_the_operators_host_has_the_last_word(asker: ProbeClient) -> None:
    """And there is one Host only."""
    async with ScriptedServer({"/x": {}}) as server:
        await asker.get(endpoint(server.url, headers=(("host", "llm.example"),)), "/x")
        assert server.headers.getall("Host") == ["llm.example"]


async def test_redirects_are_not_followed(asker: ProbeClient) -> None:
    """Credentials go where the operator said, and nowhere else."""
    answer = (302, b"", {"Location": "/y"})
    async with ScriptedServer({"/x": answer, "/y": {}}) as server:
        assert (await asker.get(endpoint(server.url), "/x")).verdict is Verdict.BROKEN
        assert set(server.asked) == {"/x"}


async def test_a_late_answer_is_a_time_out(asker: ProbeClient) -> None:
    """After the endpoint's own time, said in words."""
    async with ScriptedServer({"/x": HANG}) as server:
        reply = await asker.get(endpoint(server.url, check_timeout=0.05), "/x")
    assert reply.verdict is Verdict.TIMEOUT
    assert reply.error == "GET /x timed out after 0.05 s"


async def test_nobody_there_is_unreachable(asker: ProbeClient, free_port: int) -> None:
    """Connection refused, in those words."""
    spec = EndpointSpec("a", "127.0.0.1", free_port, authority=f"127.0.0.1:{free_port}")
    reply = await asker.get(spec, "/x")
    assert (reply.verdict, reply.error) == (Verdict.UNREACHABLE, "connection refused")


async def test_a_name_that_is_none_is_unreachable(asker: ProbeClient) -> None:
    """So is a host that no name service knows; `.invalid` never is one."""
    spec = EndpointSpec("a", "nowhere.invalid", 80, authority="nowhere.invalid", check_timeout=10)
    reply = await asker.get(spec, "/x")
    assert reply.verdict in (Verdict.UNREACHABLE, Verdict.TIMEOUT)
    if reply.verdict is Verdict.UNREACHABLE:
        assert reply.error == "its name cannot be resolved"


async def test_plain_http_where_tls_is_expected_is_unreachable(asker: ProbeClient) -> None:
    """And the words say that it is TLS that failed."""
    async with ScriptedServer({"/x": {}}) as server:
        reply = await asker.get(endpoint(server.url, tls=True), "/x")
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
async def test_bytes_that_are_no_answer_are_broken(
    asker: ProbeClient, raw: Raw, answer: bytes
) -> None:
    """Whatever comes, nothing is raised, and the words are short."""
    reply = await asker.get(await raw(answer), "/x")
    assert reply.verdict is Verdict.BROKEN
    assert reply.error is not None
    assert len(reply.error) <= 200


async def test_an_endless_answer_is_cut_off(asker: ProbeClient) -> None:
    """Packed small or not: what is kept has a bound."""
    packed = gzip.compress(b" " * (17 * 1024 * 1024), 1)
    answer = (200, packed, {"Content-Encoding": "gzip"})
    async with ScriptedServer({"/x": answer}) as server:
        short = await asker.get(endpoint(server.url), "/x")
        long = await asker.get(endpoint(server.url), "/x", LIST_MAX)
        whole = await asker.get(endpoint(server.url), "/x", 4 * LIST_MAX)
    assert (short.verdict, len(short.body), short.more) == (Verdict.OK, 65_536, True)
    assert (long.verdict, len(long.body), long.more) == (Verdict.OK, LIST_MAX, True)
    assert (len(whole.body), whole.more) == (17 * 1024 * 1024, False)


async def test_an_address_that_is_none_raises_nothing(asker: ProbeClient) -> None:
    """A configuration gone wrong is told like every other trouble."""
    spec = EndpointSpec("a", "not a host", 80, authority="x")
    assert (await asker.get(spec, "/x")).verdict in (Verdict.BROKEN, Verdict.UNREACHABLE)
