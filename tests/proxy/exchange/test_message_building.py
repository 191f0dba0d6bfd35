"""The request as an endpoint gets it."""

from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from olla.dialects.paths import Paths, ScopeSpec, Target
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.model_names import canonical
from olla.fleet.profiles import PROFILES
from olla.fleet.snapshot import Model
from olla.proxy.exchange.attempt import OutgoingRequest
from olla.proxy.exchange.message_building import build_request, build_response
from olla.proxy.http.headers import unchanging_head
from olla.proxy.http.response_head import parse_head
from olla.routing.decision import Choice, ChooseEndpoint, ChooseFallback, ChooseInstance, Reason
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
    plain = False
    expected = False
    continued = False

    def __init__(self, target: str, body: bytes | None, *, length: int | None = None) -> None:
        self.target = target
        self.has_body = body is not None
        self.length = length

    def header(self, name: str) -> str | None:
        """Its fields."""
        return "application/json" if name == "Content-Type" else None

    @property
    def path(self) -> str:
        """The target."""
        return self.target

    def outgoing(self, target: Target, spec: EndpointSpec, via: str | None) -> bytes:
        """Its head."""
        where = target.upstream_target
        return unchanging_head("POST", where, spec, self.headers, peer=self.peer, via=via)

    def whole(self) -> bytes | None:
        """Not here."""
        return None

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
    fallback: bool = False,
) -> OutgoingRequest:
    """The request for an endpoint that spells the model its own way."""
    there = msgspec.structs.replace(view("a", profile=profile), models={canonical(own): Model(own)})
    twin = twins(there).by_name["a"]
    name = canonical(own)
    choice: Choice = ChooseInstance(twin, twin.names[name], name, Reason.MODEL_FOUND)
    if fallback:
        choice = ChooseFallback(twin)
    incoming = Request(path, body)
    return build_request(incoming, target(path), body, asked, choice, "id")


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


def test_an_endpoint_that_does_not_list_the_model_gets_the_name_as_the_client_spelled_it() -> None:
    """A fallback knows no other spelling."""
    body = b'{"model":"FAST","prompt":"x"}'
    assert formed("/api/generate", body, asked="FAST", fallback=True).body == body


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
    choice = ChooseEndpoint(twin)
    request = build_request(incoming, target(path), b"", None, choice, "id")
    assert incoming.continued
    assert request.pieces is not None
    assert request.fresh_connection
    assert b"Content-Length: 5\r\n" in request.head


class Client:
    """A client's connection."""

    closing = paused = False

    def __init__(self, minor: int = 1, *, trailers: bool = False) -> None:
        self.minor = minor
        self.persistent = True
        self.wants_trailers = trailers

    def write(self, data: bytes) -> None:
        """Nothing."""

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Never."""

    def answered(self) -> None:
        """Nothing."""


CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("line", "minor", "body_read", "persistent", "framing"),
    [
        (CHUNKED, 1, True, True, b"\r\nTransfer-Encoding: chunked\r\n"),
        (CHUNKED, 0, True, False, b"\r\nConnection: close\r\n"),
        (
            "Content-Length: 5",
            0,
            True,
            True,
            b"\r\nContent-Length: 5\r\nConnection: keep-alive\r\n",
        ),
        ("Content-Length: 5", 1, False, False, b"\r\nConnection: close\r\n"),
        ("X: until the end", 1, True, False, b"\r\nConnection: close\r\n"),
    ],
)
def test_the_connection_outlives_an_answer_that_has_an_end(
    line: str, minor: int, body_read: bool, persistent: bool, framing: bytes
) -> None:
    """Of its own, and where nothing of the request is left on it."""
    client = Client(minor)
    head = parse_head(f"HTTP/1.1 200 OK\r\n{line}".encode(), "POST")
    raw = build_response(
        head, client, b"X-Olla-Endpoint: a\r\n", body_read=body_read, limited=False
    )
    assert client.persistent is persistent
    assert framing in raw
    assert raw.endswith(b"\r\nX-Olla-Endpoint: a\r\n\r\n")
    assert b"Trailer" not in raw


def test_a_trailer_is_promised_to_whoever_takes_it() -> None:
    """In a chunked answer."""
    head = parse_head(f"HTTP/1.1 200 OK\r\n{CHUNKED}".encode(), "POST")
    raw = build_response(head, Client(trailers=True), b"", body_read=True, limited=False)
    assert b"\r\nTrailer: X-Olla-Response-Time\r\n" in raw


def test_a_client_that_is_limited_is_told_one_standing() -> None:
    """The router's; the endpoint's limits are not this client's."""
    head = parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-RateLimit-Limit: 5", "POST")
    for limited in (False, True):
        raw = build_response(head, Client(), b"", body_read=True, limited=limited)
        assert (b"X-RateLimit-Limit: 5" in raw) is not limited
