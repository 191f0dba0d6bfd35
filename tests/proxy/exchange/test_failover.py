"""Another endpoint is tried where that can help and does no harm."""

import pytest

from olla.failures import Failure, Kind
from olla.proxy.exchange.failover import elsewhere, is_an_answer
from tests.proxy.exchange.test_exchange import PATHS, House
from tests.views import features, view

CHAT = PATHS.resolve("POST", "/api/chat")
PULL = PATHS.resolve("POST", "/api/pull")


@pytest.mark.parametrize(
    ("status", "passed_on"),
    [(200, True), (400, True), (422, True), (404, False), (429, False), (401, False), (503, False)],
)
def test_which_errors_are_the_clients_answer(status: int, passed_on: bool) -> None:
    """What another endpoint would say too is passed on."""
    assert is_an_answer(CHAT, view("a"), status) is passed_on


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
async def test_which_failures_are_tried_elsewhere(kind: Kind, chat: bool, pull: bool) -> None:
    """Inference changes nothing; what changes a node is only repeated if it never arrived."""
    house = House("a", "b")
    failure = Failure(kind, "x", "a")
    about = features("m")
    again = elsewhere(house.upstreams, CHAT, about, "a", failure)
    assert (again is not None) is chat
    if again is not None:
        assert again.tried == ("a",)
    assert (elsewhere(house.upstreams, PULL, about, "a", failure) is not None) is pull


async def test_no_endpoint_is_tried_twice() -> None:
    """When all have failed, the last failure stands."""
    house = House("a", "b")
    failure = Failure(Kind.RESET, "x", "a")
    again = elsewhere(house.upstreams, CHAT, features("m"), "a", failure)
    assert again is not None
    assert elsewhere(house.upstreams, CHAT, again, "b", failure) is None
