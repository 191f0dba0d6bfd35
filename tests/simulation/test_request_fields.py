"""What the fields of a request say, and Ollama's complaints."""

import math

import pytest

from olla.simulation.request_fields import keep_alive_seconds, list_field, mapping_field, text_field
from olla.simulation.responses import ApiError


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (300, 300.0),
        (1.5, 1.5),
        (0, 0.0),
        (-1, math.inf),
        (-0.5, math.inf),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("-1m", math.inf),
        ("-1s", math.inf),
        ("0", 0.0),
        ("0s", 0.0),
    ],
)
def test_keep_alive_is_seconds_or_a_go_duration(value: object, seconds: float | None) -> None:
    """Numbers are seconds, strings Go durations, negative is for ever."""
    assert keep_alive_seconds({"keep_alive": value}) == seconds


@pytest.mark.parametrize("value", ["300", "-1", "", "5 m", "m5", "5x", "1m30", True, [], {}])
def test_other_keep_alives_are_refused(value: object) -> None:
    """A number in a string, and everything else, is a 400."""
    with pytest.raises(ApiError) as caught:
        keep_alive_seconds({"keep_alive": value})
    assert caught.value.status == 400


def test_a_number_in_a_string_lacks_its_unit() -> None:
    """The complaint is Go's."""
    with pytest.raises(ApiError, match='time: missing unit in duration "300"'):
        keep_alive_seconds({"keep_alive": "300"})


def test_fields_of_the_wrong_kind_are_refused() -> None:
    """The complaint names the field and both kinds."""
    with pytest.raises(ApiError, match=r"cannot unmarshal number into Go struct field \.model"):
        text_field({"model": 5}, "model")
    with pytest.raises(ApiError, match="cannot unmarshal array"):
        mapping_field({"options": []}, "options")
    with pytest.raises(ApiError, match="cannot unmarshal string"):
        list_field({"messages": ["hi"]}, "messages")


def test_null_is_absent() -> None:
    """A null field is as if it were not there."""
    body = {"model": None, "options": None, "messages": None}
    assert text_field(body, "model") == ""
    assert mapping_field(body, "options") == {}
    assert list_field(body, "messages") == []
