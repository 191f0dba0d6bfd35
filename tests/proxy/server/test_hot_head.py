"""Which heads the fast path understands, and how."""

import gc
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.dialects.paths import Paths, ScopeSpec
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.profiles import PROFILES
from olla.proxy.http.allowed_hosts import AllowedHosts
from olla.proxy.http.browser_guard import BrowserGuard
from olla.proxy.http.cors import CorsPolicy
from olla.proxy.server.hot_head import CACHED_BYTES_MAX, HotHeads

PATHS = Paths(
    [ScopeSpec(row.name, row.prefixes, row.dialects) for row in PROFILES.values()],
    root_enabled=True,
)


def head(*lines: str, start: str = "POST /api/chat HTTP/1.1", host: str = "Host: x") -> bytes:
    """A head with the lines that every hot one has."""
    return "\r\n".join([start, host, "Content-Length: 5", *lines, "", ""]).encode("latin-1")


def hot(raw: bytes) -> bool:
    """Whether it is taken, twice the same."""
    heads = HotHeads(PATHS)
    taken = heads.find(raw)
    assert (heads.find(raw) is None) == (taken is None)
    return taken is not None


@pytest.mark.parametrize(
    "raw",
    [
        head(),
        head("Connection: keep-alive", "X-Empty:", "Accept:*/*"),
        head("Connection: Close"),
        head("content-type: text/plain", "Authorization: Bearer x"),
        head(start="POST /v1/chat/completions HTTP/1.1"),
        head(start="POST /olla/ollama/api/generate?x=1 HTTP/1.1"),
        head().replace(b"Content-Length: 5", b"content-length:5"),
    ],
)
def test_a_plain_inference_post_is_hot(raw: bytes) -> None:
    """Whatever other fields it has."""
    assert hot(raw)
    assert hot(raw + b"hello and the next request")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        head()[:-1],
        head().replace(b"POST", b"PUT"),
        head().replace(b"HTTP/1.1", b"HTTP/1.0"),
        head().replace(b"Content-Length: 5\r\n", b""),
        head("Content-Length: 5"),
        head("Content-Length: 6"),
        head("CONTENT-LENGTH: 6"),
        head().replace(b"Content-Length: 5", b"Content-Length: 5, 5"),
        head().replace(b"Content-Length: 5", b"Content-Length: +5"),
        head().replace(b"Content-Length: 5", b"Content-Length : 5"),
        head("Transfer-Encoding: chunked"),
        head("transfer-encoding: identity"),
        head("Expect: 100-continue"),
        head("Upgrade: websocket"),
        head("Connection: keep-alive, x-a"),
        head("Content-Encoding: gzip"),
        head("TE: trailers"),
        head("X: a\x00b"),
        head("X: a\rb"),
        head("X: a\nContent-Length: 7"),
        head("X: a", " folded"),
        head("X : a"),
        head(": a"),
        head("no colon"),
        head("X: \xe4"),
        head("Host: y"),
        head(host="X: y"),
        head(start="POST /api/pull HTTP/1.1"),
        head(start="POST /api/nothing HTTP/1.1"),
        head(start="POST /api/chat  HTTP/1.1"),
        head(start="POST http://x/api/chat HTTP/1.1"),
        head(start="POST /api/%2e%2e/x HTTP/1.1"),
        head(*("X: " + "y" * 100 for _ in range(50))),
    ],
)
def test_everything_else_is_aiohttps(raw: bytes) -> None:
    """Anything doubtful, anything rare."""
    assert not hot(raw)


def test_the_length_is_read_anew_each_time() -> None:
    """The rest is known by its bytes."""
    heads = HotHeads(PATHS)
    first = heads.find(head())
    second = heads.find(head().replace(b"Length: 5", b"Length: 77"))
    assert first is not None
    assert second is not None
    assert first[0] is second[0]
    assert (first[2], second[2]) == (5, 77)


@pytest.mark.parametrize(
    "host", ["", "a b", "u@h", "h/p", "a,b", "h:x", "h:99999", "\u00fc", "[x]"]
)
def test_a_host_that_is_none_is_left_to_be_refused(host: str) -> None:
    """By aiohttp's way, which says why."""
    assert not hot(head(host=f"Host: {host}"))
    assert hot(head(host="Host: gpu_box.example:40114"))


@pytest.mark.parametrize("name", ["X-A", "User-Agent", "Content-Type", "Host"])
def test_what_stands_there_twice_is_left_to_aiohttp(name: str) -> None:
    """It refuses some of them and joins others."""
    assert HotHeads(PATHS).find(head(f"{name}: 1", f"{name.lower()}: 2")) is None


def test_what_olla_obeys_is_seen() -> None:
    """Whatever the spelling."""
    found = HotHeads(PATHS).find(head("X-A: 1", "via: 1.1 x"))
    assert found is not None
    assert found[0].fields["x-a"] == "1"
    assert not found[0].plain


def test_what_goes_to_an_endpoint_is_kept_for_each_client_and_endpoint() -> None:
    """And made anew when the endpoint's settings change."""
    found = HotHeads(PATHS).find(head("Authorization: Bearer x"))
    assert found is not None
    hot_head = found[0]
    spec = EndpointSpec("a", "n", 1, authority="n:1")
    once = hot_head.outgoing(hot_head.target, spec, "10.0.0.1", "olla-1", None)
    assert hot_head.outgoing(hot_head.target, spec, "10.0.0.1", "olla-1", None) is once
    assert b"X-Forwarded-For: 10.0.0.1\r\nVia: 1.1 olla-1\r\n" in once
    assert b"Authorization" not in once
    assert b"10.0.0.2" in hot_head.outgoing(hot_head.target, spec, "10.0.0.2", None, None)
    taking = EndpointSpec("a", "n", 1, authority="n:1", forward_authorization=True)
    assert b"Authorization" in hot_head.outgoing(hot_head.target, taking, "10.0.0.1", None, None)
    hidden = hot_head.outgoing(
        hot_head.target, taking, "10.0.0.1", None, frozenset({b"authorization"})
    )
    assert b"Authorization" not in hidden


FIELDS = [f"X-{number}: {number}" for number in range(120)]


@pytest.mark.parametrize(
    ("lines", "heads_of_each", "addresses"),
    [
        (["X-A: " + "y" * 3800], 500, 40),
        (["X-A: y"], 3000, 0),
        (["X-A: y"], 300, 100),
        (FIELDS, 500, 2),
        (["X-A: y"], 1, 50_000),
        (["X-A: \x00" + "y" * 3800], 3000, 0),
    ],
    ids=["long", "many", "from many", "of many fields", "one from very many", "refused"],
)
def test_what_is_remembered_is_bounded_in_bytes(
    lines: list[str], heads_of_each: int, addresses: int
) -> None:
    """Clients choose heads, and from how many addresses they send each: what is kept of them and
    of what goes to endpoints because of them takes so many bytes at most, all together."""
    spec = EndpointSpec("a", "n", 1, authority="n:1")
    heads = HotHeads(PATHS)
    tracemalloc.start()
    try:
        for number in range(heads_of_each):
            raw = head(f"X-Trace: {number}", *lines)
            found = heads.find(raw)
            for address in range(addresses):
                found = heads.find(raw)
                assert found is not None
                peer = f"10.0.{address // 256}.{address % 256}"
                found[0].outgoing(found[0].target, spec, peer, "olla-1", None)
        del found
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1.5 * CACHED_BYTES_MAX


def test_what_is_forgotten_is_understood_again() -> None:
    """And a head that a request still holds works on."""
    spec = EndpointSpec("a", "n", 1, authority="n:1")
    heads = HotHeads(PATHS)
    first = heads.find(head("X-A: 1"))
    for number in range(10_000):
        assert heads.find(head(f"X-Trace: {number}")) is not None
    again = heads.find(head("X-A: 1"))
    assert first is not None
    assert again is not None
    assert again[0] is not first[0]
    for found in (first, again):
        made = found[0].outgoing(found[0].target, spec, "10.0.0.1", None, None)
        assert b"X-A: 1\r\n" in made


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing(raw: bytes) -> None:
    """They are aiohttp's."""
    heads = HotHeads(PATHS)
    for data in (raw, head()[:-2] + raw, b"POST /api/chat HTTP/1.1\r\n" + raw + b"\r\n\r\n"):
        heads.find(data)


GUARD = BrowserGuard(
    CorsPolicy(["http://localhost:*"], methods=["POST"]), AllowedHosts(guarded=True)
)


def test_a_head_from_a_page_has_what_its_answers_tell_the_browser() -> None:
    """Put together once; a head from elsewhere has nothing of it."""
    heads = HotHeads(PATHS, guard=GUARD)
    found = heads.find(head("Origin: http://localhost:3000", host="Host: localhost"))
    assert found is not None
    assert found[0].cors == GUARD.cors.answer("http://localhost:3000")
    assert not found[0].from_proxy_only
    plain = heads.find(head(host="Host: localhost"))
    assert plain is not None
    assert plain[0].cors == b""


@pytest.mark.parametrize(
    "raw",
    [
        head("Origin: https://evil.example", host="Host: localhost"),
        head("origin: null", host="Host: localhost"),
        head("Origin: http://localhost:1", "Origin: http://localhost:1", host="Host: localhost"),
        head("Origin: https://evil.example", host="Host: llm.example"),
    ],
)
def test_what_a_foreign_page_sends_is_aiohttps_to_refuse(raw: bytes) -> None:
    """Whoever passes it on."""
    assert HotHeads(PATHS, guard=GUARD).find(raw) is None


@pytest.mark.parametrize(
    "raw",
    [
        head("Origin: https://a.example", "X-Forwarded-Host: a.example", host="Host: localhost"),
    ],
)
def test_what_only_a_proxy_may_pass_on_is_marked(raw: bytes) -> None:
    """It depends on the connection, and not only on the bytes, whether it is accepted."""
    found = HotHeads(PATHS, guard=GUARD).find(raw)
    assert found is not None
    assert found[0].from_proxy_only
