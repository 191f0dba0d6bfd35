"""Tests that secrets in URLs are masked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.settings import SettingsError, effective_yaml, parse
from olla.settings.masking import masked, masked_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://gpu-1:11434", "http://gpu-1:11434"),
        ("/health", "/health"),
        ("/health?", "/health?"),
        ("/health?token=hush", "/health?***"),
        ("http://h:1/?key=hush", "http://h:1/?***"),
        ("h:1/?key=hush", "h:1/?***"),
        ("http://h/#hush", "http://h/#***"),
        ("http://ann:hush@h:1/x", "http://***@h:1/x"),
        ("http://hush@h:1/x", "http://***@h:1/x"),
        ("ann:hush@h:1", "***@h:1"),
        ("hush@h", "***@h"),
        ("http://ann:hush@h/?key=hush", "http://***@h/?***"),
        ("http://ann:hu/sh@h", "http://***@h"),
        ("http://ann:hu?sh@h", "http://***"),
        ("http://h/?mail=hush@hush", "http://***"),
    ],
)
def test_user_parts_and_queries_are_masked(url: str, shown: str) -> None:
    """With and without a scheme."""
    assert masked_url(url) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("'ann:hush@h' must look like http://h", "'***@h' must look like http://h"),
        ("'http://h:1/?key=hush' must be", "'http://h:1/?***' must be"),
        ("see /x?token=hush, or", "see /x?***, or"),
        ("did you mean gpu-1?", "did you mean gpu-1?"),
        ("globs such as qwen?b", "globs such as qwen?b"),
        ("h:1?key=hush", "h:1?***"),
    ],
)
def test_urls_in_a_text_are_masked(text: str, shown: str) -> None:
    """The rest of the text does not change."""
    assert masked(text).replace("***,", "***") == shown.replace("***,", "***")
    assert "hush" not in masked(text)


@given(st.text(alphabet="ab:/@?#= '", max_size=20))
def test_arbitrary_text_can_be_masked(text: str) -> None:
    """Masking raises no exception, and masked text stays masked."""
    assert masked_url(masked_url(text)).count("***") >= masked_url(text).count("***") - 1
    masked(text)


@pytest.mark.parametrize(
    "endpoint",
    [
        "{url: 'http://h:1/?key=hush'}",
        "{url: 'http://h:1/?hush'}",
        "{url: 'ann:hush@h:1'}",
        "{url: 'hush@h:1'}",
        "{url: 'http://ann:hush@h:1'}",
        "{url: 'ftp://ann:hush@h:1/?hush'}",
        "{url: 'http://h:port/?hush'}",
        "{url: 'http://h h/?key=hush hush'}",
        "{url: 'http://h', health_check_url: 'http://other/?key=hush'}",
        "{url: 'http://h', health_check_url: '/a b?key=hush hush'}",
        "{url: 'http://h', model_url: 'http://ann:hush@h/x'}",
        "{url: 'http://h', type: 'http://ann:hush@h/x?hush'}",
        "{url: 'http://h', check_interval: '/x?key=hush'}",
    ],
)
def test_a_problem_repeats_no_secret(endpoint: str) -> None:
    """In every problem, whichever part of the URL is invalid."""
    text = f"discovery: {{static: {{endpoints: [{endpoint}]}}}}"
    with pytest.raises(SettingsError) as caught:
        parse(text, {})
    assert "hush" not in str(caught.value)
    assert "hush" not in "".join(map(str, caught.value.problems))


def test_settings_are_dumped_without_queries() -> None:
    """A query may contain a token. The dump can be loaded again."""
    text = (
        "discovery: {static: {endpoints: [{url: 'http://h', health_check_url: '/h?token=hush',"
        " model_url: 'http://h/m?key=hush'}]}}"
    )
    shown = effective_yaml(parse(text, {}).settings)
    assert "hush" not in shown
    assert "health_check_url: /h?***" in shown
    assert effective_yaml(parse(shown, {}).settings) == shown
