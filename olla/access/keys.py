"""Keys: how they look, and what is kept of them.

A key is 256 random bits behind a readable prefix. Only its SHA-256 is kept: nothing can be
guessed back from the hash of so much chance, so the slow hashes that passwords need would only
cost time. Where the bits come from is the caller's business.
"""

import hashlib
from base64 import urlsafe_b64encode

import msgspec

from olla.dialects.dialect import Right

__all__ = ["DEFAULT_RIGHTS", "KEY_PREFIX", "SECRET_BYTES", "Key", "digest_of", "form_key"]

KEY_PREFIX = "oa-"
SECRET_BYTES = 32
_SHOWN = 10
DEFAULT_RIGHTS = frozenset({Right.GENERATE, Right.EMBED, Right.LIST})
"""What a key may do that was made without saying so."""


class Key(msgspec.Struct, frozen=True):
    """What is known of a key, which is not the key itself.

    `id` is unique among all keys: a number for those in the store (empty before it is there),
    `static:NAME` for those in the configuration. `digest` is the key's SHA-256 and `shown` how it
    begins, for people to know it by. `owner` is whose it is, `tier` names its limits. `models`
    are globs and `endpoints` names; both empty for no restriction. Times are Unix seconds.
    """

    id: str
    digest: bytes
    shown: str
    name: str
    owner: str = ""
    tier: str = "standard"
    rights: frozenset[Right] = DEFAULT_RIGHTS
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    created: float = 0.0
    expires: float | None = None
    revoked: float | None = None

    def expired(self, now: float) -> bool:
        """Whether its time is over at `now` (Unix seconds)."""
        return self.expires is not None and now >= self.expires


def form_key(secret: bytes) -> tuple[str, bytes, str]:
    """A key of `SECRET_BYTES` random bytes: itself, its digest, and what may be shown of it."""
    key = KEY_PREFIX + urlsafe_b64encode(secret).decode().rstrip("=")
    return key, digest_of(key), key[:_SHOWN]


def digest_of(key: str) -> bytes:
    """What is kept of a key in place of it."""
    return hashlib.sha256(key.encode()).digest()
