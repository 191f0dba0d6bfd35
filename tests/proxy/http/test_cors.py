"""The origins that the CORS policy allows, and its response fields."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.proxy.http.cors import EXPOSED, CorsPolicy, same_origin
from olla.settings.cors import Cors

DEFAULT = Cors().allowed_origins
ORIGINS = {
    "http://localhost": True,
    "https://localhost": True,
    "http://localhost:3000": True,
    "https://127.0.0.1:8443": True,
    "http://0.0.0.0:80": True,
    "http://[::1]:5173": True,
    "app://obsidian.md": True,
    "file://": True,
    "tauri://localhost": True,
    "vscode-webview://0abcdefg-1234": True,
    "vscode-file://vscode-app": True,
    "HTTP://LOCALHOST:3000": True,
    "https://evil.example": False,
    "null": False,
    "": False,
    "localhost:3000": False,
    "http://localhost.evil.example": False,
    "http://localhost:3000.evil.example": False,
    "http://localhost:3000@evil.example": False,
    "http://localhost:": False,
    "http://localhost:123456": False,
    "http://localhost:3000/": False,
    "http://evil.example?http://localhost:3000": False,
    "http://127.0.0.1.evil.example": False,
    "http://127.0.0.2:3000": False,
    "https://192.168.1.2": False,
    "chrome-extension://abcdef": False,
    "http://localhost:3000 https://evil.example": False,
    "http://localhost:3000, https://evil.example": False,
    "tauri://x\ty": False,
    "app://" + "x" * 300: False,
}


def lines(fields: bytes) -> dict[str, list[str]]:
    """Return the values by lower-case name."""
    found: dict[str, list[str]] = {}
    assert not fields or fields.endswith(b"\r\n")
    for line in fields.decode().split("\r\n")[:-1]:
        name, _, value = line.partition(": ")
        found.setdefault(name.lower(), []).append(value)
    return found


@pytest.mark.parametrize(("origin", "allowed"), ORIGINS.items())
def test_the_default_origins_are_ollamas(origin: str, allowed: bool) -> None:
    """Local pages on any port and desktop apps, but no origin that only begins like one of them.
    The second call uses the cache."""
    policy = CorsPolicy(DEFAULT)
    for _ in range(2):
        assert policy.allows(origin) is allowed
        assert bool(policy.answer(origin)) is allowed
        assert bool(policy.preflight(origin, None)) is allowed


@pytest.mark.parametrize(
    ("pattern", "origin", "allowed"),
    [
        ("https://app.example", "https://app.example", True),
        ("https://app.example", "http://app.example", False),
        ("https://app.example", "https://app.example:444", False),
        ("https://app.example:*", "https://app.example:444", True),
        ("https://app.example:*", "https://app.example", True),
        ("https://*.example", "https://a.b.example", True),
        ("https://*.example", "https://a.example:444", False),
        ("https://*.example:*", "https://a.example:444", True),
        ("https://*.example", "https://evil.test/.example", False),
        ("https://*.example", "https://evil.test#.example", False),
        ("https://*.example", "https://evil.test@.example", False),
        ("https://a*z.example", "https://abcz.example", True),
        ("https://a.c.example", "https://abc.example", False),
        ("https://*", "https://anything.test:1", True),
        ("https://*", "http://anything.test", False),
        ("*://app.example", "capacitor://app.example", True),
    ],
)
def test_a_star_stands_for_a_part_of_an_origin(pattern: str, origin: str, allowed: bool) -> None:
    """Of a host and its port; a dot matches only a dot."""
    assert CorsPolicy([pattern]).allows(origin) is allowed


@given(st.text(st.characters(codec="latin-1"), max_size=80))
def test_an_allowed_web_origin_is_a_local_host_with_an_optional_port(text: str) -> None:
    """For arbitrary text after the host."""
    for prefix in ("http://localhost", "https://127.0.0.1"):
        if CorsPolicy(DEFAULT).allows(prefix + text):
            assert text == "" or (text[0] == ":" and text[1:].isdecimal() and text.isascii())


def test_a_response_repeats_the_origin_and_lists_readable_fields() -> None:
    """`Vary` makes caches store one response per origin."""
    fields = lines(CorsPolicy(DEFAULT).answer("http://localhost:3000"))
    assert fields == {
        "access-control-allow-origin": ["http://localhost:3000"],
        "vary": ["Origin"],
        "access-control-expose-headers": [", ".join(EXPOSED)],
    }


def test_a_lone_star_allows_every_page() -> None:
    """Even among other patterns, and for a page without an origin."""
    policy = CorsPolicy(["https://a.example", "*"], methods=["GET"])
    for origin in ("https://evil.example", "null", "x" * 10_000):
        assert lines(policy.answer(origin))["access-control-allow-origin"] == ["*"]


def test_no_page_is_allowed_without_origins() -> None:
    """As in a policy that is disabled."""
    policy = CorsPolicy()
    assert not policy.allows("http://localhost")
    assert policy.answer("http://localhost") == b""
    assert policy.preflight("http://localhost", "Authorization") == b""


def test_a_preflight_repeats_the_requested_headers() -> None:
    """A star would not cover Authorization."""
    policy = CorsPolicy(DEFAULT, methods=["GET", "POST"], max_age=300.0)
    fields = lines(policy.preflight("app://x", "authorization, content-type,x-stainless-os"))
    assert fields == {
        "access-control-allow-origin": ["app://x"],
        "vary": ["Origin", "Access-Control-Request-Headers"],
        "access-control-allow-methods": ["GET, POST"],
        "access-control-allow-headers": ["authorization, content-type,x-stainless-os"],
        "access-control-max-age": ["300"],
    }


@pytest.mark.parametrize("requested", [None, "", "x" * 5000, "a\rb", "a: b", "ä", "<script>"])
def test_a_preflight_repeats_no_invalid_headers(requested: str | None) -> None:
    """Neither malformed lists of names nor lists that are too long."""
    fields = lines(CorsPolicy(DEFAULT).preflight("app://x", requested))
    assert "access-control-allow-headers" not in fields


def test_configured_headers_and_credentials_are_sent() -> None:
    """Headers to send, headers to read, credentials."""
    policy = CorsPolicy(
        ["https://a.example"], headers=["Authorization"], exposed=["X-A"], credentials=True
    )
    preflight = lines(policy.preflight("https://a.example", "Authorization, X-Other"))
    assert preflight["access-control-allow-headers"] == ["Authorization"]
    assert preflight["access-control-allow-credentials"] == ["true"]
    answer = lines(policy.answer("https://a.example"))
    assert answer["access-control-expose-headers"] == ["X-A"]
    assert answer["access-control-allow-credentials"] == ["true"]


def test_get_implies_head() -> None:
    """A HEAD reveals less than a GET. Other methods must be listed."""
    policy = CorsPolicy(DEFAULT, methods=["GET"])
    assert policy.allows_method("HEAD")
    assert not policy.allows_method("POST")
    assert not CorsPolicy(DEFAULT, methods=["POST"]).allows_method("HEAD")


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://localhost:40114", "localhost:40114", True),
        ("https://llm.example", "llm.example", True),
        ("https://llm.example", "LLM.example:443", True),
        ("http://llm.example", "llm.example:80", True),
        ("https://llm.example", "llm.example:80", False),
        ("http://llm.example:8080", "llm.example", False),
        ("http://a.llm.example", "llm.example", False),
        ("http://[::1]:40114", "[::1]:40114", True),
        ("app://llm.example", "llm.example", False),
        ("null", "null", False),
        ("http://", "", False),
        ("", "", False),
    ],
)
def test_a_page_with_the_same_host_and_port_is_the_routers_own(
    origin: str, host: str, same: bool
) -> None:
    """With either scheme, because a proxy may terminate TLS."""
    assert same_origin(origin, host) is same
