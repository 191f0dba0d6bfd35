"""What is in force, where a text looks like a variable."""

import pytest
import yaml

from olla.settings import effective_yaml, parse

TEXT = """\
model_aliases: {chat: ['a$${HOME}', '$$${', '$${x:-y}']}
discovery: {static: {endpoints: [{url: 'http://a', name: 'n$${HOME}'}]}}
"""


def test_what_looks_like_a_variable_is_shown_so_that_it_is_none() -> None:
    """The text shown can be loaded again, with or without such a variable."""
    settings = parse(TEXT, {}).settings
    shown = effective_yaml(settings)
    assert settings.model_aliases == {"chat": ("a${HOME}", "$${", "${x:-y}")}
    for environ in ({}, {"HOME": "/root"}):
        again = parse(shown, environ).settings
        assert again.model_aliases == settings.model_aliases
        assert again.discovery.static.endpoints[0].name == "n${HOME}"


@pytest.mark.parametrize("text", ["5$", "$HOME", "a$b{c}"])
def test_other_dollars_are_shown_as_they_are(text: str) -> None:
    """Only `${` begins a variable."""
    shown = effective_yaml(parse(f"model_aliases: {{chat: ['{text}']}}", {}).settings)
    assert yaml.safe_load(shown)["model_aliases"] == {"chat": [text]}
