"""Measure how long one request body blocks the event loop, and how much memory it takes.

A router runs in its own process over a node that accepts every body. Each shape is sent to a
freshly started router, once on the fast path and once through aiohttp. Measured are the largest gap
of a 1 ms ticker in the router's loop, and the peak of its memory above the starting value, divided
by the body's length.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bodies import report
from benchmarks.bodies.shapes import SHAPES, Shape
from benchmarks.proxy.processes import (
    LOAD_CORE,
    PROXY_CORE,
    Measured,
    free_port,
    pinned,
    start,
)

_CONFIG = """\
server: {{host: 127.0.0.1, port: {port}, fast_path: {fast_path}}}
logging: {{level: error, output: stderr}}
routing: {{num_ctx: {{round_to: 4096}}}}
model_aliases: {{other: [bench]}}
discovery:
  static:
    endpoints: [{{url: "{node}", name: node, type: ollama, num_parallel: 100}}]
access:
  keys: [{{name: bench, key: bench-key-1, tier: bench, operations: [admin, generate, embed, list]}}]
  tiers: {{bench: {{}}}}
store: {{url: "sqlite:///{folder}/bench.db"}}
"""
_KEY = "X-API-Key: bench-key-1\r\n"
_SMALL = b'{"model":"bench","prompt":"hi","stream":false}'
_RESPONSE_SECONDS = 120.0
"""Seconds to wait for one response."""
_WARM_UP = 3
_CHUNK = 100_000
_QUICK_MAX = 10
"""Megabytes."""
_ROUTER = Path(__file__).with_name("router.py")
PATHS = {"fast path": "auto", "aiohttp": "off"}


class Nodes:
    """The nodes behind the router; one uses TLS if `openssl` is installed."""

    def __init__(self, folder: Path) -> None:
        self.certificate: Path | None = None
        self._running: list[Measured] = []
        self._folder = folder
        self.urls = {False: f"http://127.0.0.1:{self._start_node()}"}
        if shutil.which("openssl") is not None:
            self.certificate = folder / "node.pem"
            subprocess.run(
                [
                    *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                    *("-keyout", self.certificate, "-out", folder / "cert.pem"),
                    *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
                ],
                check=True,
                capture_output=True,
            )
            with self.certificate.open("a") as file:
                file.write((folder / "cert.pem").read_text())
            self.urls[True] = f"https://127.0.0.1:{self._start_node(str(self.certificate))}"

    def _start_node(self, *arguments: str) -> int:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.bodies.node", str(port), *arguments]
        log = self._folder / f"node-{port}.log"
        self._running.append(start(command, port, log, core=LOAD_CORE))
        return port

    def stop(self) -> None:
        """Terminate them."""
        for node in self._running:
            node.stop()


class Router:
    """A router process that is measured."""

    def __init__(self, folder: Path, nodes: Nodes, fast_path: str, where: Path, tls: bool) -> None:
        port = free_port()
        config = folder / f"{port}.yaml"
        config.write_text(
            _CONFIG.format(port=port, fast_path=fast_path, node=nodes.urls[tls], folder=folder)
        )
        self.port = port
        environment = {"PYTHONPATH": str(where.absolute()), "OLLA_HOME": str(folder)}
        if tls:
            environment["SSL_CERT_FILE"] = str(folder / "cert.pem")
        self._log = (folder / "router.log").open("ab")
        self._process = subprocess.Popen(
            [*pinned(PROXY_CORE), sys.executable, "-P", _ROUTER, config],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **environment},
            text=True,
        )

    def __enter__(self) -> "Router":
        until = time.monotonic() + 30
        for _ in range(_WARM_UP):
            while self.post("/api/generate", _SMALL, "application/json") != 200:
                if time.monotonic() > until:
                    self.__exit__()
                    raise RuntimeError("the router does not answer")
                time.sleep(0.02)
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait(10)
        self._log.close()

    def send(self, command: str) -> dict[str, float]:
        """Start a measurement, or read its result."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(command, file=self._process.stdin, flush=True)
        return dict(json.loads(self._process.stdout.readline()))

    def post(self, path: str, body: bytes, content_type: str, *, chunked: bool = False) -> int:
        """Send a body; returns the response status, or 0 without a response."""
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n{_KEY}"
            f"Connection: close\r\n{length}\r\n\r\n"
        )
        answer = b""
        try:
            with socket.create_connection(("127.0.0.1", self.port), _RESPONSE_SECONDS) as client:
                try:
                    client.sendall(head.encode())
                    for piece in _chunks(body) if chunked else (body,):
                        client.sendall(piece)
                except OSError:
                    pass  # rejected before it was read; the response says why
                while piece := client.recv(65536):
                    answer += piece
        except OSError:
            pass
        return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def _chunks(body: bytes) -> Iterator[bytes]:
    for at in range(0, len(body), _CHUNK):
        piece = body[at : at + _CHUNK]
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def measure(router: Router, shape: Shape, body: bytes) -> dict[str, float]:
    """Send one body, and return its effect on the router."""
    router.send("reset")
    started = time.perf_counter()
    status = router.post(shape.path, body, shape.content_type, chunked=shape.chunked)
    seconds = time.perf_counter() - started
    time.sleep(0.02)  # a late tick is recorded only when it runs
    figures = router.send("read")
    return {**figures, "status": status, "seconds": seconds, "size": len(body)}


def _chosen(options: argparse.Namespace) -> Iterator[tuple[Shape, int]]:
    sizes = [int(each) for each in options.sizes.split(",")] if options.sizes else None
    for shape in SHAPES:
        if (options.only or "") not in shape.name:
            continue
        if options.without is not None and options.without in shape.name:
            continue
        for size in shape.sizes:
            if (sizes is None or size in sizes) and (size <= _QUICK_MAX or not options.quick):
                yield shape, size


def _is_hot(shape: Shape) -> bool:
    """Return whether the fast path accepts the shape: aiohttp gets forms, chunks and internal
    routes."""
    if shape.chunked or "audio" in shape.path:
        return False
    return shape.path.startswith(("/api/generate", "/v1/"))


@contextmanager
def _nodes(folder: Path) -> Iterator[Nodes]:
    nodes = Nodes(folder)
    try:
        yield nodes
    finally:
        nodes.stop()


def main() -> None:
    """Run, print the table, and write the page if requested."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bodies", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only bodies of up to 10 MB")
    parser.add_argument("--only", help="only shapes whose name contains this")
    parser.add_argument("--without", help="skip shapes whose name contains this")
    parser.add_argument("--sizes", help="only these sizes (megabytes, comma-separated)")
    parser.add_argument(
        "--rounds", type=int, default=1, help="use the lowest figures of this many rounds"
    )
    parser.add_argument("--json", type=Path, default=Path("build/benchmark-bodies.json"))
    parser.add_argument("--before", type=Path, help="figures to compare with, written by --json")
    parser.add_argument(
        "--sources", type=Path, default=Path.cwd(), help="folder of the olla to measure"
    )
    parser.add_argument("--docs", type=Path, help="write the page to this folder")
    options = parser.parse_args()
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {LOAD_CORE})
    rows: list[report.Row] = []
    with tempfile.TemporaryDirectory() as name, _nodes(folder := Path(name)) as nodes:
        for shape, size in _chosen(options):
            if shape.tls not in nodes.urls:
                print(f"skipping {shape.name}: openssl is not installed", file=sys.stderr)
                continue
            body = shape.make(size * 1_000_000)
            for path, fast_path in PATHS.items():
                if path == "fast path" and not _is_hot(shape):
                    continue
                figures: list[dict[str, float]] = []
                for _ in range(options.rounds):
                    with Router(folder, nodes, fast_path, options.sources, shape.tls) as router:
                        figures.append(measure(router, shape, body))
                row = report.Row.of(shape.name, size, path, figures)
                rows.append(row)
                print(row.text(), file=sys.stderr, flush=True)
    before = report.load(options.before) if options.before else []
    options.json.parent.mkdir(parents=True, exist_ok=True)
    report.save(options.json, rows)
    print(report.table(rows, before))
    if options.docs is not None:
        report.write(options.docs, rows, before, rounds=options.rounds)


if __name__ == "__main__":
    main()
