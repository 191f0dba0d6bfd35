"""Tests of the notices about settings that open the router."""

import pytest

from olla.settings import parse
from olla.settings.exposure import is_loopback


def noticed(text: str, environ: dict[str, str] | None = None) -> list[tuple[str, str]]:
    """Return key and message of every notice."""
    return [(each.key, each.message) for each in parse(text, environ or {}).notices]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("router.localhost", True),
        ("", False),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("gpu-box", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
    ],
)
def test_only_loopback_addresses_are_unreachable_from_other_machines(
    host: str, expected: bool
) -> None:
    """A name that is not known as loopback counts as reachable."""
    assert is_loopback(host) is expected


@pytest.mark.parametrize("host", ["0.0.0.0", "'::'", "10.1.2.3", "gpu-box"])
def test_a_router_reachable_without_keys_is_reported(host: str) -> None:
    """The notice names the open operations and the fix, also for the container image's variable."""
    ((key, message),) = noticed(f"server: {{host: {host}}}")
    assert key == "server.host"
    assert "may generate, embed and list" in message
    assert "access.require_key: true" in message
    ((key, message),) = noticed("", {"OLLA_SERVER_HOST": host.strip("'")})
    assert key == "OLLA_SERVER_HOST"
    manage = f"server: {{host: {host}}}\naccess: {{anonymous_operations: [manage]}}"
    assert "may manage." in noticed(manage)[0][1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "server: {host: 127.0.0.1}",
        "server: {host: 0.0.0.0}\naccess: {require_key: true}",
        "server: {host: 0.0.0.0}\naccess: {anonymous_operations: []}",
        "access: {trusted_proxies: [10.0.0.0/8, '::1']}",
        "surfaces: {chat: {self_service: true}}",
        "server: {rate_limits: {trusted_proxy_cidrs: ['0.0.0.0/0']}}",
    ],
)
def test_a_closed_router_has_no_notices(text: str) -> None:
    """Closed means loopback only, required keys, or no anonymous operations."""
    assert noticed(text) == []


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("surfaces: {chat: {open_keys: true}}", "surfaces.chat.open_keys", "without a key"),
        (
            "access: {require_key: true}\nsurfaces: {chat: {open_keys: true}}",
            "surfaces.chat.open_keys",
            "access.require_key is true",
        ),
        (
            "access: {require_key: true, anonymous_operations: [list]}",
            "access.anonymous_operations",
            "access.require_key is true",
        ),
        (
            "access: {trusted_proxies: [10.0.0.0/8, '0.0.0.0/0']}",
            "access.trusted_proxies[1]",
            "every client a trusted proxy",
        ),
        ("access: {trusted_proxies: ['::/0']}", "access.trusted_proxies[0]", "X-Forwarded-For"),
        (
            "server: {rate_limits: {trust_proxy_headers: true, trusted_proxy_cidrs: [0.0.0.0/0]}}",
            "server.rate_limits.trusted_proxy_cidrs[0]",
            "every client",
        ),
    ],
)
def test_settings_with_surprising_exposure_are_reported(text: str, key: str, words: str) -> None:
    """So are settings that have no effect in combination with others."""
    ((found, message),) = noticed(text)
    assert found == key
    assert words in message
