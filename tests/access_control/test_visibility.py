"""Which parts of the fleet each caller can see, in the body and headers of every response."""

import json
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any

import aiohttp
import pytest

from olla.app import App
from olla.settings import parse
from tests.access_control.conftest import MakeFleet
from tests.routers import Fleet, Log, settings_text

SHOWN, HIDDEN, ELSEWHERE = "shown-model:latest", "hidden-model:latest", "elsewhere-model:latest"
NODES = {"gpu-shown": (SHOWN, HIDDEN), "gpu-hidden": (HIDDEN, ELSEWHERE, SHOWN)}
KEYS = """
access:
  keys:
    - {name: boss, key: key-of-boss, operations: [generate, embed, list, admin]}
    - {name: part, key: key-of-part, models: ["shown*"], endpoints: [gpu-shown]}
    - {name: mute, key: key-of-mute, operations: [generate]}
    - {name: plain, key: key-of-plain}
"""
CHAT = {"model": SHOWN, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
GENERATE = {"model": SHOWN, "prompt": "hi", "stream": False}
Request = tuple[str, str, Any]
LISTS: list[Request] = [
    ("GET", prefix + path, None)
    for prefix in ("", "/olla/ollama", "/olla/openai", "/olla/proxy", "/olla/anthropic")
    for path in ("/", "/api/tags", "/api/ps", "/api/version", "/v1/models", "/models")
]
LISTS += [("GET", f"/v1/models/{SHOWN}", None), ("HEAD", "/api/tags", None)]
INFERENCE: list[Request] = [
    ("POST", "/api/generate", GENERATE),
    ("POST", "/api/show", {"model": SHOWN}),
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/messages", CHAT),
    ("POST", "/chat", {"message": "hi", "model": SHOWN}),
    ("POST", "/chat/stream", {"message": "hi", "model": SHOWN}),
    ("POST", "/olla/management/chat", CHAT),
    ("POST", "/olla/management/generate", GENERATE),
]
REJECTED: list[Request] = [
    ("POST", "/api/generate", {**GENERATE, "model": "shown-modle"}),
    ("POST", "/v1/chat/completions", {**CHAT, "model": "shown-modle"}),
    ("POST", "/chat", {"message": "hi", "model": "shown-nowhere"}),
    ("POST", "/api/generate", {"prompt": "hi"}),
    ("GET", "/olla/vllm/v1/models", None),
    ("GET", "/olla/ollama/api/unknown", None),
    ("GET", "/olla/lm-studio/api/v0/models", None),
    ("POST", "/olla/ollama/api/unknown", {"x": 1}),
    ("GET", "/nothing/there", None),
    ("DELETE", "/api/delete", {"model": SHOWN}),
]


def internal_requests(app: App) -> list[Request]:
    """Return a GET and a POST of each internal path of olla."""
    known = [path for path in app.downstream.internal_routes.paths if path.startswith("/")]
    paths = [path.replace("*", "1") for path in known]
    both: list[tuple[str, Any]] = [("GET", None), ("POST", {})]
    return [(method, path, body) for path in paths for method, body in both]


async def answers(
    url: str, requests: Iterable[Request], **headers: str
) -> AsyncIterator[tuple[Request, int, str]]:
    """Yield the status and the full text of each response, headers included."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with aiohttp.ClientSession() as session:
        for request in requests:
            method, path, body = request
            async with session.request(method, url + path, json=body, headers=named) as response:
                head = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
                yield request, response.status, f"{head}\n\n{await response.text()}"


async def use_every_model(fleet: Fleet) -> None:
    """Use every model on every endpoint, so that each appears in status pages and metrics."""
    for model, endpoint in (
        *((name, "gpu-hidden") for name in (HIDDEN, ELSEWHERE, SHOWN)),
        *((name, "gpu-shown") for name in (SHOWN, HIDDEN)),
    ):
        shown = {"Authorization": "Bearer key-of-boss", "X_Olla_Endpoint": endpoint}
        requests = [("POST", "/api/generate", {**GENERATE, "model": model, "keep_alive": -1})]
        async for _, status, text in answers(fleet.url, requests, **shown):
            assert status == 200, text
    for name in NODES:
        await fleet.app.prober.probed(name)


def all_requests(fleet: Fleet) -> list[Request]:
    """Return every request of this module."""
    return [*internal_requests(fleet.app), *LISTS, *INFERENCE, *REJECTED]


def addresses(fleet: Fleet) -> "re.Pattern[str]":
    """Match the ports of the nodes."""
    ports = [node.url.rpartition(":")[2] for node in fleet.nodes.values()]
    return re.compile("|".join(rf"(?<!\d){port}(?!\d)" for port in ports))


async def test_a_restricted_key_sees_only_its_part_of_the_fleet(make_fleet: MakeFleet) -> None:
    """No response names another endpoint or model, or an address."""
    fleet = await make_fleet(KEYS, nodes=NODES)
    await use_every_model(fleet)
    others = re.compile("gpu-hidden|hidden-model|elsewhere-model")
    shown = {"Authorization": "Bearer key-of-part", "X_Olla_Explain": "1"}
    seen: dict[str, str] = {}
    async for request, status, text in answers(fleet.url, all_requests(fleet), **shown):
        assert others.search(text) is None, (request, text)
        assert addresses(fleet).search(text) is None, (request, text)
        assert status < 500, (request, text)
        if status == 200 and request[0] != "HEAD":
            seen[request[1]] = text
    for path in ("/internal/status/models", "/olla/models", "/api/tags", "/api/ps", "/api/status"):
        assert SHOWN in seen[path], path
    for path in ("/internal/status", "/metrics", "/olla/models", "/api/ps", "/api/generate"):
        assert "gpu-shown" in seen[path], path
    assert 'olla_endpoint_up{endpoint="gpu-shown"' in seen["/metrics"]
    assert "X-Olla-Explanation: gpu-shown=" in seen["/api/generate"]
    status_of = json.loads(seen["/internal/status"].partition("\n\n")[2])
    assert status_of["counts"] == {"endpoints": 1, "endpoints_routable": 1, "models": 1}
    assert status_of["endpoints"][0]["models"] == 1


async def texts(url: str, key: str, *paths: str) -> list[str]:
    """The bodies of GETs with a key."""
    shown = {"Authorization": f"Bearer {key}"}
    gets: list[Request] = [("GET", path, None) for path in paths]
    return [text.partition("\n\n")[2] async for _, _, text in answers(url, gets, **shown)]


async def test_counts_are_of_what_a_key_may_see(make_fleet: MakeFleet) -> None:
    """Requests for other models, to other endpoints or to none are not in any sum."""
    only_models = '    - {name: models, key: key-of-models, models: ["shown*"]}\n'
    only_endpoints = "    - {name: endpoints, key: key-of-endpoints, endpoints: [gpu-shown]}\n"
    fleet = await make_fleet(KEYS + only_models + only_endpoints, nodes=NODES)
    # One of the five requests is for the shown model on the shown endpoint.
    await use_every_model(fleet)
    boss = {"Authorization": "Bearer key-of-boss"}
    nowhere: list[Request] = [("POST", "/api/generate", {**GENERATE, "model": "shown-nowhere"})]
    async for _, status, _ in answers(fleet.url, nowhere, **boss):
        assert status == 404
    paths = ("/internal/status", "/api/status", "/metrics")
    found: dict[str, tuple[int, int]] = {}
    for key in ("part", "models", "endpoints", "boss"):
        status_text, chat, metrics = await texts(fleet.url, f"key-of-{key}", *paths)
        requests, opened = json.loads(status_text)["requests"], json.loads(status_text)
        found[key] = (requests["total"], requests["client_errors"])
        usage = json.loads(chat)["usage"]
        if key == "boss":
            assert usage["active_anonymous_ips"] is not None
            assert 'endpoint=""' in metrics
            continue
        assert usage["total_requests"] == requests["total"]
        assert usage["active_anonymous_ips"] is None
        assert opened["open_connections"] is None
        assert requests["in_flight"] == 0
        assert 0 < requests["bytes_out"] < 5000
        assert 'endpoint=""' not in metrics
        names = re.findall(r"^(\w+)(?:\{(.*)\})? ", metrics, re.MULTILINE)
        assert any(name == "olla_requests_total" for name, _ in names)
        for name, labels in names:
            of_process = name.startswith(("process_", "python_", "olla_build", "olla_event"))
            of_process |= name.startswith(("olla_store_up", "olla_log_lines", "olla_config_"))
            assert 'endpoint="gpu-' in labels or of_process, name
    assert found["part"] == (1, 0)
    assert found["models"] == (2, 0)
    assert found["endpoints"] == (2, 0)
    assert found["boss"][0] == 6


@pytest.mark.parametrize("key", [None, "key-of-plain"])
async def test_callers_without_the_admin_right_see_no_addresses(
    key: str | None, make_fleet: MakeFleet
) -> None:
    """They see names and states of all endpoints, but no hosts and ports, even in errors while a
    node refuses connections."""
    fleet = await make_fleet(KEYS, nodes=NODES)
    await use_every_model(fleet)
    await fleet.nodes["gpu-hidden"].refuse()
    shown = {"X_Olla_Explain": "1"} | ({} if key is None else {"Authorization": f"Bearer {key}"})
    failing = [("POST", "/api/generate", {**GENERATE, "model": ELSEWHERE})]
    requests = [*failing, *all_requests(fleet)]
    found = ""
    async for request, _, text in answers(fleet.url, requests, **shown):
        assert addresses(fleet).search(text) is None, (request, text)
        found += text
    assert "refused" in found
    for name in ("gpu-shown", "gpu-hidden", ELSEWHERE, "refused the connection"):
        assert name in found


async def test_an_admin_sees_addresses(make_fleet: MakeFleet) -> None:
    """An admin also sees all endpoints and models."""
    fleet = await make_fleet(KEYS, nodes=NODES)
    await use_every_model(fleet)
    shown = {"Authorization": "Bearer key-of-boss"}
    requests = internal_requests(fleet.app)
    found: dict[str, str] = {}
    async for request, status, text in answers(fleet.url, requests, **shown):
        if status == 200:
            found[request[1]] = text
    for node in fleet.nodes.values():
        assert node.url in found["/internal/status"]
        assert node.url in found["/internal/status/endpoints"]
    for name in (SHOWN, HIDDEN, ELSEWHERE, "gpu-shown", "gpu-hidden"):
        assert name in found["/internal/status/models"]
        assert name in found["/metrics"]


async def test_a_key_without_the_right_to_lists_sees_no_models(make_fleet: MakeFleet) -> None:
    """Lists and status pages are rejected."""
    fleet = await make_fleet(KEYS, nodes=NODES)
    await use_every_model(fleet)
    names = re.compile("shown-model|hidden-model|elsewhere-model|gpu-shown|gpu-hidden")
    shown = {"Authorization": "Bearer key-of-mute"}
    requests = [*internal_requests(fleet.app), *LISTS]
    rejected: set[str] = set()
    async for request, status, text in answers(fleet.url, requests, **shown):
        assert names.search(text) is None, (request, text)
        if status == 403:
            rejected.add(request[1])
    assert {"/api/status", "/internal/status", "/metrics", "/api/tags"} <= rejected


async def test_an_endpoint_without_a_name_gets_a_neutral_one() -> None:
    """Callers see the name in headers, errors and metrics, so it must not contain the address."""
    async with Fleet(NODES) as fleet:
        ports = addresses(fleet)
        urls = [node.url for node in fleet.nodes.values()]
        text = settings_text({}).replace(
            "endpoints:\n\n",
            "endpoints: [" + ", ".join(f"{{url: '{url}', type: ollama}}" for url in urls) + "]\n",
        )
        app = App(parse(text, {}))
        await app.start()
        try:
            await app.prober.first_pass()
            assert [*app.prober.snapshot.by_name] == ["endpoint-1", "endpoint-2"]
            requests = [*internal_requests(app), *LISTS, *INFERENCE]
            async for request, _, answer in answers(app.url, requests, X_Olla_Explain="1"):
                assert ports.search(answer) is None, (request, answer)
        finally:
            await app.stop()


async def test_a_token_in_a_configured_path_is_never_shown() -> None:
    """It is absent from the log, status pages and errors, also for an admin, while the endpoint
    fails its probes."""
    async with Fleet(NODES) as fleet:
        url = fleet.nodes["gpu-shown"].url
        endpoint = (
            f"{{url: '{url}', name: gpu-shown, type: ollama, check_interval: 1s,"
            " check_timeout: 500ms, health_check_url: '/no/health?token=hush',"
            " model_url: '/no/list?token=hush'}"
        )
        text = settings_text({}, KEYS).replace("endpoints:\n\n", f"endpoints: [{endpoint}]\n")
        log = Log()
        app = log.app = App(parse(text, {}), output=log)  # type: ignore[arg-type]
        await app.start()
        try:
            await app.prober.first_pass()
            view = app.prober.snapshot.by_name["gpu-shown"]
            assert "GET /no/list answered 404" in (view.last_error or "")
            shown = {"Authorization": "Bearer key-of-boss", "X_Olla_Explain": "1"}
            requests = [*internal_requests(app), *LISTS, *INFERENCE]
            async for request, _, answer in answers(app.url, requests, **shown):
                assert "hush" not in answer, request
        finally:
            await app.stop()
        assert "GET /no/list answered 404" in log.getvalue()
        assert "hush" not in log.getvalue()
