"""A backend that costs as little as Python allows: fixed answers, paced streams.

Speaks just enough of Ollama's API for olla to find one model. A POST whose body says
`"stream":true` gets 200 chunks of about 120 bytes, 10 ms apart, each with its send time; any
other gets a fixed JSON answer of about 400 bytes.
"""

import asyncio
import sys
import time

CHUNKS = 200
INTERVAL = 0.010

_TAGS = (
    b'{"models":[{"name":"bench:latest","model":"bench:latest","modified_at":'
    b'"2026-01-01T00:00:00Z","size":1000,"digest":"%b","details":{}}]}' % (b"0" * 64)
)
_PS = (
    b'{"models":[{"name":"bench:latest","model":"bench:latest","size":1000,"size_vram":1000,'
    b'"digest":"%b","details":{},"expires_at":"2036-01-01T00:00:00Z","context_length":4096}]}'
    % (b"0" * 64)
)
_ANSWER = (
    b'{"model":"bench:latest","created_at":"2026-01-01T00:00:00Z","response":"%b","done":true,'
    b'"done_reason":"stop","total_duration":1,"load_duration":1,"prompt_eval_count":10,'
    b'"prompt_eval_duration":1,"eval_count":40,"eval_duration":1}' % (b"x" * 190)
)


def _json(body: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )


_GETS = {
    b"/": b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\nOllama is running",
    b"/api/tags": _json(_TAGS),
    b"/api/ps": _json(_PS),
    b"/api/version": _json(b'{"version":"0.33.0"}'),
}
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)


class Backend(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport):
        self._transport = transport

    def data_received(self, data):
        self._buffer += data
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            at = head.find(b"\r\ncontent-length: ")
            length = int(head[at + 18 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            path = self._buffer.split(b" ", 2)[1]
            get = self._buffer.startswith(b"GET") or self._buffer.startswith(b"HEAD")
            self._buffer = self._buffer[end + 4 + length :]
            if get:
                self._transport.write(_GETS.get(path, _json(b"{}")))
            elif b'"stream":true' in body:
                self._transport.write(_STREAM_HEAD)
                self._stream(self._loop.time(), 0)
            else:
                self._transport.write(_json(_ANSWER))

    def _stream(self, start: float, sent: int) -> None:
        if self._transport.is_closing():
            return
        if sent == CHUNKS:
            self._transport.write(b"0\r\n\r\n")
            return
        last = sent == CHUNKS - 1
        record = b'{"model":"bench:latest","created_at":"%020d","response":"%b","done":%b}\n' % (
            time.monotonic_ns(),
            b"y" * 30,
            b"true" if last else b"false",
        )
        self._transport.write(b"%x\r\n%b\r\n" % (len(record), record))
        self._loop.call_at(start + (sent + 1) * INTERVAL, self._stream, start, sent + 1)


async def _main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Backend, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
