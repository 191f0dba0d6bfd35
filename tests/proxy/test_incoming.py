"""Reading a body, with a bound."""

from collections.abc import AsyncIterator

import pytest

from olla.dialects.paths import Target
from olla.failures import Failed, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.incoming import read_body
from olla.proxy.room import Room


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


async def test_pieces_make_a_body() -> None:
    """Up to the limit and not a byte more; 100 Continue first where it is awaited."""
    request = Request(b"ab", b"cd", expects=True)
    assert await read_body(request, 4, Room(1 << 30)) == b"abcd"
    assert request.continued
    assert await read_body(Request(), 0, Room(1 << 30)) == b""


async def test_a_length_over_the_limit_is_refused_before_a_byte_is_read() -> None:
    """And before the client is told to go on."""
    request = Request(b"abcde", length=5, expects=True)
    with pytest.raises(Failed) as caught:
        await read_body(request, 4, Room(1 << 30))
    assert caught.value.failure.kind is Kind.BODY_TOO_LARGE
    assert request.read == 0
    assert not request.continued


async def test_a_body_without_length_is_refused_as_soon_as_it_is_too_long() -> None:
    """Not after it was taken in."""
    request = Request(b"ab", b"cd", b"e", b"f" * 1000)
    with pytest.raises(Failed):
        await read_body(request, 4, Room(1 << 30))
    assert request.read == 3
