"""What the tests of settings share: reading a text that is expected to be wrong, or right."""

from collections.abc import Callable, Mapping

import pytest

from olla.settings import Problem, SettingsError, parse

Problems = Callable[..., list[Problem]]


@pytest.fixture
def problems() -> Problems:
    """The problems of a text; the test fails when there are none."""

    def found(text: str, environ: Mapping[str, str] | None = None) -> list[Problem]:
        with pytest.raises(SettingsError) as caught:
            parse(text, environ or {}, "olla.yaml")
        return caught.value.problems

    return found


@pytest.fixture
def endpoints() -> Callable[..., str]:
    """A configuration with these endpoints, one line of YAML each."""

    def text(*lines: str) -> str:
        listed = "".join(f"      - {line}\n" for line in lines)
        return f"discovery:\n  static:\n    endpoints:\n{listed}"

    return text
