"""What a simulated model says: the same for the same seed, cut where the request wants it."""

import math

import pytest

from olla.simulation.text_generator import count_tokens, embedding, limited, speech


def cut(text: str, limit: int | None = None, stops: list[str] | None = None) -> tuple[str, str]:
    """What is said of single characters under a limit, and why it ends."""
    end: list[str] = []
    return "".join(limited(iter(text), limit, stops or [], end)), end[0]


def test_speech_depends_on_its_seed_alone() -> None:
    """The same seed says the same, another one something else."""
    assert list(speech(1, "model", "prompt")) == list(speech(1, "model", "prompt"))
    assert list(speech(1, "model", "prompt")) != list(speech(1, "model", "other prompt"))
    assert list(speech(1, "model", "prompt", 7)) != list(speech(1, "model", "prompt", 8))


@pytest.mark.parametrize(
    ("limit", "stops", "said"),
    [
        (None, [], ("abcabd", "stop")),
        (-1, [], ("abcabd", "stop")),
        (3, [], ("abc", "length")),
        (0, [], ("", "length")),
        (None, ["abd"], ("abc", "stop")),
        (None, ["c", "b"], ("a", "stop")),
        (None, ["abx"], ("abcabd", "stop")),
        (5, ["abd"], ("abcab", "length")),
        (None, [""], ("abcabd", "stop")),
    ],
)
def test_an_answer_ends_at_its_limit_or_before_a_stop(
    limit: int | None, stops: list[str], said: tuple[str, str]
) -> None:
    """A stop never shows, not even its beginning, though it comes in many tokens."""
    assert cut("abcabd", limit, stops) == said


def test_a_held_back_token_keeps_its_place() -> None:
    """Text that may become a stop leaves an empty token, so that time and counts stay right."""
    assert list(limited("xaby", None, ["abc"], [])) == ["x", "", "", "aby"]


def test_embeddings_have_length_one_and_repeat() -> None:
    """The same text has the same vector, and its squares add up to one."""
    vector = embedding("m", "text", 768)
    assert len(vector) == 768
    assert math.isclose(sum(x * x for x in vector), 1.0)
    assert vector == embedding("m", "text", 768)
    assert vector != embedding("m", "other", 768)


def test_fewer_dimensions_are_the_first_ones_normalised() -> None:
    """A shorter vector points the same way as the beginning of the longer one."""
    whole, short = embedding("m", "text", 768), embedding("m", "text", 2)
    assert math.isclose(short[0] / short[1], whole[0] / whole[1])
    assert math.isclose(sum(x * x for x in short), 1.0)


def test_tokens_of_a_text() -> None:
    """Nothing has none, anything at least one."""
    assert count_tokens("  ") == 0
    assert count_tokens("a") == 1
    assert count_tokens("one two three") == 4
