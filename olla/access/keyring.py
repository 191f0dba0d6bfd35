"""Looks up keys: those in the configuration and those in the store.

All of them are in memory, by their digests, so that a look-up never waits. Whoever reads the store
hands over the keys that it holds (`renew`), and those that were revoked meanwhile (`revoke`).

A stored key lives as long as what made it. It is refused once its maker, or the maker's maker, is
revoked, or is no longer in the configuration. Nothing else ends with a maker: a key may outlive
the expiry of the key that made it.
"""

import hmac
from collections import defaultdict
from collections.abc import Collection, Iterable

from olla.access.caller import Caller, of_key
from olla.access.keys import KEY_PREFIX, Key, digest_of, maker_shown
from olla.failures import Failed, Failure, Kind

__all__ = ["Keyring", "UnknownKey", "refuse_key"]

_CREDENTIAL_MAX = 512
"""Characters: a longer one is no key."""
_REVOKED = Failure(Kind.KEY_REVOKED, "this API key was revoked; ask whoever runs the router")
_EXPIRED = Failure(Kind.KEY_EXPIRED, "this API key has expired; ask for a new one")


class UnknownKey(Failed):
    """Somebody shows a key that is not known here; the store may know it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)


class Keyring:
    """Finds the caller that shows a key."""

    __slots__ = ("_makers", "_refused", "_revoked", "_static", "_stored", "_tiers")

    def __init__(self, static: Iterable[Key] = ()) -> None:
        self._static: dict[bytes, Caller] = {}
        self._stored: dict[bytes, Caller] = {}
        self._revoked: set[str] = set()
        self._refused: dict[str, Failure] = {}
        self._makers: frozenset[str] = frozenset()
        self._tiers: frozenset[str] | None = None
        self.settle(static)

    def __len__(self) -> int:
        """How many there are, revoked and expired ones too."""
        return len(self._static) + len(self._stored)

    def callers(self) -> list[Caller]:
        """All of them."""
        return [*self._static.values(), *self._stored.values()]

    def settle(
        self,
        static: Iterable[Key],
        *,
        tiers: Collection[str] | None = None,
        makers: Iterable[str] = (),
    ) -> None:
        """Go by another configuration from now on.

        `static` are its keys and `tiers` its tiers: a stored key of another one is refused, for it
        would have no limits; None accepts every tier. `makers` are accepted besides keys, such as
        `OPEN_MAKER`.
        """
        self._static = {key.digest: of_key(key) for key in static}
        self._tiers = None if tiers is None else frozenset(tiers)
        self._makers = frozenset(makers)
        self._judge()

    def renew(self, stored: Iterable[Key]) -> None:
        """Take over the store's keys. Keys that were revoked here stay so, even if the store does
        not know it yet."""
        self._stored = {key.digest: of_key(key) for key in stored}
        self._revoked &= {key.id for key in self._stored_keys()}
        self._judge()

    def revoke(self, id: str) -> None:
        """Refuse the stored key of that id, and those that it made, from now on."""
        self._revoked.add(id)
        self._judge()

    def find(self, shown: str) -> Caller | None:
        """The caller with this key, even if it has expired or is revoked; None for an unknown
        key."""
        if len(shown) > _CREDENTIAL_MAX:
            return None
        try:
            digest = digest_of(shown)
        except UnicodeEncodeError:  # bytes that are no text
            return None
        caller = self._static.get(digest) or self._stored.get(digest)
        if caller is None or caller.key is None:
            return None
        return caller if hmac.compare_digest(caller.key.digest, digest) else None

    def refusal(self, caller: Caller, wall: float) -> Failure | None:
        """Why a known key is not accepted at `wall` (Unix seconds); None when it is."""
        key = caller.key
        if key is None:
            return None
        refused = self._refused.get(key.id)
        if refused is not None:
            return refused
        return _EXPIRED if key.expires is not None and key.expired(wall) else None

    def _stored_keys(self) -> list[Key]:
        return [caller.key for caller in self._stored.values() if caller.key is not None]

    def _judge(self) -> None:
        """Find the keys that are refused whatever the time is. Each is looked at once, so that
        look-ups need not follow chains of makers."""
        stored = self._stored_keys()
        alive = {key.id for key in stored} | self._makers
        alive |= {caller.key.mark for caller in self._static.values() if caller.key is not None}
        made = defaultdict[str, list[Key]](list)
        refused: dict[str, Failure] = {}
        ended: list[str] = []
        for key in stored:
            if key.made_by:
                made[key.made_by].append(key)
            if key.revoked is not None or key.id in self._revoked:
                refused[key.id] = _REVOKED
                ended.append(key.id)
            elif key.made_by and key.made_by not in alive:
                refused[key.id] = _without_maker(key)
                ended.append(key.id)
        while ended:
            for key in made.get(ended.pop(), ()):
                if key.id not in refused:
                    refused[key.id] = _without_maker(key)
                    ended.append(key.id)
        if self._tiers is not None:
            for key in stored:
                if key.tier not in self._tiers:
                    refused.setdefault(key.id, _without_tier(key))
        self._refused = refused


def _without_maker(key: Key) -> Failure:
    message = (
        f"this API key was made by '{maker_shown(key.made_by)}', which is not accepted any more; "
        "ask whoever runs the router for a new one"
    )
    return Failure(Kind.KEY_REVOKED, message)


def _without_tier(key: Key) -> Failure:
    message = (
        f"this API key is of the tier '{key.tier}', which the router's configuration does not "
        f"define; add access.tiers.{key.tier} there, or ask for a key of another tier"
    )
    return Failure(Kind.FORBIDDEN, message)


def refuse_key(shown: str | None) -> Failure:
    """The refusal of a caller that shows no key (None), or an unknown one."""
    if shown is None:
        return Failure(
            Kind.KEY_MISSING,
            "an API key is needed; send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY' "
            "(`olla keys create` makes one)",
        )
    hint = "" if shown.startswith(KEY_PREFIX) else f"; keys begin with {KEY_PREFIX} as a rule"
    return Failure(Kind.KEY_INVALID, f"Invalid API key provided: nobody has it{hint}")
