"""Without keys: inference is open, what changes nodes is for this machine."""

import pytest

from olla.access.rights import Caller, may_manage, refuse_management, refuse_pinning
from olla.failures import Kind


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_programs_on_this_machine_may_manage(address: str) -> None:
    """Whichever loopback address they use."""
    assert may_manage(Caller(address))
    assert refuse_management(Caller(address), "pull") is None
    assert refuse_pinning(Caller(address)) is None


@pytest.mark.parametrize("address", ["10.0.0.1", "203.0.113.5", "::2", "fe80::1%eth0", "", "x"])
def test_others_may_not(address: str) -> None:
    """The refusal says where it is open."""
    refusal = refuse_management(Caller(address), "pull")
    assert refusal is not None
    assert refusal.kind is Kind.FORBIDDEN
    assert "router's own machine" in refusal.message
    assert refuse_pinning(Caller(address)) is not None


def test_a_proxy_on_this_machine_does_not_lend_its_address() -> None:
    """Its clients are elsewhere."""
    assert not may_manage(Caller("127.0.0.1", forwarded=True))


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:3000", True),
        ("http://127.0.0.1", True),
        ("http://[::1]:8080", True),
        ("https://evil.example", False),
        ("http://localhost.evil.example", False),
        ("null", False),
        ("http://[", False),
    ],
)
def test_a_page_in_a_browser_here_is_not_from_here(origin: str, allowed: bool) -> None:
    """Only pages that this machine serves."""
    assert may_manage(Caller("127.0.0.1", origin=origin)) is allowed
