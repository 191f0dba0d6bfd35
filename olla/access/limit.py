"""What a limit is: how much of what, and how it is told."""

import enum

import msgspec

__all__ = ["Limit", "LimitKind", "Per"]


class LimitKind(enum.Enum):
    """What is counted, and over which time."""

    REQUESTS = "requests_per_minute"
    TOKENS = "tokens_per_minute"
    CONCURRENT = "concurrent"
    """Requests at a time."""
    DAILY = "tokens_per_day"
    """Tokens of one day, in UTC."""

    __hash__ = object.__hash__


class Per(enum.Enum):
    """Who counts as one."""

    CALLER = "caller"
    ADDRESS = "address"
    """Whatever key is shown from it."""
    ALL = "all"

    __hash__ = object.__hash__


class Limit(msgspec.Struct, frozen=True):
    """So much of a kind, for each caller, or for those that `per` says.

    `scope` is where it stands in the configuration, such as `tiers.premium`; it counts with
    others of its name only. `amount` is requests or tokens, per minute, at a time or per day;
    `burst` how many may come at once, for those per minute. A `shadow` limit counts, and refuses
    nothing.
    """

    scope: str
    kind: LimitKind
    amount: int
    burst: int = 0
    shadow: bool = False
    per: Per = Per.CALLER

    @property
    def name(self) -> str:
        """How operators know it."""
        return f"{self.scope}.{self.kind.value}"

    @property
    def interval(self) -> float:
        """Seconds in which one comes back; 0 for limits that are not per minute."""
        return 60.0 / self.amount if self.kind in (LimitKind.REQUESTS, LimitKind.TOKENS) else 0.0

    @property
    def window(self) -> float:
        """Seconds in which a burst comes back; 0 for limits that are not per minute."""
        return self.interval * (self.burst or self.amount)
