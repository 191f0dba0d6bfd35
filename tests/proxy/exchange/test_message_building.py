"""Building requests for endpoints and response heads for clients."""

from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from olla.dialects.paths import Paths, ScopeSpec, Target
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.model_names import canonical
from olla.fleet.profiles import PROFILES
from olla.fleet.snapshot import Model
from olla.proxy.exchange.attempt import OutgoingRequest
from olla.proxy.exchange.message_building import ReceivedBody, build_request, build_response
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
        """Return a header field."""
        return "application/json" if name == "Content-Type" else None

    @property
    def path(self) -> str:
        """The request target."""
        return self.target

    def outgoing(self, target: Target, spec: EndpointSpec, via: str | None) -> bytes:
        """Return the head to forward."""
        where = target.upstream_target
        return unchanging_head("POST", where, spec, self.headers, peer=self.peer, via=via)

    def whole(self) -> bytes | None:
        """Return None: the body has not arrived."""
        return None

    def expects_continue(self) -> bool:
        """Return whether the client waits for `100 Continue`."""
        return self.expected

    def send_continue(self) -> None:
        """Record the call."""
        self.continued = True

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield an empty body."""
        yield b""


def built(
    path: str,
    body: bytes,
    *,
    listed: str = "m:latest",
    requested: str | None = "m",
    profile: str = "ollama",
    fallback: bool = False,
) -> OutgoingRequest:
    """Build the request for an endpoint that lists the model as `listed`."""
    name = canonical(listed)
    endpoint = msgspec.structs.replace(view("a", profile=profile), models={name: Model(listed)})
    twin = twins(endpoint).by_name["a"]
    choice: Choice = ChooseInstance(twin, twin.names[name], name, Reason.MODEL_FOUND)
    if fallback:
        choice = ChooseFallback(twin)
    incoming = Request(path, body)
    return build_request(incoming, target(path), ReceivedBody(body), requested, choice, "id")


def target(path: str) -> Target:
    """Resolve a path."""
    found = PATHS.resolve("POST", path)
    assert isinstance(found, Target)
    return found


def test_a_body_is_forwarded_unchanged() -> None:
    """Byte for byte, if the endpoint knows the model's name."""
    body = b'{ "model":"m" , "prompt":"x"}'
    request = built("/api/generate", body)
    assert request.body == body
    assert f"Content-Length: {len(body)}\r\n".encode() in request.head


def test_an_alias_is_replaced_by_its_model() -> None:
    """And the Content-Length is adjusted."""
    request = built("/api/generate", b'{"model":"fast","prompt":"x"}', requested="fast")
    assert request.body == b'{"model":"m:latest","prompt":"x"}'
    assert b"Content-Length: 33\r\n" in request.head


def test_a_fallback_endpoint_gets_the_models_name_as_the_client_spelled_it() -> None:
    """It does not list the model, so no other spelling is known."""
    body = b'{"model":"FAST","prompt":"x"}'
    assert built("/api/generate", body, requested="FAST", fallback=True).body == body


@pytest.mark.parametrize(("profile", "model"), [("vllm", b"org/Model"), ("ollama", b"ORG/model")])
def test_a_case_sensitive_server_gets_its_own_spelling(profile: str, model: bytes) -> None:
    """Ollama is not case-sensitive, other servers are."""
    body = b'{"model":"ORG/model","messages":[]}'
    request = built(
        "/v1/chat/completions", body, listed="org/Model", requested="ORG/model", profile=profile
    )
    assert b'"' + model + b'"' in request.body


def test_100_continue_is_sent_once_an_endpoint_is_chosen() -> None:
    """Not earlier, so that a rejected client does not send its body in vain."""
    path = "/api/blobs/sha256:" + "0" * 64
    twin = twins(view("a")).by_name["a"]
    incoming = Request(path, b"", length=5)
    incoming.expected = True
    choice = ChooseEndpoint(twin)
    request = build_request(incoming, target(path), ReceivedBody(b""), None, choice, "id")
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
        """Do nothing."""

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Do nothing."""

    def answered(self) -> None:
        """Do nothing."""


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
def test_the_clients_connection_stays_open_if_both_bodies_are_delimited(
    line: str, minor: int, body_read: bool, persistent: bool, framing: bytes
) -> None:
    """The response by its framing, the request by having been read to its end."""
    client = Client(minor)
    head = parse_head(f"HTTP/1.1 200 OK\r\n{line}".encode(), "POST")
    raw = build_response(
        head, client, b"X-Olla-Endpoint: a\r\n", body_read=body_read, limited=False
    )
    assert client.persistent is persistent
    assert framing in raw
    assert raw.endswith(b"\r\nX-Olla-Endpoint: a\r\n\r\n")
    assert b"Trailer" not in raw


def test_a_trailer_is_announced_to_clients_that_accept_it() -> None:
    """In a chunked response."""
    head = parse_head(f"HTTP/1.1 200 OK\r\n{CHUNKED}".encode(), "POST")
    raw = build_response(head, Client(trailers=True), b"", body_read=True, limited=False)
    assert b"\r\nTrailer: X-Olla-Response-Time\r\n" in raw


def test_a_rate_limited_client_gets_no_rate_limit_fields_of_the_endpoint() -> None:
    """Only the router's limits apply to it."""
    head = parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-RateLimit-Limit: 5", "POST")
    for limited in (False, True):
        raw = build_response(head, Client(), b"", body_read=True, limited=limited)
        assert (b"X-RateLimit-Limit: 5" in raw) is not limited
