"""Tests of text that UTF-8 cannot encode.

YAML can escape a lone surrogate, and a variable can hold a byte that is not text.
"""

from collections.abc import Callable

import pytest

from olla.settings import Problem

Problems = Callable[..., list[Problem]]
MESSAGE = "this is not valid Unicode text: it contains a lone surrogate"


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ('server: {host: "\\ud800"}', 1, "server.host"),
        ('logging: {level: info}\nmodel_aliases: {a: ["\\udc80"]}', 2, "model_aliases.a[0]"),
        ('model_aliases: {"\\ud800": [a]}', 1, "model_aliases"),
        ('"\\ud800": 1', 1, ""),
        ('model_aliases: {<<: {"\\ud800": [a]}}', 1, "model_aliases"),
    ],
)
def test_a_lone_surrogate_in_a_file_is_a_problem_with_its_line(
    text: str, line: int, key: str, problems: Problems
) -> None:
    """In values and in names: without a traceback, and with a printable message."""
    found = next(each for each in problems(text) if each.message == MESSAGE)
    assert (found.line, found.key) == (line, key)


def test_a_lone_surrogate_in_a_variable_is_a_problem_of_the_variable(problems: Problems) -> None:
    """Python decodes a byte that is not text as a lone surrogate."""
    (found,) = problems("", {"OLLA_SERVER_HOST": "a\udc80"})
    assert (found.file, found.key, found.message) == ("environment", "OLLA_SERVER_HOST", MESSAGE)


def test_a_lone_surrogate_in_an_expanded_variable_is_a_problem_of_its_key(
    problems: Problems,
) -> None:
    """The problem points to the line that uses the variable."""
    (found,) = problems("server: {host: 'a${NAME}'}", {"NAME": "\udc80"})
    assert (found.line, found.key, found.message) == (1, "server.host", MESSAGE)
