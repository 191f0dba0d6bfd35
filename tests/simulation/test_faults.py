"""Each fault of a simulated node, as a client meets it."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from olla.simulation.faults import Fault, Faults
from olla.simulation.server import SimulatedNode
from tests.simulation.asking import ask, in_background, lines

SAY: dict[str, Any] = {"model": "llama3.2", "prompt": "Why?", "options": {"num_predict": 8}}
CHAT = "/v1/chat/completions"


async def test_status_answers_in_the_paths_own_shape(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """The chosen status on inference; lists are not touched."""
    node.faults.set("status", Fault(status=500))
    text = "simulated failure with status 500"
    assert await ask(http, node, "/api/generate", SAY) == (500, {"error": text})
    assert (await ask(http, node, CHAT, SAY))[1]["error"]["type"] == "api_error"
    assert (await ask(http, node, "/v1/messages", SAY))[1]["type"] == "error"
    async with http.get(node.url + "/api/tags") as answer:
        assert answer.status == 200


async def test_a_count_runs_out(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """The next N requests fail, then none."""
    node.faults.set("status", Fault(count=2))
    statuses = [(await ask(http, node, "/api/generate", SAY | {"stream": False}))[0] for _ in "123"]
    assert statuses == [503, 503, 200]
    assert node.faults.active == {}


async def test_reset_before_is_a_reset_without_a_byte(node: SimulatedNode) -> None:
    """The other end sees a reset, not an end."""
    node.faults.set("reset_before")
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_reset_mid_cuts_a_stream_after_n_records(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """So many records come, then the connection breaks, and the slot is free."""
    node.faults.set("reset_mid", Fault(after=3))
    async with http.post(node.url + "/api/generate", json=SAY) as answer:
        for _ in range(3):
            assert await answer.content.readline()
        with pytest.raises(aiohttp.ClientError):
            await answer.content.readline()
    assert node.generations_running == 0


async def test_reset_mid_cuts_a_whole_answer(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """Half of what the head promised comes."""
    node.faults.set("reset_mid")
    async with http.post(node.url + "/api/generate", json={**SAY, "stream": False}) as answer:
        assert answer.status == 200
        assert answer.content_length
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


async def test_end_early_ends_a_stream_cleanly(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """A well-formed body without its last record."""
    node.faults.set("end_early", Fault(after=3))
    records = await lines(http, node, "/api/generate", SAY)
    assert len(records) == 3
    assert not any(record["done"] for record in records)


async def test_end_early_ends_a_whole_answer_cleanly(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """A well-formed body with half of the JSON."""
    node.faults.set("end_early")
    async with http.post(node.url + CHAT, json=_chat()) as answer:
        raw = await answer.read()
    assert raw.startswith(b"{")
    assert not raw.endswith(b"}")


async def test_garbage_is_no_http(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """The client cannot make a head of it."""
    node.faults.set("garbage", Fault(paths=("*",)))
    with pytest.raises(aiohttp.ClientError):
        await http.get(node.url + "/api/version")


@pytest.mark.parametrize("stream", [True, False])
async def test_garbage_body_is_no_json(
    http: aiohttp.ClientSession, node: SimulatedNode, stream: bool
) -> None:
    """A good head, and a body that cannot be parsed."""
    node.faults.set("garbage_body")
    async with http.post(node.url + "/api/generate", json={**SAY, "stream": stream}) as answer:
        assert answer.status == 200
        assert (await answer.read()).startswith(b'{"this is": not JSON')


async def test_hang_answers_nothing_on_its_paths(
    http: aiohttp.ClientSession, node: SimulatedNode, until: Callable[..., Any]
) -> None:
    """A node may answer everything but `/api/ps`; who gives up leaves nothing behind."""
    node.faults.set("hang", Fault(paths=("/api/ps",)))
    async with http.get(node.url + "/") as answer:
        assert answer.status == 200
    async with in_background(http.get(node.url + "/api/ps")) as asking:
        await until(lambda: any(seen.target == "/api/ps" for seen in node.seen))
        async with http.get(node.url + "/api/version") as answer:
            assert answer.status == 200
        assert not asking.done()
    await until(lambda: node.connections == 0)


async def test_slow_is_late_before_the_head_and_between_records(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """Each pause takes its simulated seconds at least."""
    await ask(http, node, "/api/generate", {"model": "llama3.2"})
    node.faults.set("slow", Fault(seconds=100))
    begun = node.executor.now
    answer = await http.post(node.url + "/api/generate", json=SAY)
    assert node.executor.now - begun >= 99
    records = (await answer.read()).splitlines()
    assert len(records) == 9
    assert node.executor.now - begun >= 99 + 8 * 10


async def test_faults_are_set_over_http(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """PUT replaces all, GET shows them, an empty object ends them."""
    url = node.url + "/_simulation/faults"
    async with http.put(url, json={"status": {"status": 502, "count": 5}}) as answer:
        assert answer.status == 200
    async with http.get(url) as answer:
        shown = await answer.json()
    assert (shown["status"]["status"], shown["status"]["count"]) == (502, 5)
    assert (await ask(http, node, "/api/generate", SAY))[0] == 502
    async with http.put(url, json={}) as answer:
        assert await answer.json() == {}
    assert node.faults.active == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"nonsense": {}},
        {"status": {"status": 200}},
        {"status": {"probability": 2}},
        {"status": {"count": 0}},
        {"status": {"tpyo": 1}},
        [],
    ],
)
async def test_wrong_faults_change_nothing(
    http: aiohttp.ClientSession, node: SimulatedNode, wrong: object
) -> None:
    """400, and what was set stays."""
    node.faults.set("slow", Fault(seconds=0))
    assert (await ask(http, node, "/_simulation/faults", wrong, "PUT"))[0] == 400
    assert set(node.faults.active) == {"slow"}


async def test_refusing_over_http_ends_by_itself(
    http: aiohttp.ClientSession, node: SimulatedNode, until: Callable[..., Any]
) -> None:
    """The switch could not be reached to take it back."""
    body = {"refuse": {"seconds": 50}}
    assert await ask(http, node, "/_simulation/faults", body, "PUT") == (200, {})

    async def refused() -> bool:
        try:
            async with http.get(node.url + "/"):
                return False
        except aiohttp.ClientError:
            return True

    async with asyncio.timeout(5):
        while not await refused():
            await asyncio.sleep(0)
        while await refused():
            await asyncio.sleep(0)


def test_probability_is_drawn_from_the_seed() -> None:
    """The same seed strikes the same requests, and about as many as it says."""

    def struck(seed: int) -> list[bool]:
        faults = Faults(seed)
        faults.set("status", Fault(probability=0.3))
        return [faults.trouble("/api/chat") is not None for _ in range(1000)]

    assert struck(1) == struck(1) != struck(2)
    assert 240 < sum(struck(1)) < 360


def test_the_first_that_was_set_strikes() -> None:
    """One request suffers one fault, and only on the paths it is for."""
    faults = Faults()
    faults.set("hang", Fault(paths=("/api/ps",), count=1))
    faults.set("slow", Fault(paths=("*",)))
    kinds = [
        trouble.kind for path in ("/", "/api/ps", "/api/ps") if (trouble := faults.trouble(path))
    ]
    assert kinds == ["slow", "hang", "slow"]
    faults.clear("slow")
    assert faults.trouble("/") is None


def test_there_are_no_other_faults() -> None:
    """A name that is none is told with those that are."""
    with pytest.raises(ValueError, match="reset_before"):
        Faults().set("explode")


def _chat() -> dict[str, Any]:
    return {"model": "llama3.2", "messages": [{"role": "user", "content": "Hello"}]}


async def read_to_its_end(response: aiohttp.ClientResponse) -> None:
    """Raises what goes wrong in the middle."""
    assert response.status == 200
    await response.read()


@pytest.mark.parametrize("kind", ["hang_mid", "bad_framing", "short_body"])
async def test_other_ways_to_break_off_in_the_middle(
    http: aiohttp.ClientSession, node: SimulatedNode, kind: str
) -> None:
    """Silence, broken chunks, a length that is not reached: of streams and of whole answers."""
    for stream in (True, False):
        node.faults.set(kind, Fault(count=1, after=2))
        body = {"model": "llama3.2", "prompt": "hi", "stream": stream}
        with pytest.raises((aiohttp.ClientError, TimeoutError)):
            await http.post(
                f"{node.url}/api/generate",
                json=body,
                timeout=aiohttp.ClientTimeout(sock_read=0.3),
                read_until_eof=True,
                raise_for_status=read_to_its_end,
            )
