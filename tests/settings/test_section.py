"""What every section has in common."""

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
def test_a_key_without_a_value_is_as_if_left_out(text: str) -> None:
    """A section with everything in it commented out is no problem."""
    assert parse(text, {}).settings == Settings()


def test_an_unknown_key_is_one_without_a_value_too(problems: Problems) -> None:
    """A typing error does not hide behind an empty value."""
    (problem,) = problems("proxy:\n  load_balancr:\n")
    assert problem.message == "unknown key; did you mean load_balancer?"
