"""Find settings that open the router to more callers than an operator may expect.

Such settings are used as they are; `olla check` and the startup log report their consequences.
Works on valid settings only, and does not resolve host names.
"""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from olla.settings.access import Access
from olla.settings.model import Settings
from olla.settings.problems import Key

__all__ = ["exposures", "is_loopback"]


def exposures(settings: Settings) -> Iterator[tuple[Key, str]]:
    """Yield each key that exposes the router, with the consequence and what to do about it."""
    access, server, chat = settings.access, settings.server, settings.surfaces.chat
    open_to = access.anonymous_operations
    if not (access.require_key or is_loopback(server.host)) and open_to:
        yield (
            ("server", "host"),
            f"other machines can connect to '{server.host}', and no key is required: any client "
            f"may {_listed(open_to)}. Set access.require_key: true, or server.host: localhost",
        )
    if access.require_key and open_to != Access().anonymous_operations:
        yield (
            ("access", "anonymous_operations"),
            "has no effect, because access.require_key is true",
        )
    if chat.enabled and chat.open_keys and access.require_key:
        yield (
            ("surfaces", "chat", "open_keys"),
            "has no effect, because access.require_key is true",
        )
    elif chat.enabled and chat.open_keys:
        yield (
            ("surfaces", "chat", "open_keys"),
            "any client can create keys of the tier member without a key, and revoke keys that "
            "were created this way, so limits and usage per user are not reliable. Use this for "
            "tests only; otherwise create keys with an admin key",
        )
    for key, networks in (
        (("access", "trusted_proxies"), access.trusted_proxies),
        (("server", "rate_limits", "trusted_proxy_cidrs"), _trusted_cidrs(settings)),
    ):
        for at, network in enumerate(networks):
            if ip_network(network, strict=False).prefixlen == 0:
                yield (
                    (*key, at),
                    f"'{network}' makes every client a trusted proxy, so clients can choose by "
                    "X-Forwarded-For which address their requests count against. List only the "
                    "networks of your proxies",
                )


def is_loopback(host: str) -> bool:
    """Return whether only programs on this machine can connect to a listening address."""
    name = host.strip().lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _trusted_cidrs(settings: Settings) -> tuple[str, ...]:
    rates = settings.server.rate_limits
    return rates.trusted_proxy_cidrs if rates.trust_proxy_headers else ()


def _listed(words: tuple[str, ...]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
