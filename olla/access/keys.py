"""What a key looks like, and what is kept of it.

A key is 256 random bits behind a readable prefix. Only its SHA-256 is kept. Nobody can guess that
much chance from its hash, so the slow hashes that passwords need would only cost time. The random
bits are an argument.
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
"""How the ids of the configuration's keys begin."""
OPEN_MAKER = "anonymous"
"""The maker of keys that callers without a key have made (`surfaces.chat.api.open_keys`)."""
_SHOWN = 10
_MARKED_BYTES = 2
"""Of a static key's digest: enough to tell that the key was replaced, too few to guess it by."""
DEFAULT_RIGHTS = frozenset({Right.GENERATE, Right.EMBED, Right.LIST})
"""What a key may do unless its maker said otherwise."""


class Key(msgspec.Struct, frozen=True):
    """What is known of a key, which is not the key itself.

    `id` is unique among all keys: a number for those in the store (empty before it is there),
    `static:NAME` for those in the configuration. `digest` is the key's SHA-256 and `shown` how it
    begins, for people to know it by. `owner` is whose it is, `tier` names its limits. `models`
    are globs and `endpoints` names; both empty for no restriction. Times are Unix seconds.
    `made_by` is the `mark` of the key that made it, or `OPEN_MAKER`; empty for keys that no other
    key made (`olla keys create`, the configuration) and for those of which it is not known.
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
        """Whether it stands in the configuration."""
        return self.id.startswith(STATIC)

    @property
    def mark(self) -> str:
        """What keys that it makes have as their maker. Of a key in the configuration the secret
        counts as well as the name: one that was replaced is another maker."""
        return f"{self.id}#{self.digest[:_MARKED_BYTES].hex()}" if self.is_static else self.id

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


def maker_shown(made_by: str) -> str:
    """A key's maker as people know it: `7`, `static:ci`, `anonymous`; empty for none."""
    return made_by.rpartition("#")[0] if made_by.startswith(STATIC) else made_by
