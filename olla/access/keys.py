"""Define what a key looks like and what is stored of it.

A key is 256 random bits after a readable prefix. Only its SHA-256 is stored: 256 random bits cannot
be guessed from a hash, so the slow hashes that passwords need would only cost time. The random bits
are an argument.
"""

import hashlib
from base64 import urlsafe_b64encode

import msgspec

from olla.dialects.dialect import Right

__all__ = [
    *("DEFAULT_RIGHTS", "KEY_PREFIX", "OPEN_MAKER", "SECRET_BYTES", "STATIC", "Key", "digest_of"),
    *("form_key", "maker_shown"),
]

KEY_PREFIX = "oa-"
SECRET_BYTES = 32
STATIC = "static:"
"""The prefix of the ids of configured keys."""
OPEN_MAKER = "anonymous"
"""The maker of keys created by anonymous callers (`surfaces.chat.api.open_keys`)."""
_SHOWN = 10
_MARKED_BYTES = 2
"""Bytes of a static key's digest: enough to detect a replaced key, too few to guess it."""
DEFAULT_RIGHTS = frozenset({Right.GENERATE, Right.EMBED, Right.LIST})
"""The rights of a key unless its maker chose others."""


class Key(msgspec.Struct, frozen=True):
    """A key, without its secret.

    `id` is unique among all keys: a number for stored keys (empty before they are stored),
    `static:NAME` for configured ones. `digest` is the SHA-256 of the secret, and `shown` its first
    characters, which identify it to people. `owner` is the key owner, `tier` the name of its
    limits. `models` are globs and `endpoints` names; both are empty without a restriction. Times
    are Unix seconds. `made_by` is the `mark` of the key that created it, or `OPEN_MAKER`. It is
    empty for keys of `olla keys create` and of the configuration, and if the maker is unknown.
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
    made_by: str = ""

    @property
    def is_static(self) -> bool:
        """Whether it is defined in the configuration."""
        return self.id.startswith(STATIC)

    @property
    def mark(self) -> str:
        """The maker of keys that it creates. For a configured key it includes the secret: a key
        with the same name and another secret is another maker."""
        return f"{self.id}#{self.digest[:_MARKED_BYTES].hex()}" if self.is_static else self.id

    def expired(self, now: float) -> bool:
        """Whether it has expired at `now` (Unix seconds)."""
        return self.expires is not None and now >= self.expires


def form_key(secret: bytes) -> tuple[str, bytes, str]:
    """Create a key of `SECRET_BYTES` random bytes: returns the key, its digest, and what may be
    shown."""
    key = KEY_PREFIX + urlsafe_b64encode(secret).decode().rstrip("=")
    return key, digest_of(key), key[:_SHOWN]


def digest_of(key: str) -> bytes:
    """Return the digest that is stored instead of the key."""
    return hashlib.sha256(key.encode()).digest()


def maker_shown(made_by: str) -> str:
    """Return a key's maker in readable form: `7`, `static:ci` or `anonymous`; empty without one."""
    return made_by.rpartition("#")[0] if made_by.startswith(STATIC) else made_by
