"""Browser requests that the guard rejects, and the CORS fields of the responses."""

import pytest

from olla.failures import Kind
from olla.proxy.http.allowed_hosts import AllowedHosts
from olla.proxy.http.browser_guard import BrowserGuard
from olla.proxy.http.cors import VARY, CorsPolicy

POLICY = CorsPolicy(["http://localhost:*"], methods=["GET", "POST"])
GUARD = BrowserGuard(POLICY, AllowedHosts(guarded=True))
OPEN = BrowserGuard(POLICY, AllowedHosts(guarded=False))
OFF = BrowserGuard(CorsPolicy(), AllowedHosts(guarded=True), enabled=False)
LOCAL, EVIL = "http://localhost:3000", "https://evil.example"
HOST = ("localhost:40114",)


def refusal(
    guard: BrowserGuard,
    *origins: str,
    host: str = "localhost:40114",
    forwarded: tuple[str, ...] = (),
    from_proxy: bool = False,
    method: str = "POST",
) -> Kind | None:
    """Return the kind of failure of a request; None if it is accepted."""
    _, found = guard.check(method, origins, (host,), forwarded, from_proxy=from_proxy)
    return None if found is None else found.kind


def test_clients_other_than_browsers_are_not_affected() -> None:
    """Without an Origin nothing is rejected, and cacheable responses get a `Vary`."""
    for method, fields in (("POST", b""), ("DELETE", b""), ("GET", VARY), ("HEAD", VARY)):
        assert GUARD.check(method, (), HOST, (), from_proxy=False) == (fields, None)


@pytest.mark.parametrize(
    ("guard", "origins", "kind"),
    [
        (GUARD, (LOCAL,), None),
        (GUARD, (EVIL,), Kind.ORIGIN_FORBIDDEN),
        (GUARD, ("null",), Kind.ORIGIN_FORBIDDEN),
        (GUARD, ("",), Kind.ORIGIN_FORBIDDEN),
        (GUARD, (LOCAL, LOCAL), Kind.ORIGIN_FORBIDDEN),
        (GUARD, (LOCAL, EVIL), Kind.ORIGIN_FORBIDDEN),
        (GUARD, ("http://localhost:40114",), None),
        (OFF, ("http://localhost:40114",), None),
        (OFF, (LOCAL,), Kind.ORIGIN_FORBIDDEN),
        (OFF, (EVIL,), Kind.ORIGIN_FORBIDDEN),
    ],
)
def test_foreign_pages_are_rejected(
    guard: BrowserGuard, origins: tuple[str, ...], kind: Kind | None
) -> None:
    """Including pages with no or several origins; the router's own pages are accepted."""
    assert refusal(guard, *origins) is kind


def test_dns_rebinding_is_rejected_by_the_host_name() -> None:
    """The page's origin equals the router's, so only the name differs; also without an Origin."""
    for origins in (("http://evil.example",), (LOCAL,), ()):
        assert refusal(GUARD, *origins, host="evil.example") is Kind.HOST_FORBIDDEN
    assert refusal(OFF, "http://evil.example", host="evil.example") is Kind.HOST_FORBIDDEN
    assert refusal(OPEN, "http://evil.example", host="evil.example") is None


def test_one_foreign_host_among_several_is_rejected() -> None:
    """Other servers might use any of them."""
    _, found = GUARD.check("GET", (), ("localhost", "evil.example"), (), from_proxy=False)
    assert found is not None


@pytest.mark.parametrize(
    ("forwarded", "from_proxy", "kind"),
    [
        ((), True, Kind.ORIGIN_FORBIDDEN),
        (("llm.example",), True, None),
        (("other.example",), True, Kind.ORIGIN_FORBIDDEN),
        (("llm.example",), False, Kind.ORIGIN_FORBIDDEN),
    ],
)
def test_a_trusted_proxys_forwarded_host_identifies_the_routers_own_pages(
    forwarded: tuple[str, ...], from_proxy: bool, kind: Kind | None
) -> None:
    """`X-Forwarded-Host` from other clients is ignored."""
    origin = "https://llm.example"
    assert refusal(GUARD, origin, forwarded=forwarded, from_proxy=from_proxy) is kind


def test_the_host_is_checked_even_from_a_trusted_proxy() -> None:
    """A browser on the proxy's machine has the proxy's address, so names must be configured."""
    host = "llm.example"
    assert refusal(GUARD, host=host, from_proxy=True) is Kind.HOST_FORBIDDEN
    assert refusal(GUARD, f"https://{host}", host=host, from_proxy=True) is Kind.HOST_FORBIDDEN
    forwarded = ("evil.example",)
    found = refusal(GUARD, EVIL, host="evil.example", forwarded=forwarded, from_proxy=True)
    assert found is Kind.HOST_FORBIDDEN


def test_methods_not_allowed_to_foreign_pages_are_rejected() -> None:
    """The router's own pages may use every method, and preflights are always accepted."""
    assert refusal(GUARD, LOCAL, method="DELETE") is Kind.ORIGIN_FORBIDDEN
    assert refusal(GUARD, "http://localhost:40114", method="DELETE") is None
    assert refusal(GUARD, LOCAL, method="HEAD") is None
    assert refusal(GUARD, LOCAL, method="OPTIONS") is None


def test_an_allowed_page_can_read_why_it_was_rejected() -> None:
    """A foreign page gets no field that would let it read the response."""
    fields, found = GUARD.check("POST", (LOCAL,), ("evil.example",), (), from_proxy=False)
    assert found is not None
    assert fields == POLICY.answer(LOCAL)
    assert GUARD.check("POST", (EVIL,), HOST, (), from_proxy=False)[0] == VARY


@pytest.mark.parametrize(
    ("guard", "origin", "host", "setting"),
    [
        (GUARD, EVIL, "localhost", "server.cors.allowed_origins"),
        (GUARD, "null", "localhost", "server.cors.allowed_origins"),
        (OFF, LOCAL, "localhost:1", "server.cors.enabled"),
        (GUARD, LOCAL, "llm.example", "server.allowed_hosts"),
    ],
)
def test_the_error_names_the_setting_to_change(
    guard: BrowserGuard, origin: str, host: str, setting: str
) -> None:
    """Its reader is more often the operator than an attacker."""
    _, found = guard.check("POST", (origin,), (host,), (), from_proxy=False)
    assert found is not None
    assert found.status == 403
    assert setting in found.message


def test_the_error_truncates_long_names() -> None:
    """Clients choose origins and hosts."""
    for origin, host in (("https://" + "e" * 9999, "localhost"), (LOCAL, "h" * 9999)):
        _, found = GUARD.check("POST", (origin,), (host,), (), from_proxy=False)
        assert found is not None
        assert len(found.message) < 400
