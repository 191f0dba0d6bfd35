"""How a finding reads."""

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
def test_a_finding_is_one_line_that_editors_can_jump_to(problem: Problem, text: str) -> None:
    """File, line and column where there are some, key, message."""
    assert str(problem) == text


def test_what_a_file_says_cannot_break_the_line_or_command_a_terminal() -> None:
    """Control characters are written out, and endless values cut."""
    assert str(Problem("f", 1, 1, "a\nb", "\x1b[31m")) == r"f:1:1: a\nb: \x1b[31m"
    assert len(str(Problem("f", 1, 1, "a", "x" * 5000))) < 1100


def test_an_error_reads_as_all_of_its_findings() -> None:
    """A line each."""
    found = [Problem("f", 1, 2, "a", "x"), Problem("f", 3, 4, "b", "y")]
    assert str(SettingsError(found)) == "f:1:2: a: x\nf:3:4: b: y"


@pytest.mark.parametrize(
    ("key", "text"),
    [((), ""), (("a",), "a"), (("a", 0, "b"), "a[0].b"), (("a", "b", 1), "a.b[1]")],
)
def test_a_key_is_written_as_people_write_it(key: Key, text: str) -> None:
    """Dots between names, brackets around places."""
    assert dotted(key) == text
