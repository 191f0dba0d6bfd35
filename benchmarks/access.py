"""Measure what keys, limits and usage cost, by comparing an open router with one that uses them.

Both run in one process. Short requests pass in turns through olla's code, without sockets and
kernel. CPU time is that of the whole process, so the threads that write usage are included. Run it
after `make compiled`, or with PYTHONPATH=. for the uncompiled sources.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks.proxy.budget import Harness
from benchmarks.proxy.load import message

_KEY = "benchmark-key-of-some-length"
_BODY = b'{"model":"bench","prompt":"%b","stream":false,"options":{"num_predict":40}}' % (
    b"p" * 350
)
_GUARDED = """
access:
  require_key: true
  keys: [{{name: bench, key: {key}, tier: premium, models: ["bench*"]}}]
  tiers:
    premium:
      {{requests_per_minute: 1000000000, tokens_per_minute: 100000000000, concurrent: 100000}}
  categories: {{generation: {{requests_per_minute: 1000000000}}}}
store: {{url: "{url}"}}
"""
_YIELD_EVERY = 100
"""Requests between two yields to the event loop, in which the usage writer runs."""


def _with_key(request: bytes) -> bytes:
    end = request.index(b"\r\n") + 2
    return request[:end] + b"Authorization: Bearer %b\r\n" % _KEY.encode() + request[end:]


async def _one_round(harness: Harness, count: int) -> float:
    """Return the CPU microseconds per request, including writing its usage."""
    usage_writer = harness.app.access.store_service.usage_writer
    start = time.process_time()
    for number in range(count):
        harness.request()
        if number % _YIELD_EVERY == 0:
            await asyncio.sleep(0)
    if usage_writer is not None:
        await usage_writer.flush()
    return (time.process_time() - start) / count * 1e6


async def _measure(rounds: int, count: int) -> dict[str, list[float]]:
    costs: dict[str, list[float]] = {"open": [], "keys and limits": [], "and usage": []}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["OLLA_HOME"] = f"{folder}/home"
        plain = message(1, "/api/generate", _BODY)
        guarded = _GUARDED.format(key=_KEY, url=f"sqlite:///{folder}/olla.db")
        harnesses = {
            "open": Harness("", plain),
            "keys and limits": Harness(guarded, _with_key(plain)),
            "and usage": Harness(guarded, _with_key(plain)),
        }
        for harness in harnesses.values():
            await harness.start()
        await harnesses["and usage"].app.access.start()
        for number in range(rounds + 1):
            for name, harness in harnesses.items():
                cost = await _one_round(harness, count)
                if number:  # the first round warms up
                    costs[name].append(cost)
        usage = harnesses["and usage"].app.access.metrics()
        if usage["olla_usage_written_total"] != (rounds + 1) * count:
            raise SystemExit(f"some usage was not recorded: {usage}")
        for harness in harnesses.values():
            await harness.app.access.stop()
    return costs


def _report(costs: dict[str, list[float]]) -> None:
    open_ = costs["open"]
    for name, values in costs.items():
        extra = statistics.median(each - base for each, base in zip(values, open_, strict=True))
        print(
            f"{name:<18}{statistics.median(values):7.1f} \u00b5s per request"
            f"  (from {min(values):.1f} to {max(values):.1f}), {extra:+6.1f} over open"
        )


def main() -> None:
    """Measure compiled code in its own process, and print the extra cost."""
    parser = argparse.ArgumentParser(prog="benchmarks.access", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=5000, help="requests per round")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--sources", action="store_true", help="measure the uncompiled sources")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(uvloop.run(_measure(options.rounds, options.count))))
        return
    where = "." if options.sources else "build/compiled"
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "benchmarks.access", "--here"),
            *("--rounds", str(options.rounds), "--count", str(options.count)),
        ],
        env={**os.environ, "PYTHONPATH": f"{Path(where).absolute()}:{Path.cwd()}"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    _report(json.loads(done.stdout))


if __name__ == "__main__":
    main()
