"""Reading a body, with a bound."""

from collections.abc import AsyncIterator

import pytest

from olla.dialects.paths import Target
from olla.failures import Failed, Failure, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.bounds.body_budget import STEP, BodyBudget, BodyCharge
from olla.proxy.http.request import read_body


class Request:
    """A request whose body comes in pieces."""

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
        """None."""
        return None

    def listed(self, name: str) -> str | None:
        """None."""
        return None

    def decoded(self) -> None:
        """It never was encoded."""
        raise AssertionError

    def outgoing(self, target: Target, spec: EndpointSpec, via: str | None) -> bytes:
        """Not sent on."""
        raise AssertionError

    def expects_continue(self) -> bool:
        """As made."""
        return self._expects

    def send_continue(self) -> None:
        """Remember."""
        self.continued = True

    def whole(self) -> bytes | None:
        """It never has."""
        return None

    async def pieces(self) -> AsyncIterator[bytes]:
        """One by one."""
        for piece in self._pieces:
            self.read += 1
            yield piece


class Limits:
    """A caller's limits: what was reserved, and whether that is refused."""

    def __init__(self, refused: Failure | None = None) -> None:
        self.refused = refused
        self.reserved: list[int | None] = []

    async def reserve(self, length: int | None) -> None:
        """Remember."""
        self.reserved.append(length)
        if self.refused is not None:
            raise Failed(self.refused)


async def read(
    request: Request, limit: int, limits: Limits | None = None, budget: BodyBudget | None = None
) -> bytes:
    """A request's body."""
    charge = BodyCharge(budget or BodyBudget(1 << 30, 1 << 30), "addr:1")
    return await read_body(request, limit, charge, (limits or Limits()).reserve)


async def test_pieces_make_a_body() -> None:
    """Up to the limit and not a byte more; 100 Continue first where it is awaited."""
    request = Request(b"ab", b"cd", expects=True)
    assert await read(request, 4) == b"abcd"
    assert request.continued
    assert await read(Request(), 0) == b""


async def test_a_length_over_the_limit_is_refused_before_a_byte_is_read() -> None:
    """And before the client is told to go on."""
    request = Request(b"abcde", length=5, expects=True)
    with pytest.raises(Failed) as caught:
        await read(request, 4)
    assert caught.value.failure.kind is Kind.BODY_TOO_LARGE
    assert request.read == 0
    assert not request.continued


async def test_a_body_without_length_is_refused_as_soon_as_it_is_too_long() -> None:
    """Not after it was taken in."""
    request = Request(b"ab", b"cd", b"e", b"f" * 1000)
    with pytest.raises(Failed):
        await read(request, 4)
    assert request.read == 3


@pytest.mark.parametrize("length", [4, None])
async def test_a_caller_over_its_limits_sends_no_body(length: int | None) -> None:
    """It is refused before a byte is read, and is not told to go on."""
    request = Request(b"ab", b"cd", length=length, expects=True)
    limits = Limits(Failure(Kind.LIMITED, "too many"))
    with pytest.raises(Failed) as caught:
        await read(request, 4, limits)
    assert caught.value.failure.kind is Kind.LIMITED
    assert limits.reserved == [length]
    assert request.read == 0
    assert not request.continued


async def test_what_has_arrived_is_held_and_what_is_announced_is_not() -> None:
    """Until there is no room for it."""
    budget = BodyBudget(3 * STEP, 3 * STEP)
    charge = BodyCharge(budget, "addr:1")
    request = Request(*[b"x" * STEP] * 4, length=4 * STEP)
    with pytest.raises(Failed) as caught:
        await read_body(request, 1 << 30, charge, Limits().reserve)
    assert caught.value.failure.kind is Kind.OVERLOADED
    assert request.read == 4
    assert budget.taken == 3 * STEP
