"""Tests of the conversion from settings to limits and keys."""

from olla.access.caller import of_address, of_key
from olla.access.keys import DEFAULT_RIGHTS, digest_of
from olla.access.limit import Limit, LimitKind, Per
from olla.app.access_options import access_policy, static_keys
from olla.dialects.dialect import Right
from olla.settings import parse


def test_an_empty_file_sets_no_limits() -> None:
    """No key is required either."""
    policy = access_policy(parse("", {}).settings)
    assert not policy.require_key
    assert not policy.guarded
    assert policy.limits(of_address("10.0.0.1", DEFAULT_RIGHTS), "generation") == ()


def test_a_burst_defaults_to_the_rate() -> None:
    """Every limit is named by its key in the file."""
    text = """
access:
  tiers:
    anonymous: {requests_per_minute: 10, tokens_per_minute: 500, concurrent: 2, tokens_per_day: 9}
  categories: {generation: {requests_per_minute: 100, burst: 120, shadow: true}}
"""
    policy = access_policy(parse(text, {}).settings)
    tier, category = "access.tiers.anonymous", "access.categories.generation"
    assert policy.limits(of_address("10.0.0.1", DEFAULT_RIGHTS), "generation") == (
        Limit(tier, LimitKind.REQUESTS, 10, 10),
        Limit(tier, LimitKind.TOKENS, 500, 500),
        Limit(tier, LimitKind.CONCURRENT, 2, 2),
        Limit(tier, LimitKind.DAILY, 9, 9),
        Limit(category, LimitKind.REQUESTS, 100, 120, True),
    )
    assert not policy.guarded


def test_limits_of_the_go_router_apply_globally_and_per_address() -> None:
    """If the file sets them."""
    text = """
server:
  rate_limits: {global_requests_per_minute: 1000, per_ip_requests_per_minute: 100, burst_size: 50,
    trust_proxy_headers: true, trusted_proxy_cidrs: [10.0.0.0/8]}
"""
    policy = access_policy(parse(text, {}).settings)
    assert [(each.amount, each.burst, each.per) for each in policy.everybody] == [
        (1000, 50, Per.ALL),
        (100, 50, Per.ADDRESS),
    ]
    assert [str(each) for each in policy.trusted] == ["10.0.0.0/8"]


def test_configured_keys_are_stored_as_digests() -> None:
    """Their usage is recorded under their name."""
    text = "access: {keys: [{name: ci, key: abcdefghij, operations: [list, admin]}]}"
    (key,) = static_keys(parse(text, {}).settings)
    assert key.digest == digest_of("abcdefghij")
    assert "abcdefghij" not in repr(key)
    assert key.rights == {Right.LIST, Right.ADMIN}
    assert of_key(key).id == "static:ci"
    assert access_policy(parse(text, {}).settings).guarded
