"""What fits gets through, exactly; what does not costs nothing."""

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.access.limit import Limit, LimitKind
from olla.access.limiter import DAY, Account, Limiter

NOW, WALL = 5_000.0, 20_000.0 * DAY + 3_600
REQUESTS = Limit("tiers.t", LimitKind.REQUESTS, 100, 120)
TOKENS = Limit("tiers.t", LimitKind.TOKENS, 600, 1000)
CONCURRENT = Limit("tiers.t", LimitKind.CONCURRENT, 3)
DAILY = Limit("tiers.t", LimitKind.DAILY, 1000)
HAIR = 1e-5


def account(limiter: Limiter, *limits: Limit, caller: str = "key:1", now: float = NOW) -> Account:
    """A caller's account."""
    return limiter.account(caller, "inference", limits, now, WALL)


def test_a_burst_gets_through_and_the_next_after_an_interval() -> None:
    """1,000 at one moment against 100 a minute with a burst of 120: 120, and one more after
    0.6 s."""
    limiter = Limiter()
    one = account(limiter, REQUESTS)
    charges = [limiter.charge(one, 1, NOW, WALL) for _ in range(1000)]
    assert sum(charge.held for charge in charges) == 120
    assert all(charge.held for charge in charges[:120])
    wait = charges[-1].retry_after
    assert wait == pytest.approx(0.6)
    assert not limiter.charge(one, 1, NOW + wait - HAIR, WALL).held
    assert limiter.charge(one, 1, NOW + wait, WALL).held


@given(
    amount=st.integers(1, 100_000),
    burst=st.integers(1, 50),
    gaps=st.lists(st.floats(0, 5) | st.just(0.0), max_size=100),
)
def test_in_no_window_more_than_burst_and_rate_get_through(
    amount: int, burst: int, gaps: list[float]
) -> None:
    """Wherever the window begins and ends."""
    limiter = Limiter()
    one = account(limiter, Limit("t", LimitKind.REQUESTS, amount, burst))
    now, through = NOW, []
    for gap in gaps:
        now += gap
        if limiter.charge(one, 1, now, WALL).held:
            through.append(now)
    for i, begin in enumerate(through):
        for j in range(i, len(through)):
            passed = through[j] - begin
            assert j - i + 1 <= burst + (passed + HAIR) * amount / 60


@given(
    amount=st.integers(1, 100_000),
    burst=st.integers(1, 50),
    start=st.floats(0, 1e7),
    count=st.integers(1, 300),
)
def test_who_asks_at_the_rate_is_never_refused(
    amount: int, burst: int, start: float, count: int
) -> None:
    """Rounding refuses nobody."""
    limiter = Limiter()
    one = account(limiter, Limit("t", LimitKind.REQUESTS, amount, burst), now=start)
    assert all(limiter.charge(one, 1, start + i * 60 / amount, WALL).held for i in range(count))


@given(
    amount=st.integers(1, 10_000),
    burst=st.integers(1, 2_000),
    asked=st.lists(st.tuples(st.floats(0, 3), st.integers(0, 3_000)), min_size=1, max_size=30),
)
def test_asking_again_when_told_succeeds_and_a_hair_earlier_does_not(
    amount: int, burst: int, asked: list[tuple[float, int]]
) -> None:
    """`retry_after` is exact, for tokens of any number."""
    limiter = Limiter()
    one = account(limiter, Limit("t", LimitKind.TOKENS, amount, burst))
    now = NOW
    for gap, tokens in asked:
        now += gap
        charge = limiter.charge(one, tokens, now, WALL)
        if not charge.held:
            assert charge.refused is one.meters[0]
            if charge.retry_after > 2 * HAIR:
                early = now + charge.retry_after - HAIR
                assert not limiter.charge(one, tokens, early, WALL).held
            now += charge.retry_after
            assert limiter.charge(one, tokens, now, WALL).held


@pytest.mark.parametrize(
    ("full", "tokens"),
    [(REQUESTS, 0), (TOKENS, 1000), (CONCURRENT, 0), (DAILY, 1000)],
)
def test_what_one_limit_refuses_costs_nothing_with_the_others(full: Limit, tokens: int) -> None:
    """All or nothing, whichever refuses and wherever it stands."""
    limiter = Limiter()
    alone = account(limiter, full)
    while limiter.charge(alone, tokens, NOW, WALL).held:
        pass
    others = [each for each in (REQUESTS, TOKENS, CONCURRENT, DAILY) if each is not full]
    one = account(limiter, *others[:2], full, *others[2:])
    before = [meter.left(NOW, WALL) for meter in one.meters]
    charge = limiter.charge(one, 1, NOW, WALL)
    assert charge.refused is one.meters[2]
    limiter.settle(charge, 500, NOW, WALL)
    assert [meter.left(NOW, WALL) for meter in one.meters] == before


def test_the_limit_that_takes_longest_is_the_one_that_refuses() -> None:
    """So that who comes again then gets in."""
    limiter = Limiter()
    slow = Limit("tiers.slow", LimitKind.REQUESTS, 1)
    one = account(limiter, Limit("tiers.fast", LimitKind.REQUESTS, 60, 1), slow, CONCURRENT)
    assert limiter.charge(one, 1, NOW, WALL).held
    charge = limiter.charge(one, 1, NOW, WALL)
    assert charge.refused is one.meters[1]
    assert charge.retry_after == pytest.approx(60)


def test_a_shadow_refuses_nothing_and_tells_what_it_would_have_refused() -> None:
    """And what it would have refused it does not count."""
    limiter = Limiter()
    shadows = [
        Limit("s", LimitKind.REQUESTS, 60, 2, shadow=True),
        Limit("s", LimitKind.CONCURRENT, 2, shadow=True),
    ]
    one = account(limiter, REQUESTS, *shadows)
    charges = [limiter.charge(one, 1, NOW, WALL) for _ in range(4)]
    assert all(charge.held for charge in charges)
    exceeded = [[], [], list(one.meters[1:]), list(one.meters[1:])]
    assert [charge.exceeded for charge in charges] == exceeded
    for charge in charges:
        limiter.settle(charge, 1, NOW, WALL)
    assert [meter.left(NOW, WALL) for meter in one.meters] == [116, 0, 2]


@given(st.lists(st.booleans(), max_size=60))
def test_never_more_at_a_time_than_the_limit(steps: list[bool]) -> None:
    """And none when all have ended."""
    limiter = Limiter()
    one = account(limiter, CONCURRENT)
    held = []
    for begins in steps:
        if begins:
            charge = limiter.charge(one, 1, NOW, WALL)
            assert charge.held == (len(held) < 3)
            held += [charge] * charge.held
        elif held:
            limiter.settle(held.pop(), 1, NOW, WALL)
        assert one.meters[0].left(NOW, WALL) == 3 - len(held) >= 0
    for charge in held:
        limiter.settle(charge, 1, NOW, WALL)
        limiter.settle(charge, 1, NOW, WALL)
    assert one.meters[0].left(NOW, WALL) == 3
    assert one.meters[0].idle(NOW, WALL)


def test_parallel_calls_cannot_overspend() -> None:
    """What is reserved is not there for others."""
    limiter = Limiter()
    one = account(limiter, TOKENS, DAILY)
    charges = [limiter.charge(one, 300, NOW, WALL) for _ in range(5)]
    assert [charge.held for charge in charges] == [True] * 3 + [False] * 2
    assert [meter.left(NOW, WALL) for meter in one.meters] == [100, 100]


@pytest.mark.parametrize(("used", "left"), [(0, 1000), (100, 900), (300, 700), (800, 200)])
def test_tokens_are_settled_by_what_they_were(used: int, left: int) -> None:
    """Up, down, and for who leaves early; once."""
    limiter = Limiter()
    one = account(limiter, TOKENS, DAILY)
    charge = limiter.charge(one, 300, NOW, WALL)
    for _ in range(2):
        limiter.settle(charge, used, NOW, WALL)
        assert [meter.left(NOW, WALL) for meter in one.meters] == [left, left]


@given(
    first=st.integers(0, 1500),
    second=st.integers(0, 1500),
    others=st.lists(st.integers(0, 500), max_size=5),
    pause=st.floats(0, 100),
)
def test_a_charge_that_is_corrected_leaves_what_one_charge_would(
    first: int, second: int, others: list[int], pause: float
) -> None:
    """Whatever came in between; where it does not fit any more, nothing is left of it."""
    limits = (REQUESTS, TOKENS, DAILY, CONCURRENT)
    twice, once = Limiter(), Limiter()
    here, there = account(twice, *limits), account(once, *limits)
    charge = twice.charge(here, first, NOW, WALL)
    hypothesis.assume(charge.held)
    authorize = []
    for tokens in others:
        if twice.charge(here, tokens, NOW, WALL).held:
            authorize.append(tokens)
            assert once.charge(there, tokens, NOW, WALL).held
    now = NOW + pause
    again = twice.recharge(charge, second, now, WALL)
    expected = once.charge(there, second, now, WALL)
    assert again.held == expected.held
    assert not charge.held
    assert [meter.held for meter in here.meters] == [meter.held for meter in there.meters]
    for one, other in zip(here.meters, there.meters, strict=True):
        assert one.reset(now, WALL) == pytest.approx(other.reset(now, WALL), abs=1e-6)
        assert one.left(now, WALL) == other.left(now, WALL)
    twice.cancel(charge, now, WALL)
    twice.settle(charge, 9, now, WALL)
    assert [meter.held for meter in here.meters] == [meter.held for meter in there.meters]


def test_yesterdays_charge_gives_today_nothing_back() -> None:
    """A correction after midnight counts for the new day alone."""
    limiter = Limiter()
    one = account(limiter, DAILY)
    charge = limiter.charge(one, 800, NOW, WALL)
    tomorrow = WALL + DAY
    limiter.charge(one, 100, NOW, tomorrow)
    assert limiter.recharge(charge, 500, NOW, tomorrow).held
    assert one.meters[0].left(NOW, tomorrow) == 400


def test_more_than_a_burst_gets_in_when_nothing_is_used() -> None:
    """Else it never would; then it has to be worked off."""
    limiter = Limiter()
    one = account(limiter, TOKENS, DAILY)
    charge = limiter.charge(one, 5000, NOW, WALL)
    assert charge.held
    small = limiter.charge(account(limiter, TOKENS), 1, NOW, WALL)
    assert small.retry_after == pytest.approx(400.1)
    large = limiter.charge(account(limiter, TOKENS), 5000, NOW, WALL)
    assert large.retry_after == pytest.approx(500)
    assert limiter.charge(one, 1, NOW, WALL).refused is one.meters[1]


def test_a_days_budget_is_renewed_at_midnight() -> None:
    """In UTC, to the moment."""
    limiter = Limiter()
    one = account(limiter, DAILY)
    assert limiter.charge(one, 1000, NOW, WALL).held
    charge = limiter.charge(one, 1, NOW, WALL)
    midnight = WALL + charge.retry_after
    assert midnight % DAY == 0
    assert one.meters[0].reset(NOW, WALL) == charge.retry_after
    assert not limiter.charge(one, 1, NOW, midnight - 1e-3).held
    assert limiter.charge(one, 1000, NOW, midnight).held


def test_what_is_given_back_after_midnight_is_not_todays() -> None:
    """Yesterday's budget had paid for it; what it took beyond its estimate is today's."""
    limiter = Limiter()
    one = account(limiter, DAILY)
    less, more = (limiter.charge(one, 400, NOW, WALL) for _ in range(2))
    tomorrow = WALL + DAY
    limiter.charge(one, 500, NOW, tomorrow)
    limiter.settle(less, 0, NOW, tomorrow)
    assert one.meters[0].left(NOW, tomorrow) == 500
    limiter.settle(more, 450, NOW, tomorrow)
    assert one.meters[0].left(NOW, tomorrow) == 450


def test_what_was_used_before_this_process_counts() -> None:
    """For this day, whether the account is there or comes later."""
    limiter = Limiter()
    limiter.spent("key:1", (REQUESTS, DAILY), 400, WALL)
    one = account(limiter, DAILY)
    limiter.spent("key:1", (DAILY,), 500, WALL)
    assert not limiter.charge(one, 101, NOW, WALL).held
    assert limiter.charge(one, 100, NOW, WALL).held
    assert limiter.charge(one, 1000, NOW, WALL + DAY).held


def test_the_tightest_limit_on_requests_is_shown() -> None:
    """Of several; those on other things where none is on requests."""
    limiter = Limiter()
    hour = Limit("global", LimitKind.REQUESTS, 60, 10)
    one = account(limiter, TOKENS, REQUESTS, hour)
    assert one.counts_tokens
    assert one.tightest(NOW, WALL) is one.meters[2]
    other = account(limiter, TOKENS)
    assert other.tightest(NOW, WALL) is other.meters[0]
    assert account(limiter).tightest(NOW, WALL) is None


def test_callers_that_say_nothing_any_more_are_forgotten() -> None:
    """With limits and without, memory stays bounded."""
    limiter = Limiter()
    for i in range(25_000):  # twice the number from which on they are forgotten, and more
        now = NOW + i * 60
        limits = (REQUESTS, CONCURRENT) if i % 2 else ()
        one = limiter.account(f"addr:{i}", "inference", limits, now, WALL)
        limiter.settle(limiter.charge(one, 1, now, WALL), 1, now, WALL)
        assert len(limiter._meters) + len(limiter._accounts) <= 10_003


def test_what_counts_or_is_held_is_never_forgotten() -> None:
    """However many others come: requests under way, budgets, what was seeded."""
    limiter = Limiter()
    running = account(limiter, CONCURRENT, TOKENS, caller="key:running")
    charge = limiter.charge(running, 1, NOW, WALL)
    daily = account(limiter, DAILY, caller="key:daily")
    limiter.charge(daily, 900, NOW, WALL)
    limiter.spent("key:seeded", (DAILY,), 900, WALL)
    for i in range(15_000):
        now = NOW + 1000 + i * 60
        limiter.charge(account(limiter, REQUESTS, caller=f"addr:{i}", now=now), 1, now, WALL)
    now += 1.0
    assert account(limiter, CONCURRENT, TOKENS, caller="key:running", now=now) is running
    for caller in ("key:daily", "key:seeded"):
        one = account(limiter, DAILY, caller=caller, now=now)
        assert not limiter.charge(one, 101, now, WALL).held
    limiter.settle(charge, 1000, now, WALL)
    again = account(limiter, CONCURRENT, TOKENS, caller="key:running", now=now)
    assert [meter.left(now, WALL) for meter in again.meters] == [3, 1]


def sweep(limiter: Limiter, now: float) -> float:
    """Let so many callers come that idle meters are forgotten; returns the time after it."""
    before = limiter._sweeps
    i = 0
    while limiter._sweeps == before:
        now, i = now + 60, i + 1
        limiter.charge(account(limiter, REQUESTS, caller=f"addr:{i}", now=now), 1, now, WALL)
    return now


def test_an_account_that_was_kept_while_others_came_still_counts() -> None:
    """A caller whose request takes long to arrive has one account, not a new one each time."""
    limiter = Limiter()
    one = Limit("tiers.t", LimitKind.CONCURRENT, 1)
    kept = account(limiter, one, REQUESTS)
    now = sweep(limiter, NOW)
    charge = limiter.charge(kept, 1, now, WALL)
    assert charge.held
    again = account(limiter, one, REQUESTS, now=now)
    assert limiter.charge(again, 1, now, WALL).refused is again.meters[0]
    assert again.meters[1].left(now, WALL) == 119
    now = sweep(limiter, now)
    assert not limiter.charge(account(limiter, one, now=now), 1, now, WALL).held
    limiter.settle(charge, 1, now, WALL)
    assert limiter.charge(account(limiter, one, now=now), 1, now, WALL).held


def test_an_account_that_was_kept_counts_with_the_meters_that_took_the_place_of_its_own() -> None:
    """Not with its old ones beside them."""
    limiter = Limiter()
    one = Limit("tiers.t", LimitKind.CONCURRENT, 1)
    kept = account(limiter, one)
    now = sweep(limiter, NOW)
    assert limiter.charge(account(limiter, one, now=now), 1, now, WALL).held
    assert limiter.charge(kept, 1, now, WALL).refused is kept.meters[0]


def test_a_changed_limit_keeps_what_was_used() -> None:
    """Tokens stay as many as they were, and requests under way end with the new limit."""
    limiter = Limiter()
    old = account(limiter, TOKENS, DAILY, CONCURRENT)
    charges = [limiter.charge(old, 300, NOW, WALL) for _ in range(2)]
    more = Limit("tiers.t", LimitKind.TOKENS, 6000, 10_000)
    one = account(
        limiter, more, Limit("tiers.t", LimitKind.DAILY, 2000), Limit("x", LimitKind.REQUESTS, 5)
    )
    assert [meter.left(NOW, WALL) for meter in one.meters] == [9400, 1400, 5]
    fewer = account(limiter, Limit("tiers.t", LimitKind.CONCURRENT, 2))
    assert limiter.charge(fewer, 1, NOW, WALL).refused is fewer.meters[0]
    for charge in charges:
        limiter.settle(charge, 100, NOW, WALL)
    assert [meter.left(NOW, WALL) for meter in one.meters] == [9800, 1800, 5]
    assert limiter.charge(fewer, 1, NOW, WALL).held


def test_limits_of_one_name_are_one_over_all_categories() -> None:
    """What a caller uses in one counts in the other; another caller's does not."""
    limiter = Limiter()
    here = limiter.account("key:1", "inference", (REQUESTS,), NOW, WALL)
    there = limiter.account("key:1", "lists", (REQUESTS, TOKENS), NOW, WALL)
    limiter.charge(here, 1, NOW, WALL)
    assert there.meters[0].left(NOW, WALL) == 119
    assert account(limiter, REQUESTS, caller="key:2").meters[0].left(NOW, WALL) == 120


def test_what_all_routers_have_used_is_learnt() -> None:
    """The local limiter goes on from there."""
    limiter = Limiter()
    one = account(limiter, REQUESTS, TOKENS, CONCURRENT, DAILY)
    charge = limiter.charge(one, 0, NOW, WALL)
    for meter, level in zip(one.meters, (6.0, 50.0, 3.0, 400.0), strict=True):
        meter.learn(level, int(WALL) // DAY, NOW)
    assert [meter.left(NOW, WALL) for meter in one.meters] == [110, 500, 0, 600]
    limiter.settle(charge, 0, NOW, WALL)
    assert one.meters[2].left(NOW, WALL) == 1
