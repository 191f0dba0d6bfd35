"""Hold the access rules of the configuration: whether keys are required, what anonymous callers may
do, and the limits of each caller."""

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
"""A category of limits: `generation`, `management` or `monitoring`."""
CATEGORIES: tuple[Category, ...] = ("generation", "management", "monitoring")

TIERS = ("anonymous", "member", "standard", "premium")
"""The predefined tiers. The configuration may add others."""

_NOTHING: Mapping[str, tuple[Limit, ...]] = {}
_ABOUT_MODELS = frozenset({Operation.LIST, Operation.MODEL, Operation.SHOW})
OUTPUT_UNSAID = 1024
"""Tokens reserved for a response if the request does not limit its length."""
BYTES_A_TOKEN = 4.0
"""An estimate for English text and most tokenizers, until responses give a better one."""


class AccessPolicy(msgspec.Struct, dict=True):
    """The access rules in force.

    `anonymous` are the rights of callers without a key, empty with `require_key`. If keys are in
    use (`guarded`), unknown credentials are rejected everywhere; otherwise any credentials are
    accepted, as Ollama does. `tiers` and `categories` map names to limits; `everybody` are the
    limits of every request.
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
        """Return all limits of a caller in a category: the same object each time.

        `own` are a `surface`'s limits for tiers that the configuration does not define; None if
        limits of tiers do not apply.
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
        """Return the limits of a tier: those of the configuration if it defines the tier, even
        with an empty list, else the surface's `own`."""
        known = self.tiers.get(tier)
        return own.get(tier, ()) if known is None else known


def category_of(operation: Operation) -> Category:
    """Return the category whose limits apply to an operation."""
    right = right_of(operation)
    if right in (Right.GENERATE, Right.EMBED) and operation is not Operation.OTHER:
        return "generation"
    if right is Right.MANAGE or operation in _ABOUT_MODELS:
        return "management"
    return "monitoring"


def reserve(
    limits: tuple[Limit, ...], prompt_tokens: float, prompt_bytes: int, output_max: float
) -> int:
    """Estimate the tokens to reserve for a request: its prompt, and the longest response that it
    allows, or `OUTPUT_UNSAID` if it sets no limit. Never more than the token limits allow at once:
    otherwise the request could never run."""
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
