"""Which requests the guard refuses, and what their answers tell browsers."""

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
    """The kind of failure that a request is."""
    _, found = guard.check(method, origins, (host,), forwarded, from_proxy=from_proxy)
    return None if found is None else found.kind


def test_other_clients_than_browsers_are_untouched() -> None:
    """Without an Origin nothing is refused, and what may be cached says what it depends on."""
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
def test_foreign_pages_are_refused(
    guard: BrowserGuard, origins: tuple[str, ...], kind: Kind | None
) -> None:
    """Also those without an origin, and with several; the router's own pages are not."""
    assert refusal(guard, *origins) is kind


def test_a_page_that_points_its_own_name_here_is_refused_by_that_name() -> None:
    """Its origin is the router's own, so only the name tells; also without an Origin."""
    for origins in (("http://evil.example",), (LOCAL,), ()):
        assert refusal(GUARD, *origins, host="evil.example") is Kind.HOST_FORBIDDEN
    assert refusal(OFF, "http://evil.example", host="evil.example") is Kind.HOST_FORBIDDEN
    assert refusal(OPEN, "http://evil.example", host="evil.example") is None


def test_one_foreign_host_among_several_is_enough() -> None:
    """Nobody knows which of them counts elsewhere."""
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
def test_a_page_behind_a_proxy_is_the_routers_own_when_a_trusted_proxy_says_so(
    forwarded: tuple[str, ...], from_proxy: bool, kind: Kind | None
) -> None:
    """`X-Forwarded-Host` counts from nobody else."""
    origin = "https://llm.example"
    assert refusal(GUARD, origin, forwarded=forwarded, from_proxy=from_proxy) is kind


def test_a_trusted_proxy_may_not_pass_any_host_on() -> None:
    """A browser on the proxy's machine has the proxy's address: names are listed, not trusted."""
    host = "llm.example"
    assert refusal(GUARD, host=host, from_proxy=True) is Kind.HOST_FORBIDDEN
    assert refusal(GUARD, f"https://{host}", host=host, from_proxy=True) is Kind.HOST_FORBIDDEN
    forwarded = ("evil.example",)
    found = refusal(GUARD, EVIL, host="evil.example", forwarded=forwarded, from_proxy=True)
    assert found is Kind.HOST_FORBIDDEN


def test_methods_that_pages_may_not_use_are_refused() -> None:
    """Those of other origins: the router's own pages may use all of them. A page may always ask
    what it may."""
    assert refusal(GUARD, LOCAL, method="DELETE") is Kind.ORIGIN_FORBIDDEN
    assert refusal(GUARD, "http://localhost:40114", method="DELETE") is None
    assert refusal(GUARD, LOCAL, method="HEAD") is None
    assert refusal(GUARD, LOCAL, method="OPTIONS") is None


def test_a_page_that_is_allowed_can_read_why_it_was_refused() -> None:
    """A foreign one is told nothing that its browser would show to it."""
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
def test_a_refusal_says_what_to_set(
    guard: BrowserGuard, origin: str, host: str, setting: str
) -> None:
    """The person who reads it is the operator, more often than an attacker."""
    _, found = guard.check("POST", (origin,), (host,), (), from_proxy=False)
    assert found is not None
    assert found.status == 403
    assert setting in found.message


def test_a_refusal_shows_no_more_of_a_name_than_fits_a_line() -> None:
    """Origins and hosts are clients' to choose."""
    for origin, host in (("https://" + "e" * 9999, "localhost"), (LOCAL, "h" * 9999)):
        _, found = GUARD.check("POST", (origin,), (host,), (), from_proxy=False)
        assert found is not None
        assert len(found.message) < 400
