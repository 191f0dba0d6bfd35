"""Hot requests, taken from bytes."""

from hypothesis import given
from hypothesis import strategies as st

from olla.dialects.paths import Paths, ScopeSpec
from olla.fleet.profiles import PROFILES
from olla.proxy.http.allowed_hosts import AllowedHosts
from olla.proxy.http.browser_guard import BrowserGuard
from olla.proxy.http.cors import CorsPolicy
from olla.proxy.server.fast_path import FastPath, FastRequest

PATHS = Paths(
    [ScopeSpec(row.name, row.prefixes, row.dialects) for row in PROFILES.values()],
    root_enabled=True,
)


def request(body: bytes) -> bytes:
    """A hot request."""
    start = b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
    return start % (len(body), body)


@given(st.binary(max_size=60), st.binary(max_size=20), st.lists(st.integers(0, 80), max_size=5))
def test_a_body_is_whole_however_it_is_cut(body: bytes, after: bytes, cuts: list[int]) -> None:
    """And what follows it is handed back, not a byte lost."""
    raw = request(body) + after
    start = len(request(body)) - len(body)
    places = sorted({start + cut for cut in cuts if start + cut < len(raw)})
    pieces = [raw[a:b] for a, b in zip([0, *places], [*places, len(raw)], strict=True)]
    taken = FastPath(PATHS, 1000).take(pieces[0], 7.0)
    assert taken is not None
    hot, rest = taken
    for piece in pieces[1:]:
        rest += hot.add(piece) if hot.missing else piece
    assert hot.missing == 0
    assert hot.body() == body
    assert rest == after
    assert hot.started == 7.0


def test_a_body_over_the_limit_is_left_to_be_refused() -> None:
    """By aiohttp's way, which says how."""
    assert FastPath(PATHS, 5).take(request(b"123456"), 0.0) is None
    assert FastPath(PATHS, 6).take(request(b"123456"), 0.0) is not None


def test_it_is_a_request_like_any_other() -> None:
    """With method, target, path, peer and headers."""
    taken = FastPath(PATHS, 10).take(request(b"{}").replace(b"/api/chat", b"/api/chat?x"), 0.0)
    assert taken is not None
    incoming = FastRequest(taken[0].head, "10.0.0.1", 2)
    assert (incoming.method, incoming.target, incoming.path) == ("POST", "/api/chat?x", "/api/chat")
    assert incoming.header("HOST") == "x"
    assert incoming.header("via") is None
    assert incoming.has_body
    assert not incoming.expects_continue()


def test_a_forwarded_host_is_only_believed_of_a_trusted_proxy() -> None:
    """Of the same bytes from two connections."""
    guard = BrowserGuard(CorsPolicy(), AllowedHosts(guarded=True))
    path = FastPath(PATHS, 1000, guard=guard, is_proxy=lambda peer: peer == "10.0.0.1")
    fields = b"Host: localhost\r\nOrigin: https://a.example\r\nX-Forwarded-Host: a.example"
    raw = request(b"{}").replace(b"Host: x", fields)
    assert path.take(raw, 0.0, "10.0.0.2") is None
    assert path.take(raw, 0.0, "10.0.0.1") is not None
    assert path.take(raw, 0.0, "10.0.0.2") is None
