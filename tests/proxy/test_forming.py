"""The request as an endpoint gets it."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from olla.dialects.dialect import Peek
from olla.dialects.paths import Paths, ScopeSpec, Target
from olla.fleet.names import canonical
from olla.fleet.profiles import PROFILES
from olla.fleet.snapshot import Model
from olla.proxy.attempt import OutgoingRequest
from olla.proxy.forming import form_request
from olla.routing.decision import Choose, Reason
from tests.views import twins, view

PATHS = Paths(
    [ScopeSpec(row.name, row.prefixes, row.dialects) for row in PROFILES.values()],
    root_enabled=True,
)


class Request:
    """A client's request."""

    method = "POST"
    peer = "10.0.0.1"
    headers = ((b"Content-Type", b"application/json"),)
    expected = False
    continued = False

    def __init__(self, target: str, body: bytes | None, *, length: int | None = None) -> None:
        self.target = target
        self.has_body = body is not None
        self.length = length

    def header(self, name: str) -> str | None:
        """Its fields."""
        return "application/json" if name == "Content-Type" else None

    def expects_continue(self) -> bool:
        """Whether it waits."""
        return self.expected

    def send_continue(self) -> None:
        """It need not wait any more."""
        self.continued = True

    async def pieces(self) -> AsyncIterator[bytes]:
        """A body that comes later."""
        yield b""


def formed(
    path: str,
    body: bytes,
    *,
    own: str = "m:latest",
    asked: str | None = "m",
    profile: str = "ollama",
) -> OutgoingRequest:
    """The request for an endpoint that spells the model its own way."""
    there = msgspec.structs.replace(view("a", profile=profile), models={canonical(own): Model(own)})
    twin = twins(there).by_name["a"]
    name = canonical(own)
    choice = Choose(twin, twin.names[name], name if asked else None, Reason.MODEL_FOUND)
    incoming = Request(path, body)
    return form_request(incoming, target(path), body, Peek(asked, True), choice, request_id="id")


def target(path: str) -> Target:
    """What a path is."""
    found = PATHS.resolve("POST", path)
    assert isinstance(found, Target)
    return found


def test_a_body_passes_as_it_came() -> None:
    """Byte for byte, where the endpoint knows the name."""
    body = b'{ "model":"m" , "prompt":"x"}'
    request = formed("/api/generate", body)
    assert request.body == body
    assert f"Content-Length: {len(body)}\r\n".encode() in request.head


def test_an_alias_becomes_the_model_it_stands_for() -> None:
    """And the length is that of the new body."""
    request = formed("/api/generate", b'{"model":"fast","prompt":"x"}', asked="fast")
    assert request.body == b'{"model":"m:latest","prompt":"x"}'
    assert b"Content-Length: 33\r\n" in request.head


@pytest.mark.parametrize(("profile", "model"), [("vllm", b"org/Model"), ("ollama", b"ORG/model")])
def test_a_server_that_minds_the_spelling_gets_its_own(profile: str, model: bytes) -> None:
    """Ollama does not mind, others do."""
    body = b'{"model":"ORG/model","messages":[]}'
    request = formed(
        "/v1/chat/completions", body, own="org/Model", asked="ORG/model", profile=profile
    )
    assert b'"' + model + b'"' in request.body


def test_a_streamed_body_is_told_to_come_when_an_endpoint_is_chosen() -> None:
    """Not before: a client that waits has sent nothing for nothing."""
    path = "/api/blobs/sha256:" + "0" * 64
    twin = twins(view("a")).by_name["a"]
    incoming = Request(path, b"", length=5)
    incoming.expected = True
    choice = Choose(twin, None, None, Reason.NO_MODEL)
    request = form_request(incoming, target(path), b"", Peek(None, False), choice, request_id="id")
    assert incoming.continued
    assert request.pieces is not None
    assert request.fresh_connection
    assert b"Content-Length: 5\r\n" in request.head
