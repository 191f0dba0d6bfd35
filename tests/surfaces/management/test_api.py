"""The management API over a fleet: what is asked of it, what comes back, and how it ends."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from olla.access.visibility import EVERYTHING
from olla.settings import SettingsError, parse
from olla.simulation.faults import Fault
from tests.routers import ADMIN, WITH_ADMIN, Fleet

MODEL = "llama3.2:latest"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
ASKED = ("/v1/chat/completions", "/v1/completions")
"""Not the loads, which are olla's own."""
MANAGED = """
surfaces:
  management:
    models:
      LLAMA3.2: {parameters: {temperature: 0.1, max_tokens: 3, model: other}}
      mistral: {is_active: false}
access:
  tiers: {gold: {}}
  keys:
    - {name: llama, key: only_for_llama, models: [llama3.2]}
"""
NEAR = "    - {name: near, key: only_for_gpu_2, endpoints: [gpu-2]}\n"
"""One more key, where there is such an endpoint."""


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client."""
    async with aiohttp.ClientSession() as opened:
        yield opened


def nodes(*models: str) -> dict[str, tuple[str, ...]]:
    """One node."""
    return {"only": models or (MODEL,)}


def settings(folder: Path, extra: str = "") -> str:
    """With a store of its own."""
    return f"{extra}\nstore: {{url: 'sqlite:///{folder}/keys.db'}}\n"


def url(fleet: Fleet, path: str) -> str:
    """An address of the API."""
    return f"{fleet.url}/olla/management{path}"


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


async def exchanged(fleet: Fleet, path: str, body: dict[str, Any]) -> bytes:
    """All bytes of one answer, until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(fleet.url.rsplit(":")[-1]))
    await sent(writer, path, body)
    answer = await reader.read()
    writer.close()
    return answer


async def sent(writer: asyncio.StreamWriter, path: str, body: dict[str, Any]) -> None:
    """A request on a connection of its own."""
    data = json.dumps(body).encode()
    head = f"POST /olla/management{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(data) + data)
    await writer.drain()


async def test_models_are_those_of_the_fleet(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """Each once, with what the file says of it however it spells the name, else in words."""
    fleets = {"gpu-1": (MODEL, "mistral:latest"), "gpu-2": (MODEL, "nomic-embed-text:latest")}
    async with Fleet(fleets, settings(tmp_path, MANAGED)) as fleet:
        async with session.get(url(fleet, "/models")) as answer:
            models = {each["id"]: each for each in (await answer.json())["models"]}
        assert set(models) == {MODEL, "mistral:latest", "nomic-embed-text:latest"}
        assert models[MODEL]["parameters"]["temperature"] == 0.1
        assert models["mistral:latest"]["is_active"] is False
        assert models["mistral:latest"]["parameters"] == {"temperature": 0.7, "max_tokens": 1024}
        assert "3.2B parameters, quantized as Q4_K_M" in models[MODEL]["description"]
        assert "embedding model" in models["nomic-embed-text:latest"]["description"]


@pytest.mark.parametrize(
    ("key", "expected"),
    [("only_for_llama", {MODEL}), ("only_for_gpu_2", {MODEL, "nomic-embed-text:latest"})],
)
async def test_a_key_sees_what_it_may_use(
    tmp_path: Path, session: aiohttp.ClientSession, key: str, expected: set[str]
) -> None:
    """Only models, and only those on endpoints, that the key is for."""
    fleets = {"gpu-1": (MODEL, "mistral:latest"), "gpu-2": (MODEL, "nomic-embed-text:latest")}
    async with Fleet(fleets, settings(tmp_path, MANAGED + NEAR)) as fleet:
        headers = {"X-API-Key": key}
        async with session.get(url(fleet, "/models"), headers=headers) as answer:
            assert {each["id"] for each in (await answer.json())["models"]} == expected


async def test_no_models_are_listed_while_nobody_can_tell(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """503, not an empty list."""
    async with Fleet(nodes(), settings(tmp_path)) as fleet:
        await fleet.nodes["only"].refuse()
        view = fleet.app.prober.snapshot.by_name
        fleet.app.prober.probe_now("only")
        await until(lambda: not fleet.app.prober.snapshot.by_name["only"].routable)
        assert view["only"].routable
        async with session.get(url(fleet, "/models")) as answer:
            assert answer.status == 503
            assert (await answer.json())["error"]["type"] == "service_unavailable_error"


async def test_parameters_hold_where_the_request_says_nothing(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """The file's over the documented defaults, the request's over the file's."""
    async with Fleet(nodes(MODEL, "mistral"), settings(tmp_path, MANAGED)) as fleet:
        for more, expected in (({}, 3), ({"max_tokens": 2}, 2)):
            async with session.post(url(fleet, "/chat"), json={**CHAT, **more}) as answer:
                shown = await answer.json()
            assert shown["usage"]["completion_tokens"] == expected
            assert shown["choices"][0]["finish_reason"] == "length"
            assert shown["model"] == MODEL


async def test_a_model_that_is_not_active_is_not_found(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """404 that says so, however the model is spelled; the node is not asked."""
    async with Fleet(nodes(MODEL, "mistral"), settings(tmp_path, MANAGED)) as fleet:
        body = {**CHAT, "model": "Mistral:latest"}
        async with session.post(url(fleet, "/chat"), json=body) as answer:
            assert answer.status == 404
            assert "not active" in (await answer.json())["error"]["message"]
        assert not [each for each in fleet.nodes["only"].seen if each.method == "POST"]


async def test_requests_are_recorded_once_and_logged(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """One line for each, streaming or not, under the path that was asked."""
    async with Fleet(nodes(), settings(tmp_path)) as fleet:
        for stream in (False, True):
            body = {**CHAT, "max_tokens": 2, "stream": stream}
            async with session.post(url(fleet, "/chat"), json=body) as answer:
                await answer.read()
        assert fleet.app.traffic.counts(EVERYTHING).requests == 2
        assert fleet.app.traffic.models[MODEL].output_tokens == 4


async def test_what_the_file_does_not_know_goes_to_the_endpoint(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """Options of OpenAI's that are none of this API's."""
    async with Fleet(nodes(), settings(tmp_path)) as fleet:
        body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
        async with session.post(url(fleet, "/chat"), json=body) as answer:
            text = await answer.text()
        assert '"usage":{' in text


@pytest.mark.parametrize(
    ("text", "count"), [("\\ud83d", 1), ("a\\n", 20_000), ("x\\u00e9", 300_000)]
)
async def test_texts_go_to_the_endpoint_as_they_were_written(
    tmp_path: Path, session: aiohttp.ClientSession, text: str, count: int
) -> None:
    """However long they are, half surrogate pairs and digits included."""
    said = f'{{"role":"user","content":"{text * count}","x":1.50}}'
    body = f'{{"temperature":0.70,"max_tokens":1,"model":"{MODEL}","messages":[{said}]}}'
    async with Fleet(nodes(), settings(tmp_path)) as fleet:
        async with session.post(url(fleet, "/chat"), data=io.BytesIO(body.encode())) as answer:
            assert answer.status == 200
        asked = next(each for each in fleet.nodes["only"].seen if each.target in ASKED)
        assert asked.body_bytes == len(body)


@pytest.mark.parametrize(
    ("path", "most"),
    [("/chat", 16 << 20), ("/generate", 16 << 20), ("/api-keys", 65_536)],
)
async def test_a_body_over_a_paths_own_limit_is_413(tmp_path: Path, path: str, most: int) -> None:
    """By its length alone, or once more than that has come; never is all of it read."""
    keys = "access: {keys: [{name: root, key: root_of_all, operations: [generate, admin]}]}"
    async with Fleet(nodes(), settings(tmp_path, keys)) as fleet:
        for length in (f"Content-Length: {most + 1}", "Transfer-Encoding: chunked"):
            port = int(fleet.url.rsplit(":")[-1])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST /olla/management{path} HTTP/1.1\r\nHost: x\r\nX-API-Key: root_of_all\r\n"
            writer.write(f"{head}{length}\r\n\r\n".encode())
            if "chunked" in length:
                for _ in range(most // 65_536 + 1):
                    writer.write(b"10001\r\n%b\r\n" % (b"x" * 65_537))
            async with asyncio.timeout(10):
                answer = await reader.readuntil(b"}}")
            writer.close()
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert f"limit of {most} bytes".encode() in answer


async def test_two_models_in_one_body_are_refused(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """A key in another case could mean another model to an endpoint."""
    async with Fleet(nodes(), settings(tmp_path)) as fleet:
        answer = await session.post(url(fleet, "/chat"), json={**CHAT, "Model": "other"})
        assert answer.status == 400
        answer.release()


async def test_other_methods_are_refused(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    """405 with what is possible."""
    allowed = {"/models": "GET, HEAD", "/chat": "POST", "/generate": "POST"}
    allowed |= {"/api-keys": "GET, HEAD, POST", "/api-keys/1": "DELETE"}
    async with Fleet(nodes(), settings(tmp_path, WITH_ADMIN)) as fleet:
        session.headers.update(ADMIN)
        for path, methods in allowed.items():
            async with session.put(url(fleet, path), data=b"x") as answer:
                assert answer.status == 405
                assert answer.headers["Allow"] == methods


async def test_a_stream_that_breaks_off_has_no_end(tmp_path: Path) -> None:
    """The error within the stream, then the connection closes without the terminating chunk."""
    async with Fleet(nodes(), settings(tmp_path), time_scale=0.5, load_bandwidth=1e12) as fleet:
        fleet.nodes["only"].faults.set("reset_mid", Fault(paths=ASKED))
        answer = await exchanged(fleet, "/chat", {**CHAT, "stream": True})
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\ndata: {" in answer
        assert b'{"error":' in answer
        assert not answer.endswith(b"0\r\n\r\n")
        await fleet.check_clean()


async def test_an_answer_that_breaks_off_is_a_bad_gateway(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """502, because nothing has been said yet; so for one that is no JSON."""
    async with Fleet(nodes(), settings(tmp_path)) as fleet:
        for kind in ("reset_mid", "garbage_body"):
            fleet.nodes["only"].faults.replace({kind: Fault(paths=ASKED)})
            async with session.post(url(fleet, "/chat"), json=CHAT) as answer:
                assert answer.status == 502
                assert (await answer.json())["error"]["type"] == "api_error"


@pytest.mark.parametrize(("status", "expected"), [(400, 400), (422, 422), (401, 502), (500, 500)])
async def test_an_endpoints_own_error_is_told_in_this_shape(
    tmp_path: Path, session: aiohttp.ClientSession, status: int, expected: int
) -> None:
    """As it is; but that an endpoint refuses olla is not the caller's fault."""
    async with Fleet(nodes(), settings(tmp_path)) as fleet:
        fleet.nodes["only"].faults.set("status", Fault(status=status, paths=ASKED))
        async with session.post(url(fleet, "/generate"), json={**CHAT, "prompt": "x"}) as answer:
            assert answer.status == expected
            assert set((await answer.json())["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "not streaming"])
async def test_a_client_that_leaves_stops_the_node(tmp_path: Path, stream: bool) -> None:
    """The slot is free again, and no lease is left."""
    options = {"time_scale": 0.2, "load_bandwidth": 1e12}
    async with Fleet(nodes(), settings(tmp_path), **options) as fleet:
        node = fleet.nodes["only"]
        reader, writer = await asyncio.open_connection("127.0.0.1", int(fleet.url.rsplit(":")[-1]))
        await sent(writer, "/chat", {**CHAT, "stream": stream})
        await until(lambda: node.executor.running == 1)
        if stream:
            await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await until(lambda: node.executor.running == 0)
        assert node.executor.cancelled == 1
        await until(lambda: fleet.app.downstream.active == 0)
        await fleet.check_clean()


async def test_switched_off_there_is_nothing(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """Neither API nor pages; `/api` stays Ollama's."""
    off = "surfaces: {management: {enabled: false, prefix: /api}}"
    async with Fleet(nodes(), settings(tmp_path, off)) as fleet:
        # A path under /api that olla does not know is a node's, and needs a right.
        for path, status in (("/api/models", 403), ("/admin/api-keys", 404)):
            async with session.get(f"{fleet.url}{path}") as answer:
                assert answer.status == status
        body = {**CHAT, "stream": False}
        async with session.post(f"{fleet.url}/api/chat", json=body) as answer:
            assert (await answer.json())["done"] is True


async def test_keys_are_as_they_were_asked_for(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """Tier, rights, restrictions and expiry; what cannot be is a bad request."""
    async with Fleet(nodes(), settings(tmp_path, f"{WITH_ADMIN}  tiers: {{gold: {{}}}}")) as fleet:
        session.headers.update(ADMIN)
        wanted = {
            **{"name": "a", "user_id": "u", "tier": "gold", "operations": ["list"]},
            **{"models": ["llama*"], "endpoints": ["only"], "expires_in_days": 0.5},
        }
        async with session.post(url(fleet, "/api-keys"), json=wanted) as answer:
            made = await answer.json()
        assert made["expires_at"] > made["created_at"]
        same = ("name", "user_id", "tier", "operations", "models", "endpoints")
        assert {name: made[name] for name in same} == {name: wanted[name] for name in same}
        wrong: tuple[dict[str, Any], ...] = (
            {},
            {"name": ""},
            {"name": "\x00"},
            {"name": "a", "operations": ["fly"]},
        )
        wrong += tuple({"name": "a", "models": [each]} for each in ("", " "))
        wrong += tuple({"name": "a", "endpoints": [each]} for each in ("", "onyl"))
        for body in (*wrong, {"name": "a", "expires_in_days": -1}, {"name": "a", "other": 1}):
            async with session.post(url(fleet, "/api-keys"), json=body) as answer:
                assert answer.status == 400
        for id in ("7", "x", "1" * 40):
            async with session.delete(url(fleet, f"/api-keys/{id}")) as answer:
                assert answer.status == 404


async def test_a_key_is_revoked_by_its_own_id_only(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """An encoded slash makes no other id of it; a key of the configuration is not ended here."""
    async with Fleet(nodes(), settings(tmp_path, WITH_ADMIN)) as fleet:
        session.headers.update(ADMIN)
        for name in ("a", "b"):
            async with session.post(url(fleet, "/api-keys"), json={"name": name}) as answer:
                assert answer.status == 201
        for base in (url(fleet, "/api-keys"), f"{fleet.url}/api/keys"):
            for id in ("1%2F2", "1%2f2", "%2F2", "1%3F/2"):
                async with session.delete(URL(f"{base}/{id}", encoded=True)) as answer:
                    assert answer.status in (400, 404), id
            for id in ("static:root", "static%3Aroot"):
                async with session.delete(URL(f"{base}/{id}", encoded=True)) as answer:
                    assert answer.status == 404
                    assert "stands in the configuration" in await answer.text()
        async with session.get(url(fleet, "/api-keys")) as answer:
            assert all(key["is_active"] for key in (await answer.json())["keys"])
        async with session.delete(url(fleet, "/api-keys/2?x=/1")) as answer:
            assert (await answer.json())["id"] == 2


async def test_a_draining_router_asks_nothing_more(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """What comes on a connection that stands is told to go elsewhere."""
    async with Fleet(nodes(), settings(tmp_path)) as fleet:
        fleet.app.downstream.draining = True
        async with session.post(url(fleet, "/chat"), json=CHAT) as answer:
            assert answer.status == 503
            assert "shutting down" in (await answer.json())["error"]["message"]


async def test_long_bodies_are_held_while_they_are_used(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """Where there is no room for one it is refused; what was taken is given back."""
    body = {**CHAT, "max_tokens": 1, "messages": [{"role": "user", "content": "x" * 100_000}]}
    async with Fleet(nodes(), settings(tmp_path)) as fleet:
        budget = fleet.app.services.body_budget
        limit = budget.limit
        for most, expected in ((limit, 200), (1000, 503), (limit, 200)):
            budget.limit = most
            async with session.post(url(fleet, "/chat"), json=body) as answer:
                assert answer.status == expected
            await until(lambda: fleet.app.downstream.active == 0)
            assert budget.taken == 0


def test_two_surfaces_cannot_be_at_one_place() -> None:
    """Both have `/chat`: the file says which gets another prefix."""
    with pytest.raises(SettingsError, match="both at the root"):
        parse("surfaces: {management: {prefix: ''}}", {})
    parse("surfaces: {management: {prefix: ''}, chat: {enabled: false}}", {})
