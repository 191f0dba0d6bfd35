"""Load: closed-loop requests on keep-alive connections, and streams whose delay is measured."""

import asyncio
import time

import msgspec

__all__ = ["Requests", "Streams", "requests", "streams"]


class Requests(msgspec.Struct):
    """What a run of requests gave. Latencies are seconds."""

    count: int
    errors: int
    elapsed: float
    latencies: list[float]


class Streams(msgspec.Struct):
    """What a run of streams gave. Delays, from backend's send to arrival here, are seconds."""

    chunks: int
    errors: int
    delays: list[float]


def _head(path: str, body: bytes, port: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: bench\r\nAccept: */*\r\n"
        f"Accept-Encoding: identity\r\nContent-Type: application/json\r\nX-A: 1\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()


class _Requester(asyncio.Protocol):
    def __init__(self, message: bytes, until: float, result: Requests) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._message, self._until, self._result = message, until, result
        self._need = -1
        self._got = 0

    def connection_made(self, transport):
        self._transport = transport
        self._send()

    def _send(self):
        self._need, self._got = -1, 0
        self._sent = time.perf_counter()
        self._transport.write(self._message)

    def data_received(self, data):
        if self._need < 0:
            end = data.find(b"\r\n\r\n")
            lower = data[:end].lower()
            at = lower.find(b"content-length: ")
            if end < 0 or at < 0 or not data.startswith(b"HTTP/1.1 200"):
                self._result.errors += 1
                self._transport.close()
                return
            self._need = int(lower[at + 16 :].split(b"\r\n", 1)[0])
            self._got = len(data) - end - 4
        else:
            self._got += len(data)
        if self._got >= self._need:
            now = time.perf_counter()
            self._result.count += 1
            self._result.latencies.append(now - self._sent)
            if now >= self._until:
                self._transport.close()
            else:
                self._send()

    def connection_lost(self, exc):
        if not self.done.done():
            self.done.set_result(None)


async def requests(
    port: int, path: str, body: bytes, connections: int, duration: float
) -> Requests:
    """Send requests one after the other on each of `connections` for `duration` seconds."""
    loop = asyncio.get_running_loop()
    result = Requests(0, 0, 0.0, [])
    start = time.perf_counter()
    message = _head(path, body, port) + body
    protocols = [
        (
            await loop.create_connection(
                lambda: _Requester(message, start + duration, result), "127.0.0.1", port
            )
        )[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.done for protocol in protocols))
    result.elapsed = time.perf_counter() - start
    return result


class _Streamer(asyncio.Protocol):
    _MARK = b'"created_at":"'

    def __init__(self, message: bytes, result: Streams) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._message, self._result = message, result
        self._complete = False

    def connection_made(self, transport):
        self._transport = transport
        transport.write(self._message)

    def data_received(self, data):
        now = time.monotonic_ns()
        at = data.find(self._MARK)
        while at >= 0:
            stamp = data[at + 14 : at + 34]
            if len(stamp) == 20 and stamp.isdigit():
                self._result.chunks += 1
                self._result.delays.append((now - int(stamp)) / 1e9)
            at = data.find(self._MARK, at + 34)
        if data.endswith(b"0\r\n\r\n"):
            self._complete = True
            self._transport.close()

    def connection_lost(self, exc):
        if not self._complete:
            self._result.errors += 1
        if not self.done.done():
            self.done.set_result(None)


async def streams(port: int, path: str, body: bytes, count: int) -> Streams:
    """Run `count` streams at once to their end."""
    loop = asyncio.get_running_loop()
    result = Streams(0, 0, [])
    message = _head(path, body, port) + body
    protocols = [
        (await loop.create_connection(lambda: _Streamer(message, result), "127.0.0.1", port))[1]
        for _ in range(count)
    ]
    await asyncio.gather(*(protocol.done for protocol in protocols))
    return result
