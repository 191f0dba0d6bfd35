"""Hosts, and whose an absolute target is."""

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
def test_a_host_is_one(value: str) -> None:
    """Names, addresses, with a port or without; an underscore, as containers have it."""
    assert is_authority(value.encode())


@pytest.mark.parametrize("value", BAD)
def test_what_is_no_host_is_none(value: str) -> None:
    """Neither blanks nor user parts, paths, lists, control characters or ports that cannot be."""
    assert not is_authority(value.encode())


@given(st.binary(max_size=300))
def test_no_bytes_raise(value: bytes) -> None:
    """And what is taken for a host has nothing in it that ends a field or begins a path."""
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
def test_an_absolute_target_is_taken_apart(target: str, parts: tuple[str, str] | None) -> None:
    """Into authority and origin form; TLS ends before the router, so `https` is not its own."""
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
def test_the_routers_own_authority_is_told_from_others(authority: str, own: bool) -> None:
    """By the address and the port that the client has connected to, and the machine's name."""
    assert is_own(authority, "127.0.0.1", 40114, "gpu-box") is own


def test_an_address_of_the_network_is_its_own_where_the_client_has_connected_to_it() -> None:
    """Not loopback's, which is another machine's business there; the default port is left out."""
    assert is_own("10.0.0.1:40114", "10.0.0.1", 40114, "h")
    assert is_own("10.0.0.1:40114", "::ffff:10.0.0.1", 40114, "h")
    assert not is_own("127.0.0.1:40114", "10.0.0.1", 40114, "h")
    assert is_own("10.0.0.1", "10.0.0.1", 80, "h")
    assert is_own("10.0.0.1:", "10.0.0.1", 80, "h")
    assert not is_own("10.0.0.1:80", "unix", 80, "h")
