"""What a surface asks of the fleet is read as a client would read it."""

import asyncio

import pytest

from olla.failures import Failed, Failure, Kind
from olla.proxy.internal import subrequest
from olla.proxy.internal.subrequest import SubrequestIncoming, SubrequestResponse
from olla.record import RequestRecord


def answer() -> SubrequestResponse:
    """An answer that is on its way."""
    return SubrequestResponse(RequestRecord("id", "POST", "/chat", "127.0.0.1", 0.0, 0.0))


HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%b"
    b"X-Olla-Endpoint: gpu-1\r\nX-RateLimit-Limit: 5\r\nX-Other: y\r\n\r\n"
)


@pytest.mark.parametrize(
    "raw",
    [
        HEAD % b"Content-Length: 11\r\n" + b'{"a":\n"bc"}',
        HEAD % b"Transfer-Encoding: chunked\r\n" + b'6\r\n{"a":\n\r\n5\r\n"bc"}\r\n0\r\n\r\n',
        HEAD % b"Connection: close\r\n" + b'{"a":\n"bc"}',
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_status_body_and_what_olla_tells_are_read(raw: bytes, size: int) -> None:
    """However it is framed and cut."""
    inner = answer()
    for at in range(0, len(raw), size):
        inner.write(raw[at : at + size])
    inner.answered()
    assert await inner.status() == 200
    assert await inner.body() == b'{"a":\n"bc"}'
    assert inner.router_headers() == [("X-Olla-Endpoint", "gpu-1"), ("X-RateLimit-Limit", "5")]


async def test_lines_come_as_they_are_complete() -> None:
    """And the last one without its end."""
    inner = answer()
    seen: list[bytes] = []

    async def read() -> None:
        seen.extend([line async for line in inner.lines()])

    reading = asyncio.create_task(read())
    inner.write(HEAD % b"Transfer-Encoding: chunked\r\n" + b"4\r\na\nb\n\r\n")
    await asyncio.sleep(0)
    inner.write(b"5\r\n\nc\nd \r\n")
    inner.answered()
    await reading
    assert seen == [b"a", b"b", b"c", b"d "]


async def test_a_slow_reader_holds_the_endpoint_up() -> None:
    """Until it has caught up."""
    inner = answer()
    inner.write(HEAD % b"Content-Length: 400000\r\n")
    told: list[str] = []
    inner.write(b"x" * 300_000)
    assert inner.paused
    inner.when_drained(lambda: told.append("drained"))
    pieces = inner.pieces()
    assert len(await anext(pieces)) == 300_000
    assert told == ["drained"]
    assert not inner.paused
    inner.write(b"x" * 100_000)
    inner.answered()
    assert [len(piece) async for piece in pieces] == [100_000]


async def test_a_reader_that_is_late_touches_no_connection_any_more() -> None:
    """Its answer is complete, and the connection it came by may carry another one."""
    inner = answer()
    inner.write(HEAD % b"Content-Length: 300000\r\n")
    inner.write(b"x" * 300_000)
    told: list[str] = []
    inner.when_drained(lambda: told.append("resumed"))
    inner.answered()
    assert [len(piece) async for piece in inner.pieces()] == [300_000]
    assert told == []


async def test_a_body_over_the_bound_stops_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as it is reached; up to the bound it is read."""
    monkeypatch.setattr(subrequest, "RESPONSE_MAX", 100)
    for length in (100, 101):
        inner = answer()
        inner.record.endpoint = "gpu-1"
        stopped: list[Failure] = []
        inner.stop = stopped.append
        inner.write(HEAD % b"Connection: close\r\n" + b"x" * length)
        if length == 100:
            inner.answered()
            assert len(await inner.body()) == 100
            continue
        with pytest.raises(Failed, match=r"endpoint 'gpu-1' sent more than 0\.0001 MB"):
            await inner.body()
        assert [failure.kind for failure in stopped] == [Kind.ANSWER_TOO_LARGE]


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_a_line_over_the_bound_stops_the_answer(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it is cut; the lines before it are read, and so is one that just fits."""
    monkeypatch.setattr(subrequest, "LINE_MAX", 50)
    inner = answer()
    stopped: list[Failure] = []
    inner.stop = stopped.append
    inner.write(HEAD % b"Connection: close\r\n")
    body = b"a\n" + b"b" * 50 + b"\n" + b"c" * 60
    for at in range(0, len(body), size):
        inner.write(body[at : at + size])
    assert [line async for line in inner.lines()] == [b"a", b"b" * 50]
    assert [failure.kind for failure in stopped] == [Kind.ANSWER_TOO_LARGE]


async def test_what_olla_refuses_is_raised() -> None:
    """Before there is a head, and in the middle of a body."""
    refused = answer()
    refused.record.failure = Failure(Kind.LIMITED, "slow down")
    refused.write(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\n{}")
    refused.answered()
    with pytest.raises(Failed, match="slow down"):
        await refused.status()
    broken = answer()
    broken.write(HEAD % b"Content-Length: 11\r\n" + b'{"a":')
    assert await broken.status() == 200
    broken.record.failure = Failure(Kind.BODY_RESET, "broke off", "gpu-1")
    broken.answered()
    with pytest.raises(Failed, match="broke off"):
        await broken.body()


async def test_an_end_without_a_head_is_olla_s_own_failure() -> None:
    """Nobody waits for ever."""
    inner = answer()
    inner.answered()
    with pytest.raises(Failed, match="router failed"):
        await inner.status()


def test_an_inner_request_has_nothing_of_the_client_s_but_its_address() -> None:
    """No keys, no headers of the client's own."""
    incoming = SubrequestIncoming("POST", "/api/chat?x=1", b"{}", "10.0.0.1")
    assert incoming.path == "/api/chat"
    assert incoming.header("content-type") == "application/json"
    assert incoming.header("Authorization") is None
    assert incoming.credentials == ()
