"""The keys that are known now: those in the configuration and those in the store.

All of them are in memory, by their digests, so that looking one up waits for nobody. Who reads
the store tells what there is (`renew`), and what was revoked since (`revoke`).
"""

import hmac
from collections.abc import Iterable

from olla.access.caller import Caller, of_key
from olla.access.keys import KEY_PREFIX, Key, digest_of
from olla.failures import Failed, Failure, Kind

__all__ = ["Keyring", "UnknownKey", "refuse_key"]

_CREDENTIAL_MAX = 512
"""Characters: a longer one is no key."""


class UnknownKey(Failed):
    """Somebody shows a key that is not known here; the store may know it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)


class Keyring:
    """Finds who shows a key."""

    __slots__ = ("_revoked", "_static", "_stored")

    def __init__(self, static: Iterable[Key] = ()) -> None:
        self._static: dict[bytes, Caller] = {}
        self._stored: dict[bytes, Caller] = {}
        self._revoked: set[str] = set()
        self.settle(static)

    def __len__(self) -> int:
        """How many there are, revoked and expired ones too."""
        return len(self._static) + len(self._stored)

    def callers(self) -> list[Caller]:
        """All of them."""
        return [*self._static.values(), *self._stored.values()]

    def settle(self, static: Iterable[Key]) -> None:
        """The configuration's keys are these from now on."""
        self._static = {key.digest: of_key(key) for key in static}

    def renew(self, stored: Iterable[Key]) -> None:
        """The store's keys are these now. What was revoked here stays so, though the store may not
        know it yet."""
        self._stored = {key.digest: of_key(key) for key in stored}
        self._revoked = {
            caller.key.id
            for caller in self._stored.values()
            if caller.key is not None and caller.key.id in self._revoked
        }

    def revoke(self, id: str) -> None:
        """The stored key of that id is not taken any more, from now on."""
        self._revoked.add(id)

    def find(self, shown: str) -> Caller | None:
        """Whose key this is, be it expired or revoked; None for a key nobody knows."""
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
        """Why a key that is known is not taken at `wall` (Unix seconds); None when it is."""
        key = caller.key
        if key is None:
            return None
        if key.revoked is not None or key.id in self._revoked:
            return Failure(
                Kind.KEY_REVOKED, "this API key was revoked; ask whoever runs the router"
            )
        if key.expires is not None and key.expired(wall):
            return Failure(Kind.KEY_EXPIRED, "this API key has expired; ask for a new one")
        return None


def refuse_key(shown: str | None) -> Failure:
    """The refusal of somebody who shows no key (None), or one that nobody knows."""
    if shown is None:
        return Failure(
            Kind.KEY_MISSING,
            "an API key is needed; send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'",
        )
    hint = "" if shown.startswith(KEY_PREFIX) else f"; keys begin with {KEY_PREFIX} as a rule"
    return Failure(Kind.KEY_INVALID, f"Invalid API key provided: nobody has it{hint}")
