"""What a file may say of who may ask, how much, and what is kept of it."""

from collections.abc import Collection
from ipaddress import ip_network
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from olla.access.keys import DEFAULT_RIGHTS
from olla.access.policy import CATEGORIES, TIERS
from olla.dialects.dialect import Right
from olla.settings.section import Section, about_key
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
"""Characters. Shorter ones can be tried out."""
_Count = Annotated[int, Field(ge=1, le=10**12)]


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for each in value:
        try:
            ip_network(each, strict=False)
        except ValueError:
            raise ValueError(
                f"'{each}' is no network; write one such as 10.0.0.0/8 or 127.0.0.1"
            ) from None
    return value


def _operation(text: str) -> str:
    return one_of([right.value for right in Right], text.strip().lower(), "operation")


def one_of_tiers(known: Collection[str], tier: str) -> str:
    """What to say of a tier that is none of those known."""
    return f"'{tier}' is no tier; there are {', '.join(sorted(known))}{did_you_mean(tier, known)}"


class StaticKey(Section):
    """A key that stands in this file, or in a variable it names."""

    name: str
    """How the key is known in logs, metrics and usage."""
    key: str = Field(repr=False)
    """The key itself, best as ${VARIABLE}."""
    tier: str = "standard"
    """Which limits hold for it."""
    owner: str = ""
    """Whose it is, in usage."""
    operations: tuple[str, ...] = tuple(sorted(right.value for right in DEFAULT_RIGHTS))
    """What it may do: generate, embed, list, manage, admin."""
    models: tuple[str, ...] = ()
    """Globs of models it may use; empty is all."""
    endpoints: tuple[str, ...] = ()
    """Names of endpoints it may be sent to; empty is all."""

    @field_validator("name")
    @classmethod
    def _some_name(cls, value: str) -> str:
        if not value.strip() or not value.isprintable() or len(value) > 100:
            raise ValueError("a name is up to 100 printable characters")
        return value

    @field_validator("key")
    @classmethod
    def _some_key(cls, value: str) -> str:
        if not value.isascii() or not value.isprintable() or " " in value:
            raise ValueError("a key is printable ASCII without spaces")
        if len(value) < _KEY_MIN:
            raise ValueError(f"a key needs at least {_KEY_MIN} characters, or it can be guessed")
        return value

    @field_validator("models", "endpoints")
    @classmethod
    def _some_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(each.strip() for each in value):
            raise ValueError("an empty name is nothing's; name some, or leave the key out for all")
        return value

    @field_validator("operations")
    @classmethod
    def _known_operations(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("such a key may do nothing; name an operation, or leave the key out")
        return tuple(map(_operation, value))


class CategoryLimits(Section):
    """Limits of each caller in one category."""

    requests_per_minute: _Count | None = None
    """Requests that come back evenly over a minute. None: no limit."""
    burst: _Count | None = None
    """Requests that may come at once; as many as in a minute when left out."""
    shadow: bool = False
    """Count and report, but refuse nothing."""

    @model_validator(mode="after")
    def _burst_of_something(self) -> "CategoryLimits":
        if self.burst is not None and self.requests_per_minute is None:
            raise about_key("burst", "a burst needs requests_per_minute beside it")
        return self


class TierLimits(CategoryLimits):
    """Limits of each caller of one tier, all categories together."""

    tokens_per_minute: _Count | None = None
    """Tokens, prompts and answers together. None: no limit."""
    tokens_per_day: _Count | None = None
    """Tokens of one day, in UTC. None: no limit."""
    concurrent: _Count | None = None
    """Requests at a time, waiting ones too. None: no limit."""


class Access(Section):
    """Who may do what, and how much. Without this section, inference and lists are open."""

    require_key: bool = False
    """Refuse requests without a key. Without it, callers that show none are of the tier anonymous,
    told apart by address."""
    anonymous_operations: tuple[str, ...] = ("generate", "embed", "list")
    """What callers may do without a key, where require_key is false: generate, embed, list,
    manage; an empty list is nothing."""
    keys: tuple[StaticKey, ...] = ()
    """Keys that stand in this file; others are made with `olla keys create`, and are in the
    store."""
    tiers: dict[str, TierLimits] = Field(default={})
    """Limits by tier: anonymous, member, standard, premium, or names of your own."""
    categories: dict[str, CategoryLimits] = Field(default={})
    """Limits by what is asked: generation, management, monitoring."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks of proxies whose X-Forwarded-For and X-Forwarded-Host are believed."""
    log_content: bool = False
    """Keep prompts and answers with the usage. Mind who may read the store."""

    @field_validator("anonymous_operations")
    @classmethod
    def _known_operations(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        named = tuple(map(_operation, value))
        if Right.ADMIN.value in named:
            raise ValueError(
                "admin is never open: callers without a key could make keys and read everyone's "
                "usage; leave it out and make a key with `olla keys create --admin`"
            )
        return named

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _networks(value)

    @field_validator("categories")
    @classmethod
    def _known_categories(cls, value: dict[str, CategoryLimits]) -> dict[str, CategoryLimits]:
        for name in value:
            if name not in CATEGORIES:
                raise about_key(name, f"there are {', '.join(CATEGORIES)}; '{name}' is none")
        return value

    @field_validator("keys")
    @classmethod
    def _different_keys(cls, value: tuple[StaticKey, ...]) -> tuple[StaticKey, ...]:
        seen: set[str] = set()
        for each in value:
            if each.name in seen:
                raise ValueError(f"two keys are named '{each.name}'; each needs its own name")
            seen.add(each.name)
        if len({each.key for each in value}) != len(value):
            raise ValueError("two names have the same key; each needs its own")
        return value

    @model_validator(mode="after")
    def _known_tiers(self) -> "Access":
        known = {*TIERS, *self.tiers}
        for each in self.keys:
            if each.tier not in known:
                # Its key would have no limits, which nobody would notice.
                raise about_key("keys", f"{each.name}: {one_of_tiers(known, each.tier)}")
        return self


class StoreSection(Section):
    """Where keys and usage are kept."""

    url: str | None = None
    """sqlite:///path or postgresql://…; by default a SQLite file in the user's state directory
    (OLLA_HOME overrides), opened when it is first needed."""
    usage_retention: Duration = 30 * 86400.0
    """How long usage is kept; 0 for ever."""

    @field_validator("url")
    @classmethod
    def _some_url(cls, value: str | None) -> str | None:
        if value is not None:
            checked_url(value)
        return value


class State(Section):
    """What several routers share."""

    url: str | None = None
    """redis://host:6379/0; with it, limits and revocations hold for all routers together."""
    timeout: Annotated[Duration, Field(gt=0, le=10)] = 0.1
    """How long an answer may take, before this router's own limits decide."""

    @field_validator("url")
    @classmethod
    def _some_url(cls, value: str | None) -> str | None:
        return None if value is None else checked_state_url(value)


class RateLimits(Section):
    """Limits that hold for everybody, as the Go router has them. 0 is none."""

    global_requests_per_minute: Annotated[int, Field(ge=0)] = 0
    """All callers together."""
    per_ip_requests_per_minute: Annotated[int, Field(ge=0)] = 0
    """Each address, whatever key it shows."""
    burst_size: Annotated[int, Field(ge=0)] = 0
    """How many may come at once; 0 for as many as in a minute."""
    trust_proxy_headers: bool = False
    """Believe X-Forwarded-For of the proxies named below."""
    trusted_proxy_cidrs: tuple[str, ...] = ()
    """Their networks."""

    @field_validator("trusted_proxy_cidrs")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _networks(value)
