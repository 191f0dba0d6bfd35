"""The soak knows right answers from wrong ones, and breaks things as its seed says."""

import asyncio
import json
import random

import aiohttp
import pytest

from benchmarks.soak.asking import Outcome, Question, ask, questions
from benchmarks.soak.breaking import draw
from benchmarks.soak.watching import flat
from olla.simulation.faults import Fault, Faults

NDJSON = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)
PART, LAST = b'{"response":"hel","done":false}\n', b'{"response":"lo","done":true}\n'
STREAM = Question("/api/generate", {"model": "m"}, streams=True)


def chunks(*pieces: bytes, end: bool = True) -> bytes:
    """A stream's bytes."""
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
async def test_a_silently_cut_answer_is_known_from_one_that_says_so(
    answer: bytes, outcome: Outcome
) -> None:
    """Only a clean end before the answer's own is wrong."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with aiohttp.ClientSession() as session:
        asked = await ask(session, base, STREAM)
    server.close()
    await server.wait_closed()
    assert asked.outcome is outcome
    if outcome is Outcome.RIGHT:
        assert asked.text == "hello"


def test_the_same_seed_asks_and_breaks_the_same() -> None:
    """And every trouble is one that nodes know."""
    first, second = random.Random(5), random.Random(5)
    assert [each.key for each in questions(first, 50)] == [
        each.key for each in questions(second, 50)
    ]
    for _ in range(300):
        trouble = draw(first)
        assert trouble == draw(second)
        for kind, fault in trouble.faults.items():
            made = Fault(**json.loads(json.dumps(fault)))  # as it goes over the wire
            if kind != "refuse":
                Faults().set(kind, made)


def test_memory_is_flat_when_it_has_stopped_growing() -> None:
    """What it takes at the beginning is not held against it."""
    assert flat([10, 50, 90, 100, 100, 100, 101, 100, 102], 0.05)[0]
    assert not flat([100, 110, 120, 130, 140, 150, 160, 170, 180], 0.05)[0]
