"""The soak test detects wrong responses, and injects faults as its seed determines."""

import asyncio
import json
import random

import aiohttp
import pytest

from benchmarks.soak.fault_injection import draw
from benchmarks.soak.requests import Outcome, Question, ask, questions
from benchmarks.soak.sampling import flat
from olla.simulation.faults import Fault, Faults

NDJSON = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)
PART, LAST = b'{"response":"hel","done":false}\n', b'{"response":"lo","done":true}\n'
STREAM = Question("/api/generate", {"model": "m"}, streams=True)


def chunks(*pieces: bytes, end: bool = True) -> bytes:
    """Build the bytes of a stream."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces)
    return NDJSON + body + (b"0\r\n\r\n" if end else b"")


ANSWERS = {
    "whole": (chunks(PART, LAST), Outcome.RIGHT),
    "a clean end too early": (chunks(PART), Outcome.WRONG),
    "no end": (chunks(PART, end=False), Outcome.BROKEN),
    "an error within": (chunks(PART, b'{"error":"x"}\n', end=False), Outcome.BROKEN),
    "an error's status": (b"HTTP/1.1 502 X\r\nContent-Length: 2\r\n\r\n{}", Outcome.UNAVAILABLE),
    "nothing": (b"", Outcome.UNAVAILABLE),
}


@pytest.mark.parametrize(("answer", "outcome"), ANSWERS.values(), ids=list(ANSWERS))
async def test_a_silently_truncated_response_is_detected(answer: bytes, outcome: Outcome) -> None:
    """Only a clean end without the response's last record is wrong."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with aiohttp.ClientSession() as session:
        reply = await ask(session, base, STREAM)
    server.close()
    await server.wait_closed()
    assert reply.outcome is outcome
    if outcome is Outcome.RIGHT:
        assert reply.text == "hello"


def test_the_same_seed_gives_the_same_questions_and_faults() -> None:
    """Every drawn fault is one that simulated nodes accept."""
    first, second = random.Random(5), random.Random(5)
    assert [each.key for each in questions(first, 50)] == [
        each.key for each in questions(second, 50)
    ]
    for _ in range(300):
        trouble = draw(first)
        assert trouble == draw(second)
        for kind, fault in trouble.faults.items():
            made = Fault(**json.loads(json.dumps(fault)))  # as sent over the wire
            if kind != "refuse":
                Faults().set(kind, made)


def test_memory_is_flat_once_it_stops_growing() -> None:
    """Growth at the beginning does not count."""
    assert flat([10, 50, 90, 100, 100, 100, 101, 100, 102], 0.05)[0]
    assert not flat([100, 110, 120, 130, 140, 150, 160, 170, 180], 0.05)[0]
