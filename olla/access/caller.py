"""Who asks, and what it may do.

A caller is a key, or an address where none was shown. Does not know paths: dialects say which
right an operation needs.
"""

import re
from fnmatch import translate
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

import msgspec

from olla.access.keys import Key
from olla.dialects.dialect import Right
from olla.failures import Failure, Kind
from olla.fleet.names import canonical, display

__all__ = [
    "ANONYMOUS",
    "FORWARDING_HEADERS",
    "Caller",
    "Network",
    "Peer",
    "client_address",
    "is_in",
    "is_local",
    "of_address",
    "of_key",
    "refuse",
    "refuse_model",
]

ANONYMOUS = "anonymous"
"""The tier of who shows no key."""
Network = IPv4Network | IPv6Network

FORWARDING_HEADERS = (
    "X-Forwarded-For",
    "Forwarded",
    "Via",
    "X-Real-IP",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Client-IP",
    "CF-Connecting-IP",
    "True-Client-IP",
)
"""What proxies add: any of these says that somebody else asks than the peer."""

_OWN_SITES: Final = frozenset({"same-origin", "none"})
_OPEN: Final = frozenset({Right.GENERATE, Right.EMBED, Right.LIST})
_LOCAL: Final = frozenset(Right)
_ADMIN_WORDS = "keys and usage, and choosing the endpoint with X-Olla-Endpoint,"


class Peer(msgspec.Struct, frozen=True):
    """Where a request comes from.

    `address` is the peer's IP address; `forwarded` says that the request came through a proxy
    (it carries one of `FORWARDING_HEADERS`), so that the peer's address is the proxy's;
    `origin` is the `Origin` header, which browsers send for the page that asks, `site` their
    `Sec-Fetch-Site`, and `host` the `Host` that was asked for.
    """

    address: str
    forwarded: bool = False
    origin: str | None = None
    site: str | None = None
    host: str | None = None


class Caller(msgspec.Struct, frozen=True):
    """Who asks: `id` is what usage is recorded under, `account` what limits are counted under:
    keys of one owner share theirs, so that more keys are no way to more.

    `key` is what it showed, None for none. `models` matches the names (as Ollama shows them, in
    lower case) of the models it may use, `endpoints` has the names of those it may be sent to;
    None for no restriction.
    """

    id: str
    tier: str
    rights: frozenset[Right]
    account: str
    key: Key | None = None
    models: re.Pattern[str] | None = None
    endpoints: frozenset[str] | None = None

    @property
    def owner(self) -> str:
        """Whose it is; empty where nobody said."""
        return self.key.owner if self.key is not None else ""


def of_key(key: Key) -> Caller:
    """The caller that shows a key."""
    globs = [_plain(glob) if _is_name(glob) else glob.lower() for glob in key.models]
    static = key.id.startswith("static:")
    id = key.id if static else f"key:{key.id}"
    return Caller(
        id,
        key.tier,
        key.rights,
        f"owner:{key.owner}" if key.owner and not static else id,
        key,
        re.compile("|".join(map(translate, globs))) if globs else None,
        frozenset(key.endpoints) if key.endpoints else None,
    )


def of_address(address: str, *, local: bool) -> Caller:
    """The caller without a key, by its address. IPv6 addresses of one /64 are one caller: whoever
    has one of them has them all. A program on this machine (`local`) may do everything."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        shown = address
    else:
        mapped = getattr(ip, "ipv4_mapped", None)
        if ip.version == 6 and mapped is None:
            shown = f"{IPv6Network((int(ip), 64), strict=False).network_address}/64"
        else:
            shown = str(mapped or ip)
    id = f"addr:{shown}"
    return Caller(id, ANONYMOUS, _LOCAL if local else _OPEN, id)


def client_address(peer: str, forwarded_for: str | None, trusted: tuple[Network, ...]) -> str:
    """The address a request comes from, where proxies in between can be believed: the last one in
    `X-Forwarded-For` that is not itself a trusted proxy's."""
    if forwarded_for is None or not is_in(peer, trusted):
        return peer
    found = peer
    for each in reversed(forwarded_for.split(",")):
        address = each.strip().removeprefix("[").partition("]")[0]
        if address.count(":") == 1:  # with a port
            address = address.partition(":")[0]
        try:
            ip_address(address)
        except ValueError:
            return found
        found = address
        if not is_in(address, trusted):
            return found
    return found


def is_local(peer: Peer) -> bool:
    """Whether a program on this machine asks.

    A proxy on this machine does not make its clients local, and neither does a browser here make
    the pages it shows local: not by a form or an image (`Origin`, `Sec-Fetch-Site`), and not under
    a name of the page's own that leads here (DNS rebinding), which needs a dot in it.
    """
    if peer.forwarded or not _is_loopback(peer.address):
        return False
    if peer.site is not None and peer.site.strip().lower() not in _OWN_SITES:
        return False
    if peer.host is not None and not _is_local_name(peer.host):
        return False
    return peer.origin is None or _is_local_origin(peer.origin)


def refuse(caller: Caller, right: Right, what: str) -> Failure | None:
    """The refusal of an operation (`what`) that needs a right; None when the caller has it."""
    if right in caller.rights:
        return None
    if caller.key is not None:
        message = (
            f"this key has no right to {right.value}, which '{what}' needs; it may "
            f"{', '.join(sorted(each.value for each in caller.rights)) or 'do nothing'}"
        )
    elif right is Right.ADMIN:
        message = (
            f"{_ADMIN_WORDS} are for programs on the router's own machine and for keys with the "
            "right 'admin'; show such a key, or leave it out"
        )
    else:
        message = (
            f"'{what}' changes the nodes; without a key it is only open to programs on the "
            f"router's own machine: run it there, or show a key with the right '{right.value}'"
        )
    return Failure(Kind.FORBIDDEN, message)


def refuse_model(caller: Caller, model: str | None, *, needed: bool) -> Failure | None:
    """The refusal of a model, as the client spelled it; None when the caller may use it. Where one
    is `needed` and none is named, the endpoint would take what it has."""
    if caller.models is None:
        return None
    if caller.models.match(_plain(model)) if model is not None else not needed:
        return None
    allowed = ", ".join(caller.key.models) if caller.key is not None else ""
    return Failure(
        Kind.MODEL_FORBIDDEN,
        f"this key is not for the model '{(model or '')[:100]}'; it is for {allowed}",
    )


def _plain(model: str) -> str:
    return display(canonical(model))


def _is_name(glob: str) -> bool:
    return not any(character in glob for character in "*?[")


def is_in(address: str, networks: tuple[Network, ...]) -> bool:
    """Whether an IP address belongs to one of the networks."""
    if not networks:
        return False
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return any(ip in network for network in networks)


def _is_loopback(address: str) -> bool:
    if address == "127.0.0.1":
        return True
    try:
        ip = ip_address(address.split("%", 1)[0])
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool((mapped or ip).is_loopback)


def _is_local_name(host: str) -> bool:
    """Whether a `Host` is an address, or a name that nobody elsewhere can own."""
    name = host.strip().lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    name = name.removesuffix(".")
    if "." not in name or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_local_origin(origin: str) -> bool:
    try:
        host = urlsplit(origin).hostname
    except ValueError:
        return False
    return host is not None and (host == "localhost" or _is_loopback(host))
