"""Callers and their rights.

A caller is identified by its key, or by its address if it shows none. The address decides which
limits it shares, never what it may do: rights come from a key or from
`access.anonymous_operations`. Does not know paths: dialects say which right an operation needs.
"""

import re
from fnmatch import translate
from ipaddress import IPv4Network, IPv6Network, ip_address

import msgspec

from olla.access.keys import OPEN_MAKER, Key
from olla.dialects.dialect import Right
from olla.failures import Failure, Kind
from olla.fleet.model_names import canonical, display

__all__ = [
    "ANONYMOUS",
    "Caller",
    "Network",
    "client_address",
    "is_in",
    "of_address",
    "of_key",
    "refuse",
    "refuse_model",
]

ANONYMOUS = "anonymous"
"""The tier of callers that show no key."""
Network = IPv4Network | IPv6Network


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
    static = key.is_static
    id = account = key.id if static else f"key:{key.id}"
    if key.owner and not static:
        # Whoever makes a key without one says whose it is, and must not use up that one's limits.
        account = f"{'open' if key.made_by == OPEN_MAKER else 'owner'}:{key.owner}"
    return Caller(
        id,
        key.tier,
        key.rights,
        account,
        key,
        re.compile("|".join(map(translate, globs))) if globs else None,
        frozenset(key.endpoints) if key.endpoints else None,
    )


def of_address(address: str, rights: frozenset[Right]) -> Caller:
    """The caller without a key, by its address, with the rights that the configuration gives to
    all of them. IPv6 addresses of one /64 are one caller: whoever has one of them has them all."""
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
    return Caller(id, ANONYMOUS, rights, id)


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


def refuse(caller: Caller, right: Right, what: str) -> Failure | None:
    """The refusal of an operation (`what`) that needs a right; None when the caller has it. The
    message names the command and the setting that help."""
    if right in caller.rights:
        return None
    if right is Right.ADMIN:
        command = "olla keys create --admin"
    else:
        command = f"olla keys create --operation {right.value}"
    if caller.key is not None:
        has = ", ".join(sorted(each.value for each in caller.rights)) or "do nothing"
        message = (
            f"this key has no right to '{right.value}', which '{what}' needs; it may {has}. "
            f"Show a key with that right, made by `{command}`"
        )
    else:
        message = (
            f"'{what}' needs the right '{right.value}', and no key was shown: show a key with "
            f"that right, made by `{command}`"
        )
        if right is not Right.ADMIN:  # which no caller has without a key
            message += f", or add '{right.value}' to access.anonymous_operations"
    return Failure(Kind.FORBIDDEN, message)


def refuse_model(caller: Caller, model: str | None, *, needed: bool) -> Failure | None:
    """The refusal of a model, as the client spelled it; None when the caller may use it. Where one
    is `needed` and none is named, the endpoint would take what it has."""
    if caller.models is None:
        return None
    if caller.models.match(_plain(model)) if model is not None else not needed:
        return None
    allowed = ", ".join(caller.key.models) if caller.key is not None else ""
    what = f"the model '{model[:100]}'" if model is not None else "requests that name no model"
    return Failure(Kind.MODEL_FORBIDDEN, f"this key is not for {what}; it is for {allowed}")


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
