"""Authorities: validation, absolute request targets, the router's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.proxy.http.authority import is_authority, is_own, split_absolute

GOOD = [
    *("localhost", "olla", "olla.example", "OLLA.example.", "my_router", "a-b.c", "x:80", "x:"),
    *("127.0.0.1", "127.0.0.1:40114", "[::1]", "[::1]:40114", "[2001:db8::1]:65535", "x:0"),
    *("xn--bcher-kva.example", "a%20b", "a!$&'()*+;=b", "[::ffff:1.2.3.4]", "a" * 253),
]
BAD = [
    *("", " ", "bad host", "a\tb", "user@host", "user:secret@host", "host/path", "/", "http://x"),
    *("a,b", "a, b", "x:80,y:80", "x:port", "x:-1", "x:+80", "x:65536", "x:999999", "x:80:80"),
    *("[::1", "::1", "[]", "[::x]", "[1.2.3.4]", "[:::::]", "[::1]x", "[v1.x]", "[fe80::1%25e]"),
    *("x?y", "x#y", "x\\y", "a%2", "a%zz", "a\0b", "a\x7fb", "a\r\nb", "bücher", '"x"', "<x>"),
    *("{x}", "a|b", "a^b", "`x`", "a" * 300, ":", ":80"),
]


@pytest.mark.parametrize("value", GOOD)
def test_valid_hosts_are_accepted(value: str) -> None:
    """Names and addresses with or without a port; underscores too, as in container names."""
    assert is_authority(value.encode())


@pytest.mark.parametrize("value", BAD)
def test_invalid_hosts_are_rejected(value: str) -> None:
    """Blanks, user parts, paths, lists, control characters, invalid ports."""
    assert not is_authority(value.encode())


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_no_exception(value: bytes) -> None:
    """An accepted host contains no byte that ends a field or begins a path."""
    if is_authority(value):
        assert not set(value) & set(b"/?#@\\, \t\r\n\0")
        assert value.isascii()


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("http://x/a?b", ("x", "/a?b")),
        ("HTTP://x:80/", ("x:80", "/")),
        ("http://x", ("x", "/")),
        ("http://x?b", ("x", "/?b")),
        ("http://x//y", ("x", "//y")),
        ("http:///a", ("", "/a")),
        ("http://u@x/a", ("u@x", "/a")),
        ("http://x/http://y/", ("x", "/http://y/")),
        ("https://x/a", None),
        ("ftp://x/a", None),
        ("/a", None),
        ("*", None),
        ("//x/a", None),
        ("x:80", None),
    ],
)
def test_an_absolute_target_is_split(target: str, parts: tuple[str, str] | None) -> None:
    """Into authority and origin form. `https` is rejected, because the router has no TLS."""
    assert split_absolute(target) == parts


@pytest.mark.parametrize(
    ("authority", "own"),
    [
        *(("localhost:40114", True), ("LOCALHOST:40114", True), ("127.0.0.1:40114", True)),
        *(("127.0.0.2:40114", True), ("[::1]:40114", True), ("gpu-box:40114", True)),
        *(("localhost", False), ("localhost:80", False), ("evil.example:40114", False)),
        *(("10.0.0.1:40114", False), ("user@localhost:40114", False), ("", False)),
        *(("localhost.evil.example:40114", False), ("localhost:040114", False)),
        *(
            ("127.0.0.1.evil:40114", False),
            ("2130706433:40114", False),
            ("0177.0.0.1:40114", False),
        ),
    ],
)
def test_the_routers_own_authority_is_recognized(authority: str, own: bool) -> None:
    """By the address and port that the client has connected to, and by the machine's name."""
    assert is_own(authority, "127.0.0.1", 40114, "gpu-box") is own


def test_the_address_that_the_client_connected_to_is_the_routers_own() -> None:
    """Loopback addresses are not, from another machine. The default port may be omitted."""
    assert is_own("10.0.0.1:40114", "10.0.0.1", 40114, "h")
    assert is_own("10.0.0.1:40114", "::ffff:10.0.0.1", 40114, "h")
    assert not is_own("127.0.0.1:40114", "10.0.0.1", 40114, "h")
    assert is_own("10.0.0.1", "10.0.0.1", 80, "h")
    assert is_own("10.0.0.1:", "10.0.0.1", 80, "h")
    assert not is_own("10.0.0.1:80", "unix", 80, "h")
