"""The measurements of a target, as separate cells so that rounds can be interleaved."""

import asyncio
import socket
import statistics
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TypeVar

import uvloop

from benchmarks.proxy.load import OpenStreams, first_bytes, streams, wrk
from benchmarks.proxy.processes import Measured, cpu_seconds, resident_bytes
from benchmarks.proxy.targets import Target

__all__ = ["CELLS", "Cell", "Rows", "blob", "cpu_clock", "memory", "steadiness"]

_T = TypeVar("_T")

Rows = dict[tuple[str, str], list[float]]
"""(measurement, target) -> values, one per round."""

_NATIVE = """'{"model":"bench","prompt":"' .. string.rep("p",%d) .. '","stream":false}'"""
_OPENAI = (
    """'{"model":"bench","messages":[{"role":"user","content":"' .. string.rep("p",%d) .. """
    """'"}],"stream":false}'"""
)


def _lua(path: str, size: int) -> str:
    native = path.startswith("/api")
    return _NATIVE % (size - 45) if native else _OPENAI % (size - 77)


def _stream(path: str, option: str = "") -> bytes:
    about = (
        '"prompt":"x"' if path.startswith("/api") else '"messages":[{"role":"user","content":"x"}]'
    )
    more = f",{option}" if option else ""
    return f'{{"model":"bench",{about},"stream":true{more}}}'.encode()


def _run(measuring: Coroutine[None, None, _T]) -> _T:
    """Run for at most 90 seconds, so that a target that hangs does not hang the benchmark."""

    async def bounded() -> _T:
        async with asyncio.timeout(90):
            return await measuring

    return uvloop.run(bounded())


class Cell:
    """One measurement of one target in one round.

    `run` takes the port, the path, a clock of the target's CPU seconds and the duration, and
    returns values by name.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[int, str, Callable[[], float], float], dict[str, float]],
        *,
        heavy: bool = True,
    ) -> None:
        self.name = name
        self.run = run
        self.heavy = heavy
        """Whether slow targets are measured as well."""


def _requests(size: int, connections: int, label: str) -> Cell:
    def run(port: int, path: str, cpu: Callable[[], float], seconds: float) -> dict[str, float]:
        before = cpu()
        result = wrk(port, path, _lua(path, size), connections, seconds)
        spent = cpu() - before
        if not result.count:
            return {}
        values = {
            f"CPU µs a request, {label}": spent / result.count * 1e6,
            f"requests a second, {label}": result.per_second,
            f"errors, {label}": float(result.errors),
        }
        if connections == 1:
            values["latency p50 µs, 1 connection"] = result.p50
        return values

    return Cell(label, run)


def _chunks(count: int) -> Cell:
    label = f"{count} streams"

    def run(port: int, path: str, cpu: Callable[[], float], seconds: float) -> dict[str, float]:
        before = cpu()
        result = _run(streams(port, path, _stream(path), count, 200))
        spent = cpu() - before
        if not result.chunks:
            return {f"errors, {label}": float(result.errors)}
        return {
            f"CPU µs a chunk, {label}": spent / result.chunks * 1e6,
            f"delay of a chunk p50 µs, {label}": statistics.median(result.delays) * 1e6,
            f"errors, {label}": float(result.errors + result.lost),
        }

    return Cell(label, run, heavy=False)


def _first_bytes() -> Cell:
    def run(port: int, path: str, cpu: Callable[[], float], seconds: float) -> dict[str, float]:
        seconds_ = _run(first_bytes(port, path, _stream(path, '"max_tokens":1'), 400))
        return {"time to first byte p50 µs": statistics.median(seconds_[50:]) * 1e6}

    return Cell("first byte", run, heavy=False)


CELLS = (
    _requests(400, 1, "1 connection"),
    _requests(400, 16, "16 connections"),
    _requests(400, 64, "64 connections"),
    _requests(65_536, 16, "64 KB bodies"),
    _requests(4_194_304, 4, "4 MB bodies"),
    _first_bytes(),
    _chunks(100),
)


async def _memory(target: Target, running: Measured, count: int) -> dict[str, float]:
    open_streams = OpenStreams(running.port, target.path, _stream(target.path, '"max_tokens":30'))
    await asyncio.sleep(0.5)
    before = resident_bytes(running.pid)
    await open_streams.open(count)
    await asyncio.sleep(4.5)  # each has received one or two chunks
    after = resident_bytes(running.pid)
    delays = sorted(open_streams.result.delays)
    await open_streams.close()
    return {
        f"KB a slow stream, {count}": (after - before) / count / 1024,
        f"delay of a chunk p99 ms, {count} slow streams": delays[int(len(delays) * 0.99)] * 1e3,
        f"errors, {count} slow streams": float(open_streams.result.errors),
    }


def memory(target: Target, backend: int, folder: Path, count: int) -> dict[str, float]:
    """Measure the memory of `count` slow streams, in a new process that is warmed up."""
    running = target.begin(backend, folder)
    try:
        _run(streams(running.port, target.path, _stream(target.path, '"max_tokens":1'), 20, 1))
        return _run(_memory(target, running, count))
    finally:
        running.stop()


def steadiness(target: Target, backend: int, folder: Path, requests: int) -> dict[str, float]:
    """Measure memory after a tenth of `requests` and after all of them, in megabytes."""
    running = target.begin(backend, folder)
    try:
        done, marks = 0, []
        for bound in (requests // 10, requests):
            while done < bound:
                done += wrk(running.port, target.path, _lua(target.path, 400), 16, 2.0).count
            time.sleep(0.5)
            marks.append(resident_bytes(running.pid) / 2**20)
        return {
            f"MB after {requests // 10} requests": marks[0],
            f"MB after {requests} requests": marks[1],
        }
    finally:
        running.stop()


def blob(target: Target, backend: int, folder: Path, size: int) -> dict[str, float]:
    """Measure the peak memory above that at rest during a blob upload of `size` bytes, in
    megabytes."""
    running = target.begin(backend, folder)
    try:
        time.sleep(0.5)
        before = peak = resident_bytes(running.pid)
        piece = b"b" * (1 << 20)
        start = time.perf_counter()
        with socket.create_connection(("127.0.0.1", running.port)) as client:
            path = f"/api/blobs/sha256:{'0' * 64}"
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
            client.sendall(head.encode())
            for number in range(size // len(piece)):
                client.sendall(piece)
                if not number % 64:
                    peak = max(peak, resident_bytes(running.pid))
            answer = client.recv(4096)
        seconds = time.perf_counter() - start
        gigabytes = size / 2**30
        return {
            f"MB more at the peak of a blob of {gigabytes:.0f} GB": (peak - before) / 2**20,
            f"seconds a GB of a blob of {gigabytes:.0f} GB": seconds / gigabytes,
            "errors, blob": float(not answer.startswith(b"HTTP/1.1 201")),
        }
    finally:
        running.stop()


def cpu_clock(running: Measured) -> Callable[[], float]:
    """Return a function that reads the target's CPU seconds."""
    return lambda: cpu_seconds(running.pid)
