"""Run the comparison end to end: the router and six simulated nodes as processes over HTTP.

Time runs twenty times as fast. The results are printed beside those of the fleet of discrete
events: python -m benchmarks.routing.processes --help
"""

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import msgspec

from benchmarks.routing import fleets
from benchmarks.routing.baselines import BY_NAME, LATE
from benchmarks.routing.workloads import conversation
from olla.admission.dispatcher import Dispatcher
from olla.routing.decision import RoutingOptions
from olla.simulation.fleet import FleetRun
from olla.simulation.machine import Arrival, Machine
from olla.simulation.model_catalogue import ModelSpec
from olla.simulation.server import NodeOptions, SimulatedNode

SCALE = 1 / 20
_REFERENCE_SIZE = 4.0e9
"""Size in bytes of the model to which a simulated node's rates refer."""
_WORDS_PER_TOKEN = 0.75
"""The ratio by which a simulated node counts tokens."""
_POLICIES = (LATE, "loaded-first", "least-connections")


def machines() -> list[Machine]:
    """Return six of the eight nodes; models that fit on none of them are not requested."""
    return fleets.unequal()[:6]


class _NodeArguments(msgspec.Struct):
    """Arguments for a node's process."""

    port: int
    name: str
    vram: int
    slots: int
    load_bandwidth: float
    warm_bandwidth: float
    prefill: float
    decode: float
    models: list[ModelSpec]


async def _serve_node(arguments: _NodeArguments) -> None:
    """Run a node until the process is killed."""
    node = SimulatedNode(
        NodeOptions(
            name=arguments.name,
            models=tuple(arguments.models),
            vram=arguments.vram,
            num_parallel=arguments.slots,
            load_bandwidth=arguments.load_bandwidth,
            warm_bandwidth=arguments.warm_bandwidth,
            tokens_per_second=arguments.decode / _REFERENCE_SIZE,
            prompt_tokens_per_second=arguments.prefill / _REFERENCE_SIZE,
            time_scale=SCALE,
        )
    )
    await node.start("127.0.0.1", arguments.port)
    print("ready", flush=True)
    await asyncio.Event().wait()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class _Processes:
    """A router and its nodes, each in its own process."""

    def __init__(self, policy: str) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="olla-bench-")
        ports = [self._node(each) for each in machines()]
        self.port = _free_port()
        lines = [
            f"server: {{host: 127.0.0.1, port: {self.port}}}",
            f"proxy: {{load_balancer: {policy}}}",
            "logging: {level: error, output: stderr}",
            "discovery:",
            "  static:",
            "    endpoints:",
        ]
        lines += [
            f"      - {{name: {each.spec.name}, url: 'http://127.0.0.1:{port}', type: ollama,"
            f" num_parallel: {each.limits.num_parallel}, check_interval: 250ms}}"
            for each, port in zip(machines(), ports, strict=True)
        ]
        config = Path(self._folder.name) / "olla.yaml"
        config.write_text("\n".join(lines) + "\n")
        self._start([sys.executable, "-m", "olla", "serve", "--config", str(config)], silent=True)

    def _node(self, machine: Machine) -> int:
        arguments = _NodeArguments(
            port=_free_port(),
            name=machine.spec.name,
            vram=machine.limits.vram,
            slots=machine.limits.num_parallel,
            load_bandwidth=machine.limits.load_bandwidth,
            warm_bandwidth=machine.limits.warm_bandwidth,
            prefill=machine.prefill,
            decode=machine.decode,
            models=list(machine.models),
        )
        encoded = msgspec.json.encode(arguments).decode()
        process = self._start(
            [sys.executable, "-m", "benchmarks.routing.processes", "--node", encoded]
        )
        assert process.stdout is not None
        process.stdout.readline()
        return arguments.port

    def _start(self, command: list[str], *, silent: bool = False) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL if silent else subprocess.PIPE,
            stderr=subprocess.DEVNULL if silent else None,
        )
        self._running.append(process)
        return process

    def stop(self) -> None:
        """Terminate all processes."""
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.wait(20)
            if process.stdout is not None:
                process.stdout.close()
        self._folder.cleanup()


async def _ask(
    session: aiohttp.ClientSession, url: str, arrival: Arrival, start: float
) -> float | None:
    """Send one request at its time; returns the simulated seconds to its first byte, or None if it
    failed."""
    await asyncio.sleep(start + arrival.at * SCALE - time.monotonic())
    body = {
        "model": arrival.model,
        "prompt": "a " * max(1, round(arrival.prompt * _WORDS_PER_TOKEN)),
        "options": {"num_predict": arrival.output},
    }
    sent = time.monotonic()
    try:
        async with session.post(f"{url}/api/generate", json=body) as answer:
            if answer.status != 200:
                return None
            await answer.content.readany()
            first = time.monotonic()
            async for _ in answer.content.iter_any():
                pass
            return (first - sent) / SCALE
    except aiohttp.ClientError:
        return None


async def _measure(policy: str, arrivals: list[Arrival]) -> list[float]:
    processes = _Processes(policy)
    url = f"http://127.0.0.1:{processes.port}"
    try:
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            for _ in range(100):
                try:
                    async with session.get(f"{url}/internal/ready") as answer:
                        if answer.status == 200:
                            break
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.1)
            start = time.monotonic() + 1.0
            delays = await asyncio.gather(*(_ask(session, url, each, start) for each in arrivals))
    finally:
        processes.stop()
    failed = delays.count(None)
    if failed:
        print(f"{policy}: {failed} of {len(delays)} requests failed", file=sys.stderr)
    return [each for each in delays if each is not None]


def _expected(policy: str, arrivals: list[Arrival]) -> list[float]:
    """Return the delays of the same requests with discrete events."""
    run = FleetRun(
        machines(),
        arrivals,
        Dispatcher(BY_NAME[policy], RoutingOptions()),
        probe_interval=0.25 / SCALE,
    )
    run.run()
    return [each.delay for each in run.results if each.delay is not None]


def main() -> None:
    """Measure each policy, and print the results beside those with discrete events."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node", help=argparse.SUPPRESS)
    parser.add_argument("--traces", type=Path, help="folder with the trace files")
    parser.add_argument(
        "--requests", type=int, default=600, help="number of requests (default 600)"
    )
    parser.add_argument(
        "--rate", type=float, default=1.0, help="requests per simulated second (default 1)"
    )
    parser.add_argument("--policy", action="append", choices=_POLICIES)
    options = parser.parse_args()
    if options.node is not None:
        asyncio.run(_serve_node(msgspec.json.decode(options.node, type=_NodeArguments)))
        return
    known = {model.name for each in machines() for model in each.models}
    arrivals = [
        each
        for each in conversation(1, options.traces, options.requests, options.rate)
        if each.model in known
    ]
    real_seconds = arrivals[-1].at * SCALE
    print(f"{len(arrivals)} requests, about {real_seconds:.0f} s per run; {os.cpu_count()} cores")
    print(f"{'seconds to the first byte':32}{'processes':>20}{'discrete events':>20}")
    for policy in options.policy or _POLICIES:
        real = sorted(asyncio.run(_measure(policy, arrivals)))
        expected = sorted(_expected(policy, arrivals))
        for name, share in (("mean", None), ("p50", 0.5), ("p95", 0.95)):
            figures = [
                statistics.fmean(each) if share is None else each[int(len(each) * share)]
                for each in (real, expected)
            ]
            ratio = figures[0] / figures[1]
            print(
                f"{policy + ', ' + name:32}{figures[0]:>20.2f}{figures[1]:>20.2f}  {ratio:5.2f}×",
                flush=True,
            )


if __name__ == "__main__":
    main()
