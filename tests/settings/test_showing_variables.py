"""Tests of dumps with text that looks like a variable."""

import pytest
import yaml

from olla.settings import effective_yaml, parse

TEXT = """\
model_aliases: {chat: ['a$${HOME}', '$$${', '$${x:-y}']}
discovery: {static: {endpoints: [{url: 'http://a', name: 'n$${HOME}'}]}}
"""


def test_text_that_looks_like_a_variable_is_escaped() -> None:
    """The dump can be loaded again, whether or not such a variable is set."""
    settings = parse(TEXT, {}).settings
    shown = effective_yaml(settings)
    assert settings.model_aliases == {"chat": ("a${HOME}", "$${", "${x:-y}")}
    for environ in ({}, {"HOME": "/root"}):
        again = parse(shown, environ).settings
        assert again.model_aliases == settings.model_aliases
        assert again.discovery.static.endpoints[0].name == "n${HOME}"


@pytest.mark.parametrize("text", ["5$", "$HOME", "a$b{c}"])
def test_other_dollar_signs_are_not_escaped(text: str) -> None:
    """Only `${` starts a variable."""
    shown = effective_yaml(parse(f"model_aliases: {{chat: ['{text}']}}", {}).settings)
    assert yaml.safe_load(shown)["model_aliases"] == {"chat": [text]}
