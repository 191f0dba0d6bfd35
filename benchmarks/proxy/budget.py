"""Measure each step of a request in olla's code, without sockets and kernel.

This wires a whole router except its listener, and feeds bytes directly to one client connection and
one endpoint connection. Then it runs the steps one by one on that request's data. Two processes
measure the build of `make compiled` and the plain sources.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.proxy.load import message

__all__ = ["Harness", "measure_steps"]

_ANSWER = (
    b'{"model":"bench:latest","created_at":"2026-01-01T00:00:00Z","response":"%b","done":true,'
    b'"done_reason":"stop","total_duration":4102345678,"load_duration":52345678,'
    b'"prompt_eval_count":10,"prompt_eval_duration":350123456,"eval_count":40,'
    b'"eval_duration":3700123456}' % (b"x" * 190)
)
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
    b"Date: Fri, 21 Nov 2026 05:00:00 GMT\r\nContent-Length: %d\r\n\r\n" % len(_ANSWER)
)
_BODY = b'{"model":"bench","prompt":"%b","stream":false}' % (b"p" * 350)


class MemoryTransport(asyncio.Transport):
    """A transport that discards writes."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return a peer address."""
        return ("127.0.0.1", 1) if name == "peername" else default

    def is_closing(self) -> bool:
        """Return False: it never closes."""
        return False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Discard the data."""

    def writelines(self, list_of_data: Any) -> None:
        """Discard the data."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing."""

    def pause_reading(self) -> None:
        """Do nothing."""

    def resume_reading(self) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Harness:
    """A router with one client connection and one endpoint connection, both in memory."""

    def __init__(self, extra: str = "", request: bytes | None = None) -> None:
        """`extra` is more YAML settings, and `request` the bytes that the client sends."""
        from olla.app import App
        from olla.fleet.health import Health
        from olla.fleet.model_names import canonical
        from olla.fleet.profiles import PROFILES
        from olla.fleet.snapshot import EndpointView, Model, ResidentModel, Snapshot
        from olla.proxy.upstream.pool import UpstreamConnection
        from olla.settings import endpoint_specs, parse

        line = "{url: 'http://127.0.0.1:1', name: node, type: ollama, num_parallel: 10000}"
        loaded = parse(f"discovery: {{static: {{endpoints: [{line}]}}}}\n{extra}", {})
        self._request = request or _REQUEST
        self.app = App(loaded, output=open(os.devnull, "w"))  # noqa: SIM115
        (spec,) = endpoint_specs(loaded.settings)
        now = time.monotonic()
        view = EndpointView(
            spec=spec,
            position=0,
            profile=PROFILES["ollama"],
            health=Health.HEALTHY,
            models={canonical("bench"): Model("bench:latest", digest="0" * 64, size=1000)},
            resident={canonical("bench"): ResidentModel("bench:latest", digest="0" * 64)},
            resident_at=now,
            models_at=now,
        )
        self.app.prober.snapshot = Snapshot.of([view])
        self.client: Any = self.app.downstream.server()
        address = (spec.host, spec.port, spec.tls)
        self.upstream = UpstreamConnection(self.app.pool, address, asyncio.get_running_loop())
        self.upstream.connection_made(MemoryTransport())
        self.upstream.expires = 1e12
        self.app.pool._idle[address] = deque([self.upstream])
        self.records: list[Any] = []

    async def start(self) -> None:
        """Prepare the client connection for a request."""
        await self.app.downstream.enable_fast_path()
        self.client.connection_made(MemoryTransport())
        for _ in range(4):
            await asyncio.sleep(0)

    def request(self) -> None:
        """Process one whole request."""
        self.client.data_received(self._request)
        self.upstream.data_received(_HEAD + _ANSWER)

    def steps(self) -> dict[str, Callable[[], object]]:
        """Return each step as a function that can be called repeatedly."""
        from olla.dialects.dialect import Operation
        from olla.dialects.registry import DIALECTS
        from olla.proxy.exchange.message_building import ReceivedBody, build_request, build_response
        from olla.proxy.exchange.request_features import answer_stats, features_of
        from olla.proxy.server.fast_path import FastRequest
        from olla.proxy.server.hot_head import HotHeads

        app, services = self.app, self.app.services
        records: list[Any] = []
        sink = services.sink
        services.sink = records.append
        self.request()
        services.sink = sink
        record = records[0]
        heads = HotHeads(app.downstream._paths)
        found = heads.find(_REQUEST)
        assert found is not None
        hot = found[0]
        incoming = FastRequest(hot, "127.0.0.1", len(_BODY))
        ollama = DIALECTS["ollama"]
        peek = ollama.peek(Operation.GENERATE, _BODY)
        caller = services.authenticator.anonymous(incoming)
        features = features_of(app.config, app.upstreams, hot.target, incoming, peek, caller)
        snapshot = app.prober.snapshot
        lease: Any = app.dispatcher.ask(features, snapshot, "bench", time.monotonic())
        summary = ollama.summary(Operation.GENERATE, False, _ANSWER)
        head = app.pool.heads.parse(_HEAD[:-4], "POST")
        answer = answer_stats(features, summary, streamed=False)

        def lease_and_release() -> None:
            now = time.monotonic()
            granted: Any = app.admission.enter(features, "bench", print)
            app.admission.began(granted, now)
            app.admission.release(granted, now, answer)

        return {
            "parse the request head": lambda: heads.find(_REQUEST),
            "parse the body": lambda: ollama.peek(Operation.GENERATE, _BODY),
            "collect routing features": lambda: features_of(
                app.config, app.upstreams, hot.target, incoming, peek, caller
            ),
            "decide, lease, release, learn": lease_and_release,
            "build the request": lambda: build_request(
                incoming, hot.target, ReceivedBody(_BODY), "bench", lease.choice, "id", None
            ),
            "parse the response head": lambda: app.pool.heads.parse(_HEAD[:-4], "POST"),
            "build the response head": lambda: build_response(
                head,
                self.client,
                services.response_headers.fields(record, 1.0),
                body_read=True,
                limited=False,
            ),
            "read the end of the response": lambda: ollama.summary(
                Operation.GENERATE, False, _ANSWER
            ),
            "health and breaker": lambda: app.prober.observe("node", None, "bench:latest"),
            "metrics": lambda: app.metrics(record),
            "status counters": lambda: app.traffic(record),
            "request log": lambda: app.request_log(record),
        }


_REQUEST = message(1, "/api/generate", _BODY)


async def _measure(count: int) -> dict[str, float]:
    harness = Harness()
    await harness.start()
    for _ in range(count):
        harness.request()
        await asyncio.sleep(0)
    calls = harness.steps()
    costs: dict[str, float] = {}
    for name, call in {"the whole request": harness.request, **calls}.items():
        best = float("inf")
        for _ in range(5):
            start = time.process_time()
            for _ in range(count):
                call()
            best = min(best, (time.process_time() - start) / count * 1e6)
            await asyncio.sleep(0)
        costs[name] = best
    whole = costs.pop("the whole request")
    costs["exchange"] = max(0.0, whole - sum(costs.values()))
    costs["total"] = whole
    return costs


def measure_steps(*, quick: bool) -> dict[str, dict[str, float]]:
    """Return the microseconds of each step, compiled and not."""
    count = 2000 if quick else 20000
    found: dict[str, dict[str, float]] = {}
    for name, where in (("compiled", "build/compiled"), ("not compiled", ".")):
        path = f"{Path(where).absolute()}:{Path.cwd()}"
        done = subprocess.run(
            [sys.executable, "-P", "-m", "benchmarks.proxy.budget", str(count)],
            env={**os.environ, "PYTHONPATH": path, "OLLA_HOME": os.devnull},
            capture_output=True,
            text=True,
            check=True,
        )
        found[name] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5000))))
