"""Finds settings that open the router to more callers than an operator may expect.

They are used as they are; `olla check` and the log at the start say what follows from them. Works
on settings that were accepted, and knows no sockets: a host name is not looked up.
"""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from olla.settings.access import Access
from olla.settings.model import Settings
from olla.settings.problems import Key

__all__ = ["exposures", "is_loopback"]


def exposures(settings: Settings) -> Iterator[tuple[Key, str]]:
    """Keys whose values open something, each with what follows from it and what to do."""
    access, server, chat = settings.access, settings.server, settings.surfaces.chat
    open_to = access.anonymous_operations
    if not (access.require_key or is_loopback(server.host)) and open_to:
        yield (
            ("server", "host"),
            f"other machines can reach '{server.host}', and the router requires no keys: whoever "
            f"reaches it may {_listed(open_to)}. Set access.require_key: true, or server.host: "
            "localhost",
        )
    if access.require_key and open_to != Access().anonymous_operations:
        yield (
            ("access", "anonymous_operations"),
            "nothing is open without a key, because access.require_key is true",
        )
    if chat.enabled and chat.open_keys and access.require_key:
        yield (
            ("surfaces", "chat", "open_keys"),
            "nobody can make a key without one, because access.require_key is true",
        )
    elif chat.enabled and chat.open_keys:
        yield (
            ("surfaces", "chat", "open_keys"),
            "whoever reaches the router can make keys of the tier member without a key, and revoke "
            "those that were made so: limits and usage by user tell little then. It is for trying "
            "things out; make keys with an admin key instead",
        )
    for key, networks in (
        (("access", "trusted_proxies"), access.trusted_proxies),
        (("server", "rate_limits", "trusted_proxy_cidrs"), _believed(settings)),
    ):
        for at, network in enumerate(networks):
            if ip_network(network, strict=False).prefixlen == 0:
                yield (
                    (*key, at),
                    f"'{network}' makes every client a trusted proxy: it chooses by "
                    "X-Forwarded-For which address its requests count against. Name the proxies' "
                    "own networks",
                )


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can connect to a listening address."""
    name = host.strip().lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _believed(settings: Settings) -> tuple[str, ...]:
    rates = settings.server.rate_limits
    return rates.trusted_proxy_cidrs if rates.trust_proxy_headers else ()


def _listed(words: tuple[str, ...]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
