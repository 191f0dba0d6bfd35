"""Answers of a node that are no whole answers, through the gateways' surfaces."""

import asyncio
import gzip
import json

import pytest

from tests.scripted_ollama import MODEL, scripted
from tests.wire.conftest import ended

CHAT = ("/chat", "/chat/stream")
GENERATE = "/olla/management/generate"
MESSAGES = {
    **{path: {"message": "hi", "model": MODEL} for path in CHAT},
    GENERATE: {"model": MODEL, "prompt": "hi"},
    f"{GENERATE}?stream": {"model": MODEL, "prompt": "hi", "stream": True},
}
PIECE = b'{"model":"x","response":"x","done":false}'
WHOLE = b'{"model":"x","response":"x","done":true}'
NDJSON = "Content-Type: application/x-ndjson\r\n"


def sized(status: str, body: bytes, fields: str = "Content-Type: application/json\r\n") -> bytes:
    """An answer with a Content-Length."""
    head = f"HTTP/1.1 {status}\r\n{fields}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def chunked(*pieces: bytes, fields: str = "Content-Type: text/plain\r\n") -> bytes:
    """An answer in chunks, with its framing complete."""
    head = f"HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    return head.encode() + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


BLANK = gzip.compress(b"\n" * 20_000_000)
GZIP = "Content-Encoding: gzip\r\n"
INCOMPLETE = {
    "done: false, JSON with a length": sized("200 OK", PIECE),
    "done: false, text in chunks": chunked(PIECE + b"\n"),
    "no done at all": sized("200 OK", b'{"model":"x","response":"x"}'),
    "a redirect": sized("302 Found", WHOLE, "Location: http://elsewhere/\r\n"),
    "no content": b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    "another success": sized("201 Created", WHOLE),
    "blank lines, compressed": sized("200 OK", BLANK, NDJSON + GZIP),
    "a few blank lines, compressed": sized("200 OK", gzip.compress(b"\n\n"), NDJSON + GZIP),
    "a coding that is not known": sized("200 OK", b"\x8b", NDJSON + "Content-Encoding: br\r\n"),
    "an empty choice list": sized("200 OK", b'{"choices":[]}'),
}


async def asked(path: str, answer: bytes) -> tuple[int, bytes, bool]:
    """Status, body and whether the last chunk came, of a request that a node answers so."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    async with scripted(script) as (app, _):
        body = json.dumps(MESSAGES[path]).encode()
        start = f"POST {path.partition('?')[0]} HTTP/1.1\r\nHost: localhost\r\n"
        head = f"{start}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        raw, _ = await ended(int(app.url.rsplit(":", 1)[1]), head.encode() + body)
    head_, _, rest = raw.partition(b"\r\n\r\n")
    return int(head_.split()[1]), rest, raw.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("name", INCOMPLETE)
@pytest.mark.parametrize("path", MESSAGES)
async def test_an_answer_that_is_not_whole_never_ends_as_a_success(path: str, name: str) -> None:
    """It is a 502 while nothing has been sent, else an error in the stream and no end."""
    status, body, ended_well = await asked(path, INCOMPLETE[name])
    assert b'"error":' in body
    if status == 200:
        assert not ended_well
    else:
        assert status == 502
        assert "only" in json.loads(body)["error"]["message"] or path in CHAT


@pytest.mark.parametrize("name", [each for each in INCOMPLETE if "choice" not in each])
async def test_a_chat_stream_that_never_was_one_is_a_502(name: str) -> None:
    """None of these has to begin before it is known to be bad."""
    assert (await asked("/chat/stream", INCOMPLETE[name]))[0] == 502


@pytest.mark.parametrize("answer", [sized("200 OK", WHOLE), chunked(WHOLE + b"\n")])
@pytest.mark.parametrize("path", CHAT)
async def test_a_whole_answer_is_passed_on_whatever_its_type(path: str, answer: bytes) -> None:
    """`done: true` says that it is whole, and not its Content-Type."""
    status, body, _ = await asked(path, answer)
    assert status == 200
    assert b'"response":"x","done":true' in body


async def test_a_stream_without_its_end_after_its_first_line_ends_with_an_error() -> None:
    """Its first line has gone to the client by then."""
    answer = chunked(PIECE + b"\n", b"\n", fields=NDJSON)
    status, body, ended_well = await asked("/chat/stream", answer)
    assert status in (200, 502)
    assert b'"error":' in body
    assert not (status == 200 and ended_well)


ERRORS = [
    b"1e999",
    b"-1E999",
    b"9" * 5000,
    b"[" * 5000 + b"]" * 5000,
    b'{"message":1e999}',
    b'{"message":%b}' % (b"9" * 5000),
    b'{"message":["x"]}',
    b'"\\ud800"',
    b'"\xff"',
    b"{}",
    b"true",
]


@pytest.mark.parametrize("status", ["200 OK", "400 Bad", "500 Bad"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda each: each[:20].decode("latin-1"))
@pytest.mark.parametrize("path", MESSAGES)
async def test_an_error_of_any_json_type_is_passed_on(path: str, error: bytes, status: str) -> None:
    """A number that no float holds was a 500 with a traceback in the log."""
    found, body, ended_well = await asked(path, sized(status, b'{"error":%b}' % error))
    assert found == (502 if status.startswith("200") else int(status[:3]))
    message = json.loads(body)["error"]["message"]
    assert message
    assert "the router failed" not in message
    assert not ended_well
