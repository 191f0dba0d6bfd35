"""An endpoint's own error."""

import pytest

from olla.proxy.answered import answered, retry_after
from olla.proxy.head import parse_head


@pytest.mark.parametrize(
    ("field", "seconds"),
    [(b"7", 7.0), (b"0", 0.0), (b"soon", None), (b"-1", None), (b"9" * 30, None), (b"", None)],
)
def test_only_whole_seconds_are_a_time_to_wait(field: bytes, seconds: float | None) -> None:
    """Dates and nonsense are left out."""
    head = parse_head(b"HTTP/1.1 503 Busy\r\nRetry-After: " + field, "GET")
    assert retry_after(head) == seconds


def test_the_failure_names_endpoint_and_status() -> None:
    """With the wait it asked for."""
    failure = answered("gpu-1", 503, 7.0)
    assert (failure.endpoint, failure.endpoint_status, failure.retry_after) == ("gpu-1", 503, 7.0)
