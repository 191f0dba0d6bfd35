"""The context length a request asks for, made to fit what the operator allows.

Ollama reloads a model for every other `num_ctx`. Clamping and rounding up let requests that ask
for nearly the same share one loaded model. Off unless configured; every change is in the record.
"""

import msgspec

from olla.dialects.dialect import Peek
from olla.dialects.json_scan import JsonObject
from olla.dialects.rewrite import Edit, num_ctx_edits

__all__ = ["ContextRule", "fit_context"]


class ContextRule(msgspec.Struct, frozen=True):
    """Tokens: `most` is the largest context allowed, contexts are rounded up to a multiple of
    `step`. None leaves it alone."""

    most: int | None = None
    step: int | None = None

    def fitted(self, wanted: int) -> int:
        """What a request that asks for `wanted` gets."""
        fitted = wanted
        if self.step is not None:
            fitted = -(-wanted // self.step) * self.step
        return fitted if self.most is None else min(fitted, self.most)


def fit_context(
    rule: ContextRule, peek: Peek, body: bytes, scanned: JsonObject | None = None
) -> tuple[Peek, tuple[Edit, ...], str | None]:
    """The request with a context length that fits, and what that changes in its body; the last
    says so in words.

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
