"""Everything that is remembered of what peers send has a bound in bytes, not only in number."""

import gc
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest

from olla.dialects.paths import Paths, ScopeSpec
from olla.failures import Failed
from olla.fleet.model_names import canonical
from olla.fleet.profiles import PROFILES
from olla.fleet.snapshot import Model
from olla.proxy.exchange.response_headers import ResponseHeaders
from olla.proxy.http.response_head import HeadParser
from olla.record import RequestRecord
from olla.surfaces.models.merge import merged
from olla.telemetry.request_log import JsonLines
from tests.views import view

REMEMBERED_MAX = 16_000_000
"""Bytes that any of them may take in the end."""
ENTRIES = 1500
LONG = "y" * 50_000
Feed = Callable[[int], object]


def names() -> Feed:
    """Names of models, by which nodes and clients call them."""
    return lambda number: canonical(f"{number}{LONG}")


def short_names() -> Feed:
    """As many as are remembered, of the longest that are."""
    return lambda number: [canonical(f"{each}-{number}{'é' * 240}") for each in range(4)]


def times() -> Feed:
    """When a model was changed, as its node has it."""
    there = view("a")

    def feed(number: int) -> object:
        model = Model("m", entry={"name": "m", "modified_at": f"{number}{LONG}"})
        return merged([msgspec.structs.replace(there, models={"m": model})])

    return feed


def answer_heads(*, fields: int, length: int) -> Feed:
    """Heads of answers."""
    parser = HeadParser()

    def feed(number: int) -> object:
        lines = b"\r\n".join(b"X-%d: %b" % (each, b"y" * length) for each in range(fields))
        return parser.parse(b"HTTP/1.1 200 OK\r\nX-Number: %d\r\n%b" % (number, lines), "POST")

    return lambda number: (parser, feed(number))[0]


def own_fields() -> Feed:
    """What an answer's head tells of a model that a client has named."""
    response_headers = ResponseHeaders()

    def feed(number: int) -> object:
        response_headers.fields(record(f"{number}{LONG}", "/"), 1.0)
        return response_headers

    return feed


def log_lines() -> Feed:
    """What recurs in the lines of the request log: path, model, method."""
    lines = JsonLines()

    def feed(number: int) -> object:
        for each in (record(f"{number}{LONG}", "/"), record("m", f"/{number}{LONG}")):
            lines.line(each)
        each = record("m", "/")
        each.method = f"{number}{LONG}"
        lines.line(each)
        return lines

    return feed


def paths() -> Feed:
    """Paths, whatever they lead to."""
    table = Paths(
        [ScopeSpec(row.name, row.prefixes, row.dialects) for row in PROFILES.values()],
        root_enabled=True,
    )

    def feed(number: int) -> object:
        for target in (f"/api/chat?{number}{LONG}", f"/v1/models/{number}{LONG}", f"/{LONG}"):
            with suppress(Failed):
                table.resolve("GET", target)
        return table

    return feed


def record(model: str, path: str) -> RequestRecord:
    """A request as unlike others as a client can make it."""
    return RequestRecord("r", "POST", path, "192.0.2.1", 0.0, 0.0, model=model, endpoint="gpu-1")


CACHES: dict[str, Feed] = {
    "names": names(),
    "short names": short_names(),
    "times": times(),
    "long heads": answer_heads(fields=1, length=1900),
    "heads of many fields": answer_heads(fields=200, length=1),
    "own fields": own_fields(),
    "log lines": log_lines(),
    "paths": paths(),
}


@pytest.mark.parametrize("feed", CACHES.values(), ids=list(CACHES))
def test_what_peers_choose_is_remembered_within_a_bound_in_bytes(feed: Feed) -> None:
    """However long each is and however many differ: a bound on their number alone is none."""
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(ENTRIES):
            holder = feed(number)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert holder is not None
    assert kept < REMEMBERED_MAX
