"""Requests are retried on another endpoint if that can help and does no harm."""

import pytest

from olla.failures import Failure, Kind
from olla.proxy.exchange.failover import is_final_error, retry_features
from tests.proxy.exchange.test_exchange import PATHS, FakeRouter
from tests.views import features, view

CHAT = PATHS.resolve("POST", "/api/chat")
PULL = PATHS.resolve("POST", "/api/pull")


@pytest.mark.parametrize(
    ("status", "final"),
    [(200, True), (400, True), (422, True), (404, False), (429, False), (401, False), (503, False)],
)
def test_errors_that_other_endpoints_would_repeat_are_relayed(status: int, final: bool) -> None:
    """Other errors are retried."""
    assert is_final_error(CHAT, view("a"), status) is final


@pytest.mark.parametrize(
    ("kind", "chat", "pull"),
    [
        (Kind.CONNECT_REFUSED, True, True),
        (Kind.RESET, True, False),
        (Kind.FIRST_BYTE_TIMEOUT, True, False),
        (Kind.UPSTREAM_STATUS, True, False),
        (Kind.BODY_TRUNCATED, False, False),
        (Kind.CLIENT_GONE, False, False),
    ],
)
async def test_failures_are_retried_if_that_is_safe(kind: Kind, chat: bool, pull: bool) -> None:
    """Inference may be repeated. An operation that changes a node is retried only if the endpoint
    never received it."""
    router = FakeRouter("a", "b")
    failure = Failure(kind, "x", "a")
    first = features("m")
    retry = retry_features(router.upstreams, CHAT, first, "a", failure)
    assert (retry is not None) is chat
    if retry is not None:
        assert retry.tried == ("a",)
    assert (retry_features(router.upstreams, PULL, first, "a", failure) is not None) is pull


async def test_no_endpoint_is_tried_twice() -> None:
    """The request is not retried once all endpoints have failed."""
    router = FakeRouter("a", "b")
    failure = Failure(Kind.RESET, "x", "a")
    retry = retry_features(router.upstreams, CHAT, features("m"), "a", failure)
    assert retry is not None
    assert retry_features(router.upstreams, CHAT, retry, "b", failure) is None
