"""Parsing YAML: scalars stay text, positions are recorded, and expansion is bounded."""

from typing import Any

import pytest

from olla.settings import SettingsError
from olla.settings.document import Document, read_document


def read(text: str, **environ: str) -> Document:
    """Parse a text that has no problems."""
    document = read_document(text, environ, "olla.yaml")
    assert document.problems == []
    return document


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", {}),
        ("# nothing\n", {}),
        ("---\n", {}),
        ("a: 1", {"a": "1"}),
        ("a: 007\nb: on\nc: 1.10", {"a": "007", "b": "on", "c": "1.10"}),
        ("d: 2024-01-01", {"d": "2024-01-01"}),
        ("a:\nb: ~\nc: null\nd: ''", {"a": None, "b": None, "c": None, "d": ""}),
        ("a: [1, {b: 2}]", {"a": ["1", {"b": "2"}]}),
        ("\ufeffa: 1", {"a": "1"}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": "1"}, "c": {"b": "1"}}),
        (
            "a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}",
            {"a": {"b": "1", "c": "2"}, "d": {"c": "3", "b": "1"}},
        ),
        (
            "a: &x {b: 1}\nc: &y {b: 2, e: 3}\nd: {<<: [*x, *y]}",
            {"a": {"b": "1"}, "c": {"b": "2", "e": "3"}, "d": {"b": "1", "e": "3"}},
        ),
        ("a: !!str 5", {"a": "5"}),
    ],
)
def test_a_scalar_stays_the_text_that_was_written(text: str, data: dict[str, Any]) -> None:
    """Only an empty value becomes None; anchors and merge keys are followed."""
    assert read(text).data == data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: ${T}", "t0k"),
        ("a: x-${T}-y", "x-t0k-y"),
        ("a: '${T}'", "t0k"),
        ("a: ${DIGITS}", "0123"),
        ("a: ${YAML}", "[x: #y"),
        ("a: ${MISSING:-fallback}", "fallback"),
        ("a: ${MISSING:-}", None),
        ("a: '${MISSING:-}'", ""),
        ("a: ${EMPTY:-fallback}", "fallback"),
        ("a: ${EMPTY}", None),
        ("a: ${T}${DIGITS}", "t0k0123"),
        ("a: $${T}", "${T}"),
        ("a: $T and $", "$T and $"),
    ],
)
def test_variables_are_expanded_as_text(text: str, value: str | None) -> None:
    """The value of a variable is never parsed as YAML, whichever characters it has."""
    environ = {"T": "t0k", "DIGITS": "0123", "YAML": "[x: #y", "EMPTY": ""}
    assert read(text, **environ).data == {"a": value}


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a: 1\nb: ${NOPE}", 2, 1, "the variable NOPE is not set"),
        ("a: ${1X}", 1, 1, "write ${NAME}"),
        ("a: ${OPEN", 1, 1, "write ${NAME}"),
        ("a: 1\nb: 2\na: 3", 3, 1, "duplicate key; it is already set in line 1"),
        ("s:\n  a: 1\n  a: 2", 3, 3, "duplicate key; it is already set in line 2"),
        ("a: !include x", 1, 1, "quote values that begin with !"),
        ("? [a]\n: 1", 1, 1, "a key must be a string"),
        ("a: {<<: 5}", 1, 1, "only mappings can be merged"),
    ],
)
def test_a_problem_of_a_value_has_its_position(
    text: str, line: int, column: int, message: str
) -> None:
    """Line and column count from one, and parsing continues."""
    (problem,) = read_document(text, {}, "olla.yaml").problems
    assert (problem.line, problem.column) == (line, column)
    assert message in problem.message


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: [1, 2", 1, "this is not YAML"),
        ("a: 1\n\tb: 2", 2, "this is not YAML"),
        ("a: 1\n b: 2", 2, "this is not YAML"),
        ("a: 1\nb: \x00", 2, "the character U+0000 is not allowed"),
        ("a: 1\n---\nb: 2", 2, "expected a single document"),
        ("a: *nobody", 1, "quote values that begin with *"),
        ("- a", 1, "a file must be a mapping"),
        ("hello", 1, "a file must be a mapping"),
        ("x: {a: ${T}}", 1, 'quote variables within braces or brackets: "${NAME}"'),
        ("a: &a {b: *a}", 1, "without end"),
        ("a: &a\n  <<: *a", 1, "without end"),
        ("a: " + "[" * 3000 + "]" * 3000, 1, "nested too deeply"),
    ],
)
def test_an_invalid_document_is_one_problem_with_its_line(
    text: str, line: int, message: str
) -> None:
    """No text makes parsing fail with another exception."""
    with pytest.raises(SettingsError) as caught:
        read_document(text, {}, "olla.yaml")
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == ("olla.yaml", line)
    assert message in problem.message
    assert "\n" not in str(problem)


def test_a_small_text_cannot_expand_without_end() -> None:
    """Aliases of aliases are bounded."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(SettingsError, match="without end"):
        read_document("\n".join(lines), {}, "olla.yaml")


def test_merged_keys_have_the_position_of_their_source() -> None:
    """Direct keys have their position in the mapping, merged keys that in the anchor."""
    text = "base: &b\n  x: {z: 1}\n  y: 2\nuse:\n  x: {z: 3}\n  <<: *b\n"
    marks = read(text).marks
    assert marks["use", "x"] == (5, 3)
    assert marks["use", "x", "z"] == (5, 7)
    assert marks["use", "y"] == (3, 3)
