"""The access rules of the configuration: who needs a key, what callers may do without one, and
which limits hold for whom."""

from collections.abc import Mapping
from math import inf

import msgspec

from olla.access.caller import Caller, Network
from olla.access.keys import DEFAULT_RIGHTS
from olla.access.limit import Limit, LimitKind, Per
from olla.dialects.dialect import Operation, Right
from olla.dialects.routes import right_of

__all__ = [
    "BYTES_A_TOKEN",
    "CATEGORIES",
    "OUTPUT_UNSAID",
    "TIERS",
    "AccessPolicy",
    "Category",
    "category_of",
    "reserve",
]

Category = str
"""What limits tell apart: `generation`, `management` or `monitoring`."""
CATEGORIES: tuple[Category, ...] = ("generation", "management", "monitoring")

TIERS = ("anonymous", "member", "standard", "premium")
"""Tiers that there are without a configuration; it may add others."""

_NOTHING: Mapping[str, tuple[Limit, ...]] = {}
_ABOUT_MODELS = frozenset({Operation.LIST, Operation.MODEL, Operation.SHOW})
OUTPUT_UNSAID = 1024
"""Tokens that are reserved for an answer of a length nobody named."""
BYTES_A_TOKEN = 4.0
"""Of English text with most tokenizers, until answers have told better."""


class AccessPolicy(msgspec.Struct, dict=True):
    """Who needs a key, and which limits hold.

    `anonymous` are the rights of callers without a key; none with `require_key`. `guarded` says
    that keys are in use, so that unknown credentials are refused everywhere: a router that requires
    none accepts whatever a client shows, as Ollama does. `tiers` and `categories` have their limits
    by name; `everybody` are those that hold for each request.
    """

    require_key: bool = False
    anonymous: frozenset[Right] = DEFAULT_RIGHTS
    guarded: bool = False
    tiers: Mapping[str, tuple[Limit, ...]] = {}
    categories: Mapping[Category, tuple[Limit, ...]] = {}
    everybody: tuple[Limit, ...] = ()
    trusted: tuple[Network, ...] = ()

    def __post_init__(self) -> None:
        if self.require_key:
            self.anonymous = frozenset()
        self.per_address = any(limit.per is Per.ADDRESS for limit in self.everybody)
        self._known: dict[tuple[str, Category, str], tuple[Limit, ...]] = {}

    def limits(
        self,
        caller: Caller,
        category: Category,
        own: Mapping[str, tuple[Limit, ...]] | None = _NOTHING,
        surface: str = "",
    ) -> tuple[Limit, ...]:
        """All limits that hold for a caller in a category: the same object each time.

        `own` are the limits that a `surface` brings for tiers of which the configuration says
        nothing; None where limits of tiers do not count.
        """
        key = (caller.tier, category, surface)
        known = self._known.get(key)
        if known is None:
            tier: tuple[Limit, ...] = ()
            if own is not None:
                tier = self.of_tier(caller.tier, own)
            known = (*self.everybody, *tier, *self.categories.get(category, ()))
            self._known[key] = known
        return known

    def of_tier(self, tier: str, own: Mapping[str, tuple[Limit, ...]]) -> tuple[Limit, ...]:
        """The limits of a tier: the configuration's where it says anything of that tier, be it
        that there are none, else a surface's `own`."""
        known = self.tiers.get(tier)
        return own.get(tier, ()) if known is None else known


def category_of(operation: Operation) -> Category:
    """The category an operation is limited in."""
    right = right_of(operation)
    if right in (Right.GENERATE, Right.EMBED) and operation is not Operation.OTHER:
        return "generation"
    if right is Right.MANAGE or operation in _ABOUT_MODELS:
        return "management"
    return "monitoring"


def reserve(
    limits: tuple[Limit, ...], prompt_tokens: float, prompt_bytes: int, output_max: float
) -> int:
    """How many tokens a request is charged before anybody knows: its prompt by an estimate, and
    the longest answer it allows, or as long a one as is usual where it names none. Never more
    than the limits on tokens allow at once, or it could only run alone."""
    most = min(
        (
            limit.burst or limit.amount
            for limit in limits
            if limit.kind in (LimitKind.TOKENS, LimitKind.DAILY)
        ),
        default=0,
    )
    output = OUTPUT_UNSAID if output_max == inf else output_max
    prompt = prompt_tokens or prompt_bytes / BYTES_A_TOKEN
    return int(min(prompt + output, most))
