"""Long request bodies are parsed in time slices, forwarded unchanged, and rejected if invalid."""

import asyncio
import json
import socket
import struct

import pytest

from olla.proxy.exchange.request_parsing import LONG
from tests.waiting import until
from tests.wire.conftest import MODEL, MakeRouter, answer, ended, post, split

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}"
LONGER = 8 * LONG
"""Above the length up to which a body is parsed in one piece; long strings are cut out first."""

BODIES = {
    "a text": b'{"model":"m","stream":false,"prompt":"%b"}' % (b"a text, " * (LONGER // 8)),
    "half surrogates": b'{"model":"m","prompt":"%b","stream":false}' % (b"\\ud83d" * (LONGER // 6)),
    "escapes": b'{"model":"m","stream":false,"prompt":"%b"}' % (b'\\"\\\\\\n' * (LONG // 4)),
    "emoji": '{{"model":"m","stream":false,"prompt":"{}"}}'.format(
        "\U0001f600" * (LONGER // 4)
    ).encode(),
    "messages": json.dumps(
        {"stream": False, "messages": [{"role": "user", "content": "hi"}] * 200_000, "model": "m"}
    ).encode(),
    "images": b'{ "images" : ["%b"],\n "model" : "m" , "stream":false } '
    % (b"QUJD" * (LONGER // 4)),
}
bodies = pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))


@bodies
async def test_a_long_body_arrives_byte_for_byte(make_router: MakeRouter, body: bytes) -> None:
    """It has its length, and olla has parsed its fields."""
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
async def test_a_long_body_is_rewritten(make_router: MakeRouter, body: bytes) -> None:
    """Model and context length change where required; every other byte stays."""
    router = await make_router(body_max=1 << 30, num_ctx_max=4096)
    other = body.replace(b'"m"', b'"alias"').rstrip()[:-1] + b',"options":{"num_ctx": 9999 }}'
    assert (await router.exchange(post("/api/chat", other))).startswith(b"HTTP/1.1 200 ")
    (seen,) = router.endpoints[0].requests
    expected = other.replace(b'"alias"', b'"%b"' % MODEL.encode()).replace(b"9999", b"4096")
    assert split(seen)[1] == expected
    assert b"Content-Length: %d\r\n" % len(expected) in seen
    assert router.records[0].rewritten == "num_ctx 9999 -> 4096"


async def test_a_long_form_is_rewritten(make_router: MakeRouter) -> None:
    """The model changes; every other byte stays."""
    file = b"\r\n--b\x00\xff" * (LONGER // 8)
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
async def test_a_long_body_is_retried_on_another_endpoint(
    make_router: MakeRouter, body: bytes
) -> None:
    """The retry sends the complete body with the model name of the other endpoint."""
    router = await make_router(2, body_max=1 << 30)
    router.endpoints[0].script = answer(BUSY)
    renamed = body.replace(b'"m"', b'"alias"')
    assert (await router.exchange(post("/api/chat", renamed))).startswith(b"HTTP/1.1 200 ")
    for endpoint in router.endpoints:
        (seen,) = endpoint.requests
        assert split(seen)[1] == body.replace(b'"m"', b'"%b"' % MODEL.encode())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"model":"m","prompt":"%b"' % (b"x" * LONGER), "truncated"),
        (b'{"model":"m","prompt":"%b\xff"}' % (b"x" * LONGER), "UTF-8"),
        (b'{"model":"m","prompt":"%b\x01"}' % (b"x" * LONGER), "invalid"),
        (b'{"model":"m","prompt":"%b"}x' % (b"x" * LONGER), "follows"),
        (b'{"model":"m","x":[%b0]}' % (b"[]," * LONGER), "arrays and objects"),
        (b'{"model":"m",%b"x":1}' % (b'"x":1,' * (LONG // 2)), "keys"),
        (b'{"model":"m",%b"x":1}' % (b'"x":1,' * LONGER), "commas, colons"),
        (b'{"model":"m","x":%b1}' % (b" " * LONGER), "white space"),
        (b'{"prompt":"%b"}' % (b"x" * LONGER), "model is required"),
        (b'{"model":"%b"}' % (b"x" * LONGER), "characters"),
        (b'{"model":"m","x":"%b","Model":"n"}' % (b"x" * LONGER), 'one "model"'),
        (b'{"model":"m","options":{"num_ctx":1%b}}' % (b"0" * LONGER), "options"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_invalid_long_body_is_rejected(
    make_router: MakeRouter, body: bytes, message: str
) -> None:
    """The error gives the reason, nothing is forwarded, and the connection stays usable."""
    router = await make_router(body_max=1 << 30)
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(post("/api/generate", body, close=False) + post("/api/chat", b'{"model":"m"}'))
    answers = await reader.read()
    writer.close()
    assert answers.startswith(b"HTTP/1.1 400 ")
    error, second, _ = split(answers)[1].partition(b"HTTP/1.1 200 ")
    assert message in json.loads(error)["error"]
    assert second
    (seen,) = router.endpoints[0].requests
    assert split(seen)[1] == b'{"model":"m"}'
    assert router.services.body_budget.taken == 0


async def test_an_unknown_path_accepts_any_long_body(make_router: MakeRouter) -> None:
    """A body that is not a JSON object names no model."""
    router = await make_router(body_max=1 << 30, profile="llamacpp")
    body = b"\x00{" * LONGER
    whole = await router.exchange(post("/olla/llamacpp/something", body))
    assert whole.startswith(b"HTTP/1.1 200 ")
    (seen,) = router.endpoints[0].requests
    assert split(seen)[1] == body


async def test_a_client_that_hangs_up_while_its_body_is_parsed_leaks_nothing(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsing stops, and nothing is forwarded."""
    router = await make_router(body_max=1 << 30)
    started, held = asyncio.Event(), asyncio.Event()
    slices = router.services.time_slices

    async def holding(steps: object) -> None:
        started.set()
        await held.wait()

    monkeypatch.setattr(type(slices), "run", lambda self, steps: holding(steps))
    _, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(post("/api/generate", BODIES["a text"]))
    async with asyncio.timeout(10):
        await started.wait()
        client = writer.get_extra_info("socket")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()  # with a reset
        await until(lambda: not router.downstream.active)
    assert router.endpoints[0].requests == []
    (record,) = router.records
    assert record.status == 499
    assert router.services.body_budget.taken == 0


@pytest.mark.parametrize(("model", "status"), [(b"", b"400"), (b"m", b"499")])
async def test_a_half_closed_client_gets_errors_that_need_no_endpoint(
    make_router: MakeRouter, model: bytes, status: bytes
) -> None:
    """This holds while its body is still being parsed; nothing is forwarded."""
    router = await make_router(body_max=1 << 30)
    body = BODIES["a text"].replace(b'"m"', b'"%b"' % model)
    answers, _ = await ended(router.port, post("/api/generate", body), half_close=True)
    assert answers.startswith(b"HTTP/1.1 %b " % status)
    assert router.endpoints[0].requests == []


async def test_an_early_response_is_relayed(make_router: MakeRouter) -> None:
    """An endpoint that answers before it has read a long body does not block the request."""
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


async def test_parsing_a_long_body_does_not_block_the_event_loop(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each iteration of the loop parses one part."""
    monkeypatch.setattr("olla.proxy.bounds.time_slices.SLICE", 0.0)  # one step per iteration
    router = await make_router(body_max=1 << 30)
    iterations = [0]
    stop = False

    async def count() -> None:
        while not stop:
            iterations[0] += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    slices = router.services.time_slices
    run = slices.run
    spent: list[int] = []

    async def counted(steps: object) -> object:
        before = iterations[0]
        try:
            return await run(steps)  # type: ignore[arg-type]
        finally:
            spent.append(iterations[0] - before)

    monkeypatch.setattr(type(slices), "run", lambda self, steps: counted(steps))
    body = BODIES["half surrogates"]
    assert (await router.exchange(post("/api/generate", body))).startswith(b"HTTP/1.1 200 ")
    stop = True
    await counting
    assert spent[0] >= len(body) // 262_144
