"""A backend that costs as little as Python allows: fixed responses and paced streams.

It implements the parts of the Ollama and OpenAI APIs that proxies need to find one model named
`bench`. The body of a POST selects the response: `"stream":true` gets 200 chunks of about 120
bytes, 10 ms apart; with `"max_tokens":30` one chunk every two seconds, and with `"max_tokens":1` a
single chunk at once. Any other body gets a fixed JSON response of about 400 bytes. Each chunk has
the monotonic time at which it was sent, as `T` and 20 digits of nanoseconds. Heads resemble those
of a Go server, `Date` included.
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
    """The responses as bytes, with the current date."""

    def __init__(self) -> None:
        self._second = 0
        self.renew()

    def renew(self) -> None:
        """Update the date once per second."""
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
        """Build a response with its length."""
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
        self._received: list[bytes] = []
        self._missing = 0
        self._discarding = 0
        self._transport: asyncio.Transport

    def connection_made(self, transport):
        self._transport = transport

    def data_received(self, data):
        if self._discarding:
            self._discard(len(data))
            return
        if self._missing:
            self._received.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._received)
            self._received, self._missing = [], 0
        elif self._received:
            data = b"".join(self._received) + data
            self._received = []
        while data:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._received = [data]
                return
            length = 0
            if data.startswith(b"POST"):
                match = _LENGTH.search(data, 0, end + 2)
                length = int(match[1]) if match is not None else 0
            whole = end + 4 + length
            if data.startswith(b"POST /api/blobs/"):
                self._discarding = length
                self._discard(len(data) - end - 4)
                return
            if len(data) < whole:
                self._received, self._missing = [data], whole - len(data)
                return
            self._answer(data, end, whole)
            data = data[whole:] if len(data) > whole else b""

    def _discard(self, size: int) -> None:
        """Discard a part of a blob."""
        self._discarding -= size
        if self._discarding <= 0:
            self._discarding = 0
            self._transport.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    def _answer(self, data: bytes, end: int, whole: int) -> None:
        answers = self._answers
        if not data.startswith(b"POST"):
            path = data[:200].split(b" ", 2)[1].partition(b"?")[0]
            self._transport.write(answers.lists.get(path, answers.alive))
            return
        native = data.startswith(b"POST /api/")
        # The options are at the end of a body, so that large bodies need no search.
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
