"""Which limits hold for whom, and what a request is charged in advance."""

from math import inf

import pytest

from olla.access.caller import Caller, of_address, of_key
from olla.access.keys import DEFAULT_RIGHTS, Key
from olla.access.limit import Limit, LimitKind, Per
from olla.access.policy import CATEGORIES, AccessPolicy, category_of, reserve
from olla.dialects.dialect import Operation

TIER = (Limit("access.tiers.premium", LimitKind.REQUESTS, 300, 300),)
CATEGORY = (Limit("access.categories.generation", LimitKind.REQUESTS, 100, 120),)
ALL = (Limit("server.rate_limits.global", LimitKind.REQUESTS, 1000, 1000, per=Per.ALL),)
OWN = {"standard": (Limit("surfaces.x.tiers.standard", LimitKind.REQUESTS, 60, 60),)}
POLICY = AccessPolicy(tiers={"premium": TIER}, categories={"generation": CATEGORY}, everybody=ALL)


def of_tier(tier: str) -> Caller:
    """A caller with a key of a tier."""
    return of_key(Key("1", b"d", "oa-", "n", tier=tier))


def test_limits_of_everybody_tier_and_category_hold_together() -> None:
    """Each where it is named, and the same object each time."""
    caller = of_tier("premium")
    assert POLICY.limits(caller, "generation") == (*ALL, *TIER, *CATEGORY)
    assert POLICY.limits(caller, "generation") is POLICY.limits(caller, "generation")
    assert POLICY.limits(caller, "monitoring") == (*ALL, *TIER)
    assert POLICY.limits(of_address("10.0.0.1", DEFAULT_RIGHTS), "monitoring") == ALL


def test_a_surface_brings_limits_for_tiers_of_which_nothing_is_said() -> None:
    """What the configuration says goes before; elsewhere the surface's do not count."""
    assert POLICY.limits(of_tier("standard"), "monitoring", OWN, "x") == (*ALL, *OWN["standard"])
    assert POLICY.limits(of_tier("premium"), "monitoring", OWN, "x") == (*ALL, *TIER)
    assert POLICY.limits(of_tier("standard"), "monitoring") == ALL


def test_the_routers_own_state_is_not_limited_by_tiers() -> None:
    """A scraper is no client."""
    assert POLICY.limits(of_tier("premium"), "monitoring", None, "internal") == ALL


def test_it_is_known_whether_addresses_count() -> None:
    """Only then are they told apart behind keys."""
    each = Limit("server.rate_limits.per_ip", LimitKind.REQUESTS, 10, 10, per=Per.ADDRESS)
    assert AccessPolicy(everybody=(each,)).per_address
    assert not POLICY.per_address


@pytest.mark.parametrize(
    ("operation", "category"),
    [
        (Operation.CHAT, "generation"),
        (Operation.EMBED, "generation"),
        (Operation.PULL, "management"),
        (Operation.LIST, "management"),
        (Operation.SHOW, "management"),
        (Operation.RUNNING, "monitoring"),
        (Operation.VERSION, "monitoring"),
        (Operation.OTHER, "monitoring"),
    ],
)
def test_each_operation_has_its_category(operation: Operation, category: str) -> None:
    """Generating, managing models, and looking."""
    assert category_of(operation) == category
    assert all(category_of(each) in CATEGORIES for each in Operation)


@pytest.mark.parametrize(
    ("prompt", "size", "output", "charged"),
    [
        (100.0, 0, 50.0, 150),
        (0.0, 400, 50.0, 150),
        (100.0, 400, inf, 1124),
        (100.0, 400, 1e9, 5000),
        (1e9, 0, inf, 5000),
    ],
)
def test_a_request_is_charged_its_prompt_and_the_longest_answer_it_allows(
    prompt: float, size: int, output: float, charged: int
) -> None:
    """Never more than the limits allow at once."""
    limits = (
        Limit("t", LimitKind.TOKENS, 5000, 5000),
        Limit("t", LimitKind.DAILY, 100_000),
        Limit("t", LimitKind.REQUESTS, 10, 10),
    )
    assert reserve(limits, prompt, size, output) == charged


def test_without_limits_on_tokens_nothing_is_charged() -> None:
    """There is nothing to hold it against."""
    assert reserve(TIER, 100.0, 0, 50.0) == 0
