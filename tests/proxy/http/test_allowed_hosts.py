"""The `Host` values that a router on loopback accepts."""

import pytest

from olla.proxy.http.allowed_hosts import AllowedHosts, host_name

LOCAL = [
    *("", "localhost", "localhost:40114", "LOCALHOST", "localhost.", "127.0.0.1", "127.0.0.1:1"),
    *("127.9.9.9", "[::1]", "[::1]:40114", "0.0.0.0", "10.1.2.3", "172.16.0.1:80"),
    *("192.168.1.1", "[fd00::1]", "[::ffff:127.0.0.1]:1", "a.localhost", "gpu.local:40114"),
    *("host.docker.internal", "box-7", "BOX-7:40114"),
]
FOREIGN = [
    *("evil.example", "evil.example:40114", "attacker", "x", "localhost.evil.example"),
    *("127.0.0.1.evil.example", "8.8.8.8", "[2001:db8::1]", "172.32.0.1", "local", "internal"),
    *("evillocal", "localhost evil.example", "localhost,evil.example", "a" * 300 + ".local"),
    *("localhost:1:2", "localhost:evil.example", "a:b.local", "evil.example/.local", "[::1"),
    *("[::1]evil.example", "[::1]:x", "::1", "127.1", "0x7f.1", "2130706433"),
]


@pytest.mark.parametrize("host", LOCAL)
def test_local_names_are_accepted(host: str) -> None:
    """The names that Ollama accepts: an attacker on the internet cannot register them."""
    hosts = AllowedHosts(hostname="Box-7", guarded=True)
    assert hosts.accepts(host)
    assert hosts.accepts(host)


@pytest.mark.parametrize("host", FOREIGN)
def test_names_that_others_can_register_are_rejected(host: str) -> None:
    """Regardless of their prefix or of an address's spelling."""
    hosts = AllowedHosts(hostname="box-7", guarded=True)
    assert not hosts.accepts(host)
    assert not hosts.accepts(host)


def test_configured_names_are_accepted_in_addition() -> None:
    """With any port. A leading star covers the subdomains of a name, not the name itself."""
    hosts = AllowedHosts(["LLM.example", "*.corp.example", "203.0.113.9"], guarded=True)
    for host in ("llm.example", "llm.example:443", "a.b.corp.example", "203.0.113.9:80"):
        assert hosts.accepts(host)
    for host in ("a.llm.example", "corp.example", "evilcorp.example", "203.0.113.8"):
        assert not hosts.accepts(host)


def test_a_lone_star_accepts_every_name() -> None:
    """For a proxy that forwards any `Host`."""
    assert AllowedHosts(["*"], guarded=True).accepts("evil.example")


def test_a_router_beyond_loopback_accepts_every_name() -> None:
    """Its operator chooses the names, as with Ollama."""
    assert AllowedHosts(guarded=False).accepts("evil.example")


def test_the_cache_of_hosts_is_bounded() -> None:
    """Clients choose the names."""
    hosts = AllowedHosts(guarded=True)
    for number in range(3000):
        assert not hosts.accepts(f"n{number}.example")
    assert len(hosts._known) <= 1024


@pytest.mark.parametrize(
    ("host", "name"),
    [
        *(("A.b:1", "a.b"), ("[::1]:2", "::1"), (" a. ", "a"), ("a:", "a"), ("", "")),
        *(("::1", None), ("a b", None), ("a,b", None), ("a:1:2", None), ("[x]", None)),
    ],
)
def test_a_host_is_a_name_and_a_port(host: str, name: str | None) -> None:
    """Returned in lower case, without brackets and root dot; anything else gives None."""
    assert host_name(host) == name
