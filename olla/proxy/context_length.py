"""The context length a request asks for, made to fit what the operator allows.

Ollama reloads a model for every other `num_ctx`. Clamping and rounding up let requests that ask
for nearly the same share one loaded model. Off unless configured; every change is in the record.
"""

import msgspec

from olla.dialects.dialect import Peek
from olla.dialects.rewrite import set_num_ctx

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


def fit_context(rule: ContextRule, peek: Peek, body: bytes) -> tuple[Peek, bytes, str | None]:
    """The request with a context length that fits; the last says what was changed.

    Raises:
        Failed: the body cannot be rewritten.
    """
    wanted = next((int(value) for name, value in peek.load_options if name == "num_ctx"), None)
    if wanted is None:
        return peek, body, None
    fitted = rule.fitted(wanted)
    if fitted == wanted:
        return peek, body, None
    options = tuple(
        (name, float(fitted) if name == "num_ctx" else value) for name, value in peek.load_options
    )
    peek = msgspec.structs.replace(peek, load_options=options)
    return peek, set_num_ctx(body, fitted), f"num_ctx {wanted} -> {fitted}"
