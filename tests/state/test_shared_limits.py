"""Limits hold for all routers together; without Redis, for each by itself."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

import pytest

from olla.access.limit import Limit, LimitKind
from olla.access.limiter import Charge
from tests.redis_server import RedisServer
from tests.state.sharing import CONCURRENT, DAILY, REQUESTS, TOKENS, Router, until

Made = Callable[..., Awaitable[Router]]
STILL = {"time": lambda: (1_800_000_000, 250_000)}
"""A server's clock that stands."""


async def test_three_routers_let_through_what_one_would(router: Made) -> None:
    """1,000 requests at one moment against 100 a minute with a burst of 120: exactly 120; the
    others are told to come after 0.6 s."""
    routers = [await router(**STILL) for _ in range(3)]
    charges = await asyncio.gather(
        *(
            each.shared.charge(each.account(REQUESTS), 1)
            for each in (routers[i % 3] for i in range(1000))
        )
    )
    assert sum(charge.held for charge in charges) == 120
    refused = [charge for charge in charges if not charge.held]
    assert all(charge.retry_after == pytest.approx(0.6) for charge in refused)
    assert all(charge.refused is not None for charge in refused)
    assert all(each.shared.fallbacks == 0 for each in routers)


async def test_by_the_clock_of_redis_no_more_get_through(router: Made) -> None:
    """A burst, and one for each 0.6 s that passed meanwhile."""
    one, other = await router(), await router()
    began = monotonic()
    charges = await asyncio.gather(
        *(each.shared.charge(each.account(REQUESTS), 1) for each in [one, other] * 200)
    )
    passed = monotonic() - began
    assert 120 <= sum(charge.held for charge in charges) <= 120 + passed / 0.6


async def test_what_one_limit_refuses_costs_nothing_with_the_others(router: Made) -> None:
    """All or nothing, for all kinds."""
    one = await router(**STILL)
    limits = (REQUESTS, TOKENS, DAILY, CONCURRENT)
    account = one.account(*limits)
    for _ in range(4):
        assert (await one.shared.charge(account, 10)).held
    refused = await one.shared.charge(account, 10)
    assert refused.refused is not None
    assert refused.refused.kind is LimitKind.CONCURRENT
    assert refused.retry_after == 1.0
    now, wall = one.clock.now(), one.clock.wall()
    left = [meter.left(now, wall) for meter in account.meters]
    assert left == [116, 960, left[2], 0]
    assert account.meters[2].level == 40


async def test_a_shadow_counts_and_refuses_nothing(router: Made) -> None:
    """What it would have refused is told, and not counted."""
    one = await router(**STILL)
    shadow = Limit("tiers.t", LimitKind.REQUESTS, 60, 2, shadow=True)
    account = one.account(shadow)
    charges = [await one.shared.charge(account, 1) for _ in range(4)]
    assert all(charge.held for charge in charges)
    assert [len(charge.exceeded) for charge in charges] == [0, 0, 1, 1]


async def test_tokens_are_reserved_and_settled_for_all_routers(router: Made) -> None:
    """What one has reserved another cannot use, until it is given back."""
    one, other = await router(**STILL), await router(**STILL)
    day = Limit("tiers.t", LimitKind.DAILY, 2000)
    there, here = one.account(TOKENS, day), other.account(TOKENS, day)
    charge = await one.shared.charge(there, 900)
    assert not (await other.shared.charge(here, 200)).held
    one.shared.settle(charge, 100)
    one.shared.settle(charge, 0)
    assert (await one.shared.charge(there, 0)).held  # answers come in order: the settlement is done
    again = await other.shared.charge(here, 900)
    assert again.held
    assert here.meters[0].left(other.clock.now(), 0.0) == 0
    other.shared.settle(again, 950)
    assert (await other.shared.charge(here, 0)).refused is here.meters[0]
    assert here.meters[1].level == 1050


async def test_a_charge_is_corrected_for_all_routers(router: Made) -> None:
    """In one step: another router sees the first estimate or the second, not both, and keeps its
    place; what does not fit any more leaves nothing."""
    one, other = await router(**STILL), await router(**STILL)
    limit = Limit("tiers.t", LimitKind.CONCURRENT, 1)
    limits = (REQUESTS, TOKENS, DAILY, limit)
    there, here = one.account(*limits), other.account(*limits)
    charge = await one.shared.charge(there, 900)
    again = await one.shared.recharge(charge, 100)
    assert (charge.held, again.held, again.shared) == (False, True, True)
    assert (await other.shared.charge(here, 0)).refused is here.meters[3]
    assert [meter.left(other.clock.now(), 0.0) for meter in here.meters[:2]] == [119, 900]
    assert here.meters[2].level == 100
    second = await other.shared.charge(other.account(TOKENS), 500)
    assert second.held
    refused = await one.shared.recharge(again, 600)
    assert refused.refused is there.meters[1]
    assert (await other.shared.charge(here, 500)).held
    assert here.meters[0].left(other.clock.now(), 0.0) == 119


async def test_a_correction_without_redis_counts_here(router: Made, redis: RedisServer) -> None:
    """As everything does then; one that was charged here alone is told to nobody afterwards."""
    one = await router(timeout=0.3)
    account = one.account(REQUESTS, CONCURRENT)
    charge = await one.shared.charge(account, 1)
    redis.stop()
    await until(lambda: not one.shared.up)
    again = await one.shared.recharge(charge, 2)
    assert (again.held, again.shared) == (True, False)
    assert [meter.held for meter in account.meters] == [1, 1]
    redis.restart()
    await until(lambda: one.shared.up)
    third = await one.shared.recharge(again, 3)
    assert (third.held, third.shared) == (True, True)
    one.shared.settle(third, 1)
    assert [meter.held for meter in account.meters] == [0, 0]


async def test_headers_tell_what_all_have_used(router: Made) -> None:
    """The level of the local meters is the shared one."""
    one, other = await router(**STILL), await router(**STILL)
    for _ in range(10):
        await one.shared.charge(one.account(REQUESTS), 1)
    account = other.account(REQUESTS)
    await other.shared.charge(account, 1)
    assert account.meters[0].left(other.clock.now(), 0.0) == 109
    assert account.meters[0].reset(other.clock.now(), 0.0) == pytest.approx(11 * 0.6, abs=0.1)


async def test_requests_at_a_time_are_counted_over_all_routers(router: Made) -> None:
    """Never more than the limit, and what has ended makes room."""
    one, other = await router(), await router()
    charges = await asyncio.gather(
        *(each.shared.charge(each.account(CONCURRENT), 1) for each in [one, other] * 4)
    )
    held = [charge for charge in charges if charge.held]
    assert len(held) == 4
    for each in (one, other):
        for charge in held:
            if charge.account is each.account(CONCURRENT):
                each.shared.settle(charge, 1)
    for each in (one, other):  # what was settled is told before what is asked next
        await each.shared.charge(each.account(REQUESTS), 1)
    assert (await other.shared.charge(other.account(CONCURRENT), 1)).held
    assert other.account(CONCURRENT).meters[0].level == 0


async def test_places_of_a_dead_router_come_back_and_those_of_a_live_one_stay(
    router: Made,
) -> None:
    """A lease ends with nobody to renew it."""
    dead, live = await router(lease=0.3), await router(lease=0.3)
    limit = Limit("tiers.t", LimitKind.CONCURRENT, 2)
    assert (await dead.shared.charge(dead.account(limit), 1)).held
    kept = await live.shared.charge(live.account(limit), 1)
    assert kept.held
    assert not (await live.shared.charge(live.account(limit), 1)).held
    await dead.shared.stop()
    taken: list[Charge] = []
    async with asyncio.timeout(10):
        while not taken or not taken[-1].held:
            taken.append(await live.shared.charge(live.account(limit), 1))
    began = monotonic()
    while monotonic() < began + 0.7:  # more than two leases
        assert not (await live.shared.charge(live.account(limit), 1)).held


async def test_who_leaves_while_redis_is_asked_has_charged_nothing(
    router: Made, redis: RedisServer
) -> None:
    """Its tokens and its place are given back when the answer comes."""
    one = await router(timeout=10.0, **STILL)
    account = one.account(TOKENS, CONCURRENT)
    redis.freeze()
    asking = asyncio.ensure_future(one.shared.charge(account, 900))
    await asyncio.sleep(0)  # it has asked, and waits
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    redis.thaw()
    charge = await one.shared.charge(account, 0)
    assert charge.held
    charge = await one.shared.charge(account, 1000)
    assert charge.held
    assert [meter.held for meter in account.meters] == [2, 2]


@pytest.mark.parametrize("trouble", ["stop", "freeze"])
async def test_without_redis_this_router_decides_by_itself(
    router: Made, redis: RedisServer, trouble: str
) -> None:
    """One time-out at most, then none; from the level that was shared; told once; and back by
    itself."""
    one = await router(timeout=0.3)
    account = one.account(REQUESTS, CONCURRENT)
    for _ in range(2):
        assert (await one.shared.charge(account, 1)).held
    getattr(redis, trouble)()
    began = monotonic()
    charges = [await one.shared.charge(account, 1) for _ in range(50)]
    assert monotonic() - began < 0.3 + 0.5
    assert [charge.held for charge in charges] == [True] * 2 + [False] * 48
    assert all(not charge.shared for charge in charges)
    assert not one.shared.up
    assert one.shared.fallbacks == 50
    assert account.meters[0].left(one.clock.now(), 0.0) <= 117
    for charge in charges:
        one.shared.settle(charge, 1)
    redis.restart()
    await until(lambda: one.shared.up)
    charge = await one.shared.charge(account, 1)
    assert charge.shared
    assert one.shared.fallbacks == 50
    assert [entry["log_level"] for entry in one.log] == ["warning", "info"]


async def test_a_redis_that_stays_away_is_asked_by_no_request(
    router: Made, redis: RedisServer
) -> None:
    """It is tried in the background, again and again, and said to be away once."""
    one = await router(timeout=0.2, pause=0.01)
    redis.freeze()
    account = one.account(REQUESTS)
    await one.shared.charge(account, 1)
    longest = 0.0
    began = monotonic()
    while monotonic() < began + 1.5:
        asked = monotonic()
        await one.shared.charge(account, 1)
        longest = max(longest, monotonic() - asked)
        await asyncio.sleep(0)
    assert longest < 0.15
    assert len(one.log) == 1


async def test_all_who_wait_are_let_go_by_one_time_out(router: Made, redis: RedisServer) -> None:
    """Nobody waits for his own."""
    one = await router(timeout=0.3)
    account = one.account(REQUESTS)
    redis.freeze()
    began = monotonic()
    charges = await asyncio.gather(*(one.shared.charge(account, 1) for _ in range(200)))
    assert monotonic() - began < 0.8
    assert sum(charge.held for charge in charges) in (120, 121)


async def test_a_router_starts_without_redis(router: Made, redis: RedisServer) -> None:
    """And uses it when it is there."""
    redis.stop()
    one = await router()
    assert not one.shared.up
    assert (await one.shared.charge(one.account(REQUESTS), 1)).held
    redis.restart()
    await until(lambda: one.shared.up)
    assert (await one.shared.charge(one.account(REQUESTS), 1)).shared


@pytest.mark.parametrize("command", [("SCRIPT", "FLUSH"), ("FLUSHALL",)])
async def test_a_redis_that_was_emptied_is_used_on(
    router: Made, redis: RedisServer, command: tuple[str, ...]
) -> None:
    """Scripts are given again when they are missing, many at once too."""
    one = await router(**STILL)
    account = one.account(REQUESTS, CONCURRENT)
    charge = await one.shared.charge(account, 1)
    redis.ask(*command)
    one.shared.settle(charge, 1)
    charges = await asyncio.gather(*(one.shared.charge(account, 1) for _ in range(20)))
    assert sum(charge.held for charge in charges) == 4
    assert one.shared.fallbacks == 0


async def test_a_restarted_redis_learns_who_is_under_way_and_what_a_day_has_used(
    router: Made, redis: RedisServer
) -> None:
    """Places and daily budgets do not begin anew with it."""
    one = await router()
    account = one.account(CONCURRENT, DAILY)
    for _ in range(4):
        assert (await one.shared.charge(account, 200)).held
    redis.stop()
    await until(lambda: not one.shared.up)
    redis.restart()
    await until(lambda: one.shared.up)
    refused = await one.shared.charge(account, 100)
    assert refused.refused is account.meters[0]
    assert not refused.exceeded
    daily = one.account(DAILY)
    assert (await one.shared.charge(daily, 300)).refused is daily.meters[0]
    assert (await one.shared.charge(daily, 200)).held


async def test_a_redis_that_may_not_be_written_to_is_away(router: Made, redis: RedisServer) -> None:
    """A full or read-only server: told once, however often it is tried."""
    one = await router()
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        account = one.account(REQUESTS)
        assert (await one.shared.charge(account, 1)).held
        assert one.shared.fallbacks == 1
        began = monotonic()
        while monotonic() < began + 0.3:
            assert not (await one.shared.charge(account, 1)).shared
            await asyncio.sleep(0)
        assert len(one.log) == 1
        assert "not allowed" in one.log[0]["error"]
    finally:
        redis.ask("CONFIG", "SET", "maxmemory", "0")
    await until(lambda: one.shared.up)


async def test_nothing_is_asked_where_nothing_is_limited(router: Made, redis: RedisServer) -> None:
    """Redis may be away."""
    one = await router()
    redis.stop()
    assert (await one.shared.charge(one.account(), 1)).held
    assert one.shared.fallbacks == 0


async def test_announcements_reach_all_others(router: Made, redis: RedisServer) -> None:
    """Not the router that makes them; and who may have missed something is told so."""
    one, two, three = [await router() for _ in range(3)]
    await until(lambda: ":3\r\n" in redis.ask("PUBSUB", "NUMSUB", "olla:announcements"))
    await one.shared.announce("key:12 revoked")
    await until(lambda: bool(two.heard and three.heard))
    assert (two.heard, three.heard, one.heard) == (["key:12 revoked"], ["key:12 revoked"], [])
    redis.stop()
    await until(lambda: not one.shared.up)
    await one.shared.announce("key:13 revoked")
    redis.restart()
    await until(lambda: all("" in each.heard for each in (one, two, three)))
    await until(lambda: one.shared.up)
    await one.shared.announce("key:14 revoked")
    await until(lambda: "key:14 revoked" in two.heard)


async def test_stopping_tells_redis_what_was_settled(router: Made) -> None:
    """A router that ends in order leaves nothing reserved."""
    one, other = await router(**STILL), await router(**STILL)
    charge = await one.shared.charge(one.account(TOKENS, CONCURRENT), 1000)
    one.shared.settle(charge, 0)
    await one.shared.stop()
    account = other.account(TOKENS, CONCURRENT)
    assert (await other.shared.charge(account, 1000)).held
    assert account.meters[1].level == 0
