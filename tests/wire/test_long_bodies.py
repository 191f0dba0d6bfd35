"""Long bodies: read in steps, sent on as they came, refused where they are no bodies."""

import asyncio
import json
import socket
import struct

import pytest

from olla.proxy.exchange.request_parsing import LONG
from tests.wire.conftest import MODEL, MakeRouter, answer, ended, post, split

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}"
MORE = 8 * LONG
"""More than what is read as it is: long texts are taken out."""

BODIES = {
    "a text": b'{"model":"m","stream":false,"prompt":"%b"}' % (b"a text, " * (MORE // 8)),
    "half surrogates": b'{"model":"m","prompt":"%b","stream":false}' % (b"\\ud83d" * (MORE // 6)),
    "escapes": b'{"model":"m","stream":false,"prompt":"%b"}' % (b'\\"\\\\\\n' * (LONG // 4)),
    "emoji": '{{"model":"m","stream":false,"prompt":"{}"}}'.format(
        "\U0001f600" * (MORE // 4)
    ).encode(),
    "messages": json.dumps(
        {"stream": False, "messages": [{"role": "user", "content": "hi"}] * 200_000, "model": "m"}
    ).encode(),
    "images": b'{ "images" : ["%b"],\n "model" : "m" , "stream":false } ' % (b"QUJD" * (MORE // 4)),
}
bodies = pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))


@bodies
async def test_a_long_body_arrives_byte_for_byte(make_router: MakeRouter, body: bytes) -> None:
    """With its length, and what it says was understood."""
    router = await make_router(body_max=1 << 30)
    router.endpoints[0].script = answer(OK)
    assert (await router.exchange(post("/api/chat", body))).startswith(b"HTTP/1.1 200 ")
    (seen,) = router.endpoints[0].requests
    head, sent = split(seen)
    assert sent == body
    assert head.endswith(b"Content-Length: %d" % len(body))
    (record,) = router.records
    assert (record.model, record.streaming, record.bytes_in) == (MODEL, False, len(body))
    assert router.services.body_budget.taken == 0


@bodies
async def test_a_long_body_gets_another_model_and_context(
    make_router: MakeRouter, body: bytes
) -> None:
    """Where it has to; every other byte stays."""
    router = await make_router(body_max=1 << 30, num_ctx_max=4096)
    other = body.replace(b'"m"', b'"alias"').rstrip()[:-1] + b',"options":{"num_ctx": 9999 }}'
    assert (await router.exchange(post("/api/chat", other))).startswith(b"HTTP/1.1 200 ")
    (seen,) = router.endpoints[0].requests
    expected = other.replace(b'"alias"', b'"%b"' % MODEL.encode()).replace(b"9999", b"4096")
    assert split(seen)[1] == expected
    assert b"Content-Length: %d\r\n" % len(expected) in seen
    assert router.records[0].rewritten == "num_ctx 9999 -> 4096"


async def test_a_long_form_gets_another_model(make_router: MakeRouter) -> None:
    """And arrives as it was otherwise."""
    file = b"\r\n--b\x00\xff" * (MORE // 8)
    form = (
        b'--b7\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%b\r\n--b7\r\n'
        b'Content-Disposition: form-data; name="model"\r\n\r\nalias\r\n--b7--\r\n' % file
    )
    router = await make_router(body_max=1 << 30)
    kind = "Content-Type: multipart/form-data; boundary=b7"
    whole = await router.exchange(post("/v1/audio/transcriptions", form, kind))
    assert whole.startswith(b"HTTP/1.1 200 ")
    (seen,) = router.endpoints[0].requests
    assert split(seen)[1] == form.replace(b"alias", MODEL.encode())


@bodies
async def test_a_long_body_is_sent_again_elsewhere(make_router: MakeRouter, body: bytes) -> None:
    """Whole, and with the other endpoint's own model name."""
    router = await make_router(2, body_max=1 << 30)
    router.endpoints[0].script = answer(BUSY)
    renamed = body.replace(b'"m"', b'"alias"')
    assert (await router.exchange(post("/api/chat", renamed))).startswith(b"HTTP/1.1 200 ")
    for endpoint in router.endpoints:
        (seen,) = endpoint.requests
        assert split(seen)[1] == body.replace(b'"m"', b'"%b"' % MODEL.encode())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"model":"m","prompt":"%b"' % (b"x" * MORE), "truncated"),
        (b'{"model":"m","prompt":"%b\xff"}' % (b"x" * MORE), "UTF-8"),
        (b'{"model":"m","prompt":"%b\x01"}' % (b"x" * MORE), "invalid"),
        (b'{"model":"m","prompt":"%b"}x' % (b"x" * MORE), "follows"),
        (b'{"model":"m","x":[%b0]}' % (b"[]," * MORE), "arrays and objects"),
        (b'{"model":"m",%b"x":1}' % (b'"x":1,' * (LONG // 2)), "keys"),
        (b'{"model":"m",%b"x":1}' % (b'"x":1,' * MORE), "commas, colons"),
        (b'{"model":"m","x":%b1}' % (b" " * MORE), "white space"),
        (b'{"prompt":"%b"}' % (b"x" * MORE), "model is required"),
        (b'{"model":"%b"}' % (b"x" * MORE), "characters"),
        (b'{"model":"m","x":"%b","Model":"n"}' % (b"x" * MORE), 'one "model"'),
        (b'{"model":"m","options":{"num_ctx":1%b}}' % (b"0" * MORE), "options"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_long_body_that_cannot_be_used_is_refused(
    make_router: MakeRouter, body: bytes, words: str
) -> None:
    """With a reason; no endpoint sees any of it, and the connection stays good."""
    router = await make_router(body_max=1 << 30)
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(post("/api/generate", body, close=False) + post("/api/chat", b'{"model":"m"}'))
    answers = await reader.read()
    writer.close()
    assert answers.startswith(b"HTTP/1.1 400 ")
    told = split(answers)[1].partition(b"HTTP/1.1 200 ")
    assert words in json.loads(told[0])["error"]
    assert told[1]
    (seen,) = router.endpoints[0].requests
    assert split(seen)[1] == b'{"model":"m"}'
    assert router.services.body_budget.taken == 0


async def test_a_path_that_olla_does_not_know_takes_any_long_body(make_router: MakeRouter) -> None:
    """What is no JSON object names no model."""
    router = await make_router(body_max=1 << 30, profile="llamacpp")
    body = b"\x00{" * MORE
    whole = await router.exchange(post("/olla/llamacpp/something", body))
    assert whole.startswith(b"HTTP/1.1 200 ")
    (seen,) = router.endpoints[0].requests
    assert split(seen)[1] == body


async def test_a_client_that_leaves_while_its_body_is_read_leaves_nothing(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reading ends there; no endpoint is asked."""
    router = await make_router(body_max=1 << 30)
    begun, held = asyncio.Event(), asyncio.Event()
    slices = router.services.time_slices

    async def holding(steps: object) -> None:
        begun.set()
        await held.wait()

    monkeypatch.setattr(type(slices), "run", lambda self, steps: holding(steps))
    _, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(post("/api/generate", BODIES["a text"]))
    async with asyncio.timeout(10):
        await begun.wait()
        client = writer.get_extra_info("socket")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()  # with a reset
        while router.downstream.active:
            await asyncio.sleep(0.001)
    assert router.endpoints[0].requests == []
    (record,) = router.records
    assert record.status == 499
    assert router.services.body_budget.taken == 0


@pytest.mark.parametrize(("model", "status"), [(b"", b"400"), (b"m", b"499")])
async def test_a_client_that_closes_its_side_hears_what_needs_no_endpoint(
    make_router: MakeRouter, model: bytes, status: bytes
) -> None:
    """Also when its body is still to be read; no endpoint works for it."""
    router = await make_router(body_max=1 << 30)
    body = BODIES["a text"].replace(b'"m"', b'"%b"' % model)
    answers, _ = await ended(router.port, post("/api/generate", body), half_close=True)
    assert answers.startswith(b"HTTP/1.1 %b " % status)
    assert router.endpoints[0].requests == []


async def test_an_endpoint_that_answers_early_is_heard(make_router: MakeRouter) -> None:
    """Before it has read a long body: the client gets what it says, and nothing hangs."""
    router = await make_router(body_max=1 << 30)
    early = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 17\r\n\r\n" + b'{"error":"early"}'

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(early)
        await writer.drain()
        await asyncio.wait_for(reader.read(), 10)  # until the router hangs up
        writer.close()

    endpoint = router.endpoints[0]
    endpoint._server.close()
    server = await asyncio.start_server(refuse, "127.0.0.1", endpoint.port)
    try:
        body = BODIES["a text"]
        assert (await router.exchange(post("/api/generate", body))).endswith(b'{"error":"early"}')
    finally:
        server.close()
        await server.wait_closed()
    assert router.services.body_budget.taken == 0


async def test_others_are_answered_while_a_long_body_is_read(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each turn of the loop reads a part of it, and then does what else there is to do."""
    monkeypatch.setattr("olla.proxy.bounds.time_slices.SLICE", 0.0)  # a step in each turn
    router = await make_router(body_max=1 << 30)
    turns = [0]
    stop = False

    async def count() -> None:
        while not stop:
            turns[0] += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    slices = router.services.time_slices
    run = slices.run
    spent: list[int] = []

    async def counted(steps: object) -> object:
        before = turns[0]
        try:
            return await run(steps)  # type: ignore[arg-type]
        finally:
            spent.append(turns[0] - before)

    monkeypatch.setattr(type(slices), "run", lambda self, steps: counted(steps))
    body = BODIES["half surrogates"]
    assert (await router.exchange(post("/api/generate", body))).startswith(b"HTTP/1.1 200 ")
    stop = True
    await counting
    assert spent[0] >= len(body) // 262_144
