"""A JSON response without a length is complete only when its JSON text is."""

import json

import pytest

from olla.failures import Kind
from tests.wire.conftest import MODEL, MakeRouter, answer, post, split

BODY = json.dumps({"model": MODEL, "stream": False}).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
WHOLE = b'{"response": "hello", "done": true}'


def chunked(payload: bytes) -> bytes:
    """Build a response with one chunk."""
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
        len(payload),
        payload,
    )


@pytest.mark.parametrize("cut", [1, 10, len(WHOLE) - 1])
async def test_half_a_json_text_is_not_forwarded_as_complete(
    make_router: MakeRouter, cut: int
) -> None:
    """Part of it may have reached the client before it breaks off. The chunked body then gets no
    last chunk, and the endpoint's failure is recorded."""
    router = await make_router()
    half, end = chunked(WHOLE[:cut])[:-5], b"0\r\n\r\n"
    router.endpoints[0].script = answer(half, end)
    _, body = split(await router.exchange(post("/api/generate", BODY, close=False)))
    assert WHOLE[:cut] in body
    assert not body.endswith(b"0\r\n\r\n")
    ((_, failure),) = router.fleet.observed
    assert failure is not None
    assert failure.kind is Kind.STREAM_INCOMPLETE


async def test_a_response_with_a_length_leaves_the_connection_open(make_router: MakeRouter) -> None:
    """The client has all the bytes that were announced and may have sent its next request: closing
    would cost it the next response."""
    router = await make_router()
    half = HEAD + b"Content-Length: 10\r\n\r\n" + WHOLE[:10]
    router.endpoints[0].script = answer(half[:-5], half[-5:])
    request = post("/api/generate", BODY, close=False)
    answers = await router.exchange(request + post("/api/generate", BODY))
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert [failure.kind for _, failure in router.fleet.observed if failure] == [
        Kind.STREAM_INCOMPLETE
    ] * 2


@pytest.mark.parametrize("payload", [WHOLE, WHOLE + b"\n", b"[]", b'{"a": "}'[:5] + b'"}'])
async def test_a_complete_json_text_ends_cleanly(make_router: MakeRouter, payload: bytes) -> None:
    """A trailing newline makes no difference."""
    router = await make_router()
    router.endpoints[0].script = answer(chunked(payload))
    _, body = split(await router.exchange(post("/api/generate", BODY)))
    assert body.endswith(b"0\r\n\r\n")
    assert router.fleet.observed == [("e0", None)]
