"""Build the header by which olla authenticates to an endpoint; read its secrets from files."""

import base64
import re
from pathlib import Path

from olla.settings.endpoint import Auth

__all__ = ["SECRETS", "credentials", "read_secret"]

SECRETS = ("token", "key", "username", "password")
"""The values of `auth` that may be read from a file, named by `…_file`."""
_SECRET_MAX = 65536
_HEADER_VALUE = re.compile(r"[ -~]+")


def read_secret(path: str) -> str:
    """Read a secret from a file; surrounding whitespace is stripped.

    Raises:
        ValueError: the file cannot be read, is empty, or holds more than one line.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(_SECRET_MAX + 1).strip()
    except UnicodeDecodeError:
        raise ValueError(f"'{path}' is not UTF-8 text") from None
    except OSError as error:
        raise ValueError(f"'{path}' cannot be read: {error.strerror}") from None
    if not text:
        raise ValueError(f"'{path}' is empty; it must hold the secret")
    if len(text) > _SECRET_MAX or len(text.splitlines()) > 1:
        raise ValueError(f"'{path}' must hold only the secret, on one line")
    return text


def credentials(auth: Auth) -> tuple[str, str]:
    """Return name and value of the header.

    Raises:
        ValueError: a secret cannot be read from its file, or is not printable ASCII.
    """

    def secret(name: str) -> str:
        given: str | None = getattr(auth, name)
        return given if given is not None else read_secret(getattr(auth, f"{name}_file"))

    if auth.type == "bearer":
        name, value = "Authorization", f"Bearer {secret('token')}"
    elif auth.type == "api_key":
        name, value = auth.header, secret("key")
    else:
        pair = f"{secret('username')}:{secret('password')}".encode()
        name, value = "Authorization", f"Basic {base64.b64encode(pair).decode()}"
    if not _HEADER_VALUE.fullmatch(value):
        raise ValueError(f"the secret of auth type {auth.type} must be printable ASCII")
    return name, value
