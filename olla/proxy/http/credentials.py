"""Read the API keys that a request carries."""

from collections.abc import Sequence

__all__ = ["Credential", "credentials"]

Credential = tuple[bytes, str]
"""The field's name in lower case, and the key in it."""


def credentials(headers: Sequence[tuple[bytes, bytes]]) -> tuple[Credential, ...]:
    """Return the keys in `Authorization: Bearer` and `X-API-Key` fields, in their order."""
    found: list[Credential] = []
    for name, value in headers:
        size = len(name)
        if size == 13 and name.lower() == b"authorization":
            parts = value.split(None, 1)
            if len(parts) == 2 and parts[0].lower() == b"bearer":
                found.append((b"authorization", parts[1].strip().decode("latin-1")))
        elif size == 9 and name.lower() == b"x-api-key" and value.strip():
            found.append((b"x-api-key", value.strip().decode("latin-1")))
    return tuple(found)
