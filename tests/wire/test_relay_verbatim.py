"""Bytes are relayed unchanged, wherever the network splits them."""

import json

import pytest

from tests.wire.conftest import MakeRouter, answer, post, split

NDJSON = (
    b'{"model":"m","response":"Hel","done":false}\n',
    b'{"model":"m","response":"lo","done":false}\n',
    b'{"model":"m","response":"","done":true,"eval_count":2}\n',
)
SSE = (
    b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":null}]}\n\n',
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
    b"data: [DONE]\n\n",
)
ANTHROPIC = (
    b'event: message_start\ndata: {"type":"message_start"}\n\n',
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
)
STREAM = json.dumps({"model": "m", "stream": True, "prompt": "p", "messages": []}).encode()
WHOLE = json.dumps({"model": "m", "stream": False, "prompt": "p", "input": "p"}).encode()


def chunked(content_type: bytes, records: tuple[bytes, ...]) -> bytes:
    """Build a chunked response with one record per chunk."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"".join(b"%x\r\n%b\r\n" % (len(record), record) for record in records)
    return head % content_type + body + b"0\r\n\r\n"


def with_length(body: bytes) -> bytes:
    """Build a response with a Content-Length."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


RESPONSES = (
    b'event: response.created\ndata: {"type":"response.created"}\n\n',
    b'event: response.completed\ndata: {"type":"response.completed","response":{}}\n\n',
)
PROGRESS = (b'{"status":"pulling manifest"}\n', b'{"status":"success"}\n')
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\naudio\r\n--b--\r\n'
)
COPY = b'{"source": "m", "destination": "n"}'
BLOB = f"/api/blobs/sha256:{'0' * 64}"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
ROUTES = [
    ("/api/generate", STREAM, chunked(b"application/x-ndjson", NDJSON)),
    ("/olla/ollama/api/chat", STREAM, chunked(b"application/x-ndjson", NDJSON)),
    ("/v1/chat/completions", STREAM, chunked(b"text/event-stream", SSE)),
    ("/olla/ollama/v1/completions", STREAM, chunked(b"text/event-stream", SSE)),
    ("/v1/messages", STREAM, chunked(b"text/event-stream", ANTHROPIC)),
    ("/api/generate", WHOLE, with_length(b'{"response":"Hello","done":true}')),
    ("/api/embed", WHOLE, with_length(b'{"embeddings":[[0.1,0.2]]}')),
    ("/olla/openai/v1/embeddings", WHOLE, with_length(b'{"data":[]}')),
    ("/api/show", WHOLE, with_length(b'{"modelfile":""}')),
    ("/api/embeddings", WHOLE, with_length(b'{"embedding":[0.1]}')),
    ("/v1/responses", STREAM, chunked(b"text/event-stream", RESPONSES)),
    ("/v1/responses", WHOLE, with_length(b'{"object":"response"}')),
    ("/v1/messages", WHOLE, with_length(b'{"type":"message"}')),
    ("/olla/anthropic/v1/messages", STREAM, chunked(b"text/event-stream", ANTHROPIC)),
    ("/v1/audio/transcriptions", FORM, with_length(b'{"text":"a"}')),
    ("/api/pull", STREAM, chunked(b"application/x-ndjson", PROGRESS)),
    ("/api/push", STREAM, chunked(b"application/x-ndjson", PROGRESS)),
    ("/api/create", STREAM, chunked(b"application/x-ndjson", PROGRESS)),
    ("/api/copy", COPY, EMPTY),
    ("DELETE /api/delete", WHOLE, EMPTY),
    (BLOB, b"a blob", EMPTY),
    ("/olla/ollama/some/new/thing", WHOLE, with_length(b"{}")),
]


CHANGES = ("pull", "push", "create", "copy", "delete", "blobs", "thing")


def request(path: str, body: bytes) -> bytes:
    """Build a request for a path, which may have a method before it."""
    method, _, path = path.rpartition(" ")
    fields = ["Content-Type: multipart/form-data; boundary=b"] if body is FORM else []
    raw = post(path, body, *fields)
    return raw.replace(b"POST", method.encode(), 1) if method else raw


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("path", "body", "wire"), ROUTES, ids=[f"{r[0]}-{len(r[2])}" for r in ROUTES]
)
async def test_relayed_bytes_are_unchanged_wherever_they_are_split(
    make_router: MakeRouter, path: str, body: bytes, wire: bytes
) -> None:
    """Splitting head and body at every possible byte gives the client the same body."""
    router = await make_router()
    endpoint = router.endpoints[0]
    _, sent = split(wire)
    for cut in range(1, len(wire)):
        endpoint.script = answer(wire[:cut], wire[cut:])
        head, received = split(await router.exchange(request(path, body)))
        assert head.startswith(b"HTTP/1.1 200 OK\r\n"), (cut, head)
        assert received == sent, cut
    assert len(endpoint.requests) == len(wire) - 1
    # A request that changes a node, or might, never uses a pooled connection.
    changes_nodes = any(part in path for part in CHANGES)
    assert endpoint.connections == (len(wire) - 1 if changes_nodes else 1)
    assert endpoint.requests[0].endswith(body)


async def test_a_stream_that_arrives_byte_by_byte_is_relayed_unchanged(
    make_router: MakeRouter,
) -> None:
    """Each byte arrives in its own read."""
    router = await make_router()
    wire = chunked(b"application/x-ndjson", NDJSON)
    router.endpoints[0].script = answer(*(wire[at : at + 1] for at in range(len(wire))))
    _, received = split(await router.exchange(post("/api/generate", STREAM)))
    assert received == split(wire)[1]
