"""A backend that costs as little as Python allows: fixed answers, paced streams.

Speaks just enough of Ollama's API and of OpenAI's for every proxy to find one model named
`bench`. What a POST gets is said by its body: `"stream":true` gets 200 chunks of about 120 bytes,
10 ms apart; with `"max_tokens":30` one chunk every two seconds, with `"max_tokens":1` a
single chunk at once; anything else a fixed JSON answer of about 400 bytes. Each chunk carries the
monotonic time it was sent at, `T` and 20 digits of nanoseconds. Heads are as a Go server sends
them, `Date` included.
"""

import asyncio
import email.utils
import re
import sys
import time

CHUNKS = 200
INTERVAL = 0.010
SLOW_CHUNKS = 30
SLOW_INTERVAL = 2.0

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_TAGS = (
    b'{"models":[{"name":"bench:latest","model":"bench:latest","modified_at":'
    b'"2026-01-01T00:00:00Z","size":1000,"digest":"%b","details":{}}]}' % (b"0" * 64)
)
_PS = (
    b'{"models":[{"name":"bench:latest","model":"bench:latest","size":1000,"size_vram":1000,'
    b'"digest":"%b","details":{},"expires_at":"2036-01-01T00:00:00Z","context_length":4096}]}'
    % (b"0" * 64)
)
_NATIVE = (
    b'{"model":"bench:latest","created_at":"2026-01-01T00:00:00Z","response":"%b","done":true,'
    b'"done_reason":"stop","total_duration":4102345678,"load_duration":52345678,'
    b'"prompt_eval_count":10,"prompt_eval_duration":350123456,"eval_count":40,'
    b'"eval_duration":3700123456}' % (b"x" * 190)
)
_OPENAI = (
    b'{"id":"c-1","object":"chat.completion","created":1767225600,"model":"bench","choices":'
    b'[{"index":0,"message":{"role":"assistant","content":"%b"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":40,"total_tokens":50}}' % (b"x" * 190)
)
_LISTS = {
    b"/api/tags": _TAGS,
    b"/api/ps": _PS,
    b"/api/version": b'{"version":"0.33.0"}',
    b"/v1/models": b'{"object":"list","data":[{"id":"bench","object":"model","owned_by":"x"}]}',
    b"/get_model_info": b'{"model_path":"bench","is_generation":true}',
    b"/get_server_info": b'{"model_path":"bench"}',
}


class Answers:
    """The answers as bytes, with the second's date in them."""

    def __init__(self) -> None:
        self._second = 0
        self.renew()

    def renew(self) -> None:
        """Put the date in, when the second is a new one."""
        second = int(time.time())
        if second == self._second:
            return
        self._second = second
        date = email.utils.formatdate(second, usegmt=True).encode()
        self.native = self.whole(_NATIVE, date, b"application/json; charset=utf-8")
        self.openai = self.whole(_OPENAI, date, b"application/json")
        self.lists = {
            path: self.whole(body, date, b"application/json; charset=utf-8")
            for path, body in _LISTS.items()
        }
        self.alive = self.whole(b"Ollama is running", date, b"text/plain; charset=utf-8")
        stream = (
            b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nDate: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self.native_stream = stream % (b"application/x-ndjson", date)
        self.openai_stream = stream % (b"text/event-stream", date)

    @staticmethod
    def whole(body: bytes, date: bytes, kind: bytes) -> bytes:
        """An answer with its length."""
        return (
            b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nDate: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (
                kind,
                date,
                len(body),
                body,
            )
        )


class Backend(asyncio.Protocol):
    """One connection."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._loop = asyncio.get_running_loop()
        self._held: list[bytes] = []
        self._missing = 0
        self._sinking = 0
        self._transport: asyncio.Transport

    def connection_made(self, transport):
        self._transport = transport

    def data_received(self, data):
        if self._sinking:
            self._sink(len(data))
            return
        if self._missing:
            self._held.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._held)
            self._held, self._missing = [], 0
        elif self._held:
            data = b"".join(self._held) + data
            self._held = []
        while data:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._held = [data]
                return
            length = 0
            if data.startswith(b"POST"):
                match = _LENGTH.search(data, 0, end + 2)
                length = int(match[1]) if match is not None else 0
            whole = end + 4 + length
            if data.startswith(b"POST /api/blobs/"):
                self._sinking = length
                self._sink(len(data) - end - 4)
                return
            if len(data) < whole:
                self._held, self._missing = [data], whole - len(data)
                return
            self._answer(data, end, whole)
            data = data[whole:] if len(data) > whole else b""

    def _sink(self, size: int) -> None:
        """Take a part of a blob, and forget it."""
        self._sinking -= size
        if self._sinking <= 0:
            self._sinking = 0
            self._transport.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    def _answer(self, data: bytes, end: int, whole: int) -> None:
        answers = self._answers
        if not data.startswith(b"POST"):
            path = data[:200].split(b" ", 2)[1].partition(b"?")[0]
            self._transport.write(answers.lists.get(path, answers.alive))
            return
        native = data.startswith(b"POST /api/")
        # What is wanted stands at the end of a body; a large one is not searched through.
        if data.find(b'"stream":true', max(end, whole - 400), whole) < 0:
            self._transport.write(answers.native if native else answers.openai)
            return
        self._transport.write(answers.native_stream if native else answers.openai_stream)
        options = data[max(end, whole - 400) : whole]
        count, interval = CHUNKS, INTERVAL
        if b'_tokens":30' in options:
            count, interval = SLOW_CHUNKS, SLOW_INTERVAL
        elif b'_tokens":1' in options:
            count = 1
        self._stream(self._loop.time(), 0, count, interval, native)

    def _stream(self, start: float, sent: int, count: int, interval: float, native: bool) -> None:
        if self._transport.is_closing():
            return
        last = sent == count - 1
        if native:
            record = (
                b'{"model":"bench:latest","created_at":"2026-01-01T00:00:00.000000000Z",'
                b'"response":"T%020d","done":%b}\n'
                % (time.monotonic_ns(), b"true" if last else b"false")
            )
        else:
            record = (
                b'data: {"id":"c-1","object":"chat.completion.chunk","created":1767225600,"model":'
                b'"bench","choices":[{"index":0,"delta":{"content":"T%020d"},"finish_reason":%b}]}'
                b"\n\n" % (time.monotonic_ns(), b'"stop"' if last else b"null")
            )
        self._transport.write(b"%x\r\n%b\r\n" % (len(record), record))
        if last:
            done = b"" if native else b"e\r\ndata: [DONE]\n\n\r\n"
            self._transport.write(done + b"0\r\n\r\n")
            return
        self._loop.call_at(
            start + (sent + 1) * interval, self._stream, start, sent + 1, count, interval, native
        )


async def _main(port: int) -> None:
    loop = asyncio.get_running_loop()
    answers = Answers()
    server = await loop.create_server(lambda: Backend(answers), "127.0.0.1", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    while True:
        await asyncio.sleep(0.25)
        answers.renew()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
