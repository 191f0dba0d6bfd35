"""Define the sections for keys, limits, the store and shared state."""

from collections.abc import Collection
from ipaddress import ip_network
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from olla.access.keys import DEFAULT_RIGHTS
from olla.access.policy import CATEGORIES, TIERS
from olla.dialects.dialect import Right
from olla.settings.section import Section, key_error
from olla.settings.state_url import checked_state_url
from olla.settings.store_url import checked_url
from olla.settings.values import Duration, did_you_mean, one_of

__all__ = [
    "Access",
    "RateLimits",
    "State",
    "StaticKey",
    "StoreSection",
    "TierLimits",
    "one_of_tiers",
]

_KEY_MIN = 8
"""Characters. Shorter keys can be guessed by brute force."""
_Count = Annotated[int, Field(ge=1, le=10**12)]


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for each in value:
        try:
            ip_network(each, strict=False)
        except ValueError:
            raise ValueError(
                f"'{each}' is not a valid network (expected e.g. 10.0.0.0/8 or 127.0.0.1)"
            ) from None
    return value


def _operation(text: str) -> str:
    return one_of([right.value for right in Right], text.strip().lower(), "operation")


def one_of_tiers(known: Collection[str], tier: str) -> str:
    """Return the error message for an unknown tier."""
    return (
        f"'{tier}' is not a known tier; use one of {', '.join(sorted(known))}"
        f"{did_you_mean(tier, known)}"
    )


class StaticKey(Section):
    """A key that is set in this file, or by a variable that the file names."""

    name: str
    """Name of the key in logs, metrics and usage."""
    key: str = Field(repr=False)
    """The key itself, preferably as ${VARIABLE}."""
    tier: str = "standard"
    """Tier whose limits apply to the key."""
    owner: str = ""
    """Owner of the key in usage; defaults to its name."""
    operations: tuple[str, ...] = tuple(sorted(right.value for right in DEFAULT_RIGHTS))
    """Operations that the key may use: generate, embed, list, manage, admin."""
    models: tuple[str, ...] = ()
    """Globs of models that the key may use; empty means all."""
    endpoints: tuple[str, ...] = ()
    """Names of endpoints that requests with the key may use; empty means all."""

    @field_validator("name")
    @classmethod
    def _valid_name(cls, value: str) -> str:
        if not value.strip() or not value.isprintable() or len(value) > 100:
            raise ValueError("a name must have 1 to 100 printable characters")
        return value

    @field_validator("key")
    @classmethod
    def _valid_key(cls, value: str) -> str:
        if not value.isascii() or not value.isprintable() or " " in value:
            raise ValueError("a key must be printable ASCII without spaces")
        if len(value) < _KEY_MIN:
            raise ValueError(
                f"a key must have at least {_KEY_MIN} characters; shorter ones can be guessed"
            )
        return value

    @field_validator("models", "endpoints")
    @classmethod
    def _nonempty_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(each.strip() for each in value):
            raise ValueError("names must not be empty; omit the key to allow all")
        return value

    @field_validator("operations")
    @classmethod
    def _known_operations(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("this allows no operation; list at least one, or omit the key")
        return tuple(map(_operation, value))


class CategoryLimits(Section):
    """Limits of each caller in one category."""

    requests_per_minute: _Count | None = None
    """Sustained requests per minute, refilled evenly. None: no limit."""
    burst: _Count | None = None
    """Maximum burst of requests; defaults to requests_per_minute."""
    shadow: bool = False
    """Count and report, but reject nothing."""

    @model_validator(mode="after")
    def _burst_needs_rate(self) -> "CategoryLimits":
        if self.burst is not None and self.requests_per_minute is None:
            raise key_error("burst", "burst needs requests_per_minute; set both, or omit burst")
        return self


class TierLimits(CategoryLimits):
    """Limits of each caller of one tier, all categories together."""

    tokens_per_minute: _Count | None = None
    """Tokens per minute, prompts and answers together. None: no limit."""
    tokens_per_day: _Count | None = None
    """Tokens per day, counted from midnight UTC. None: no limit."""
    concurrent: _Count | None = None
    """Concurrent requests, including queued ones. None: no limit."""


class Access(Section):
    """Keys, rights and limits. Without this section, inference and lists are open."""

    require_key: bool = False
    """Reject requests without a key. If false, callers without a key are in the tier anonymous,
    distinguished by address."""
    anonymous_operations: tuple[str, ...] = ("generate", "embed", "list")
    """Operations allowed without a key if require_key is false: generate, embed, list, manage.
    An empty list allows none."""
    keys: tuple[StaticKey, ...] = ()
    """Keys in this file. Keys created by `olla keys create` are in the store instead."""
    tiers: dict[str, TierLimits] = Field(default={})
    """Limits by tier: anonymous, member, standard, premium, or custom names."""
    categories: dict[str, CategoryLimits] = Field(default={})
    """Limits by category of request: generation, management, monitoring."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks of proxies whose X-Forwarded-For and X-Forwarded-Host are trusted."""
    log_content: bool = False
    """Store prompts and answers with the usage. Check who can read the store."""

    @field_validator("anonymous_operations")
    @classmethod
    def _known_operations(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        named = tuple(map(_operation, value))
        if Right.ADMIN.value in named:
            raise ValueError(
                "admin always needs a key: without one, any caller could create keys and read all "
                "usage; remove it, and create a key with `olla keys create --admin`"
            )
        return named

    @field_validator("trusted_proxies")
    @classmethod
    def _valid_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _networks(value)

    @field_validator("categories")
    @classmethod
    def _known_categories(cls, value: dict[str, CategoryLimits]) -> dict[str, CategoryLimits]:
        for name in value:
            if name not in CATEGORIES:
                raise key_error(
                    name, f"'{name}' is not a category; use one of {', '.join(CATEGORIES)}"
                )
        return value

    @field_validator("keys")
    @classmethod
    def _unique_keys(cls, value: tuple[StaticKey, ...]) -> tuple[StaticKey, ...]:
        seen: set[str] = set()
        for each in value:
            if each.name in seen:
                raise ValueError(f"two keys are named '{each.name}'; names must be unique")
            seen.add(each.name)
        if len({each.key for each in value}) != len(value):
            raise ValueError("two entries have the same key; keys must be unique")
        return value

    @model_validator(mode="after")
    def _known_tiers(self) -> "Access":
        known = {*TIERS, *self.tiers}
        for each in self.keys:
            if each.tier not in known:
                # The key would silently have no limits.
                raise key_error("keys", f"{each.name}: {one_of_tiers(known, each.tier)}")
        return self


class StoreSection(Section):
    """The store for keys and usage."""

    url: str | None = None
    """sqlite:///path or postgresql://…. The default is a SQLite file in the user's state directory
    (OLLA_HOME overrides it), opened on first use."""
    usage_retention: Duration = 30 * 86400.0
    """How long usage is kept; 0 keeps it forever."""

    @field_validator("url")
    @classmethod
    def _valid_url(cls, value: str | None) -> str | None:
        if value is not None:
            checked_url(value)
        return value


class State(Section):
    """State shared by several routers."""

    url: str | None = None
    """URL of a Redis server, such as redis://host:6379/0. If set, limits and revocations apply
    across all routers."""
    timeout: Annotated[Duration, Field(gt=0, le=10)] = 0.1
    """How long Redis may take to answer before this router uses its local limits."""

    @field_validator("url")
    @classmethod
    def _valid_url(cls, value: str | None) -> str | None:
        return None if value is None else checked_state_url(value)


class RateLimits(Section):
    """Limits for all callers, compatible with the Go router. 0 means no limit."""

    global_requests_per_minute: Annotated[int, Field(ge=0)] = 0
    """Requests per minute of all callers together."""
    per_ip_requests_per_minute: Annotated[int, Field(ge=0)] = 0
    """Requests per minute of each address, regardless of keys."""
    burst_size: Annotated[int, Field(ge=0)] = 0
    """Maximum burst of requests; 0 means one minute's worth."""
    trust_proxy_headers: bool = False
    """Trust X-Forwarded-For from the proxies in trusted_proxy_cidrs."""
    trusted_proxy_cidrs: tuple[str, ...] = ()
    """Networks of those proxies."""

    @field_validator("trusted_proxy_cidrs")
    @classmethod
    def _valid_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _networks(value)
