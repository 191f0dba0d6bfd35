"""Lists, single models, versions and the heartbeat, over HTTP and in every dialect."""

import asyncio
import json
from typing import Any

import pytest

from olla.access.caller import Caller, of_key
from olla.access.keys import Key
from olla.fleet.breaker import BreakerState
from olla.fleet.health import Health
from olla.surfaces.models.lists import ListSurface
from tests.surfaces.conftest import ANYBODY, Serve
from tests.surfaces.known_fleet import NEWER, OLDER, KnownFleet, StillClock, loaded, tag, view


@pytest.fixture
async def client(serve: Serve, fleet: KnownFleet, clock: StillClock) -> Any:
    """A client of the lists alone."""
    return await lists_for(ANYBODY, serve, fleet, clock)


async def lists_for(caller: Caller, serve: Serve, fleet: KnownFleet, clock: StillClock) -> Any:
    """A client of the lists, as this caller."""
    surface = ListSurface(snapshot=lambda: fleet.snapshot, refresh=fleet.refresh, clock=clock)
    return await serve(surface.routes(), surface.operations(), caller)


async def test_a_key_sees_what_it_may_use(
    serve: Serve, fleet: KnownFleet, clock: StillClock
) -> None:
    """No other models, no other endpoints, and not what is on those only."""
    key = Key("1", b"d", "oa-", "n", models=("llama*", "phi"), endpoints=("a",))
    client = await lists_for(of_key(key), serve, fleet, clock)
    ours, theirs = loaded("llama3:latest"), loaded("mistral:latest")
    fleet.set(
        view("a", tag("llama3:latest"), tag("mistral:latest"), resident=(ours, theirs)),
        view("b", tag("llama3:latest"), tag("phi:latest"), resident=(ours,)),
    )
    for path, list_of, name in (
        ("/api/tags", "models", "name"),
        ("/api/ps", "models", "name"),
        ("/v1/models", "data", "id"),
        ("/olla/anthropic/v1/models", "data", "id"),
        ("/olla/models", "data", "id"),
    ):
        listed = (await (await client.get(path)).json())[list_of]
        assert [entry[name] for entry in listed] == ["llama3:latest"], path
    found = (await (await client.get("/olla/models")).json())["data"][0]["olla"]
    assert [each["endpoint"] for each in found["availability"]] == ["a"]
    assert [
        (await client.get(f"/v1/models/{name}")).status for name in ("llama3", "mistral", "phi")
    ] == [200, 403, 404]


async def test_a_key_for_no_endpoint_here_hears_so(
    serve: Serve, fleet: KnownFleet, clock: StillClock
) -> None:
    """An empty list would say that there are no models."""
    key = Key("1", b"d", "oa-", "n", endpoints=("gone",))
    client = await lists_for(of_key(key), serve, fleet, clock)
    fleet.set(view("a", tag("llama3:latest")))
    for path in ("/api/tags", "/api/ps", "/v1/models", "/olla/models"):
        assert (await client.get(path)).status == 403


async def test_tags_have_each_model_once_with_its_own_entry(client: Any, fleet: KnownFleet) -> None:
    """A model on two endpoints is one entry, the newest one, unchanged in every field."""
    newest = tag("llama3.2:latest", NEWER, digest="e" * 64, capabilities=["completion"])
    fleet.set(
        view("a", tag("llama3.2:latest", OLDER), tag("mistral:7b", OLDER)),
        view("b", newest),
    )
    response = await client.get("/api/tags")
    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    body = await response.json()
    assert body == {"models": [newest, tag("mistral:7b", OLDER)]}


async def test_names_are_one_model_whatever_their_spelling(client: Any, fleet: KnownFleet) -> None:
    """Spellings that Ollama holds to be one name are one entry."""
    fleet.set(view("a", tag("Llama3:latest")), view("b", tag("library/llama3", NEWER)))
    body = await (await client.get("/olla/ollama/api/tags")).json()
    assert [entry["name"] for entry in body["models"]] == ["library/llama3"]


async def test_lists_order_by_moment_not_by_text(client: Any, fleet: KnownFleet) -> None:
    """Newest first holds across time zones."""
    early = tag("early:latest", "2026-01-01T10:00:00+09:00")
    late = tag("late:latest", "2026-01-01T02:00:00Z")
    fleet.set(view("a", early, late))
    body = await (await client.get("/api/tags")).json()
    assert [entry["name"] for entry in body["models"]] == ["late:latest", "early:latest"]


async def test_endpoints_that_cannot_be_routed_to_are_not_in_lists(
    client: Any, fleet: KnownFleet
) -> None:
    """What only an endpoint that is down has is not listed."""
    fleet.set(view("a", tag("here:latest")), view("b", tag("gone:latest"), health=Health.OFFLINE))
    body = await (await client.get("/api/tags")).json()
    assert [entry["name"] for entry in body["models"]] == ["here:latest"]


async def test_an_open_breaker_does_not_hide_models(client: Any, fleet: KnownFleet) -> None:
    """Endpoints whose requests fail still have their models."""
    fleet.set(view("a", tag("here:latest"), breaker=BreakerState.OPEN))
    body = await (await client.get("/api/tags")).json()
    assert len(body["models"]) == 1


async def test_a_fleet_without_models_lists_none(client: Any, fleet: KnownFleet) -> None:
    """With endpoints up and no models the lists are empty, never null."""
    fleet.set(view("a"))
    assert await (await client.get("/api/tags")).json() == {"models": []}
    assert await (await client.get("/api/ps")).json() == {"models": []}
    assert await (await client.get("/v1/models")).json() == {"object": "list", "data": []}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/api/tags", lambda body: body["error"]),
        ("/api/ps", lambda body: body["error"]),
        ("/api/version", lambda body: body["error"]),
        ("/", lambda body: body["error"]),
        ("/v1/models", lambda body: body["error"]["message"]),
        ("/olla/anthropic/v1/models", lambda body: body["error"]["message"]),
        ("/olla/models", lambda body: body["error"]["message"]),
    ],
)
async def test_nobody_to_ask_is_a_failure_not_an_empty_list(
    client: Any, fleet: KnownFleet, clock: StillClock, path: str, message: Any
) -> None:
    """With no endpoint up, every dialect says 503, why, and when to come again."""
    fleet.set(view("a", health=Health.OFFLINE, next_check_at=clock.now() + 2.5))
    response = await client.get(path)
    assert response.status == 503
    assert response.reason == "Service Unavailable"
    assert response.headers["Retry-After"] == "3"
    assert "a: offline" in message(await response.json())


async def test_lists_are_made_fresh_before_they_are_answered(
    client: Any, fleet: KnownFleet
) -> None:
    """Lists ask for what they show, at most a second old, and wait at most a second."""
    fleet.set(view("a"))
    for path in ("/api/tags", "/api/ps", "/v1/models"):
        await client.get(path)
    assert fleet.refreshed == [("models", 1.0, 1.0), ("resident", 1.0, 1.0), ("models", 1.0, 1.0)]


async def test_ps_shows_each_instance_with_its_endpoint(client: Any, fleet: KnownFleet) -> None:
    """One entry per endpoint and instance, longest-lived first, the endpoint's own words."""
    first = loaded("llama3:latest", expires_at=100.0)
    second = loaded("llama3:latest", expires_at=200.0)
    fleet.set(
        view("a", tag("llama3:latest"), tag("alias:latest"), resident=(first,)),
        view("b", tag("llama3:latest"), resident=(second,)),
    )
    body = await (await client.get("/api/ps")).json()
    assert body["models"] == [
        {**json.loads(second.entry), "endpoint": "b"},
        {**json.loads(first.entry), "endpoint": "a"},
    ]


async def test_openai_list_is_put_together_as_ollama_does(client: Any, fleet: KnownFleet) -> None:
    """Under `/v1` a model is owned by its namespace and created when it was modified."""
    fleet.set(view("a", tag("llama3:latest", OLDER), tag("hf.co/User/repo:Q4", NEWER)))
    response = await client.get("/v1/models")
    assert response.headers["Content-Type"] == "application/json"
    assert (await response.json())["data"] == [
        {"id": "hf.co/User/repo:Q4", "object": "model", "created": 1772359200, "owned_by": "User"},
        {"id": "llama3:latest", "object": "model", "created": 1735689600, "owned_by": "library"},
    ]


async def test_openai_servers_entries_are_their_own(client: Any, fleet: KnownFleet) -> None:
    """An OpenAI-compatible server's entry keeps its fields, and gets those it lacks."""
    entry = {"id": "Qwen/Qwen3-8B", "object": "model", "created": 5, "max_model_len": 40960}
    fleet.set(view("v", entry, type="vllm"))
    body = await (await client.get("/olla/vllm/v1/models")).json()
    assert body["data"] == [{**entry, "owned_by": "vllm"}]


async def test_each_path_lists_the_models_that_it_reaches(client: Any, fleet: KnownFleet) -> None:
    """The root reaches all of them, Ollama's own prefix only those on Ollama servers."""
    fleet.set(view("o", tag("llama3:latest")), view("v", {"id": "qwen"}, type="vllm"))
    native = await (await client.get("/olla/ollama/api/tags")).json()
    assert [entry["name"] for entry in native["models"]] == ["llama3:latest"]
    root = await (await client.get("/api/tags")).json()
    assert [entry["name"] for entry in root["models"]] == ["llama3:latest", "qwen"]
    (made,) = [entry for entry in root["models"] if entry["name"] == "qwen"]
    assert made["model"] == "qwen"
    assert len(made["digest"]) == 64  # clients cut it
    assert made["size"] == 0
    everywhere = await (await client.get("/olla/openai/v1/models")).json()
    assert {entry["id"] for entry in everywhere["data"]} == {"llama3:latest", "qwen"}


async def test_an_entry_of_ollama_is_preferred_to_one_created_just_now(
    client: Any, fleet: KnownFleet
) -> None:
    """A server that says "created now" does not replace what Ollama knows of the same name."""
    fleet.set(view("v", {"id": "m", "created": 2_000_000_000}, type="vllm"), view("o", tag("m")))
    body = await (await client.get("/olla/openai/v1/models")).json()
    assert [entry["created"] for entry in body["data"]] == [1735689600]


async def test_a_single_model_is_found_in_any_spelling(client: Any, fleet: KnownFleet) -> None:
    """`/v1/models/{id}` knows names as Ollama does, slashes included."""
    fleet.set(view("a", tag("llama3:latest"), tag("user/m:7b")))
    for path, id in (("LLAMA3", "llama3:latest"), ("user/m:7b", "user/m:7b")):
        response = await client.get(f"/v1/models/{path}")
        assert (await response.json())["id"] == id


async def test_a_model_that_is_nowhere_is_404_and_final(client: Any, fleet: KnownFleet) -> None:
    """An unknown model is an OpenAI error that clients do not repeat."""
    fleet.set(view("a", tag("llama3:latest")))
    response = await client.get("/v1/models/nowhere")
    assert response.status == 404
    assert response.headers["x-should-retry"] == "false"
    assert "nowhere" in (await response.json())["error"]["message"]


async def test_a_model_on_an_endpoint_that_is_down_is_503(client: Any, fleet: KnownFleet) -> None:
    """A model that is known but cannot be served now is not "not found"."""
    fleet.set(view("a"), view("b", tag("llama3:latest"), health=Health.OFFLINE))
    response = await client.get("/v1/models/llama3")
    assert response.status == 503
    assert int(response.headers["Retry-After"]) >= 1


async def test_the_version_is_the_oldest_of_those_up(client: Any, fleet: KnownFleet) -> None:
    """Clients switch features on by version, so the oldest counts; 0.0.0 is no version."""
    fleet.set(
        view("a", version="0.12.10"),
        view("b", version="0.9.6"),
        view("c", version="0.0.0"),
        view("d", version="0.1.0", health=Health.OFFLINE),
    )
    response = await client.get("/api/version")
    assert await response.json() == {"version": "0.9.6"}


async def test_no_known_version_is_a_failure(client: Any, fleet: KnownFleet) -> None:
    """Before any endpoint has told its version, there is none to tell."""
    fleet.set(view("a"))
    response = await client.get("/api/version")
    assert response.status == 503
    assert response.headers["Retry-After"] == "1"


async def test_the_heartbeat_is_ollamas(client: Any, fleet: KnownFleet) -> None:
    """`GET /` and `HEAD /` are what the `ollama` command looks for first."""
    fleet.set(view("a"))
    response = await client.get("/olla/ollama/")
    assert await response.text() == "Ollama is running"
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    head = await client.head("/")
    assert head.status == 200
    assert await head.read() == b""


async def test_anthropics_list_has_its_shape(client: Any, fleet: KnownFleet) -> None:
    """The Anthropic path lists in Anthropic's words."""
    fleet.set(view("a", tag("llama3:latest", OLDER)))
    body = await (await client.get("/olla/anthropic/v1/models")).json()
    entry = {
        "type": "model",
        "id": "llama3:latest",
        "display_name": "llama3:latest",
        "created_at": "2025-01-01T00:00:00.000Z",
    }
    assert body == {
        "data": [entry],
        "has_more": False,
        "first_id": "llama3:latest",
        "last_id": "llama3:latest",
    }
    one = await client.get("/olla/anthropic/v1/models/llama3")
    assert await one.json() == entry


async def test_the_unified_list_says_where_each_model_is(client: Any, fleet: KnownFleet) -> None:
    """`/olla/models` covers all kinds of server and tells memory from disk."""
    fleet.set(
        view("a", tag("llama3:latest"), resident=(loaded("llama3:latest"),)),
        view("b", tag("llama3:latest")),
        view("v", {"id": "qwen", "max_model_len": 8192}, type="vllm"),
    )
    body = await (await client.get("/olla/models")).json()
    llama, qwen = body["data"]
    assert llama["id"] == "llama3:latest"
    assert llama["olla"]["availability"] == [
        {"endpoint": "a", "state": "resident"},
        {"endpoint": "b", "state": "available"},
    ]
    assert llama["olla"]["parameter_size"] == "3B"
    assert llama["olla"]["quantization"] == "Q4_K_M"
    assert qwen["olla"]["max_context_length"] == 8192
    assert qwen["owned_by"] == "vllm"


async def test_entries_of_odd_shape_do_not_break_lists(client: Any, fleet: KnownFleet) -> None:
    """What a node should not send is passed on, and the rest of the list stays."""
    fleet.set(
        view("a", tag("odd:latest", modified_at=7, details="none"), tag("fine:latest")),  # type: ignore[arg-type]
        view("v", {"id": "q", "created": "yesterday"}, {"id": "r", "created": 1e300}, type="vllm"),
    )
    paths = ("/api/tags", "/olla/proxy/v1/models", "/olla/anthropic/v1/models", "/olla/models")
    for path in paths:
        response = await client.get(path)
        assert response.status == 200, path


async def test_lists_answer_concurrently(client: Any, fleet: KnownFleet) -> None:
    """Several clients may ask at once."""
    fleet.set(view("a", tag("llama3:latest")))
    answers = await asyncio.gather(*(client.get("/api/tags") for _ in range(8)))
    assert {answer.status for answer in answers} == {200}
