"""Tests of the base class of all sections."""

from collections.abc import Callable

import pytest

from olla.settings import Problem, Settings, parse

Problems = Callable[..., list[Problem]]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "server:",
        "proxy:\n  # load_balancer: x\n",
        "discovery:\n  static:\n    endpoints:\n",
        "server: {port: }",
        "server: {request_limits: ~}",
    ],
)
def test_a_key_without_a_value_counts_as_omitted(text: str) -> None:
    """A section may have all of its keys commented out."""
    assert parse(text, {}).settings == Settings()


def test_an_unknown_key_without_a_value_is_reported(problems: Problems) -> None:
    """An empty value does not hide a typing error."""
    (problem,) = problems("proxy:\n  load_balancr:\n")
    assert problem.message == "unknown key; did you mean load_balancer?"
