"""Check the `Host` field of requests to a router on loopback, against DNS rebinding.

The owner of evil.example may point that name at 127.0.0.1. Requests of its pages are then
same-origin, so browsers let the pages read the responses. Only the `Host` field still shows the
foreign name. The rule is Ollama's (`allowedHostsMiddleware` in its `server/routes.go`, added for
CVE-2024-28224).
"""

import re
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

__all__ = ["AllowedHosts", "host_name"]

_LOCAL_DOMAINS: Final = (".localhost", ".local", ".internal")
"""Domains that cannot be registered on the internet (RFC 6761, RFC 6762, ICANN's reservation)."""
_NEAR: Final = tuple(
    ip_network(each)
    for each in (
        *("127.0.0.0/8", "0.0.0.0/32", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
        *("::1/128", "::/128", "fc00::/7"),
    )
)
_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[^][:\s,/@]*))(?::[0-9]*)?")
_REMEMBERED_MAX = 1024
_HOST_MAX = 261
"""Characters: 253 for the longest name, plus the port."""


class AllowedHosts:
    """Decides which values of the `Host` field are accepted."""

    __slots__ = ("_exact", "_known", "_suffixes", "guarded")

    def __init__(
        self, names: Iterable[str] = (), *, hostname: str = "", guarded: bool = False
    ) -> None:
        """`names` are accepted in addition to local names; `*.name` matches all subdomains, `*`
        alone matches every name. `hostname` is the machine's. Without `guarded`, every host is
        accepted."""
        wanted = [each.lower() for each in names]
        self._exact = frozenset({"", "localhost", hostname.lower(), *wanted})
        self._suffixes = (*_LOCAL_DOMAINS, *(each[1:] for each in wanted if each.startswith("*.")))
        self.guarded = guarded and "*" not in wanted
        self._known: dict[str, bool] = {}

    def accepts(self, host: str) -> bool:
        """Return whether a request with this `Host` (with or without a port) is accepted."""
        if not self.guarded:
            return True
        if len(host) > _HOST_MAX:
            return False
        known = self._known.get(host)
        if known is None:
            if len(self._known) >= _REMEMBERED_MAX:
                self._known.clear()
            name = host_name(host)
            known = self._known[host] = name is not None and self._is_accepted(name)
        return known

    def _is_accepted(self, name: str) -> bool:
        if name in self._exact or name.endswith(self._suffixes):
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in _NEAR)


def host_name(host: str) -> str | None:
    """Return the name or address of a `Host` field in lower case, without port, brackets and root
    dot. None if the field is not exactly one host with at most one port."""
    match = _HOST.fullmatch(host.strip().lower())
    if match is None:
        return None
    return (match["v6"] or match["name"] or "").removesuffix(".")
