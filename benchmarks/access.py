"""What keys, limits and usage cost: an open router against one that asks, counts and records.

Both live in one process, and small requests go through their own code without sockets and kernel,
in turns. CPU time is of the whole process, so that the threads that write usage count as well.
Run where `make compiled` has been, or with PYTHONPATH=. for the sources as they are.
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
_BREATH = 100
"""Requests between two turns of the loop, in which the writer may run."""


def _with_key(request: bytes) -> bytes:
    end = request.index(b"\r\n") + 2
    return request[:end] + b"Authorization: Bearer %b\r\n" % _KEY.encode() + request[end:]


async def _one_round(harness: Harness, count: int) -> float:
    """Microseconds of CPU a request, its usage written."""
    usage_writer = harness.app.access.store_service.usage_writer
    start = time.process_time()
    for number in range(count):
        harness.request()
        if number % _BREATH == 0:
            await asyncio.sleep(0)
    if usage_writer is not None:
        await usage_writer.flush()
    return (time.process_time() - start) / count * 1e6


async def _measure(rounds: int, count: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"open": [], "keys and limits": [], "and usage": []}
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
                if number:  # the first warms up
                    found[name].append(cost)
        usage = harnesses["and usage"].app.access.metrics()
        if usage["olla_usage_written_total"] != (rounds + 1) * count:
            raise SystemExit(f"not all usage was recorded: {usage}")
        for harness in harnesses.values():
            await harness.app.access.stop()
    return found


def _report(found: dict[str, list[float]]) -> None:
    open_ = found["open"]
    for name, costs in found.items():
        more = statistics.median(each - base for each, base in zip(costs, open_, strict=True))
        low, high = min(costs), max(costs)
        print(
            f"{name:<18}{statistics.median(costs):7.1f} \u00b5s a request"
            f"  (from {low:.1f} to {high:.1f}), {more:+6.1f} over open"
        )


def main() -> None:
    """Measure compiled code, in a process of its own, and say what it costs more."""
    parser = argparse.ArgumentParser(prog="benchmarks.access", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=5000, help="requests a round")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--sources", action="store_true", help="the sources as they are")
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
