"""What Redis runs goes by the same rules as the local limiter, and leaves nothing behind."""

import asyncio
import itertools
from hashlib import sha1

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.access.limit import Limit, LimitKind
from olla.access.limiter import DAY, Charge, Limiter
from olla.state.scripts import CHARGE, RENEW, SETTLE
from tests.redis_server import RedisServer
from tests.state.sharing import CONCURRENT, REQUESTS, Router

NEAR_MIDNIGHT = 20_001 * DAY - 40
"""Unix seconds."""
CALLERS = itertools.count()

LIMITS = st.lists(
    st.builds(
        Limit,
        st.sampled_from(["a", "b"]),
        st.sampled_from(LimitKind),
        st.integers(1, 100),
        st.integers(0, 30),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda limit: limit.name,
).map(tuple)
STEPS = st.lists(
    st.tuples(st.just("pass"), st.integers(0, 20_000))
    | st.tuples(st.just("charge"), st.integers(0, 60))
    | st.tuples(st.just("recharge"), st.integers(0, 60))
    | st.tuples(st.just("settle"), st.integers(0, 60)),
    max_size=25,
)


class Hands:
    """A clock that is set: `passed` milliseconds since shortly before a midnight."""

    passed = 0

    def now(self) -> float:
        """Monotonic seconds."""
        return 5_000 + self.passed / 1000

    def wall(self) -> float:
        """Unix seconds."""
        return NEAR_MIDNIGHT + self.passed / 1000

    def server(self) -> tuple[int, int]:
        """As Redis tells it."""
        second, milli = divmod(self.passed, 1000)
        return NEAR_MIDNIGHT + second, 1000 * milli


@given(limits=LIMITS, steps=STEPS)
def test_redis_and_this_router_decide_alike(
    running_redis: RedisServer, limits: tuple[Limit, ...], steps: list[tuple[str, int]]
) -> None:
    """The same charges and settlements at the same times: the same answers, waits and levels."""
    asyncio.run(compare(running_redis.url, limits, steps))


async def compare(url: str, limits: tuple[Limit, ...], steps: list[tuple[str, int]]) -> None:
    """See above."""
    clock = Hands()
    router = Router(url, "one", clock=clock, time=clock.server, lease=1e6, timeout=10.0)
    await router.shared.start()
    caller = f"key:{next(CALLERS)}"
    there = router.account(*limits, caller=caller)
    limiter = Limiter()
    here = limiter.account(caller, "inference", limits, clock.now(), clock.wall())
    held: list[tuple[Charge, Charge]] = []
    for step, number in steps:
        now, wall = clock.now(), clock.wall()
        if step == "pass":
            clock.passed += number
        elif step == "charge" or (step == "recharge" and held):
            if step == "charge":
                local = limiter.charge(here, number, now, wall)
                shared = await router.shared.charge(there, number)
            else:
                before, local_before = held.pop()
                local = limiter.recharge(local_before, number, now, wall)
                shared = await router.shared.recharge(before, number)
                assert not before.held
            assert shared.held == shared.shared == local.held
            assert shared.retry_after == pytest.approx(local.retry_after, abs=1e-5)
            assert _named(shared) == _named(local)
            levels = zip(there.meters, here.meters, strict=True)
            assert all(one.left(now, wall) == other.left(now, wall) for one, other in levels)
            if local.held:
                held.append((shared, local))
        elif step == "settle" and held:
            shared, local = held.pop(0)
            router.shared.settle(shared, number)
            limiter.settle(local, number, now, wall)
    await router.shared.stop()
    assert router.shared.fallbacks == 0


def _named(charge: Charge) -> tuple[str | None, list[str]]:
    refused = charge.refused.limit.name if charge.refused is not None else None
    return refused, [meter.limit.name for meter in charge.exceeded]


async def test_what_says_nothing_any_more_expires(redis: RedisServer) -> None:
    """Every key has its time, which is not much longer than it means something."""
    router = Router(redis.url, "one")
    await router.shared.start()
    daily = Limit("t", LimitKind.DAILY, 1000)
    tokens = Limit("t", LimitKind.TOKENS, 600, 1000)
    charge = await router.shared.charge(router.account(REQUESTS, tokens, CONCURRENT, daily), 100)
    assert charge.held
    for name, least, most in (
        (REQUESTS.name, 600, 1_600),
        (tokens.name, 10_000, 11_000),
        (CONCURRENT.name, 60_000, 61_000),
        (daily.name, 1_000, 1000 * DAY + 1_000),
    ):
        left = int(redis.ask("PTTL", f"olla:{{key:1}}|{name}").strip(":\r\n"))
        assert least - 500 < left <= most, name
    router.shared.settle(charge, 0)
    await router.shared.stop()
    keys = redis.ask("KEYS", "*")
    assert tokens.name not in keys
    assert CONCURRENT.name not in keys


async def test_a_server_whose_clock_goes_back_gives_nobody_more_to_wait(
    redis: RedisServer,
) -> None:
    """As after a change to a replica on another machine."""
    clock = Hands()
    clock.passed = 30_000
    router = Router(redis.url, "one", clock=clock, time=clock.server)
    await router.shared.start()
    slow = Limit("t", LimitKind.REQUESTS, 60, 1)
    assert (await router.shared.charge(router.account(slow), 1)).held
    clock.passed = 10_000
    charge = await router.shared.charge(router.account(slow), 1)
    assert charge.retry_after == pytest.approx(1.0)
    await router.shared.stop()


@pytest.mark.parametrize("script", [CHARGE, SETTLE, RENEW])
def test_a_script_is_known_by_the_digest_of_its_text(script: object) -> None:
    """As Redis forms it."""
    assert script.digest.decode() == sha1(script.text).hexdigest()
