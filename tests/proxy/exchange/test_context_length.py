"""Clamping and rounding of requested context lengths."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.dialects.dialect import Operation
from olla.dialects.registry import DIALECTS
from olla.dialects.rewrite import edited
from olla.proxy.exchange.context_length import ContextRule, fit_context


def fitted(rule: ContextRule, body: bytes) -> tuple[object, bytes, str | None]:
    """Apply a rule; return the load options, the body and the note."""
    peek, edits, note = fit_context(rule, DIALECTS["ollama"].peek(Operation.CHAT, body), body)
    return peek.load_options, edited(body, edits), note


BODY = b'{"model":"m","options":{"temperature":0.5,"num_ctx":10000},"messages":[]}'


@pytest.mark.parametrize(
    ("rule", "expected"),
    [(ContextRule(8192), 8192), (ContextRule(None, 4096), 12288), (ContextRule(8192, 4096), 8192)],
)
def test_a_context_is_clamped_and_rounded_up(rule: ContextRule, expected: int) -> None:
    """In the body and in the load options, with a note; the rest is unchanged."""
    options, body, note = fitted(rule, BODY)
    assert options == (("num_ctx", float(expected)),)
    assert msgspec.json.decode(body) == {
        "model": "m", "options": {"temperature": 0.5, "num_ctx": expected}, "messages": []
    }  # fmt: skip
    assert note == f"num_ctx 10000 -> {expected}"


@pytest.mark.parametrize("body", [BODY, b'{"model":"m"}', b'{"model":"m","options":{}}'])
def test_a_request_is_unchanged_without_a_rule_or_a_context(body: bytes) -> None:
    """The rule is off by default, and never adds a context to a request."""
    assert fitted(ContextRule(), body)[1:] == (body, None)
    if body != BODY:
        assert fitted(ContextRule(1, 1), body)[1:] == (body, None)


@given(st.integers(1, 10**6), st.integers(1, 10**5), st.integers(1, 100))
def test_a_fitted_context_obeys_the_rule(wanted: int, step: int, times: int) -> None:
    """It never exceeds the limit, and is below the requested context only at the limit."""
    rule = ContextRule(step * times, step)
    got = rule.fitted(wanted)
    assert got % step == 0
    assert got == rule.tokens_max or wanted <= got < wanted + step
