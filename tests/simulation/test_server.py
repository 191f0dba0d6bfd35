"""A simulated node as a server: paths, hang-ups, what it tells of itself, its listener."""

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from olla.simulation.server import NodeOptions, SimulatedNode
from tests.simulation.asking import ask, in_background

LONG: dict[str, Any] = {"model": "llama3.2", "prompt": "Tell me everything"}
SLOW: dict[str, Any] = {"time_scale": 0.02, "tokens_per_second": 1.0}
"""A token takes 10 ms, a whole answer a second: nothing ends before it is interrupted."""


async def test_an_unknown_path_is_404_in_plain_text(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """As Ollama's router says it, on native and OpenAI paths alike."""
    for path in ("/api/nothing", "/v1/nothing", "/nothing/"):
        async with http.get(node.url + path) as answer:
            assert answer.status == 404
            assert await answer.text() == "404 page not found"
            assert answer.headers["Content-Type"].startswith("text/plain")


async def test_a_wrong_method_is_405(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """A known path with another method, HEAD of what has none included."""
    for method, path in (("GET", "/api/chat"), ("HEAD", "/api/ps"), ("DELETE", "/v1/models")):
        async with http.request(method, node.url + path) as answer:
            assert answer.status == 405
            assert answer.headers["Allow"]


async def test_a_slash_too_many_is_redirected(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """301 for GET, 307 for the others."""
    async with http.get(node.url + "/api/tags/?a=1", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (301, "/api/tags?a=1")
    async with http.post(node.url + "/api/chat/", data=b"{}", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (307, "/api/chat")


async def test_a_hang_up_in_a_stream_stops_the_generation(
    http: aiohttp.ClientSession, start: Callable[..., Any], until: Callable[..., Any]
) -> None:
    """The slot is free at once, and the next request gets it."""
    node = await start(**SLOW)
    answer = await http.post(node.url + "/api/generate", json=LONG)
    await answer.content.readline()
    assert node.generations_running == 1
    answer.close()
    await until(lambda: node.generations_running == 0)
    assert node.generations_cancelled == 1
    said = node.tokens_generated
    short = {**LONG, "options": {"num_predict": 3}, "stream": False}
    status, _ = await ask(http, node, "/api/generate", short)
    assert status == 200
    assert node.tokens_generated == said + 3


async def test_a_hang_up_before_a_whole_answer_stops_the_generation(
    http: aiohttp.ClientSession, start: Callable[..., Any], until: Callable[..., Any]
) -> None:
    """Also when nothing has been sent yet."""
    node = await start(**SLOW)
    request = http.post(node.url + "/v1/chat/completions", json=_chat())
    async with in_background(request):
        await until(lambda: node.tokens_generated)
    await until(lambda: node.generations_running == 0)
    assert node.generations_cancelled == 1


async def test_a_hang_up_in_the_line_frees_no_slot(
    http: aiohttp.ClientSession, start: Callable[..., Any], until: Callable[..., Any]
) -> None:
    """Who leaves while it waits for a slot is forgotten; who runs goes on."""
    node = await start(**SLOW)
    await ask(http, node, "/api/generate", {"model": "llama3.2"})
    running = await http.post(node.url + "/api/generate", json=LONG)
    async with in_background(http.post(node.url + "/api/generate", json=LONG)):
        await until(lambda: node.executor.resident()[0].waiting == 1)
    await until(lambda: node.executor.resident()[0].waiting == 0)
    assert node.generations_running == 1
    assert node.generations_cancelled == 0
    running.close()


async def test_a_hang_up_during_a_load_aborts_it(
    http: aiohttp.ClientSession, start: Callable[..., Any], until: Callable[..., Any]
) -> None:
    """The model stays cold."""
    node = await start(time_scale=0.5)
    async with in_background(http.post(node.url + "/api/generate", json=LONG)):
        await until(lambda: node.executor.node.loading)
    await until(lambda: node.executor.node.loads_aborted == 1)
    assert node.executor.node.loading is None
    assert node.loads == 0


async def test_it_tells_its_state(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """Counters over HTTP are those of the object."""
    await ask(http, node, "/api/generate", {**LONG, "options": {"num_predict": 3}, "stream": False})
    async with http.get(node.url + "/_simulation/state") as answer:
        state = await answer.json()
    assert state["loads"] == node.loads == 1
    assert state["tokens"] == node.tokens_generated == 3
    assert (state["running"], state["cancelled"], state["queue"]) == (0, 0, 0)
    assert state["connections"] >= 1


async def test_it_remembers_what_it_has_seen(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """Method, target as sent, headers and bytes of the body; its own switches do not count."""
    async with http.post(
        node.url + "/api/copy?x=%20", data=b'{"source": "no"}', headers={"X-Test": "yes"}
    ):
        pass
    async with http.get(node.url + "/_simulation/state"):
        pass
    [seen] = node.seen
    assert (seen.method, seen.target, seen.body_bytes) == ("POST", "/api/copy?x=%20", 16)
    assert seen.header("x-test") == "yes"
    assert seen.header("x-other") is None


async def test_its_memory_is_bounded(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """Only the last requests are remembered."""
    assert node.seen.maxlen == 256


async def test_refuse_and_accept(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """While it refuses there is nobody at its port; afterwards it is there again, still warm."""
    await ask(http, node, "/api/generate", {"model": "llama3.2"})
    url = node.url
    await node.refuse()
    with pytest.raises(aiohttp.ClientConnectorError):
        await http.get(url + "/")
    await node.accept()
    assert node.url == url
    async with http.get(url + "/api/ps") as answer:
        assert len((await answer.json())["models"]) == 1


async def test_a_context_starts_and_stops_it(http: aiohttp.ClientSession) -> None:
    """After its end nobody listens."""
    async with SimulatedNode(NodeOptions()) as node:
        url = node.url
        async with http.get(url) as answer:
            assert answer.status == 200
    with pytest.raises(aiohttp.ClientConnectorError):
        await http.get(url)


async def test_two_nodes_with_one_seed_say_the_same(
    http: aiohttp.ClientSession, start: Callable[..., Any]
) -> None:
    """The seed decides what is said, not the node's name."""
    body = {**LONG, "stream": False}
    answers = []
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        node = await start(name=name, seed=seed)
        answers.append((await ask(http, node, "/api/generate", body))[1]["response"])
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"time_scale": 0},
        {"vram": 0},
        {"num_parallel": 0},
        {"max_loaded_models": 0},
        {"tokens_per_second": -1},
        {"load_bandwidth": float("inf")},
        {"max_queue": -1},
        {"keep_alive": -1},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    """A ValueError names the option."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        NodeOptions(**wrong)  # type: ignore[arg-type]


def _chat() -> dict[str, Any]:
    return {"model": "llama3.2", "messages": [{"role": "user", "content": "Hello"}]}
