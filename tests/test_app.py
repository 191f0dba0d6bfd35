"""Tests of the whole router, as it is wired."""

import asyncio
import re

import aiohttp
import pytest

from olla.app import App, StartError
from olla.settings import parse
from tests.routers import ADMIN, WITH_ADMIN, Fleet, settings_text

LLAMA, MISTRAL = "llama3.2:latest", "mistral:latest"
ASK = {"prompt": "hello", "stream": False, "options": {"num_predict": 3}}


async def generate(
    fleet: Fleet, model: str, **headers: str
) -> tuple[int, dict[str, object], "aiohttp.typedefs.CIMultiDictProxy[str]"]:
    """Send a request for a few tokens."""
    url = f"{fleet.url}/api/generate"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json={"model": model, **ASK}, headers=headers) as response,
    ):
        return response.status, await response.json(), response.headers


async def get(fleet: Fleet, path: str) -> tuple[int, str]:
    """Send a GET."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{fleet.url}{path}") as response,
    ):
        return response.status, await response.text()


async def test_an_alias_selects_the_first_model_that_an_endpoint_has() -> None:
    """The node gets the name of its model, in any case of the alias; the header names the
    model."""
    extra = "model_aliases: {Chat: [no-such, mistral, llama3.2]}\n"
    async with Fleet({"a": (MISTRAL,)}, extra) as fleet:
        status, answer, headers = await generate(fleet, "chat")
        assert status == 200
        assert answer["model"] == MISTRAL
        assert headers["X-Olla-Model"] == MISTRAL
        await fleet.check_clean()


async def test_a_filtered_model_does_not_exist() -> None:
    """A model that the filter of an endpoint excludes is neither listed nor served."""
    async with Fleet({"a": (MISTRAL, LLAMA)}) as fleet:
        text = settings_text({"a": fleet.nodes["a"].url})
        text = text.replace("type: ollama,", "type: ollama, model_filter: {exclude: ['mis*']},")
        app = App(parse(text, {}), output=fleet.log)  # type: ignore[arg-type]
        await app.start()
        await app.prober.first_pass()
        names = {model.name for model in app.prober.snapshot.by_name["a"].models.values()}
        assert names == {LLAMA}
        await app.stop()


async def test_the_root_can_be_disabled() -> None:
    """`/api/*` is then unknown, and the prefix still works."""
    async with Fleet({"a": (LLAMA,)}, "surfaces: {root: {enabled: false}}\n") as fleet:
        assert (await get(fleet, "/api/tags"))[0] == 404
        assert (await get(fleet, "/olla/ollama/api/tags"))[0] == 200


async def test_an_admin_may_choose_the_endpoint() -> None:
    """X-Olla-Endpoint pins a request. An unknown name gets 404, and a caller without an admin key
    gets 403."""
    async with Fleet({"a": (LLAMA,), "b": (LLAMA,)}, WITH_ADMIN) as fleet:
        for name in ("a", "b", "b", "a"):
            pinned = {**ADMIN, "X-Olla-Endpoint": name}
            _, _, headers = await generate(fleet, LLAMA, **pinned)
            assert headers["X-Olla-Endpoint"] == name
        status, answer, _ = await generate(fleet, LLAMA, **ADMIN, **{"X-Olla-Endpoint": "c"})
        assert status == 404
        assert "a, b" in str(answer["error"])
        status, answer, _ = await generate(fleet, LLAMA, **{"X-Olla-Endpoint": "a"})
        assert status == 403
        assert "olla keys create --admin" in str(answer["error"])


async def test_requests_stay_on_the_endpoint_with_the_loaded_model() -> None:
    """Consecutive requests cause a single load in the whole fleet."""
    async with Fleet({"a": (LLAMA,), "b": (LLAMA,), "c": (LLAMA,)}) as fleet:
        reasons = [(await generate(fleet, LLAMA))[2]["X-Olla-Routing-Reason"] for _ in range(10)]
        assert reasons[0] == "cold_load"
        assert set(reasons[2:]) == {"model_loaded"}
        assert sum(node.executor.node.loads for node in fleet.nodes.values()) == 1


async def test_concurrent_requests_spread_over_the_fleet() -> None:
    """With loaded-first, the one loaded instance does not get all of them."""
    extra = "proxy: {load_balancer: loaded-first}\n"
    nodes = {"a": (LLAMA,), "b": (LLAMA,), "c": (LLAMA,)}
    async with Fleet(nodes, extra, time_scale=0.02) as fleet:
        await generate(fleet, LLAMA)
        answers = await asyncio.gather(*(generate(fleet, LLAMA) for _ in range(9)))
        used = [headers["X-Olla-Endpoint"] for _, _, headers in answers]
        assert {used.count(name) for name in "abc"} == {3}


async def test_round_robin_alternates() -> None:
    """Each endpoint gets a request in turn."""
    extra = "proxy: {load_balancer: round-robin}\n"
    async with Fleet({"a": (LLAMA,), "b": (LLAMA,)}, extra) as fleet:
        used = [(await generate(fleet, LLAMA))[2]["X-Olla-Endpoint"] for _ in range(4)]
        assert used in (["a", "b", "a", "b"], ["b", "a", "b", "a"])


async def test_a_recovered_node_is_used_again() -> None:
    """It is offline once it refuses a connection, and routable again after the next good probe."""
    async with Fleet({"a": (LLAMA,)}) as fleet:
        node = fleet.nodes["a"]
        await node.refuse()
        assert (await generate(fleet, LLAMA))[0] == 502
        assert (await generate(fleet, LLAMA))[0] == 503
        assert (await get(fleet, "/internal/ready"))[0] == 503
        await node.accept()
        await fleet.app.prober.probed("a")
        assert (await generate(fleet, LLAMA))[0] == 200
        assert (await get(fleet, "/internal/ready"))[0] == 200


async def test_metrics_count_requests_tokens_and_loads() -> None:
    """With the name of the endpoint."""
    async with Fleet({"a": (LLAMA,)}) as fleet:
        for _ in range(3):
            await generate(fleet, LLAMA)
        _, text = await get(fleet, "/metrics")
        assert re.search(r'olla_requests_total\{[^}]*endpoint="a"[^}]*\} 3\.0', text)
        assert re.search(r'olla_tokens_total\{[^}]*direction="output"[^}]*\} 9\.0', text)
        assert re.search(r'olla_model_load_seconds_count\{endpoint="a"\} 1\.0', text)
        assert 'olla_endpoint_up{endpoint="a",type="ollama"} 1.0' in text


async def test_a_port_in_use_is_reported() -> None:
    """The message says what to do."""
    async with Fleet({"a": (LLAMA,)}) as fleet:
        port = fleet.url.rsplit(":", 1)[1]
        text = settings_text({"a": fleet.nodes["a"].url}).replace("port: 0", f"port: {port}")
        with pytest.raises(StartError, match=r"server\.port"):
            await App(parse(text, {}), output=fleet.log).start()  # type: ignore[arg-type]


async def test_draining_finishes_running_streams_and_refuses_connections() -> None:
    """The stream ends normally, and then the port is closed."""
    async with (
        Fleet({"a": (LLAMA,)}, time_scale=0.01, load_bandwidth=1e12) as fleet,
        aiohttp.ClientSession() as session,
    ):
        body = {"model": LLAMA, "prompt": "a story", "options": {"num_predict": 30}}
        async with session.post(f"{fleet.url}/api/generate", json=body) as response:
            first = await response.content.readline()
            stopping = asyncio.ensure_future(fleet.app.stop())
            rest = await response.content.read()
            assert b'"done":true' in first + rest
            await stopping
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(f"{fleet.url}/internal/health")


async def test_draining_ends_slow_streams_with_an_error() -> None:
    """After the limit a stream gets the error of its dialect, and no regular end."""
    slow = {"tokens_per_second": 10.0, "time_scale": 1.0, "load_bandwidth": 1e12}
    async with Fleet({"a": (LLAMA,)}, **slow) as fleet:
        port = int(fleet.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = b'{"model": "llama3.2", "prompt": "a long story"}'
        head = b"POST /api/generate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        await reader.readuntil(b"\r\n\r\n")
        stopping = asyncio.ensure_future(fleet.app.stop())
        rest = await reader.read()
        assert b"shutting down" in rest
        assert not rest.endswith(b"0\r\n\r\n")
        writer.close()
        await stopping
        assert fleet.app.dispatcher.leases == 0
