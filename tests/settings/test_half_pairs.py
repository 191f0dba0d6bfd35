"""Text that no UTF-8 has: YAML can escape half a surrogate pair, and a variable can hold a byte
that is no text."""

from collections.abc import Callable

import pytest

from olla.settings import Problem

Problems = Callable[..., list[Problem]]
MESSAGE = "this is not Unicode text: it has half a surrogate pair"


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
def test_half_a_pair_in_a_file_is_a_problem_with_its_line(
    text: str, line: int, key: str, problems: Problems
) -> None:
    """In values and in names: no traceback, and nothing that cannot be printed later."""
    found = next(each for each in problems(text) if each.message == MESSAGE)
    assert (found.line, found.key) == (line, key)


def test_half_a_pair_in_a_variable_is_a_problem_of_the_variable(problems: Problems) -> None:
    """Python reads a byte that is no text as half a pair."""
    (found,) = problems("", {"OLLA_SERVER_HOST": "a\udc80"})
    assert (found.file, found.key, found.message) == ("environment", "OLLA_SERVER_HOST", MESSAGE)


def test_half_a_pair_in_an_expanded_variable_is_a_problem_of_its_key(problems: Problems) -> None:
    """The line that takes the variable in is the one to look at."""
    (found,) = problems("server: {host: 'a${NAME}'}", {"NAME": "\udc80"})
    assert (found.line, found.key, found.message) == (1, "server.host", MESSAGE)
