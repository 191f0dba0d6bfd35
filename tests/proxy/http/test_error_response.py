"""HTTP responses of errors."""

import json

import pytest

from olla.dialects.registry import DIALECTS
from olla.failures import Failure, Kind
from olla.proxy.http.error_response import error_answer, error_response

CASES = [
    (Failure(Kind.MODEL_NOT_FOUND, "m"), "false", None),
    (Failure(Kind.MODEL_UNAVAILABLE, "m", retry_after=2.2), None, "3"),
    (Failure(Kind.NO_ENDPOINT, "m"), None, "1"),
    (Failure(Kind.RESET, "m"), None, None),
    (Failure(Kind.REQUEST_TIMEOUT, "m"), None, None),
]


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
@pytest.mark.parametrize(("failure", "retry", "after"), CASES, ids=[str(c[0].kind) for c in CASES])
def test_both_forms_have_the_same_content(
    dialect: object, failure: Failure, retry: str | None, after: str | None
) -> None:
    """Status, body, whole seconds to wait, and whether to retry."""
    response = error_response(failure, dialect)  # type: ignore[arg-type]
    raw = error_answer(failure, dialect, b"", keep_alive=True, minor=1, bodiless=False)  # type: ignore[arg-type]
    head, _, body = raw.partition(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert head.startswith(f"HTTP/1.1 {failure.status} ".encode())
    assert response.status == failure.status
    for found in (fields, response.headers):
        assert found.get("Retry-After") == after
        assert found.get("x-should-retry") == retry
    assert body == response.body
    assert fields["Content-Length"] == str(len(body))
    assert json.loads(body)


def test_a_head_request_gets_no_body() -> None:
    """An HTTP/1.0 client gets `Connection: keep-alive`."""
    failure = Failure(Kind.NOT_FOUND, "m")
    raw = error_answer(failure, DIALECTS["olla"], b"", keep_alive=True, minor=0, bodiless=True)
    assert raw.endswith(b"\r\n\r\n")
    assert b"Connection: keep-alive" in raw
