"""Tests of durations, sizes, rates and choices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.settings.values import did_you_mean, duration, one_of, rate, show_duration, size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("300ms", 0.3),
        ("5s", 5),
        ("10m", 600),
        ("1h30m", 5400),
        ("0s", 0),
        ("0", 0),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("2d", 172800),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        (30, 30),
        (0.25, 0.25),
        ("30", 30),
    ],
)
def test_durations_are_seconds(text: object, seconds: float) -> None:
    """Go's notation is accepted, and a plain number is in seconds."""
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "fast", "5 s", "5x", "-1s", "-1", "nan", "inf", "1e12", "5s!", "s", None, True, []]
)
def test_an_invalid_duration_is_rejected_with_examples(text: object) -> None:
    """The message shows how to write a duration."""
    with pytest.raises(ValueError, match="write"):
        duration(text)


@given(
    st.one_of(
        st.integers(0, 10**9).map(float),
        st.integers(0, 10**7).map(lambda ms: ms / 1000),
        st.floats(0, 1e9, allow_nan=False),
    )
)
def test_a_formatted_duration_parses_to_the_same_value(seconds: float) -> None:
    """The output of `olla check` can be used as a file without changing a value."""
    assert duration(show_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("104857600", 104857600),
        (104857600, 104857600),
        ("100MB", 104857600),
        ("100mb", 104857600),
        ("64KiB", 65536),
        ("64k", 65536),
        ("1 GB", 1 << 30),
        ("1.5MB", 1572864),
        ("2TiB", 2 << 40),
        ("0", 0),
        ("12b", 12),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_sizes_are_bytes(text: object, count: int) -> None:
    """Units are powers of 1024, and large numbers keep every digit."""
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "big", "-1", "5 parsecs", "5ib", "1e6", "9" * 30, 1.5, True])
def test_an_invalid_size_is_rejected_with_examples(text: object) -> None:
    """The message shows how to write a size."""
    with pytest.raises(ValueError, match="write"):
        size(text)


@pytest.mark.parametrize("text", ["2GB/s", "2GB", " 2 GiB/s ", 2 << 30])
def test_rates_are_bytes_per_second(text: object) -> None:
    """With or without `/s`."""
    assert rate(text) == 2 << 30


@pytest.mark.parametrize("text", ["fast", "2GB/h", "2GB/s/s", "/s", "", True, 1.5, None])
def test_an_invalid_rate_is_rejected_with_examples(text: object) -> None:
    """The message shows how to write a rate."""
    with pytest.raises(ValueError, match="2GB/s"):
        rate(text)


def test_an_invalid_choice_is_rejected_with_the_nearest_one() -> None:
    """The message lists the choices and suggests one."""
    with pytest.raises(ValueError, match="use one of ollama, vllm; did you mean ollama"):
        one_of(["ollama", "vllm"], "olama", "type")
    assert did_you_mean("quite different", ["ollama"]) == ""
