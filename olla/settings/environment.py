"""Override keys by environment variables, such as `server.port` by `OLLA_SERVER_PORT`.

Lists of strings use commas: `OLLA_SERVER_CORS_ALLOWED_ORIGINS=https://a,https://b`.
"""

from collections.abc import Mapping
from difflib import get_close_matches

from olla.settings.compatibility import foreign_variable
from olla.settings.document import Document
from olla.settings.problems import Problem
from olla.settings.schema_walk import list_keys, scalar_keys

__all__ = ["override"]

_RESERVED = frozenset({"OLLA_CONFIG_FILE", "OLLA_HOME", "OLLA_KEY"})
_OTHER_NAMES = {
    "OLLA_SERVER_MAX_BODY_SIZE": ("server", "request_limits", "max_body_size"),
    "OLLA_SERVER_MAX_HEADER_SIZE": ("server", "request_limits", "max_header_size"),
    "OLLA_SERVER_GLOBAL_RATE_LIMIT": ("server", "rate_limits", "global_requests_per_minute"),
    "OLLA_SERVER_PER_IP_RATE_LIMIT": ("server", "rate_limits", "per_ip_requests_per_minute"),
    "OLLA_SERVER_RATE_BURST_SIZE": ("server", "rate_limits", "burst_size"),
    "OLLA_SERVER_RATE_TRUST_PROXY_HEADERS": ("server", "rate_limits", "trust_proxy_headers"),
}
"""Shorter names from the Go router's documentation."""


def override(document: Document, environ: Mapping[str, str]) -> None:
    """Set each key from its variable. Empty variables are ignored.

    An unknown variable is ignored too. It is reported if it is a variable of the Go router, or
    nearly one of olla's.
    """
    keys = {_variable(key): key for key in scalar_keys()} | _OTHER_NAMES
    lists = {_variable(key): key for key in list_keys()}
    for name in sorted(environ):
        text = environ[name]
        if not name.startswith("OLLA_") or name in _RESERVED or not text.strip():
            continue
        if name in keys:
            _set(document, keys[name], name, text)
        elif name in lists:
            _set(document, lists[name], name, text, is_list=True)
        else:
            _note_unknown(document, name, [*keys, *lists])


def _variable(key: tuple[str, ...]) -> str:
    return "OLLA_" + "_".join(key).upper()


def _set(
    document: Document, key: tuple[str, ...], name: str, text: str, *, is_list: bool = False
) -> None:
    section = document.data
    for part in key[:-1]:
        inner = section.get(part)
        if inner is None:
            inner = section[part] = {}
        if not isinstance(inner, dict):
            return  # the section has the wrong type, which validation reports
        section = inner
    document.variables[key] = name
    plain = document.plain(key, text)
    section[key[-1]] = [each.strip() for each in plain.split(",")] if is_list else plain


def _note_unknown(document: Document, name: str, known: list[str]) -> None:
    instead = foreign_variable(name)
    near = get_close_matches(name, known, 1, cutoff=0.9)
    if instead is not None:
        message = f"has no effect here: {instead}"
    elif near:
        message = f"is ignored: no setting has this name; did you mean {near[0]}?"
    else:
        return
    document.notices.append(Problem("environment", 0, 0, name, message))
