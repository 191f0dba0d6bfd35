"""Identify callers and check their rights.

A caller is identified by its key, or by its address if it sends none. The address decides only
which limits apply: rights come from a key or from `access.anonymous_operations`. This module does
not know paths; dialects define which right an operation needs.
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
"""The tier of callers without a key."""
Network = IPv4Network | IPv6Network


class Caller(msgspec.Struct, frozen=True):
    """A caller.

    Usage is recorded under `id`, and limits count under `account`: the keys of one owner share an
    account, so more keys do not raise a limit.

    `key` is the key that it sent, or None. `models` matches the names of the models that it may
    use, as Ollama shows them and in lower case. `endpoints` are the names of the endpoints that it
    may be sent to. Both are None without a restriction.
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
        """The owner of its key; empty if unknown."""
        return self.key.owner if self.key is not None else ""


def of_key(key: Key) -> Caller:
    """Return the caller of a key."""
    globs = [_plain(glob) if _is_name(glob) else glob.lower() for glob in key.models]
    static = key.is_static
    id = account = key.id if static else f"key:{key.id}"
    if key.owner and not static:
        # Anonymous callers name the owner of keys that they create, and must not use up its limits.
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
    """Return the anonymous caller of an address, with the rights of the configuration.

    All IPv6 addresses of one /64 network are one caller, because one host can use all of them.
    """
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
    """Return the address that a request comes from: the last one in `X-Forwarded-For` that is not
    that of a trusted proxy."""
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
    """Return the rejection of an operation (`what`) that needs a right; None if the caller has it.
    The message names the command and the setting that help."""
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
        if right is not Right.ADMIN:  # never given to anonymous callers
            message += f", or add '{right.value}' to access.anonymous_operations"
    return Failure(Kind.FORBIDDEN, message)


def refuse_model(caller: Caller, model: str | None, *, needed: bool) -> Failure | None:
    """Return the rejection of a model, as the client spelled it; None if the caller may use it.
    If a model is `needed` but not named, the endpoint would choose one itself."""
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
