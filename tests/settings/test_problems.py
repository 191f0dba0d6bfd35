"""Tests of the text of problems."""

import pytest

from olla.settings import Problem, SettingsError
from olla.settings.problems import Key, dotted


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("f.yaml", 12, 5, "proxy.x", "unknown key"), "f.yaml:12:5: proxy.x: unknown key"),
        (Problem("f.yaml", 1, 1, "", "this is not YAML"), "f.yaml:1:1: this is not YAML"),
        (Problem("f.yaml", 0, 0, "", "no such file"), "f.yaml: no such file"),
        (Problem("environment", 0, 0, "OLLA_X", "wrong"), "environment: OLLA_X: wrong"),
    ],
)
def test_a_problem_is_one_line_that_editors_can_jump_to(problem: Problem, text: str) -> None:
    """File, line and column if known, key, message."""
    assert str(problem) == text


def test_control_characters_of_a_file_are_escaped() -> None:
    """They cannot break the line or control a terminal. Long values are cut."""
    assert str(Problem("f", 1, 1, "a\nb", "\x1b[31m")) == r"f:1:1: a\nb: \x1b[31m"
    assert len(str(Problem("f", 1, 1, "a", "x" * 5000))) < 1100


def test_an_error_lists_all_of_its_problems() -> None:
    """One per line."""
    found = [Problem("f", 1, 2, "a", "x"), Problem("f", 3, 4, "b", "y")]
    assert str(SettingsError(found)) == "f:1:2: a: x\nf:3:4: b: y"


@pytest.mark.parametrize(
    ("key", "text"),
    [((), ""), (("a",), "a"), (("a", 0, "b"), "a[0].b"), (("a", "b", 1), "a.b[1]")],
)
def test_a_key_is_shown_in_dotted_notation(key: Key, text: str) -> None:
    """Dots between names, brackets around indexes."""
    assert dotted(key) == text
