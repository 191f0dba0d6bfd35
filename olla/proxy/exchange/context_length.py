"""Clamp and round the context length that a request asks for.

Ollama reloads a model for each different `num_ctx`. With clamping and rounding up, requests with
similar context lengths share one resident model. Off by default; each change is recorded.
"""

import msgspec

from olla.dialects.dialect import Peek
from olla.dialects.json_scan import JsonObject
from olla.dialects.rewrite import Edit, num_ctx_edits

__all__ = ["ContextRule", "fit_context"]


class ContextRule(msgspec.Struct, frozen=True):
    """Limits a context length to `tokens_max` tokens, after rounding it up to a multiple of `step`.

    None disables the limit or the rounding.
    """

    tokens_max: int | None = None
    step: int | None = None

    def fitted(self, wanted: int) -> int:
        """Return the context length for a request that asks for `wanted` tokens."""
        fitted = wanted
        if self.step is not None:
            fitted = -(-wanted // self.step) * self.step
        return fitted if self.tokens_max is None else min(fitted, self.tokens_max)


def fit_context(
    rule: ContextRule, peek: Peek, body: bytes, scanned: JsonObject | None = None
) -> tuple[Peek, tuple[Edit, ...], str | None]:
    """Apply a rule to a request.

    Returns the request with the new context length, the edits to its body, and a note for the
    record (None without a change).

    Raises:
        Failed: the body cannot be rewritten.
    """
    wanted = next((int(value) for name, value in peek.load_options if name == "num_ctx"), None)
    if wanted is None:
        return peek, (), None
    fitted = rule.fitted(wanted)
    if fitted == wanted:
        return peek, (), None
    options = tuple(
        (name, float(fitted) if name == "num_ctx" else value) for name, value in peek.load_options
    )
    peek = msgspec.structs.replace(peek, load_options=options)
    return peek, num_ctx_edits(body, fitted, scanned), f"num_ctx {wanted} -> {fitted}"
