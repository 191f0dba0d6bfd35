"""Fixtures for the tests of settings."""

from collections.abc import Callable, Mapping

import pytest

from olla.settings import Problem, SettingsError, parse

Problems = Callable[..., list[Problem]]


@pytest.fixture
def problems() -> Problems:
    """Return a function that parses an invalid text and returns its problems."""

    def parse_invalid(text: str, environ: Mapping[str, str] | None = None) -> list[Problem]:
        with pytest.raises(SettingsError) as caught:
            parse(text, environ or {}, "olla.yaml")
        return caught.value.problems

    return parse_invalid


@pytest.fixture
def endpoints() -> Callable[..., str]:
    """Return a function that builds a configuration with the given endpoints, one YAML line
    each."""

    def text(*lines: str) -> str:
        items = "".join(f"      - {line}\n" for line in lines)
        return f"discovery:\n  static:\n    endpoints:\n{items}"

    return text
