"""Fields that are forwarded, dropped and added, in both directions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.fleet.endpoint import EndpointSpec
from olla.proxy.http.headers import (
    header_value,
    request_head,
    response_head,
    seconds,
    unchanging_head,
)
from olla.proxy.http.response_head import parse_head

SPEC = EndpointSpec("a", "node", 11434, authority="node:11434", base_path="/base")


def sent(
    *fields: tuple[bytes, bytes],
    spec: EndpointSpec = SPEC,
    length: int | None = 0,
    chunked: bool = False,
) -> list[bytes]:
    """Return the lines of a request's head."""
    unchanging = unchanging_head("POST", "/api/chat?x=1", spec, fields, peer="10.1.1.1")
    raw = request_head(unchanging, "id-1", length, chunked=chunked)
    assert raw.endswith(b"\r\n\r\n")
    return raw[:-4].split(b"\r\n")


def received(*lines: str, keep_alive: bool = True, minor: int = 1, chunked: bool = False) -> bytes:
    """Return the head that a client gets for a response with these lines."""
    head = parse_head("\r\n".join(["HTTP/1.1 200 OK", *lines]).encode(), "GET")
    return response_head(
        head,
        b"X-Olla-Endpoint: a\r\n",
        limited=False,
        keep_alive=keep_alive,
        minor=minor,
        chunked=chunked,
    )


def test_a_request_gets_the_endpoints_base_path_and_host() -> None:
    """The query is kept."""
    lines = sent((b"Host", b"public.example"))
    assert lines[0] == b"POST /base/api/chat?x=1 HTTP/1.1"
    assert lines[1] == b"Host: node:11434"
    assert b"X-Forwarded-Host: public.example" in lines
    assert not any(line == b"Host: public.example" for line in lines)


@pytest.mark.parametrize("accepted", [None, b"gzip, br", b"zstd"])
def test_olla_requests_uncompressed_responses(accepted: bytes | None) -> None:
    """Because it reads their token counts. For responses that olla does not read, the client's
    field is forwarded; a header configured for the endpoint takes precedence."""
    fields = () if accepted is None else ((b"Accept-Encoding", accepted),)
    assert [line for line in sent(*fields) if b"ncoding" in line] == [b"Accept-Encoding: identity"]
    spec = EndpointSpec("a", "n", 1, authority="n:1", headers=(("accept-encoding", "gzip"),))
    lines = sent(*fields, spec=spec)
    assert [line for line in lines if b"ncoding" in line] == [b"accept-encoding: gzip"]
    head = unchanging_head("GET", "/x", SPEC, fields, peer="10.1.1.1", readable=False)
    expected = [] if accepted is None else [b"Accept-Encoding: " + accepted]
    assert [line for line in head.split(b"\r\n") if b"ncoding" in line] == expected


@pytest.mark.parametrize(
    "name",
    [
        b"Connection",
        b"Keep-Alive",
        b"TE",
        b"Trailer",
        b"Upgrade",
        b"Proxy-Authorization",
        b"Expect",
    ],
)
def test_hop_by_hop_fields_are_dropped(name: bytes) -> None:
    """And those listed in Connection."""
    lines = sent((name, b"x"), (b"Connection", b"close, X-Secret"), (b"X-Secret", b"1"))
    assert not any(line.lower().startswith((name.lower() + b":", b"x-secret:")) for line in lines)


def test_credentials_are_forwarded_only_with_forward_authorization() -> None:
    """Authorization, X-API-Key, Cookie."""
    fields = ((b"Authorization", b"Bearer s"), (b"X-API-Key", b"s"), (b"Cookie", b"s"))
    assert not any(line.endswith(b"s") for line in sent(*fields))
    taking = EndpointSpec("a", "n", 1, authority="n:1", forward_authorization=True)
    assert b"Authorization: Bearer s" in sent(*fields, spec=taking)


def test_configured_fields_replace_the_clients() -> None:
    """An endpoint's configured credentials take precedence."""
    spec = EndpointSpec(
        "a",
        "n",
        1,
        authority="n:1",
        forward_authorization=True,
        headers=(("Authorization", "Bearer own"),),
    )
    lines = sent((b"authorization", b"Bearer other"), spec=spec)
    assert [each for each in lines if each.lower().startswith(b"authorization")] == [
        b"Authorization: Bearer own"
    ]


def test_forwarding_fields_are_added() -> None:
    """The peer is appended; host and scheme from a proxy in front are kept."""
    lines = sent(
        (b"X-Forwarded-For", b"1.1.1.1"),
        (b"X-Forwarded-Host", b"h"),
        (b"X-Forwarded-Proto", b"https"),
        (b"Host", b"other"),
    )
    assert b"X-Forwarded-For: 1.1.1.1, 10.1.1.1" in lines
    assert b"X-Forwarded-Host: h" in lines
    assert b"X-Forwarded-Proto: https" in lines
    assert b"X-Olla-Request-ID: id-1" in lines


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        *(("Content_Length", False), ("X_Forwarded-For", False), ("_", True), ("X_Own", True)),
        *(("Content-Length_", False), ("x_custom", False), ("X-Cus_tom", True)),
    ],
)
def test_a_name_with_an_underscore_passes_unless_it_shadows_another(
    name: str, passes: bool
) -> None:
    """Its form with dashes must neither have a meaning nor be present in the request."""
    lines = sent((b"X-Custom", b"1"), (name.encode(), b"2"))
    assert (f"{name}: 2".encode() in lines) is passes
    assert b"X-Custom: 1" in lines


def test_the_body_is_framed_by_olla() -> None:
    """One length, or chunks, or neither."""
    claims = ((b"Content-Length", b"99"), (b"Transfer-Encoding", b"chunked"))
    assert [x for x in sent(*claims, length=5) if x.lower().startswith(b"content-l")] == [
        b"Content-Length: 5"
    ]
    assert b"Transfer-Encoding: chunked" in sent(length=None, chunked=True)
    assert not any(b"ength" in line for line in sent(length=None))


def test_a_response_keeps_its_fields_and_gets_ollas() -> None:
    """In order and spelling, including empty and repeated ones."""
    raw = received("X-B: 1", "x-a:", "X-B: 2", "Content-Length: 3", "X-Olla-Endpoint: fake")
    assert raw == (
        b"HTTP/1.1 200 OK\r\nServer: olla\r\nX-B: 1\r\nx-a: \r\nX-B: 2\r\nContent-Length: 3\r\n"
        b"X-Olla-Endpoint: a\r\n\r\n"
    )


def test_the_connection_field_describes_the_clients_connection() -> None:
    """`close` if it will be closed, `keep-alive` for an HTTP/1.0 client."""
    assert b"Connection: close" in received("Content-Length: 0", keep_alive=False)
    assert b"Connection: keep-alive" in received("Content-Length: 0", minor=0)
    assert b"Connection" not in received("Content-Length: 0", "Connection: close")


@given(text=st.text())
def test_no_text_breaks_out_of_a_header_value(text: str) -> None:
    """Any model name becomes printable ASCII."""
    value = header_value(text)
    assert value.isascii()
    assert value.isprintable()


def test_durations_have_three_digits() -> None:
    """In seconds, with the unit."""
    assert seconds(0.0123) == "0.012s"
