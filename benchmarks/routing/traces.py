"""Arrival times and lengths of requests, from recorded traces or drawn to resemble them.

A trace is a CSV file with the columns TIMESTAMP, ContextTokens and GeneratedTokens, like the Azure
LLM inference traces of 2023. Without it, arrivals and lengths are drawn from distributions with the
same medians and tails.
"""

import csv
from datetime import datetime
from math import exp, log
from pathlib import Path
from random import Random

import msgspec

__all__ = ["Request", "Shape", "draw", "load", "read"]


class Request(msgspec.Struct, frozen=True):
    """A request: seconds from the start, prompt tokens and output tokens."""

    at: float
    prompt: int
    output: int


class Shape(msgspec.Struct, frozen=True):
    """A trace's file name, and the medians and 99th percentiles to draw from without it.

    `burst` is the mean number of requests that arrive together.
    """

    file: str
    count: int
    prompt: tuple[float, float]
    output: tuple[float, float]
    burst: float


CONVERSATION = Shape("azure-llm-2023-conv.csv", 19_366, (1020, 4142), (129, 601), 1.0)
CODE = Shape("azure-llm-2023-code.csv", 8_819, (1469, 7436), (13, 252), 12.0)

_Z99 = 2.326
"""The 99th percentile of the normal distribution."""


def read(path: Path) -> list[Request]:
    """Read the requests of a trace, with times from its first request on.

    Raises:
        ValueError: a line is invalid; the message names it.
    """
    requests: list[Request] = []
    start: datetime | None = None
    with path.open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                at = datetime.fromisoformat(row["TIMESTAMP"][:26])
                prompt, output = int(row["ContextTokens"]), int(row["GeneratedTokens"])
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
            start = start or at
            requests.append(Request((at - start).total_seconds(), max(1, prompt), max(1, output)))
    if not requests:
        raise ValueError(f"{path} has no requests")
    return requests


def draw(shape: Shape, seed: int) -> list[Request]:
    """Draw requests of a shape, at a mean rate of one per second."""
    rng = Random(seed)

    def length(median: float, p99: float) -> int:
        return max(1, round(exp(rng.gauss(log(median), log(p99 / median) / _Z99))))

    requests: list[Request] = []
    at = 0.0
    while len(requests) < shape.count:
        at += rng.expovariate(1 / shape.burst)
        together = 1 if shape.burst <= 1 else 1 + int(rng.expovariate(1 / (shape.burst - 1)))
        for _ in range(together):
            requests.append(Request(at, length(*shape.prompt), length(*shape.output)))
            at += rng.expovariate(20.0) if shape.burst > 1 else 0.0
    return requests[: shape.count]


def load(shape: Shape, traces: Path | None, seed: int, per_second: float) -> list[Request]:
    """Read a trace, or draw requests like it, at `per_second` requests per second."""
    path = traces / shape.file if traces is not None else None
    requests = read(path) if path is not None and path.is_file() else draw(shape, seed)
    scale = len(requests) / max(requests[-1].at, 1e-9) / per_second
    return [Request(each.at * scale, each.prompt, each.output) for each in requests]
