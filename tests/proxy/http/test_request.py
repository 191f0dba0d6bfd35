"""Reading a request body within limits."""

from collections.abc import AsyncIterator

import pytest

from olla.dialects.paths import Target
from olla.failures import Failed, Failure, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.bounds.body_budget import STEP, BodyBudget, BodyCharge
from olla.proxy.http.request import read_body


class Request:
    """A request whose body arrives in pieces."""

    method, target, path, peer = "POST", "/", "/", ""
    headers = ()
    plain = False

    def __init__(self, *pieces: bytes, length: int | None = None, expects: bool = False) -> None:
        self._pieces = pieces
        self.length = length
        self.has_body = bool(pieces)
        self._expects = expects
        self.continued = False
        self.read = 0

    def header(self, name: str) -> str | None:
        """Return None, because the request has no headers."""
        return None

    def listed(self, name: str) -> str | None:
        """Return None, because the request has no headers."""
        return None

    def decoded(self) -> None:
        """Never called: the body is not compressed."""
        raise AssertionError

    def outgoing(self, target: Target, spec: EndpointSpec, via: str | None) -> bytes:
        """Never called: the request is not forwarded."""
        raise AssertionError

    def expects_continue(self) -> bool:
        """Return the configured value."""
        return self._expects

    def send_continue(self) -> None:
        """Record the call."""
        self.continued = True

    def whole(self) -> bytes | None:
        """Return None: the body has not arrived yet."""
        return None

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the pieces and count them."""
        for piece in self._pieces:
            self.read += 1
            yield piece


class Limits:
    """A caller's quota that records reservations, and rejects them with `refused`."""

    def __init__(self, refused: Failure | None = None) -> None:
        self.refused = refused
        self.reserved: list[int | None] = []

    async def reserve(self, length: int | None) -> None:
        """Record a reservation."""
        self.reserved.append(length)
        if self.refused is not None:
            raise Failed(self.refused)


async def read(
    request: Request, limit: int, limits: Limits | None = None, budget: BodyBudget | None = None
) -> bytes:
    """Read a request's body."""
    charge = BodyCharge(budget or BodyBudget(1 << 30, 1 << 30), "addr:1")
    return await read_body(request, limit, charge, (limits or Limits()).reserve)


async def test_pieces_are_joined_to_a_body() -> None:
    """Up to the limit, and after `100 Continue` if the client expects it."""
    request = Request(b"ab", b"cd", expects=True)
    assert await read(request, 4) == b"abcd"
    assert request.continued
    assert await read(Request(), 0) == b""


async def test_a_length_over_the_limit_is_rejected_before_a_byte_is_read() -> None:
    """And before `100 Continue` is sent."""
    request = Request(b"abcde", length=5, expects=True)
    with pytest.raises(Failed) as caught:
        await read(request, 4)
    assert caught.value.failure.kind is Kind.BODY_TOO_LARGE
    assert request.read == 0
    assert not request.continued


async def test_a_body_without_length_is_rejected_as_soon_as_it_is_too_long() -> None:
    """The rest of it is not read."""
    request = Request(b"ab", b"cd", b"e", b"f" * 1000)
    with pytest.raises(Failed):
        await read(request, 4)
    assert request.read == 3


@pytest.mark.parametrize("length", [4, None])
async def test_a_caller_over_its_quota_sends_no_body(length: int | None) -> None:
    """It is rejected before a byte is read and before `100 Continue` is sent."""
    request = Request(b"ab", b"cd", length=length, expects=True)
    limits = Limits(Failure(Kind.LIMITED, "too many"))
    with pytest.raises(Failed) as caught:
        await read(request, 4, limits)
    assert caught.value.failure.kind is Kind.LIMITED
    assert limits.reserved == [length]
    assert request.read == 0
    assert not request.continued


async def test_only_bytes_that_have_arrived_are_charged() -> None:
    """Not the announced length; reading stops when the memory budget is exhausted."""
    budget = BodyBudget(3 * STEP, 3 * STEP)
    charge = BodyCharge(budget, "addr:1")
    request = Request(*[b"x" * STEP] * 4, length=4 * STEP)
    with pytest.raises(Failed) as caught:
        await read_body(request, 1 << 30, charge, Limits().reserve)
    assert caught.value.failure.kind is Kind.OVERLOADED
    assert request.read == 4
    assert budget.taken == 3 * STEP
