"""Attempts to bypass keys and limits fail."""

import asyncio
import sqlite3
from pathlib import Path

import aiohttp
import pytest
from multidict import CIMultiDict

from olla.failures import Failed
from tests.access_control.conftest import MODEL, MakeFleet, bearer, new_key
from tests.access_control.test_limits import GENERATE, post, stopped
from tests.access_control.test_usage import CHAT, recorded

GUARDED = "access: {require_key: true, keys: [{name: ci, key: static-key-of-ci}]}\n"


async def test_an_unauthorized_long_body_takes_no_memory(make_fleet: MakeFleet) -> None:
    """The rejection is sent before the body is read, and nothing is reserved for its announced
    length."""
    fleet = await make_fleet(GUARDED)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(fleet.url.rsplit(":", 1)[1]))
    try:
        head = b"POST /api/generate HTTP/1.1\r\nHost: x\r\nContent-Length: 90000000\r\n\r\n{"
        writer.write(head)
        assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
        assert fleet.app.services.body_budget.taken == 0
    finally:
        writer.close()
        await writer.wait_closed()


async def test_an_authorized_long_body_is_read(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """It is longer than the fast path reads at once."""
    fleet = await make_fleet(GUARDED)
    body = {**GENERATE, "prompt": "x" * 200_000}
    assert (await post(session, fleet, body, **bearer("static-key-of-ci"))).status == 200
    assert fleet.app.services.body_budget.taken == 0


async def test_more_keys_do_not_raise_a_limit(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """Keys of one owner share a limit; keys without an owner are counted separately."""
    fleet = await make_fleet("access: {tiers: {member: {requests_per_minute: 1}}}")
    stopped(fleet.app)
    mine = [await new_key(fleet, number, owner="me", tier="member") for number in (1, 2)]
    assert [(await post(session, fleet, **bearer(key))).status for key in mine] == [200, 429]
    free = [await new_key(fleet, number, tier="member") for number in (3, 4)]
    assert [(await post(session, fleet, **bearer(key))).status for key in free] == [200, 200]


async def test_an_ipv6_address_counts_as_its_network(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """A /64 network counts as one address. Of several X-Forwarded-For fields the last entry
    counts."""
    fleet = await make_fleet("access: {trusted_proxies: [127.0.0.1]}")
    settings = fleet.app.settings
    rates = settings.server.rate_limits.model_copy(update={"per_ip_requests_per_minute": 2})
    server = settings.server.model_copy(update={"rate_limits": rates})
    fleet.app.access.apply(settings.model_copy(update={"server": server}))
    stopped(fleet.app)
    for lines in (
        [f"2001:db8:0:1::{last}" for last in range(3)],
        ["203.0.113.1", "1.2.3.4, 203.0.113.1", "5.6.7.8, 203.0.113.1"],
    ):
        answers = [await post(session, fleet, **{"X-Forwarded-For": line}) for line in lines]
        assert [answer.status for answer in answers] == [200, 200, 429]
    url = f"{fleet.url}/api/generate"
    statuses = []
    for number in range(3):
        twice = [("X-Forwarded-For", f"1.2.3.{number}"), ("X-Forwarded-For", "203.0.113.9")]
        async with session.post(url, json=GENERATE, headers=CIMultiDict(twice)) as response:
            statuses.append(response.status)
    assert statuses == [200, 200, 429]


@pytest.mark.parametrize("required", ["true", "false"])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/olla/management/api-keys", {"name": "x", "operations": ["admin"]}),
        ("GET", "/olla/management/api-keys", None),
        ("POST", "/api/keys?user_id=x", None),
        ("GET", "/api/usage", None),
        ("DELETE", "/api/delete", {"model": MODEL}),
        ("POST", "/api/pull", {"model": MODEL}),
    ],
)
async def test_a_plain_local_proxy_grants_no_rights(
    method: str,
    path: str,
    body: object,
    required: str,
    make_fleet: MakeFleet,
    session: aiohttp.ClientSession,
) -> None:
    """A proxy on the router's machine that adds no header and rewrites `Host`, like the one in
    Ollama's FAQ, sends the same bytes as a local program. Its clients get no additional rights."""
    fleet = await make_fleet(f"access: {{require_key: {required}}}\n")
    async with session.request(method, fleet.url + path, json=body) as response:
        assert response.status == (401 if required == "true" else 403)
    assert await fleet.app.access.store_service.tried(lambda store: store.keys.every()) == []


async def test_generated_tokens_count_whatever_the_announced_maximum(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """A client announces one token, in a field that the endpoint ignores."""
    fleet = await make_fleet("access: {}\n")
    body = {**CHAT, "stream": True, "max_tokens": 60, "max_completion_tokens": 1}
    async with session.post(f"{fleet.url}/v1/chat/completions", json=body) as response:
        events = (await response.text()).count("data: ")
    (row,) = await recorded(fleet)
    assert row.output_tokens is not None
    assert abs(row.output_tokens - events) <= max(5, events // 5)


async def test_the_daily_quota_of_an_address_survives_a_restart(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """This holds as for a key."""
    limits = "access: {tiers: {anonymous: {tokens_per_day: 500}}}"
    body = {"model": MODEL, "prompt": "x", "stream": False, "options": {"num_predict": 400}}
    first = await make_fleet(limits)
    assert (await post(session, first, body)).status == 200
    (row,) = await recorded(first)
    used = (row.prompt_tokens or 0) + (row.output_tokens or 0)
    second = await make_fleet(limits)
    async with session.get(f"{second.url}/api/tags") as response:
        assert int(response.headers["X-RateLimit-Remaining"]) == 500 - used


async def test_a_replaced_store_is_reopened(
    make_fleet: MakeFleet, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """After a backup is restored its keys are valid, and keys that it lacks are not."""
    fleet = await make_fleet("access: {require_key: true}")
    secret = await new_key(fleet)
    assert (await post(session, fleet, **bearer(secret))).status == 200
    store_service = fleet.app.access.store_service
    other = tmp_path / "other"
    other.mkdir()
    second = await make_fleet("access: {}", store=f"sqlite:///{other}/olla.db")
    fresh = await new_key(second, 9)
    await second.app.access.stop()
    for name in ("olla.db-wal", "olla.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (other / "olla.db").replace(tmp_path / "olla.db")
    await store_service.refresh()
    assert (await post(session, fleet, **bearer(fresh))).status == 200
    assert (await post(session, fleet, **bearer(secret))).status == 401
    assert "replaced" in fleet.log.getvalue()


async def test_a_deleted_store_is_reported(
    make_fleet: MakeFleet, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Known keys stay valid, a metric reports the loss, and nothing is written to the deleted
    file."""
    fleet = await make_fleet("access: {require_key: true}")
    secret = await new_key(fleet)
    for path in tmp_path.glob("olla.db*"):
        path.unlink()
    with pytest.raises(Failed, match="store"):
        await fleet.app.access.store_service.refresh()
    assert (await post(session, fleet, **bearer(secret))).status == 200
    assert fleet.app.access.metrics()["olla_store_up"] == 0


@pytest.mark.parametrize("path", ["/api/generate", "/api/tags", "/olla/management/models", "/chat"])
async def test_guessing_keys_is_rate_limited_by_address(
    path: str, make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """Requests with a missing or wrong key count against the anonymous limit. Requests that a key
    has no right to count against the key's limit."""
    fleet = await make_fleet(
        "access: {require_key: true, tiers: {anonymous: {requests_per_minute: 2}, "
        "standard: {requests_per_minute: 3}}}"
    )
    stopped(fleet.app)
    ask = session.get if path in ("/api/tags", "/olla/management/models") else session.post
    statuses = []
    for headers in ({"X-Forwarded-For": "9.9.9.9"}, bearer("oa-wrong"), bearer("oa-other")):
        async with ask(fleet.url + path, headers=headers, data=None) as response:
            statuses.append(response.status)
            assert response.headers["X-RateLimit-Limit"] == "2"
    assert statuses == [401, 401, 429]
    secret = await new_key(fleet, rights=frozenset())
    statuses = []
    for _ in range(4):
        async with ask(fleet.url + path, headers=bearer(secret)) as response:
            statuses.append(response.status)
    assert statuses == [403, 403, 403, 429]


async def test_a_reopened_store_charges_nothing_twice(
    make_fleet: MakeFleet, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """The process has already counted today's usage when the file is reopened."""
    fleet = await make_fleet("access: {tiers: {anonymous: {tokens_per_day: 500}}}")
    body = {"model": MODEL, "prompt": "x", "stream": False, "options": {"num_predict": 100}}
    assert (await post(session, fleet, body)).status == 200
    (row,) = await recorded(fleet)
    used = (row.prompt_tokens or 0) + (row.output_tokens or 0)
    file = tmp_path / "olla.db"
    copy = tmp_path / "copy.db"
    with sqlite3.connect(file) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    source.close()
    target.close()
    for name in ("olla.db-wal", "olla.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    copy.replace(file)
    await fleet.app.access.store_service.refresh()
    assert "replaced" in fleet.log.getvalue()
    async with session.get(f"{fleet.url}/api/tags") as response:
        assert int(response.headers["X-RateLimit-Remaining"]) == 500 - used
