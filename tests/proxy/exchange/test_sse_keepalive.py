"""Comments in a stream that waits for its endpoint."""

import asyncio

import pytest

from olla.failures import Failure, Kind
from olla.proxy.exchange.sse_keepalive import SseKeepalive, keepalive_for
from olla.record import RequestRecord
from tests.proxy.exchange.test_exchange import PATHS, FakeRouter
from tests.proxy.streams import Client


def waiting(path: str, client: Client) -> tuple[SseKeepalive | None, RequestRecord]:
    """Create the keepalive of a request to a path."""
    record = RequestRecord("1", "POST", path, "10.0.0.1", 0.0, 0.0)
    target = PATHS.resolve("POST", path)
    return keepalive_for(
        FakeRouter("a").services, 5.0, target, client, record, b"Vary: Origin\r\n"
    ), record


@pytest.mark.parametrize("minor", [0, 1])
async def test_the_head_is_sent_with_the_first_comment(minor: int) -> None:
    """Later comments belong to the same stream."""
    client = Client(minor)
    keepalive, record = waiting("/v1/chat/completions", client)
    assert keepalive is not None
    assert client.received == b""
    keepalive.due()
    head, _, body = client.received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Vary: Origin" in head
    assert (b"chunked" in head) == (minor == 1)
    assert b": waiting for" in body
    assert record.reason == "queued"
    before = len(client.received)
    keepalive.due()
    assert len(client.received) > before
    assert client.received.count(b"HTTP/1.1") == 1
    assert keepalive.stop() is True


async def test_a_client_that_does_not_read_gets_no_comments() -> None:
    """They would accumulate in the router's memory."""
    client = Client()
    keepalive, _ = waiting("/v1/chat/completions", client)
    assert keepalive is not None
    client.paused = True
    keepalive.due()
    client.paused, client.closing = False, True
    keepalive.due()
    assert client.received == b""
    assert keepalive.stop() is False


async def test_a_failure_is_reported_within_the_stream() -> None:
    """Its status was sent before; the connection is closed afterwards."""
    client = Client()
    keepalive, _ = waiting("/v1/chat/completions", client)
    assert keepalive is not None
    keepalive.due()
    assert keepalive.fail(Failure(Kind.QUEUE_TIMEOUT, "waited too long")) > 0
    assert b"waited too long" in client.received
    assert not client.persistent
    keepalive.stop()


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/embed"])
async def test_formats_without_comments_have_no_keepalive(path: str) -> None:
    """In NDJSON each line is part of the response."""
    keepalive, _ = waiting(path, Client())
    assert keepalive is None
    await asyncio.sleep(0)
