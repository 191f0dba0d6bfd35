"""Reading YAML: text stays text, places are kept, nothing makes it run away."""

from typing import Any

import pytest

from olla.settings import SettingsError
from olla.settings.document import Document, read_document


def read(text: str, **environ: str) -> Document:
    """The document, which must have no problems."""
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
    """Only an empty value is nothing; anchors and merge keys are followed."""
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
    """What a variable holds is never read as YAML, whatever characters it has."""
    environ = {"T": "t0k", "DIGITS": "0123", "YAML": "[x: #y", "EMPTY": ""}
    assert read(text, **environ).data == {"a": value}


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a: 1\nb: ${NOPE}", 2, 1, "the variable NOPE is not set"),
        ("a: ${1X}", 1, 1, "write ${NAME}"),
        ("a: ${OPEN", 1, 1, "write ${NAME}"),
        ("a: 1\nb: 2\na: 3", 3, 1, "this key stands twice; the first is in line 1"),
        ("s:\n  a: 1\n  a: 2", 3, 3, "this key stands twice; the first is in line 2"),
        ("a: !include x", 1, 1, "tags are not used here; a value that begins with ! needs quotes"),
        ("? [a]\n: 1", 1, 1, "a key must be one word"),
        ("a: {<<: 5}", 1, 1, "only mappings can be merged"),
    ],
)
def test_a_problem_of_a_value_has_its_place(
    text: str, line: int, column: int, message: str
) -> None:
    """Line and column count from one, and reading goes on."""
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
        ("a: *nobody", 1, "a value that begins with * needs quotes"),
        ("- a", 1, "a file must be a mapping"),
        ("hello", 1, "a file must be a mapping"),
        ("x: {a: ${T}}", 1, 'a variable needs quotes: "${NAME}"'),
        ("a: &a {b: *a}", 1, "without end"),
        ("a: &a\n  <<: *a", 1, "without end"),
        ("a: " + "[" * 3000 + "]" * 3000, 1, "nested too deeply"),
    ],
)
def test_what_cannot_be_read_is_one_problem_with_its_line(
    text: str, line: int, message: str
) -> None:
    """No text makes reading fail in another way."""
    with pytest.raises(SettingsError) as caught:
        read_document(text, {}, "olla.yaml")
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == ("olla.yaml", line)
    assert message in problem.message
    assert "\n" not in str(problem)


def test_a_small_text_cannot_stand_for_an_endless_one() -> None:
    """Aliases of aliases are bounded."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(SettingsError, match="without end"):
        read_document("\n".join(lines), {}, "olla.yaml")


def test_merged_keys_keep_the_places_of_both() -> None:
    """A key of its own is found where it stands, a merged one where the anchor has it."""
    text = "base: &b\n  x: {z: 1}\n  y: 2\nuse:\n  x: {z: 3}\n  <<: *b\n"
    marks = read(text).marks
    assert marks["use", "x"] == (5, 3)
    assert marks["use", "x", "z"] == (5, 7)
    assert marks["use", "y"] == (3, 3)
