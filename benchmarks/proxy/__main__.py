"""Measure olla's own cost: CPU microseconds per request and per relayed chunk, added latency.

The router alone runs on one core, backend and load on another (where there are two). CPU time is
the run time of the router's threads as the kernel accounts it, so what else the machine does
hardly shows. Rounds are interleaved; medians are printed, with the lowest and the highest.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks.proxy.load import requests, streams

_CONFIG = """\
server: {{host: 127.0.0.1, port: {port}}}
discovery:
  static:
    endpoints:
      - {{url: "http://127.0.0.1:{backend}", name: bench, type: ollama, num_parallel: 10000}}
"""


def cpu_seconds(pid: int) -> float:
    """Run time of all threads of a process, in seconds (Linux schedstat: nanoseconds)."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def free_port() -> int:
    """A port that was free a moment ago."""
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def pinned(core: int) -> list[str]:
    """The prefix that runs a command on one core, where there is more than one."""
    return ["taskset", "-c", str(core)] if (os.cpu_count() or 1) > 1 else []


def start_backend() -> tuple[subprocess.Popen[str], int]:
    """The backend and its port."""
    process = subprocess.Popen(
        [*pinned(0), sys.executable, "-m", "benchmarks.proxy.backend"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def start_olla(backend: int, folder: Path) -> tuple[subprocess.Popen[bytes], int, float]:
    """The router, its port, and the seconds until it accepted a connection."""
    import socket

    port = free_port()
    config = folder / "bench.yaml"
    config.write_text(_CONFIG.format(port=port, backend=backend))
    started = time.perf_counter()
    process = subprocess.Popen(
        [*pinned(1), sys.executable, "-m", "olla", "serve", "--config", str(config)],
        stdout=(folder / "olla.log").open("wb"),
        stderr=subprocess.STDOUT,
    )
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            if time.perf_counter() - started > 20 or process.poll() is not None:
                print((folder / "olla.log").read_text(), file=sys.stderr)
                raise SystemExit("olla did not start") from None
            time.sleep(0.005)
    return process, port, time.perf_counter() - started


def spread(values: list[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


def run(rounds: int, seconds: float) -> dict[str, object]:
    """All measurements."""
    small = b'{"model":"bench","prompt":"%b","stream":false}' % (b"p" * 350)
    large = b'{"model":"bench","prompt":"%b","stream":false}' % (b"p" * 65000)
    stream = b'{"model":"bench","prompt":"%b","stream":true}' % (b"p" * 350)
    rows: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        rows.setdefault(name, []).append(value)

    with tempfile.TemporaryDirectory() as name:
        backend, backend_port = start_backend()
        olla, port, start_up = start_olla(backend_port, Path(name))
        note("start-up to first accepted connection, ms", start_up * 1e3)
        try:
            uvloop.run(requests(port, "/api/generate", small, 16, 1.0))  # warm
            for number in range(rounds):
                for label, body, connections in (
                    ("small, 1 connection", small, 1),
                    ("small, 16 connections", small, 16),
                    ("64 KB, 16 connections", large, 16),
                ):
                    before = cpu_seconds(olla.pid)
                    result = uvloop.run(requests(port, "/api/generate", body, connections, seconds))
                    spent = cpu_seconds(olla.pid) - before
                    if result.errors:
                        print(f"  {result.errors} errors in {label}", file=sys.stderr)
                    note(f"CPU us per request, {label}", spent / result.count * 1e6)
                    note(f"requests/s, {label}", result.count / result.elapsed)
                    if connections == 1:
                        direct = uvloop.run(
                            requests(backend_port, "/api/generate", body, 1, seconds)
                        )
                        note(
                            "added latency p50 us, 1 connection",
                            (
                                statistics.median(result.latencies)
                                - statistics.median(direct.latencies)
                            )
                            * 1e6,
                        )
                before = cpu_seconds(olla.pid)
                flow = uvloop.run(streams(port, "/api/generate", stream, 100))
                spent = cpu_seconds(olla.pid) - before
                if flow.errors:
                    print(f"  {flow.errors} errors in streams", file=sys.stderr)
                note("CPU us per chunk, 100 streams", spent / flow.chunks * 1e6)
                note("chunk delay p50 us, 100 streams", statistics.median(flow.delays) * 1e6)
                print(f"round {number + 1} of {rounds} done", file=sys.stderr, flush=True)
        finally:
            olla.terminate()
            backend.terminate()
            olla.wait(20)
            backend.wait(20)
            if backend.stdout is not None:
                backend.stdout.close()
    return {name: spread(values) for name, values in rows.items()}


def main() -> None:
    """Run and print; `--json FILE` keeps the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proxy", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="per measurement")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    rounds, seconds = (1, 1.0) if options.quick else (options.rounds, options.seconds)
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {0})
    rows = run(rounds, seconds)
    width = max(map(len, rows))
    print(f"{'':{width}}  {'median':>10} {'min':>10} {'max':>10}")
    for name, row in rows.items():
        print(f"{name:{width}}  {row['median']:>10} {row['min']:>10} {row['max']:>10}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
