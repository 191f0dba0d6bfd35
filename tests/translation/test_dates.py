"""Times are written as RFC 3339 has them."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from olla.translation.dates import rfc3339


@given(st.integers(0, 253_402_300_799), st.integers(0, 999_999))
def test_it_is_the_standard_librarys(seconds: int, micros: int) -> None:
    """For every second up to the year 9999."""
    expected = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    assert rfc3339(float(seconds))[:19] == expected.rjust(19, "0")
    shown = rfc3339(1_795_168_800 + micros / 1_000_000)
    assert shown.endswith("Z")
    assert abs(int(shown[20:26]) - micros) <= 1
