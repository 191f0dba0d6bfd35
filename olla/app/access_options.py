"""Convert settings to the access policy and the static keys."""

from ipaddress import ip_network

from olla.access.keys import OPEN_MAKER, STATIC, Key, digest_of
from olla.access.limit import Limit, LimitKind, Per
from olla.access.policy import AccessPolicy
from olla.dialects.dialect import Right
from olla.settings import Settings
from olla.settings.access import CategoryLimits, TierLimits

__all__ = ["access_policy", "limits_of", "makers", "static_keys"]

_SHOWN = 4
"""Shown characters of a configured key; few, because such keys may not be random."""


def access_policy(settings: Settings) -> AccessPolicy:
    """Return which callers need a key, and which limits apply."""
    access, rates = settings.access, settings.server.rate_limits
    networks = access.trusted_proxies
    if rates.trust_proxy_headers:
        networks = (*networks, *rates.trusted_proxy_cidrs)
    trusted = tuple(ip_network(each, strict=False) for each in networks)
    burst = rates.burst_size
    shared = tuple(
        Limit(scope, LimitKind.REQUESTS, amount, burst or amount, per=per)
        for scope, amount, per in (
            ("server.rate_limits.global", rates.global_requests_per_minute, Per.ALL),
            ("server.rate_limits.per_ip", rates.per_ip_requests_per_minute, Per.ADDRESS),
        )
        if amount
    )
    return AccessPolicy(
        require_key=access.require_key,
        anonymous=frozenset(Right(operation) for operation in access.anonymous_operations),
        guarded=access.require_key or bool(access.keys),
        tiers={
            name: limits_of(f"access.tiers.{name}", limits) for name, limits in access.tiers.items()
        },
        categories={
            name: limits_of(f"access.categories.{name}", limits)
            for name, limits in access.categories.items()
        },
        everybody=shared,
        trusted=trusted,
    )


def limits_of(scope: str, limits: CategoryLimits) -> tuple[Limit, ...]:
    """Return the limits of one tier or category."""
    found: list[Limit] = []
    if limits.requests_per_minute is not None:
        burst = limits.burst or limits.requests_per_minute
        found.append(
            Limit(scope, LimitKind.REQUESTS, limits.requests_per_minute, burst, limits.shadow)
        )
    if isinstance(limits, TierLimits):
        for kind, amount in (
            (LimitKind.TOKENS, limits.tokens_per_minute),
            (LimitKind.CONCURRENT, limits.concurrent),
            (LimitKind.DAILY, limits.tokens_per_day),
        ):
            if amount is not None:
                found.append(Limit(scope, kind, amount, amount, limits.shadow))
    return tuple(found)


def makers(settings: Settings) -> tuple[str, ...]:
    """Return the makers of keys that are not keys themselves."""
    return (OPEN_MAKER,) if settings.surfaces.chat.open_keys else ()


def static_keys(settings: Settings) -> list[Key]:
    """Return the keys of the configuration."""
    return [
        Key(
            id=f"{STATIC}{each.name}",
            digest=digest_of(each.key),
            shown=each.key[:_SHOWN],
            name=each.name,
            owner=each.owner or each.name,
            tier=each.tier,
            rights=frozenset(Right(operation) for operation in each.operations),
            models=each.models,
            endpoints=each.endpoints,
        )
        for each in settings.access.keys
    ]
