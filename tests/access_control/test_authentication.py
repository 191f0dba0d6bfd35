"""Authentication with keys: accepted requests, and rejections in the dialect of the path."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from olla.dialects.dialect import Right
from olla.settings import parse
from olla.settings.access import Access
from tests.access_control.conftest import (
    CALLS,
    MODEL,
    OTHER,
    MakeFleet,
    bearer,
    error_message,
    new_key,
)
from tests.access_control.test_usage import recorded
from tests.routers import settings_text

GUARDED = """
access:
  require_key: true
  keys: [{name: ci, key: static-key-of-ci, owner: team}]
"""
DIALECTS = sorted(CALLS)


async def ask(
    session: aiohttp.ClientSession, url: str, dialect: str, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """Send a short request; returns the status, the JSON body and the headers of the response."""
    path, body = CALLS[dialect]
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with session.post(url + path, json=body, headers=named) as response:
        return response.status, await response.json(), dict(response.headers)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_key_is_accepted_and_its_absence_reported(
    dialect: str, make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """Static and stored keys are accepted as a bearer token or in X-API-Key."""
    fleet = await make_fleet(GUARDED)
    secret = await new_key(fleet)
    for headers in (
        {"Authorization": "Bearer static-key-of-ci"},
        {"X_API_Key": "static-key-of-ci"},
        {"Authorization": f"bearer {secret}"},
        {"x_api_key": secret},
        {"Authorization": "Bearer something-for-others", "X_API_Key": secret},
    ):
        status, _, _ = await ask(session, fleet.url, dialect, **headers)
        assert status == (404 if dialect == "anthropic" and status == 404 else 200)
    status, body, headers = await ask(session, fleet.url, dialect)
    assert status == 401
    assert "Authorization: Bearer" in error_message(dialect, body)
    assert headers["x-should-retry"] == "false"


async def test_of_two_keys_the_valid_one_is_used(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """This holds in either field. Without a valid key, an invalid olla key is rejected."""
    fleet, other = await make_fleet(), await make_fleet()
    good = await new_key(fleet, 1)
    revoked, expired = await new_key(fleet, 2), await new_key(fleet, 3, expires=10.0)
    await fleet.app.access.store_service.revoke("2")
    for first, second, status in (
        (good, revoked, 200),
        (revoked, good, 200),
        (expired, good, 200),
        ("sk-anything", good, 200),
        (revoked, expired, 401),
        ("sk-anything", revoked, 401),
        ("sk-anything", "oa-unknown-key", 401),
        ("sk-anything", "sk-other", 200),
    ):
        shown = {"X_API_Key": second, **bearer(first)}
        assert (await ask(session, fleet.url, "native", **shown))[0] == status, (first, second)
    new = await new_key(other, 4)  # which the first router has not read yet
    shown = {"X_API_Key": new, **bearer("sk-anything")}
    assert (await ask(session, fleet.url, "native", **shown))[0] == 200
    assert [row.key_name for row in await recorded(fleet)][-1] == "key-4"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("shown", ["oa-unknown-key", "static-key-of-cI", "x" * 4000, "ÿ"])
async def test_an_unknown_key_is_rejected(
    dialect: str, shown: str, make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """It is never repeated in the response or the log."""
    fleet = await make_fleet(GUARDED)
    status, body, _ = await ask(session, fleet.url, dialect, Authorization=f"Bearer {shown}")
    assert status == 401
    assert error_message(dialect, body).startswith("Invalid API key provided")
    assert shown not in str(body)
    assert shown not in fleet.log.getvalue()


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_revoked_key_is_rejected_at_once(
    dialect: str, make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """The next request is rejected, on an open connection too."""
    fleet = await make_fleet(GUARDED)
    secret = await new_key(fleet)
    assert (await ask(session, fleet.url, "native", **bearer(secret)))[0] == 200
    await fleet.app.access.store_service.revoke("1")
    status, body, _ = await ask(session, fleet.url, dialect, **bearer(secret))
    assert status == 401
    assert "revoked" in error_message(dialect, body)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_expired_key_is_rejected(
    dialect: str, make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """The key expired in 1970."""
    fleet = await make_fleet(GUARDED)
    secret = await new_key(fleet, expires=10.0)
    status, body, _ = await ask(session, fleet.url, dialect, **bearer(secret))
    assert status == 401
    assert "expired" in error_message(dialect, body)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_key_without_the_right_is_rejected(
    dialect: str, make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """The error lists the key's rights."""
    fleet = await make_fleet(GUARDED)
    secret = await new_key(fleet, rights=frozenset({Right.LIST}))
    status, body, _ = await ask(session, fleet.url, dialect, **bearer(secret))
    assert status == 403
    assert "it may list" in error_message(dialect, body)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_key_for_other_models_is_rejected(
    dialect: str, make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """A key for this model is accepted."""
    fleet = await make_fleet(GUARDED)
    other, this = (
        await new_key(fleet, 1, models=("mis*",)),
        await new_key(fleet, 2, models=(MODEL,)),
    )
    status, body, _ = await ask(session, fleet.url, dialect, **bearer(other))
    assert status == 403
    assert "mis*" in error_message(dialect, body)
    status, _, _ = await ask(session, fleet.url, dialect, **bearer(this))
    assert status != 403


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("copy", {"source": MODEL, "destination": "llama3.2:mine"}, 200),
        ("copy", {"source": MODEL, "destination": "mistral"}, 403),
        ("copy", {"source": OTHER, "destination": "llama3.2:mine"}, 403),
        ("show", {"model": OTHER}, 403),
        ("create", {"model": "llama3.2:mine", "from": MODEL, "stream": False}, 200),
        ("create", {"model": "llama3.2:mine", "from": OTHER}, 403),
        ("create", {"model": "llama3.2:mine", "name": OTHER}, 403),
        ("create", {"model": OTHER, "from": MODEL}, 403),
        ("create", {"model": "llama3.2:mine", "From": OTHER}, 400),
    ],
)
async def test_a_key_for_some_models_creates_no_others(
    path: str, body: Any, status: int, make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """It neither copies nor creates other models, nor reads from them."""
    fleet = await make_fleet(GUARDED)
    secret = await new_key(fleet, rights=frozenset(Right), models=("llama3.2*",))
    url = f"{fleet.url}/api/{path}"
    async with session.post(url, json=body, headers=bearer(secret)) as response:
        assert response.status == status, await response.text()


async def test_a_key_for_some_endpoints_uses_no_others(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """This holds under load; models that only other endpoints have are unknown to it."""
    fleet = await make_fleet(GUARDED)
    secret = await new_key(fleet, endpoints=("gpu-2",))
    url, body = f"{fleet.url}/api/generate", {"model": MODEL, "prompt": "x", "stream": False}

    async def where() -> str:
        async with session.post(url, json=body, headers=bearer(secret)) as response:
            assert response.status == 200
            return response.headers["X-Olla-Endpoint"]

    assert set(await asyncio.gather(*(where() for _ in range(8)))) == {"gpu-2"}
    elsewhere = {**body, "model": OTHER}
    async with session.post(url, json=elsewhere, headers=bearer(secret)) as response:
        assert response.status == 404


async def test_management_needs_a_key_with_the_right(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """This holds wherever keys are required, for local callers too; pinning an endpoint needs the
    admin right."""
    fleet = await make_fleet(GUARDED)
    managing = await new_key(fleet, rights=frozenset({Right.MANAGE}))
    copy = {"source": MODEL, "destination": "mine"}
    for headers, status in (({}, 401), (bearer("static-key-of-ci"), 403), (bearer(managing), 200)):
        async with session.post(f"{fleet.url}/api/copy", json=copy, headers=headers) as response:
            assert response.status == status
    admin = await new_key(fleet, 2, rights=frozenset(Right))
    for secret, status in ((managing, 403), (admin, 200)):
        pinned = {**bearer(secret), "X-Olla-Endpoint": "gpu-2"}
        async with session.post(f"{fleet.url}/api/copy", json=copy, headers=pinned) as response:
            assert response.status == status


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/api/tags", "/api/ps", "/v1/models", "/olla/models", "/olla/openapi.json"),
        *("/internal/status", "/internal/process", "/metrics", "/api/status"),
    ],
)
async def test_lists_and_status_pages_need_a_key(
    path: str, make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """This holds wherever keys are required, for local callers too; health checks need none."""
    fleet = await make_fleet(GUARDED)
    for headers, status in (({}, 401), (bearer("static-key-of-ci"), 200)):
        async with session.get(fleet.url + path, headers=headers) as response:
            assert response.status == status
    for always in ("/internal/health", "/internal/ready", "/version"):
        async with session.get(fleet.url + always) as response:
            assert response.status == 200


async def test_anonymous_operations_are_those_of_the_setting(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """An empty setting allows nothing, and new settings apply to callers that are already known."""
    copy = {"source": MODEL, "destination": "mine"}

    async def statuses() -> list[int]:
        received = []
        for method, path, body in (
            ("GET", "/api/tags", None),
            ("GET", "/metrics", None),
            ("POST", *CALLS["native"]),
            ("POST", "/api/copy", copy),
        ):
            async with session.request(method, fleet.url + path, json=body) as response:
                received.append(response.status)
        return received

    fleet = await make_fleet()
    assert await statuses() == [200, 200, 200, 403]
    for operations, expected in (
        ([], [403] * 4),
        (["list"], [200, 200, 403, 403]),
        (["manage"], [403, 403, 403, 200]),
        (["generate", "embed", "list", "manage"], [200] * 4),
    ):
        access = Access(anonymous_operations=operations)
        fleet.app.access.apply(fleet.app.settings.model_copy(update={"access": access}))
        assert await statuses() == expected, operations


async def test_an_open_router_accepts_foreign_keys(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """SDKs must send a key; one with olla's prefix must be valid."""
    fleet = await make_fleet()
    assert (await ask(session, fleet.url, "openai", **bearer("sk-anything")))[0] == 200
    assert (await ask(session, fleet.url, "openai", **bearer("oa-unknown-key")))[0] == 401
    secret = await new_key(fleet)
    assert (await ask(session, fleet.url, "openai", **bearer(secret)))[0] == 200


async def test_a_key_created_by_another_process_works_at_once(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """Unknown keys are looked up in the store, also for many concurrent requests."""
    first, second = await make_fleet(GUARDED), await make_fleet(GUARDED)
    secret = await new_key(first)
    requests = [ask(session, second.url, "native", **bearer(secret)) for _ in range(20)]
    assert {status for status, _, _ in await asyncio.gather(*requests)} == {200}


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_without_the_store_known_keys_work_and_others_get_503(
    dialect: str, make_fleet: MakeFleet, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """The 503 has Retry-After. It is not a 401, since the key may be valid."""
    (tmp_path / "a file").write_text("no folder")
    fleet = await make_fleet(GUARDED, store=f"sqlite:///{tmp_path}/a file/olla.db")
    status, _, _ = await ask(session, fleet.url, "native", **bearer("static-key-of-ci"))
    assert status == 200
    status, body, headers = await ask(session, fleet.url, dialect, **bearer("oa-perhaps-good"))
    assert status == 503
    assert "store" in error_message(dialect, body)
    assert int(headers["Retry-After"]) >= 1
    assert "store unavailable" in fleet.log.getvalue()


async def test_a_key_is_valid_as_long_as_the_key_that_created_it(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """Removing a configured key, or changing its secret, revokes the keys that it created. Keys
    created without a key are revoked once `open_keys` is turned off."""
    keys = "access: {{keys: [{{name: root, key: {}, operations: [admin]}}]}}\n"
    settings = keys.format("the-first-secret") + "surfaces: {chat: {open_keys: true}}\n"
    fleet = await make_fleet(settings)
    url = f"{fleet.url}/api/keys?user_id="
    async with session.post(url + "a", headers=bearer("the-first-secret")) as response:
        by_root = (await response.json())["key"]
    async with session.post(url + "b") as response:
        openly = (await response.json())["key"]
    urls = {name: node.url for name, node in fleet.nodes.items()}

    async def statuses(extra: str) -> list[int]:
        await fleet.app.reload(parse(settings_text(urls, fleet.extra.replace(settings, extra)), {}))
        return [
            (await ask(session, fleet.url, "native", **bearer(key)))[0] for key in (by_root, openly)
        ]

    assert await statuses(settings) == [200, 200]
    assert await statuses(settings.replace("first", "next")) == [401, 200]
    assert await statuses(keys.format("the-first-secret")) == [200, 401]
    assert await statuses("surfaces: {chat: {open_keys: true}}\n") == [401, 200]


async def test_a_key_of_a_removed_tier_is_rejected(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """It would have no limits; it is valid again once the tier is defined again."""
    tiers = "access: {tiers: {gold: {requests_per_minute: 100}}}\n"
    fleet = await make_fleet(tiers)
    secret = await new_key(fleet, tier="gold")
    urls = {name: node.url for name, node in fleet.nodes.items()}
    for extra, status in ((tiers, 200), ("access: {}\n", 403), (tiers, 200)):
        await fleet.app.reload(parse(settings_text(urls, fleet.extra.replace(tiers, extra)), {}))
        found, body, _ = await ask(session, fleet.url, "native", **bearer(secret))
        assert found == status
        assert found == 200 or "access.tiers.gold" in error_message("native", body)
