"""What the URL of the state that routers share says."""

from urllib.parse import parse_qs, urlsplit

from olla.settings.extras import require_extra

__all__ = ["checked_state_url"]

_SHAPE = "write redis://host:6379/0, rediss://host:6379/0 for TLS, or unix:///path/to/redis.sock"
_OPTIONS = frozenset(
    {"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"}
)


def checked_state_url(text: str) -> str:
    """The URL, when a Redis or Valkey server can be found by it.

    Raises:
        ValueError: it is none. The message says what to write, and never repeats what may be a
            password.
    """
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(
            "the state's URL has characters that no URL has; percent-encode them, as in p%40ss"
        )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(
            f"the state's URL cannot be read; {_SHAPE}, and percent-encode what is no letter or "
            "digit in a password"
        ) from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError(
            f"the state's URL must begin with redis://, rediss:// or unix://: {_SHAPE}"
        )
    database = parts.path.strip("/")
    if parts.scheme == "unix":
        if parts.hostname or not database:
            raise ValueError(f"the state's URL names no socket; {_SHAPE}")
    elif not parts.hostname or port == 0:
        raise ValueError(f"the state's URL names no server; {_SHAPE}")
    elif database and not database.isdigit():
        raise ValueError(f"what follows the server is the number of a database; {_SHAPE}")
    if parts.fragment:
        raise ValueError("the state's URL has a #; write it %23 in a password")
    options = parse_qs(parts.query, keep_blank_values=True)
    if not options.keys() <= _OPTIONS:
        raise ValueError(f"the state's URL may set {', '.join(sorted(_OPTIONS))}, and nothing else")
    if not all(number.isdigit() for number in options.get("db", [])):
        raise ValueError("db in the state's URL is the number of a database")
    require_extra("redis", "a state that routers share")
    return text
