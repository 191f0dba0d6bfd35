"""Generate load: closed-loop requests with wrk, and streams that measure each chunk's delay."""

import asyncio
import json
import re
import shutil
import subprocess
import tempfile
import time

import msgspec

from benchmarks.proxy.processes import LOAD_CORE, pinned

__all__ = ["Requests", "Streams", "first_bytes", "message", "require_wrk", "streams", "wrk"]

_STAMP = re.compile(rb"T(\d{20})")
_SCRIPT = """\
wrk.method = "POST"
wrk.body = %s
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Accept"] = "*/*"
wrk.headers["Accept-Encoding"] = "identity"
wrk.headers["User-Agent"] = "bench/1.0"
wrk.headers["X-Trace"] = "1"
done = function(summary, latency, requests)
  io.write(string.format(
    '{"count":%%d,"microseconds":%%d,"errors":%%d,"p50":%%d,"p99":%%d}\\n',
    summary.requests, summary.duration,
    summary.errors.connect + summary.errors.read + summary.errors.write
      + summary.errors.status + summary.errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


class Requests(msgspec.Struct):
    """Results of a run of requests. Latencies are microseconds."""

    count: int
    errors: int
    per_second: float
    p50: float
    p99: float


class Streams(msgspec.Struct):
    """Results of a run of streams. Delays, from the backend's send to the arrival here, are
    seconds; `lost` counts missing chunks."""

    chunks: int
    errors: int
    delays: list[float]
    lost: int = 0


def require_wrk() -> None:
    """Exit with instructions if the load generator is missing."""
    if shutil.which("wrk") is None:
        raise SystemExit("the benchmark needs wrk: apt install wrk nginx-light")


def wrk(port: int, path: str, lua_body: str, connections: int, seconds: float) -> Requests:
    """Send requests one after the other on each of `connections`.

    `lua_body` is a Lua expression, so that wrk itself creates large bodies.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT % lua_body)
        script.flush()
        whole = max(1, round(seconds))
        command = [
            *(*pinned(LOAD_CORE), "wrk", "-t1", f"-c{connections}", f"-d{whole}s"),
            *("--timeout", "20s", "-s", script.name, f"http://127.0.0.1:{port}{path}"),
        ]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    row = json.loads(output.splitlines()[-1])
    elapsed = row["microseconds"] / 1e6
    return Requests(row["count"], row["errors"], row["count"] / elapsed, row["p50"], row["p99"])


def message(port: int, path: str, body: bytes) -> bytes:
    """Build a request."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: bench/1.0\r\n"
        f"Accept: */*\r\nAccept-Encoding: identity\r\nContent-Type: application/json\r\n"
        f"X-Trace: 1\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


class _Stream(asyncio.Protocol):
    """A stream that is read to its end or until it is stopped."""

    def __init__(self, request: bytes, expected: int, result: Streams) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request, self._expected, self._result = request, expected, result
        self._rest = b""
        self._seen = 0
        self._complete = False
        self.transport: asyncio.Transport

    def connection_made(self, transport):
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data):
        now = time.monotonic_ns()
        text = self._rest + data if self._rest else data
        end = 0
        for match in _STAMP.finditer(text):
            self._seen += 1
            self._result.chunks += 1
            self._result.delays.append((now - int(match[1])) / 1e9)
            end = match.end()
        self._rest = text[max(end, len(text) - 28) :]
        if text.endswith(b"\r\n0\r\n\r\n"):
            self._complete = True
            self.transport.close()

    def stop(self) -> None:
        """Close it; everything received so far counts as complete."""
        self._complete = True
        self._expected = self._seen
        self.transport.close()

    def connection_lost(self, exc):
        if not self._complete:
            self._result.errors += 1
        self._result.lost += max(0, self._expected - self._seen)
        if not self.done.done():
            self.done.set_result(None)


class OpenStreams:
    """Streams that stay open during a measurement."""

    def __init__(self, port: int, path: str, body: bytes) -> None:
        self.result = Streams(0, 0, [])
        self._port, self._message = port, message(port, path, body)
        self._streams: list[_Stream] = []

    async def open(self, count: int) -> None:
        """Open `count` streams, some hundred per second, so that the backlog does not overflow."""
        loop = asyncio.get_running_loop()
        for number in range(count):
            stream = _Stream(self._message, 0, self.result)
            self._streams.append(stream)
            await loop.create_connection(lambda each=stream: each, "127.0.0.1", self._port)
            if number % 20 == 19:
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Close all of them."""
        for stream in self._streams:
            if not stream.done.done():
                stream.stop()
        await asyncio.gather(*(stream.done for stream in self._streams))


async def streams(port: int, path: str, body: bytes, count: int, chunks: int) -> Streams:
    """Run `count` concurrent streams of `chunks` chunks to their end."""
    loop = asyncio.get_running_loop()
    result = Streams(0, 0, [])
    request = message(port, path, body)
    running = [_Stream(request, chunks, result) for _ in range(count)]
    for each in running:
        await loop.create_connection(lambda stream=each: stream, "127.0.0.1", port)
    await asyncio.gather(*(each.done for each in running))
    return result


class _FirstBytes(asyncio.Protocol):
    """Runs short streams one after the other, and measures the time to each first body byte."""

    def __init__(self, request: bytes, count: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.seconds: list[float] = []
        self._request, self._count = request, count
        self._transport: asyncio.Transport

    def connection_made(self, transport):
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._seen = b""
        self._first = False
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data):
        now = time.perf_counter()
        self._seen += data
        if not self._first and _STAMP.search(self._seen):
            self._first = True
            self.seconds.append(now - self._sent)
        if self._seen.endswith(b"\r\n0\r\n\r\n"):
            if len(self.seconds) < self._count:
                self._send()
            else:
                self._transport.close()

    def connection_lost(self, exc):
        if not self.done.done():
            self.done.set_result(None)


async def first_bytes(port: int, path: str, body: bytes, count: int) -> list[float]:
    """Return the seconds to the first body byte of `count` short streams on one connection."""
    loop = asyncio.get_running_loop()
    protocol = _FirstBytes(message(port, path, body), count)
    await loop.create_connection(lambda: protocol, "127.0.0.1", port)
    await protocol.done
    return protocol.seconds
