"""Measure how long the event loop is blocked while long model lists are parsed, merged and served.

Three endpoints list ten thousand models each, of which every third is on all three. A task that
wakes every millisecond records the largest gap during each step of the router. Endpoints and client
run in another process, so all gaps are the router's.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TextIO

import uvloop

from olla.app import App
from olla.app.process import tune_garbage_collector
from olla.fleet.endpoint import ModelFilter
from olla.fleet.profiles import ListFormat
from olla.probing.list_parsing import models
from olla.probing.probe_client import LIST_MAX
from olla.settings import parse
from olla.store import database as _preloaded  # noqa: F401 - its import blocks the loop for 0.3 s

_PATHS = (
    *("/api/tags", "/v1/models", "/v1/models/model-00005:latest", "/olla/models", "/api/status"),
    *("/olla/anthropic/v1/models", "/olla/management/models", "/api/ps"),
    *("/internal/status", "/internal/status/endpoints", "/internal/status/models"),
    *("/internal/stats/models", "/metrics"),
)
_KEY = "oa-benchmark-key-of-some-length"
_PERIOD = 0.001


def _entry(name: str, number: int) -> dict[str, object]:
    return {
        "name": name,
        "model": name,
        "modified_at": f"2026-03-01T12:{number // 60 % 60:02}:{number % 60:02}.123456789+02:00",
        "size": 4_000_000_000 + number,
        "digest": f"{number:064x}",
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "8.0B",
            "quantization_level": "Q4_K_M",
        },
    }


def _list(node: int, models: int, changed: int) -> bytes:
    names = [
        f"model-{number:05}:latest" if number % 3 == 0 else f"model-{number:05}:node-{node}"
        for number in range(models)
    ]
    names[1] = f"model-changed:{changed}"
    return json.dumps({"models": [_entry(name, at) for at, name in enumerate(names)]}).encode()


class _Node:
    """An endpoint whose list changes on request."""

    def __init__(self, number: int, models: int) -> None:
        self.number = number
        self.models = models
        self.change(0)

    def change(self, changed: int) -> None:
        self.tags = _list(self.number, self.models, changed)
        loaded = [_entry(f"model-{at:05}:latest", at) for at in (0, 3, 6)]
        self.ps = json.dumps({"models": loaded}).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            path = (await reader.readuntil(b"\r\n\r\n")).split()[1]
            answers = {b"/": b"Ollama is running", b"/api/version": b'{"version":"0.12.0"}'}
            answers |= {b"/api/tags": self.tags, b"/api/ps": self.ps}
            body = answers.get(path, b"")
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            writer.write(head % len(body) + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def _peer_process(count: int, models: int) -> None:
    """Run the endpoints, and a client that reads commands line by line."""
    nodes = [_Node(number, models) for number in range(count)]
    servers = [await asyncio.start_server(node.serve, "127.0.0.1", 0) for node in nodes]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        word, *rest = line.split()
        if word == "change":
            for node in nodes:
                node.change(int(rest[0]))
            print("{}", flush=True)
            continue
        port, path = int(rest[0]), rest[1]
        start = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        writer.write(f"{head}Authorization: Bearer {_KEY}\r\n\r\n".encode())
        answer = await reader.read(-1)
        writer.close()
        seconds = time.perf_counter() - start
        status = answer.split(b" ", 2)[1].decode()
        print(json.dumps({"status": status, "bytes": len(answer), "seconds": seconds}), flush=True)


class _Ticker:
    """Records the largest gap between two runs of a task that wakes every millisecond.

    It is measured by the clock, and in CPU time of the loop's thread, which does not grow on a busy
    machine.
    """

    def __init__(self) -> None:
        self._wall = self._cpu = 0.0

    async def run(self) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(_PERIOD)
            before, wall = wall, time.perf_counter()
            self._wall = max(self._wall, wall - before - _PERIOD)
            before, cpu = cpu, time.thread_time()
            self._cpu = max(self._cpu, cpu - before)

    def largest(self) -> str:
        wall, cpu, self._wall, self._cpu = self._wall, self._cpu, 0.0, 0.0
        return f"{wall * 1000:7.1f} ms ({cpu * 1000:6.1f} ms of CPU)"


class _Peer:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def send(self, line: str) -> dict[str, object]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n".encode())
        reply: dict[str, object] = json.loads(await self._process.stdout.readline())
        return reply


@asynccontextmanager
async def _fleet(endpoints: int, models: int) -> AsyncIterator[tuple[_Peer, str]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.lists", "--peer"),
        *("--endpoints", str(endpoints), "--models", str(models)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    ports = json.loads(await process.stdout.readline())
    listed = "\n".join(
        f"      - {{name: node-{at}, url: 'http://127.0.0.1:{port}', type: ollama,"
        " check_interval: 1s, check_timeout: 900ms}"
        for at, port in enumerate(ports)
    )
    with tempfile.TemporaryDirectory() as folder:
        text = (
            "server: {host: 127.0.0.1, port: 0}\n"
            "logging: {level: warn}\n"
            f"store: {{url: 'sqlite:///{folder}/olla.db'}}\n"
            "access:\n  keys:\n"
            f"  - {{name: bench, key: {_KEY}, operations: [generate, list, admin]}}\n"
            f"discovery:\n  model_discovery: {{interval: 1s}}\n"
            f"  static:\n    endpoints:\n{listed}\n"
        )
        Path(folder, "olla.yaml").write_text(text)
        try:
            yield _Peer(process), text
        finally:
            process.terminate()
            await process.wait()


async def _measure(endpoints: int, models: int, rounds: int) -> None:
    with Path(os.devnull).open("w") as nowhere:
        await _measure_fleet(endpoints, models, rounds, nowhere)


async def _measure_fleet(endpoints: int, models: int, rounds: int, log: TextIO) -> None:
    async with _fleet(endpoints, models) as (peer, text):
        ticker = _Ticker()
        ticking = asyncio.get_running_loop().create_task(ticker.run())
        app = App(parse(text, {}), output=log)
        await asyncio.sleep(0.1)
        ticker.largest()
        tune_garbage_collector()
        ticker.largest()
        await app.start()
        port = app.url.rpartition(":")[2]
        known = 0
        while known < endpoints:
            await asyncio.sleep(0.1)
            known = sum(len(view.models) >= models for view in app.prober.snapshot.endpoints)
        print(f"{'first lists':<32}{ticker.largest()}")
        await asyncio.sleep(3.0)
        print(f"{'probing, no change':<32}{ticker.largest()}")
        for changed in range(1, 4):
            await peer.send(f"change {changed}")
            await asyncio.sleep(1.2)
        print(f"{'probing, one name changes':<32}{ticker.largest()}")
        for path in _PATHS:
            await peer.send(f"change {hash(path) % 1000 + 10}")
            await asyncio.sleep(1.5)
            ticker.largest()
            first = await peer.send(f"get {port} {path}")
            gap = ticker.largest()
            times = [float(str((await peer.send(f"get {port} {path}"))["seconds"]))]
            times += [
                float(str((await peer.send(f"get {port} {path}"))["seconds"]))
                for _ in range(rounds - 1)
            ]
            again = ticker.largest()
            print(
                f"GET {path:<28}{gap} first, {again} repeated;"
                f" {float(str(first['seconds'])) * 1000:5.0f} and {min(times) * 1000:4.0f} ms"
                f" in total, {first['status']}, {int(str(first['bytes'])) / 1e6:.1f} MB"
            )
        ticking.cancel()
        await app.stop()


def _hostile() -> dict[str, bytes]:
    """Return lists that no real server has, each as long as olla reads."""
    size = LIST_MAX

    def filled(piece: bytes) -> bytes:
        return b'{"models":[' + b",".join([piece] * (size // (len(piece) + 1) - 8)) + b"]}"

    text = b"x" * 30_000
    return {
        "empty lists": filled(b"[]"),
        "empty objects": filled(b"{}"),
        "200,000 models": filled(b'{"name":"m","size":1,"digest":"0123456789","x":[1,2]}'),
        "long texts": filled(b'{"name":"m","x":"%b"}' % text),
        "escaped texts": filled(b'{"name":"m","x":"%b"}' % (b"\\n" * 15_000)),
        "wide entries": filled(b'{"name":"m","x":[%b]}' % b",".join([b"[]"] * 10_000)),
        "keys": filled(b'{"name":"m",%b}' % b",".join(b'"%d":1' % at for at in range(3_500))),
        "deep entries": filled(b'{"name":"m","x":%b}' % (b"[" * 15_000 + b"]" * 15_000)),
        "one text": b'{"models":[{"name":"m","x":"' + b"x" * (size - 100) + b'"}]}',
        "non-ASCII text": filled('{"name":"m","x":"%s"}'.replace("%s", "ü" * 1_000).encode()),
        "numbers": filled(b'{"name":"m","size":%b}' % (b"9" * 4_000)),
    }


def _read_hostile() -> None:
    for name, body in _hostile().items():
        worst = total = 0.0
        steps = 0
        work = models(body, ListFormat.OLLAMA, ModelFilter())
        while True:
            start = time.thread_time()
            try:
                next(work)
                ended = False
            except StopIteration:
                ended = True
            took = time.thread_time() - start
            worst, total, steps = max(worst, took), total + took, steps + 1
            if ended:
                break
        print(
            f"parsing {name:<24}{worst * 1000:7.1f} ms of CPU per step, {total * 1000:6.0f} ms in"
            f" total, {steps} steps, {len(body) / 1e6:.1f} MB"
        )


def main() -> None:
    """Print the largest gap for each operation on long lists."""
    parser = argparse.ArgumentParser(prog="benchmarks.lists", description=__doc__)
    parser.add_argument("--endpoints", type=int, default=3)
    parser.add_argument("--models", type=int, default=10_000, help="models per endpoint")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        asyncio.run(_peer_process(options.endpoints, options.models))
    else:
        tune_garbage_collector()
        _read_hostile()
        uvloop.run(_measure(options.endpoints, options.models, options.rounds))


if __name__ == "__main__":
    main()
