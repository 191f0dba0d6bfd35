"""Rate limits are exact, reported in every response, and cannot be bypassed."""

import asyncio
from typing import Any

import aiohttp
import pytest

from olla.app import App
from tests.access_control.conftest import CALLS, MODEL, MakeFleet, bearer, error_message, new_key
from tests.routers import Fleet
from tests.waiting import until

GENERATE = {"model": MODEL, "prompt": "hi", "stream": False, "options": {"num_predict": 1}}


class StoppedClock:
    """The clock of the router's limits; it moves only when a test sets `at`."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self.at: float | None = None

    def now(self) -> float:
        return self._clock.now() if self.at is None else self.at

    def wall(self) -> float:
        return 1_700_000_000.0 + (self.now() if self.at is not None else 0.0)


def stopped(app: App) -> StoppedClock:
    """Stop the clock of the router's access checks."""
    authenticator = app.access.authenticator
    authenticator.clock = clock = StoppedClock(authenticator.clock)
    clock.at = 1000.0
    return clock


async def post(
    session: aiohttp.ClientSession, fleet: Fleet, body: Any = None, **headers: str
) -> aiohttp.ClientResponse:
    """Send a short request; returns its response, read to the end."""
    url = f"{fleet.url}/api/generate"
    async with session.post(url, json=body or GENERATE, headers=headers) as response:
        await response.read()
        return response


async def test_of_a_thousand_concurrent_requests_exactly_the_burst_passes(
    make_fleet: MakeFleet,
) -> None:
    """At 100 a minute with a burst of 120, 120 of 1,000 pass, and one more after 0.6 s."""
    limits = "access: {categories: {generation: {requests_per_minute: 100, burst: 120}}}"
    fleet = await make_fleet(limits)
    clock = stopped(fleet.app)
    connector = aiohttp.TCPConnector(limit=200)
    async with aiohttp.ClientSession(connector=connector) as session:
        answers = await asyncio.gather(*(post(session, fleet) for _ in range(1000)))
        statuses = [answer.status for answer in answers]
        assert (statuses.count(200), statuses.count(429)) == (120, 880)
        clock.at = 1000.59
        assert (await post(session, fleet)).status == 429
        clock.at = 1000.6
        assert (await post(session, fleet)).status == 200
        assert (await post(session, fleet)).status == 429
    assert fleet.app.dispatcher.leases == 0


@pytest.mark.parametrize("dialect", sorted(CALLS))
async def test_a_limited_caller_gets_the_limit_and_retry_after(
    dialect: str, make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """It is a 429 in the path's dialect, and a request after that time passes."""
    fleet = await make_fleet("access: {tiers: {anonymous: {requests_per_minute: 30, burst: 1}}}")
    clock = stopped(fleet.app)
    path, body = CALLS[dialect]
    async with session.post(fleet.url + path, json=body) as response:
        assert response.status != 429
        assert response.headers["X-RateLimit-Limit"] == "30"
        assert response.headers["X-RateLimit-Remaining"] == "0"
        assert response.headers["X-RateLimit-Reset"] == "2"
    async with session.post(fleet.url + path, json=body) as response:
        assert response.status == 429
        assert response.headers["Retry-After"] == "2"
        assert response.headers["X-RateLimit-Remaining"] == "0"
        message = error_message(dialect, await response.json())
    assert message.startswith("Rate limit exceeded")
    assert "access.tiers.anonymous.requests_per_minute" in message
    clock.at = 1002.0
    async with session.post(fleet.url + path, json=body) as response:
        assert response.status != 429


async def test_every_limited_response_reports_the_remaining_quota(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """This covers streams, lists, invalid requests, unknown models and rejected operations."""
    fleet = await make_fleet(
        "access: {categories: {generation: {requests_per_minute: 60}, "
        "management: {requests_per_minute: 50}, monitoring: {requests_per_minute: 40}}}"
    )
    stopped(fleet.app)
    generation = [
        (200, {**GENERATE, "stream": True}),
        (404, {**GENERATE, "model": "nowhere"}),
        (400, {"prompt": "no model"}),
    ]
    for count, (status, body) in enumerate(generation, 1):
        response = await post(session, fleet, body)
        assert response.status == status
        assert response.headers["X-RateLimit-Limit"] == "60"
        assert response.headers["X-RateLimit-Remaining"] == str(60 - count)
        assert response.headers["X-RateLimit-Reset"] == str(count)
    for path, limit in (("/api/tags", "50"), ("/v1/models", "50"), ("/api/ps", "40")):
        async with session.get(fleet.url + path) as response:
            assert response.headers["X-RateLimit-Limit"] == limit
    for path in ("/metrics", "/internal/status"):
        async with session.get(fleet.url + path) as response:
            assert response.headers["X-RateLimit-Limit"] == "40"
    async with session.post(f"{fleet.url}/api/pull", json={"model": "x"}) as response:
        assert response.headers["X-RateLimit-Limit"] == "50"


async def test_callers_do_not_share_a_quota(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """This covers two keys, and client addresses that a trusted proxy reports."""
    fleet = await make_fleet(
        "access: {trusted_proxies: [127.0.0.1], tiers: {standard: {requests_per_minute: 1}, "
        "anonymous: {requests_per_minute: 1}}}"
    )
    stopped(fleet.app)
    one, two = await new_key(fleet, 1), await new_key(fleet, 2)
    for headers in (
        bearer(one),
        bearer(two),
        {"X-Forwarded-For": "203.0.113.1"},
        {"X-Forwarded-For": "203.0.113.2"},
        {"X-Forwarded-For": "203.0.113.2, 203.0.113.3"},
    ):
        assert (await post(session, fleet, **headers)).status == 200
        assert (await post(session, fleet, **headers)).status == 429


async def test_global_limits_count_all_callers(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """A per-address limit counts all keys that the address uses."""
    fleet = await make_fleet("access: {}", nodes={"gpu-1": (MODEL,)})
    keys = [await new_key(fleet, number) for number in range(3)]
    settings = fleet.app.settings
    limits = {"per_ip_requests_per_minute": 2}
    rates = settings.server.rate_limits.model_copy(update=limits)
    server = settings.server.model_copy(update={"rate_limits": rates})
    fleet.app.access.apply(settings.model_copy(update={"server": server}))
    stopped(fleet.app)
    answers = [await post(session, fleet, **bearer(key)) for key in keys]
    assert [answer.status for answer in answers] == [200, 200, 429]


async def test_a_shadow_limit_counts_and_rejects_nothing(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """The metric counts the requests that it would have rejected."""
    fleet = await make_fleet("access: {tiers: {anonymous: {requests_per_minute: 1, shadow: true}}}")
    stopped(fleet.app)
    for _ in range(3):
        assert (await post(session, fleet)).status == 200
    async with session.get(f"{fleet.url}/metrics") as response:
        text = await response.text()
    name = 'limit="access.tiers.anonymous.requests_per_minute",outcome="passed"'
    assert f"olla_limits_exceeded_total{{{name}}} 2.0" in text


async def test_concurrent_requests_are_limited_and_released(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """Clients that hang up release their place too."""
    fleet = await make_fleet(
        "access: {tiers: {anonymous: {concurrent: 2}}}", tokens_per_second=1e-3
    )
    slow = {**GENERATE, "options": {"num_predict": 100}}
    running = [asyncio.create_task(post(session, fleet, slow)) for _ in range(2)]
    await until(lambda: fleet.app.dispatcher.leases == 2)
    rejected = await post(session, fleet)
    assert (rejected.status, rejected.headers["X-RateLimit-Limit"]) == (429, "2")
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await fleet.settled()
    third = asyncio.create_task(post(session, fleet, slow))
    await until(lambda: third.done() or fleet.app.dispatcher.leases)
    assert not third.done()
    third.cancel()
    await asyncio.gather(third, return_exceptions=True)
    await fleet.check_clean()


async def test_tokens_are_reserved_for_concurrent_requests(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """Two responses of 400 tokens exceed a limit of 600, in whichever order they run. Unused tokens
    are refunded."""
    fleet = await make_fleet("access: {tiers: {anonymous: {tokens_per_minute: 600}}}")
    stopped(fleet.app)
    body = {**GENERATE, "options": {"num_predict": 400}}
    answers = await asyncio.gather(*(post(session, fleet, body) for _ in range(3)))
    assert sorted(answer.status for answer in answers) == [200, 429, 429]
    await fleet.settled()
    used = _used(fleet)
    assert 0 < used < 600
    small = {**GENERATE, "options": {"num_predict": max(600 - used - 10, 1)}}
    assert (await post(session, fleet, small)).status == 200


def _used(fleet: Fleet) -> int:
    """Return the tokens that were charged to the only caller."""
    limiter = fleet.app.access.authenticator.limiter
    (meter,) = [meter for key, meter in limiter._meters.items() if "tokens_per_minute" in key]
    clock = fleet.app.access.authenticator.clock
    return 600 - meter.left(clock.now(), clock.wall())


async def test_hanging_up_early_does_not_bypass_a_token_limit(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """The tokens generated so far are charged, although the endpoint reported no count."""
    fleet = await make_fleet("access: {tiers: {anonymous: {tokens_per_minute: 600}}}")
    stopped(fleet.app)
    body = {**GENERATE, "stream": True, "options": {"num_predict": 500}}
    async with session.post(f"{fleet.url}/api/generate", json=body) as response:
        for _ in range(20):
            assert await response.content.readline()
        response.close()
    await fleet.settled()
    await fleet.check_clean()
    assert 20 <= _used(fleet) <= 600


@pytest.mark.parametrize("limit", ["tokens_per_day: 500", "tokens_per_minute: 500"])
async def test_a_rejection_for_reserved_tokens_explains_the_reservation(
    make_fleet: MakeFleet, session: aiohttp.ClientSession, limit: str
) -> None:
    """The error says how many tokens the request reserves, how many are left and which option to
    set; a request with that option is served."""
    fleet = await make_fleet(f"access: {{tiers: {{anonymous: {{{limit}}}}}}}")
    stopped(fleet.app)
    spent = {**GENERATE, "options": {"num_predict": 180}}
    assert (await post(session, fleet, spent)).status == 200
    await fleet.settled()
    url = f"{fleet.url}/api/generate"
    unlimited = {**GENERATE, "options": {}}
    async with session.post(url, json=unlimited) as response:
        left = response.headers["X-RateLimit-Remaining"]
        message = (await response.json())["error"]
    assert response.status == 429
    assert "this request reserves 500 tokens" in message
    assert "1024 if it sets no maximum" in message
    assert f"only {left} are left" in message
    assert "Lower num_predict" in message
    modest = {**GENERATE, "options": {"num_predict": 50}}
    assert (await post(session, fleet, modest)).status == 200
