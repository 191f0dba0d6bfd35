"""Refuses requests that foreign web pages make browsers send.

Looks at what browsers say of the page (`Origin`) and of the address they were given (`Host`),
before a body is read or anything is done. Other clients send no `Origin`, and are not concerned.
Which origins and hosts are accepted is decided by `cors` and `allowed_hosts`.
"""

from collections.abc import Sequence
from typing import Final

from olla.failures import Failure, Kind
from olla.proxy.http.allowed_hosts import AllowedHosts
from olla.proxy.http.cors import VARY, CorsPolicy, same_origin

__all__ = ["BrowserGuard"]

_SHOWN_MAX = 100
_CACHED: Final = frozenset({"GET", "HEAD"})
"""The methods whose answers caches may keep without being told to (RFC 9110, section 9.2.3)."""


class BrowserGuard:
    """Decides which requests browsers may send, and what the answers tell them."""

    __slots__ = ("cors", "enabled", "hosts")

    def __init__(self, cors: CorsPolicy, hosts: AllowedHosts, *, enabled: bool = True) -> None:
        """`enabled` is false where CORS is switched off: then only pages that the router itself
        has served may use it, and `cors` must have no origins."""
        self.cors = cors
        self.hosts = hosts
        self.enabled = enabled

    def check(
        self,
        method: str,
        origins: Sequence[str],
        hosts: Sequence[str],
        forwarded_hosts: Sequence[str],
        *,
        from_proxy: bool,
    ) -> tuple[bytes, Failure | None]:
        """The header fields that the answer needs, each with its line end, and why the request is
        refused (None where it is not).

        `origins`, `hosts` and `forwarded_hosts` are the values of the `Origin`, `Host` and
        `X-Forwarded-Host` fields. `from_proxy` says that a trusted proxy has sent the request, so
        that its `X-Forwarded-Host` is believed. Its `Host` is checked like any other: a browser
        on the proxy's machine has the proxy's address.
        """
        fields, refusal = b"", None
        if origins:
            believed = forwarded_hosts if from_proxy else ()
            fields, refusal = self._of_page(method, origins, (*hosts, *believed))
        elif method in _CACHED:
            fields = VARY
        if refusal is None and self.hosts.guarded:
            for host in hosts:
                if not self.hosts.accepts(host):
                    refusal = _foreign_host(host)
        return fields, refusal

    def _of_page(
        self, method: str, origins: Sequence[str], hosts: Sequence[str]
    ) -> tuple[bytes, Failure | None]:
        if len(origins) > 1:
            return VARY, Failure(Kind.ORIGIN_FORBIDDEN, "a request has one Origin, not several")
        origin = origins[0]
        allowed = self.cors.answer(origin)
        if allowed and (method == "OPTIONS" or self.cors.allows_method(method)):
            return allowed, None
        if any(same_origin(origin, host) for host in hosts):
            return VARY, None
        if allowed:
            return allowed, _foreign_method(method)
        return VARY, self._foreign_page(origin)

    def _foreign_page(self, origin: str) -> Failure:
        add = "add the origin to server.cors.allowed_origins"
        if origin == "null":
            message = (
                "web pages without an origin (local files, sandboxed frames) may not use this "
                f"router; serve the page from an address, and {add}"
            )
        else:
            enable = "" if self.enabled else "set server.cors.enabled to true and "
            message = (
                f"web pages of '{origin[:_SHOWN_MAX]}' may not use this router; to allow them, "
                f"{enable}{add}"
            )
        return Failure(Kind.ORIGIN_FORBIDDEN, message)


def _foreign_method(method: str) -> Failure:
    message = (
        f"web pages of other origins may not send {method}; to allow it, add it to "
        "server.cors.allowed_methods"
    )
    return Failure(Kind.ORIGIN_FORBIDDEN, message)


def _foreign_host(host: str) -> Failure:
    message = (
        f"this router listens on loopback only and does not answer to '{host[:_SHOWN_MAX]}'; use "
        "localhost, or add the name to server.allowed_hosts"
    )
    return Failure(Kind.HOST_FORBIDDEN, message)
