"""Look up keys of the configuration and of the store.

All keys are in memory, by digest, so a look-up never waits. The store service hands over the
stored keys (`renew`) and revocations (`revoke`).

A stored key is valid only while its maker is: it is rejected once its maker, or the maker's maker,
is revoked or removed from the configuration. An expired maker does not end the keys that it made.
"""

import hmac
from collections import defaultdict
from collections.abc import Collection, Iterable

from olla.access.caller import Caller, of_key
from olla.access.keys import KEY_PREFIX, Key, digest_of, maker_shown
from olla.failures import Failed, Failure, Kind

__all__ = ["Keyring", "UnknownKey", "refuse_key"]

_CREDENTIAL_MAX = 512
"""Characters. No key is longer."""
_REVOKED = Failure(Kind.KEY_REVOKED, "this API key was revoked; ask whoever runs the router")
_EXPIRED = Failure(Kind.KEY_EXPIRED, "this API key has expired; ask for a new one")


class UnknownKey(Failed):
    """A caller sent a key that is not in memory. The store may have it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)


class Keyring:
    """Finds the caller of a key."""

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
        """The number of keys, including revoked and expired ones."""
        return len(self._static) + len(self._stored)

    def callers(self) -> list[Caller]:
        """Return the callers of all keys."""
        return [*self._static.values(), *self._stored.values()]

    def settle(
        self,
        static: Iterable[Key],
        *,
        tiers: Collection[str] | None = None,
        makers: Iterable[str] = (),
    ) -> None:
        """Replace the configuration.

        `static` are its keys. A stored key whose tier is not among `tiers` is rejected, because it
        would have no limits; None accepts every tier. `makers` are valid makers besides keys, such
        as `OPEN_MAKER`.
        """
        self._static = {key.digest: of_key(key) for key in static}
        self._tiers = None if tiers is None else frozenset(tiers)
        self._makers = frozenset(makers)
        self._judge()

    def renew(self, stored: Iterable[Key]) -> None:
        """Replace the stored keys. Keys revoked here remain revoked, even if the store does not
        know it yet."""
        self._stored = {key.digest: of_key(key) for key in stored}
        self._revoked &= {key.id for key in self._stored_keys()}
        self._judge()

    def revoke(self, id: str) -> None:
        """Reject a stored key, and the keys that it made, from now on."""
        self._revoked.add(id)
        self._judge()

    def find(self, shown: str) -> Caller | None:
        """Return the caller of a key, even if the key is expired or revoked; None if the key is
        unknown."""
        if len(shown) > _CREDENTIAL_MAX:
            return None
        try:
            digest = digest_of(shown)
        except UnicodeEncodeError:  # the header was not text
            return None
        caller = self._static.get(digest) or self._stored.get(digest)
        if caller is None or caller.key is None:
            return None
        return caller if hmac.compare_digest(caller.key.digest, digest) else None

    def refusal(self, caller: Caller, wall: float) -> Failure | None:
        """Return why a known key is rejected at `wall` (Unix seconds); None if it is valid."""
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
        """Find the keys that are rejected at any time. Each key is checked once, so that look-ups
        need not follow chains of makers."""
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
        f"this API key was made by '{maker_shown(key.made_by)}', which is no longer valid; "
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
    """Return the rejection of a caller without a key (None) or with an unknown one."""
    if shown is None:
        return Failure(
            Kind.KEY_MISSING,
            "an API key is required; send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY' "
            "(`olla keys create` makes one)",
        )
    hint = "" if shown.startswith(KEY_PREFIX) else f"; keys usually begin with {KEY_PREFIX}"
    return Failure(Kind.KEY_INVALID, f"Invalid API key provided: it does not exist{hint}")
