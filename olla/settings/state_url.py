"""Validate the URL of the state that several routers share."""

from urllib.parse import parse_qs, urlsplit

from olla.settings.extras import require_extra

__all__ = ["checked_state_url"]

_EXPECTED = "write redis://host:6379/0, rediss://host:6379/0 for TLS, or unix:///path/to/redis.sock"
_OPTIONS = frozenset(
    {"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"}
)


def checked_state_url(text: str) -> str:
    """Return the URL if it is the valid address of a Redis or Valkey server.

    Raises:
        ValueError: the URL is invalid. The message says what to write, and never repeats a part
            that may be a password.
    """
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(
            "the state URL has characters that are not allowed in a URL; percent-encode them, as "
            "in p%40ss"
        )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(
            f"the state URL cannot be parsed; {_EXPECTED}, and percent-encode all characters of "
            "the password except letters and digits"
        ) from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError(
            f"the state URL must begin with redis://, rediss:// or unix://; {_EXPECTED}"
        )
    database = parts.path.strip("/")
    if parts.scheme == "unix":
        if parts.hostname or not database:
            raise ValueError(f"the state URL has no socket path; {_EXPECTED}")
    elif not parts.hostname or port == 0:
        raise ValueError(f"the state URL has no host; {_EXPECTED}")
    elif database and not database.isdigit():
        raise ValueError(f"the path of the state URL must be a database number; {_EXPECTED}")
    if parts.fragment:
        raise ValueError("the state URL contains a #; write it as %23 in a password")
    options = parse_qs(parts.query, keep_blank_values=True)
    if not options.keys() <= _OPTIONS:
        raise ValueError(f"the state URL may only set the options {', '.join(sorted(_OPTIONS))}")
    if not all(number.isdigit() for number in options.get("db", [])):
        raise ValueError("db in the state URL must be a database number")
    require_extra("redis", "shared state")
    return text
