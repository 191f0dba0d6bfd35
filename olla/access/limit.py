"""Define limits: what is counted, per whom, and how much is allowed."""

import enum

import msgspec

__all__ = ["Limit", "LimitKind", "Per"]


class LimitKind(enum.Enum):
    """What is counted, and in which interval."""

    REQUESTS = "requests_per_minute"
    TOKENS = "tokens_per_minute"
    CONCURRENT = "concurrent"
    """Concurrent requests."""
    DAILY = "tokens_per_day"
    """Tokens of one day, in UTC."""

    __hash__ = object.__hash__


class Per(enum.Enum):
    """What has a counter of its own."""

    CALLER = "caller"
    ADDRESS = "address"
    """All keys used from one address count together."""
    ALL = "all"

    __hash__ = object.__hash__


class Limit(msgspec.Struct, frozen=True):
    """A limit for each caller, or for each of what `per` names.

    `scope` is its place in the configuration, such as `tiers.premium`; limits of different scopes
    count separately. `amount` is requests or tokens: per minute, concurrent or per day. `burst` is
    how many may arrive at once, for limits per minute. A `shadow` limit counts but rejects nothing.
    """

    scope: str
    kind: LimitKind
    amount: int
    burst: int = 0
    shadow: bool = False
    per: Per = Per.CALLER

    @property
    def name(self) -> str:
        """Its name in messages and metrics."""
        return f"{self.scope}.{self.kind.value}"

    @property
    def interval(self) -> float:
        """Seconds until one unit is available again; 0 for limits that are not per minute."""
        return 60.0 / self.amount if self.kind in (LimitKind.REQUESTS, LimitKind.TOKENS) else 0.0

    @property
    def window(self) -> float:
        """Seconds until a whole burst is available again; 0 for limits that are not per minute."""
        return self.interval * (self.burst or self.amount)
