"""Reject browser requests that foreign web pages send.

Checks the page's `Origin` and the `Host` that the browser connected to, before a body is read or
any work is done. Other clients send no `Origin` and are not affected. The accepted origins and
hosts are defined by `cors` and `allowed_hosts`.
"""

from collections.abc import Sequence
from typing import Final

from olla.failures import Failure, Kind
from olla.proxy.http.allowed_hosts import AllowedHosts
from olla.proxy.http.cors import VARY, CorsPolicy, same_origin

__all__ = ["BrowserGuard"]

_SHOWN_MAX = 100
_CACHED: Final = frozenset({"GET", "HEAD"})
"""The methods with responses that are cacheable by default (RFC 9110, section 9.2.3)."""


class BrowserGuard:
    """Decides which requests browsers may send, and adds the CORS fields of the responses."""

    __slots__ = ("cors", "enabled", "hosts")

    def __init__(self, cors: CorsPolicy, hosts: AllowedHosts, *, enabled: bool = True) -> None:
        """`enabled` is False if CORS is disabled: then only pages served by the router itself may
        use it, and `cors` must have no origins."""
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
        """Return the header lines for the response, and the failure if the request is rejected.

        `origins`, `hosts` and `forwarded_hosts` are the values of the `Origin`, `Host` and
        `X-Forwarded-Host` fields. `from_proxy` is True if a trusted proxy sent the request; then
        its `X-Forwarded-Host` is trusted. Its `Host` is checked like any other, because a browser
        on the proxy's machine has the proxy's address.
        """
        fields, rejection = b"", None
        if origins:
            trusted = forwarded_hosts if from_proxy else ()
            fields, rejection = self._check_origin(method, origins, (*hosts, *trusted))
        elif method in _CACHED:
            fields = VARY
        if rejection is None and self.hosts.guarded:
            for host in hosts:
                if not self.hosts.accepts(host):
                    rejection = _foreign_host(host)
        return fields, rejection

    def _check_origin(
        self, method: str, origins: Sequence[str], hosts: Sequence[str]
    ) -> tuple[bytes, Failure | None]:
        if len(origins) > 1:
            message = "the request has several Origin fields; send exactly one"
            return VARY, Failure(Kind.ORIGIN_FORBIDDEN, message)
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
                f"router; serve the page over HTTP and {add}"
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
        f"this router listens on loopback only and does not accept the host "
        f"'{host[:_SHOWN_MAX]}'; use localhost, or add the name to server.allowed_hosts"
    )
    return Failure(Kind.HOST_FORBIDDEN, message)
