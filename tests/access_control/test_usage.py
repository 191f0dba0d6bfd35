"""Usage: every request, who asked and what it took; never what was said."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from olla.store.usage import UsageRow
from tests.access_control.conftest import MODEL, MakeFleet, bearer, new_key
from tests.routers import MANAGE, Fleet

SECRET_WORDS = "a phrase that nobody should ever find"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": SECRET_WORDS}]}
SHORT = {"options": {"num_predict": 7}}


async def recorded(fleet: Fleet) -> list[UsageRow]:
    """What is in the store, oldest first."""
    await fleet.settled()
    store_service = fleet.app.access.store_service
    assert store_service.usage_writer is not None
    await store_service.usage_writer.flush()
    return list(reversed(await store_service.tried(lambda store: store.usage.recent(1000))))


async def post(
    session: aiohttp.ClientSession, fleet: Fleet, path: str, body: Any, **headers: str
) -> bytes:
    """The whole answer to a request that is served."""
    async with session.post(fleet.url + path, json=body, headers=headers) as response:
        assert response.status == 200
        return await response.read()


@pytest.mark.parametrize(
    ("path", "body", "operation"),
    [
        ("/api/chat", {**CHAT, **SHORT, "stream": False}, "chat"),
        ("/api/chat", {**CHAT, **SHORT}, "chat"),
        ("/api/generate", {"model": MODEL, "prompt": SECRET_WORDS, **SHORT}, "generate"),
        ("/v1/chat/completions", {**CHAT, "max_tokens": 7}, "chat"),
        (
            "/v1/chat/completions",
            {**CHAT, "max_tokens": 7, "stream": True, "stream_options": {"include_usage": True}},
            "chat",
        ),
    ],
)
async def test_the_endpoints_counts_are_recorded(
    path: str,
    body: dict[str, Any],
    operation: str,
    make_fleet: MakeFleet,
    session: aiohttp.ClientSession,
) -> None:
    """Whole and streamed, natively and through the OpenAI API, with who asked and how long."""
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


async def test_a_stream_without_counts_is_counted_and_marked(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """OpenAI's streams carry none unless they are asked for."""
    fleet = await make_fleet("access: {}\n")
    await post(session, fleet, "/v1/chat/completions", {**CHAT, "max_tokens": 40, "stream": True})
    (row,) = await recorded(fleet)
    assert row.estimated
    assert row.output_tokens is not None
    assert 30 <= row.output_tokens <= 60
    assert row.prompt_tokens


async def test_who_leaves_is_recorded_with_what_it_took(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """In the middle of a stream, and while a whole answer is being made."""
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
    while not fleet.app.dispatcher.leases:
        await asyncio.sleep(0)
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


async def test_refusals_and_lists_are_recorded_too(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """Whoever asked is known by its address; and a list takes no tokens."""
    fleet = await make_fleet("access: {tiers: {anonymous: {requests_per_minute: 2}}}")
    async with session.get(f"{fleet.url}/api/tags") as response:
        assert response.status == 200
    body = {**CHAT, **SHORT, "stream": False}
    await post(session, fleet, "/api/chat", body)
    async with session.post(f"{fleet.url}/api/chat", json=body) as response:
        assert response.status == 429
    listed, answered, refused = await recorded(fleet)
    assert {row.caller for row in (listed, answered, refused)} == {"addr:127.0.0.1"}
    assert {row.tier for row in (listed, answered, refused)} == {"anonymous"}
    assert (refused.status, refused.failure) == (429, "rate_limit_exceeded")
    assert listed.output_tokens is None
    assert not refused.estimated


async def test_what_was_used_today_counts_after_a_restart(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """A daily budget is not renewed by starting the router anew."""
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
async def test_a_router_without_a_store_records_nothing_until_one_is_needed(
    extra: str,
    session: aiohttp.ClientSession,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No file is made in anybody's home by running the router, whatever is open without a key."""
    monkeypatch.setenv("OLLA_HOME", str(tmp_path / "home"))
    nodes = {"gpu-1": (MODEL,)}
    async with Fleet(nodes, extra) as fleet:
        await post(session, fleet, "/api/chat", {**CHAT, **SHORT})
        assert fleet.app.access.store_service.usage_writer is None
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("keep", [False, True])
async def test_what_was_said_is_kept_only_when_the_operator_wants_it(
    keep: bool, make_fleet: MakeFleet, session: aiohttp.ClientSession, tmp_path: Any
) -> None:
    """Neither in the store nor in the log, unless log_content is on; then in the store."""
    fleet = await make_fleet(f"access: {{log_content: {str(keep).lower()}}}")
    answer = await post(session, fleet, "/api/chat", {**CHAT, **SHORT, "stream": False})
    (row,) = await recorded(fleet)
    content = await fleet.app.access.store_service.tried(
        lambda store: store.usage.content(row.request_id)
    )
    if keep:
        assert content is not None
        assert SECRET_WORDS in content[0]
        assert json.loads(content[1]) == json.loads(answer)
    else:
        assert content is None
        files = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
        assert SECRET_WORDS.encode() not in files
    assert SECRET_WORDS not in fleet.log.getvalue()
