"""What olla shows to an endpoint: the header that `auth` stands for, secrets read from files."""

import base64
import re
from pathlib import Path

from olla.settings.endpoint import Auth

__all__ = ["SECRETS", "credentials", "read_secret"]

SECRETS = ("token", "key", "username", "password")
"""The values of `auth` that may stand in a file of their own, named by `…_file`."""
_SECRET_MAX = 65536
_HEADER_VALUE = re.compile(r"[ -~]+")


def read_secret(path: str) -> str:
    """What a file holds, blanks and line ends around it left out.

    Raises:
        ValueError: it cannot be read, is empty, or is no secret.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(_SECRET_MAX + 1).strip()
    except UnicodeDecodeError:
        raise ValueError(f"'{path}' is no text") from None
    except OSError as error:
        raise ValueError(f"'{path}' cannot be read: {error.strerror}") from None
    if not text:
        raise ValueError(f"'{path}' is empty")
    if len(text) > _SECRET_MAX or len(text.splitlines()) > 1:
        raise ValueError(f"'{path}' must hold the secret on one line, and nothing else")
    return text


def credentials(auth: Auth) -> tuple[str, str]:
    """Name and value of the header.

    Raises:
        ValueError: a file with a secret cannot be used.
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
