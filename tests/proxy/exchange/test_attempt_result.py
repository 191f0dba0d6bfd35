"""Failures from error responses of endpoints."""

import pytest

from olla.failures import Kind
from olla.proxy.exchange.attempt_result import relayed_error, retry_after_seconds, upstream_error
from olla.proxy.http.response_head import parse_head


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        *((b"7", 7.0), (b"0", 0.0), (b"soon", None), (b"-1", None), (b"9" * 400, 86_400.0)),
        *((b"", None), (b"Sun, 06 Nov 1994 08:49:37 GMT", 37.0), (b"7\r\nRetry-After: 7", None)),
    ],
)
def test_retry_after_is_parsed(field: bytes, seconds: float | None) -> None:
    """In seconds or as a date, with an upper limit; repeated fields are ignored."""
    head = parse_head(b"HTTP/1.1 503 Busy\r\nRetry-After: " + field, "GET")
    assert retry_after_seconds(head.passed, 784_111_740.0) == seconds


def test_a_rejected_key_is_reported_with_the_setting() -> None:
    """The operator must change it."""
    failure = upstream_error("gpu-1", 401, None)
    assert failure.kind is Kind.UPSTREAM_UNAUTHORIZED
    assert "auth (discovery.static.endpoints)" in failure.message


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((400, None), (404, None), (413, None), (501, None)),
        *((403, Kind.UPSTREAM_UNAUTHORIZED), (429, Kind.UPSTREAM_LIMITED)),
        *((500, Kind.UPSTREAM_STATUS), (503, Kind.UPSTREAM_BUSY)),
    ],
)
def test_a_relayed_error_may_be_evidence_about_the_endpoint(status: int, kind: Kind | None) -> None:
    """Other statuses concern only the request."""
    failure = relayed_error("gpu-1", status, None)
    assert (failure.kind if failure is not None else None) is kind


def test_the_failure_names_endpoint_and_status() -> None:
    """And the endpoint's `Retry-After`."""
    failure = upstream_error("gpu-1", 503, 7.0)
    assert (failure.endpoint, failure.endpoint_status, failure.retry_after) == ("gpu-1", 503, 7.0)
