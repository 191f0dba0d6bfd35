"""Usage records have each request's caller and token counts, and no content."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from olla.store.usage import UsageRow
from tests.access_control.conftest import MODEL, MakeFleet, bearer, new_key
from tests.routers import MANAGE, Fleet
from tests.waiting import until

SECRET_TEXT = "a phrase that must not be stored"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": SECRET_TEXT}]}
SHORT = {"options": {"num_predict": 7}}


async def recorded(fleet: Fleet) -> list[UsageRow]:
    """Return the stored usage, oldest first."""
    await fleet.settled()
    store_service = fleet.app.access.store_service
    assert store_service.usage_writer is not None
    await store_service.usage_writer.flush()
    return list(reversed(await store_service.tried(lambda store: store.usage.recent(1000))))


async def post(
    session: aiohttp.ClientSession, fleet: Fleet, path: str, body: Any, **headers: str
) -> bytes:
    """Send a request; returns the body of its 200 response."""
    async with session.post(fleet.url + path, json=body, headers=headers) as response:
        assert response.status == 200
        return await response.read()


@pytest.mark.parametrize(
    ("path", "body", "operation"),
    [
        ("/api/chat", {**CHAT, **SHORT, "stream": False}, "chat"),
        ("/api/chat", {**CHAT, **SHORT}, "chat"),
        ("/api/generate", {"model": MODEL, "prompt": SECRET_TEXT, **SHORT}, "generate"),
        ("/v1/chat/completions", {**CHAT, "max_tokens": 7}, "chat"),
        (
            "/v1/chat/completions",
            {**CHAT, "max_tokens": 7, "stream": True, "stream_options": {"include_usage": True}},
            "chat",
        ),
    ],
)
async def test_the_endpoints_token_counts_are_recorded(
    path: str,
    body: dict[str, Any],
    operation: str,
    make_fleet: MakeFleet,
    session: aiohttp.ClientSession,
) -> None:
    """This covers complete and streamed responses of the native and the OpenAI API, with the caller
    and the times."""
    fleet = await make_fleet("access: {require_key: true}")
    secret = await new_key(fleet, owner="team", name="ci", tier="premium")
    await post(session, fleet, path, body, **bearer(secret))
    (row,) = await recorded(fleet)
    assert (row.caller, row.owner, row.key_name, row.tier) == ("key:1", "team", "ci", "premium")
    assert (row.operation, row.model, row.status) == (operation, MODEL, 200)
    assert row.endpoint in ("gpu-1", "gpu-2")
    assert row.output_tokens == 7
    assert row.prompt_tokens is not None
    assert row.prompt_tokens > 0
    assert not row.estimated
    assert row.first_token_seconds is not None
    assert row.total_seconds is not None
    assert 0 <= row.first_token_seconds <= row.total_seconds


async def test_a_stream_without_counts_is_estimated(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """OpenAI streams have no counts unless the request asks for them."""
    fleet = await make_fleet("access: {}\n")
    await post(session, fleet, "/v1/chat/completions", {**CHAT, "max_tokens": 40, "stream": True})
    (row,) = await recorded(fleet)
    assert row.estimated
    assert row.output_tokens is not None
    assert 30 <= row.output_tokens <= 60
    assert row.prompt_tokens


async def test_a_client_that_hangs_up_is_recorded_with_its_usage(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """This covers a client that hangs up within a stream, and one that waits for a complete
    response."""
    fleet = await make_fleet("access: {}\n")
    stream = {"model": MODEL, "prompt": "x", "options": {"num_predict": 1000}}
    async with session.post(f"{fleet.url}/api/generate", json=stream) as response:
        for _ in range(20):
            await response.content.readline()
        response.close()
    await fleet.check_clean()
    fleet.nodes["gpu-1"].faults.set("hang")
    fleet.nodes["gpu-2"].faults.set("hang")
    whole = asyncio.create_task(post(session, fleet, "/api/chat", {**CHAT, "stream": False}))
    await until(lambda: fleet.app.dispatcher.leases)
    whole.cancel()
    await asyncio.gather(whole, return_exceptions=True)
    await fleet.check_clean()
    left, waited = await recorded(fleet)
    assert (left.failure, waited.failure) == ("client_gone", "client_gone")
    assert left.estimated
    assert waited.estimated
    assert left.output_tokens is not None
    assert left.output_tokens >= 15
    assert waited.prompt_tokens


async def test_rejections_and_lists_are_recorded(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """The caller is identified by its address; a list takes no tokens."""
    fleet = await make_fleet("access: {tiers: {anonymous: {requests_per_minute: 2}}}")
    async with session.get(f"{fleet.url}/api/tags") as response:
        assert response.status == 200
    body = {**CHAT, **SHORT, "stream": False}
    await post(session, fleet, "/api/chat", body)
    async with session.post(f"{fleet.url}/api/chat", json=body) as response:
        assert response.status == 429
    listed, answered, rejected = await recorded(fleet)
    assert {row.caller for row in (listed, answered, rejected)} == {"addr:127.0.0.1"}
    assert {row.tier for row in (listed, answered, rejected)} == {"anonymous"}
    assert (rejected.status, rejected.failure) == (429, "rate_limit_exceeded")
    assert listed.output_tokens is None
    assert not rejected.estimated


async def test_daily_usage_counts_after_a_restart(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """Restarting the router does not renew a daily quota."""
    limits = "access: {tiers: {standard: {tokens_per_day: 500}}}"
    first = await make_fleet(limits)
    secret = await new_key(first)
    body = {"model": MODEL, "prompt": "x", "stream": False, "options": {"num_predict": 400}}
    await post(session, first, "/api/generate", body, **bearer(secret))
    used = sum((row.prompt_tokens or 0) + (row.output_tokens or 0) for row in await recorded(first))
    assert used > 100
    second = await make_fleet(limits)
    url = f"{second.url}/api/generate"
    async with session.post(url, json=body, headers=bearer(secret)) as response:
        assert response.status == 429
        assert response.headers["X-RateLimit-Limit"] == "500"
        assert int(response.headers["X-RateLimit-Remaining"]) == 500 - used
        assert "tokens per day" in (await response.json())["error"]


@pytest.mark.parametrize("extra", ["", MANAGE])
async def test_a_router_without_a_configured_store_creates_no_file(
    extra: str,
    session: aiohttp.ClientSession,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Running the router leaves the user's home directory untouched, even with open operations."""
    monkeypatch.setenv("OLLA_HOME", str(tmp_path / "home"))
    nodes = {"gpu-1": (MODEL,)}
    async with Fleet(nodes, extra) as fleet:
        await post(session, fleet, "/api/chat", {**CHAT, **SHORT})
        assert fleet.app.access.store_service.usage_writer is None
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("enabled", [False, True])
async def test_content_is_stored_only_with_log_content(
    enabled: bool, make_fleet: MakeFleet, session: aiohttp.ClientSession, tmp_path: Any
) -> None:
    """Prompts and responses are in neither store nor log; with `log_content` they are in the
    store."""
    fleet = await make_fleet(f"access: {{log_content: {str(enabled).lower()}}}")
    answer = await post(session, fleet, "/api/chat", {**CHAT, **SHORT, "stream": False})
    (row,) = await recorded(fleet)
    content = await fleet.app.access.store_service.tried(
        lambda store: store.usage.content(row.request_id)
    )
    if enabled:
        assert content is not None
        assert SECRET_TEXT in content[0]
        assert json.loads(content[1]) == json.loads(answer)
    else:
        assert content is None
        files = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
        assert SECRET_TEXT.encode() not in files
    assert SECRET_TEXT not in fleet.log.getvalue()
