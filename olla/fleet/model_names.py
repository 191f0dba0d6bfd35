"""Model names, compared as Ollama compares them.

`[host/][namespace/]model[:tag]`, where host, namespace and tag default to `registry.ollama.ai`,
`library` and `latest`, blanks around the name do not count and neither does case. The tag is
what follows the last colon, if that stands after the last slash (so the colon of `host:5000/ns/m`
is a port's).
"""

from functools import lru_cache

__all__ = [
    "DEFAULT_HOST",
    "DEFAULT_NAMESPACE",
    "DEFAULT_TAG",
    "canonical",
    "canonical_of_list",
    "display",
]

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"


_REMEMBERED_CHARACTERS_MAX = 256
"""Longer names are split anew each time: clients and nodes choose them."""


def canonical(name: str) -> str:
    """The full lower-case form of `name`: two names are one model when these are equal."""
    return _remembered(name) if len(name) <= _REMEMBERED_CHARACTERS_MAX else canonical_of_list(name)


def canonical_of_list(name: str) -> str:
    """The same as `canonical`, without its cache: a long list of models would take the place of
    the names that requests use."""
    path, tag = _split_tag(name.strip().lower())
    parts = path.split("/")
    if len(parts) == 1:
        parts = [DEFAULT_HOST, DEFAULT_NAMESPACE, *parts]
    elif len(parts) == 2:
        parts = [DEFAULT_HOST, *parts]
    return f"{'/'.join(parts)}:{tag}"


_remembered = lru_cache(maxsize=4096)(canonical_of_list)


def display(name: str) -> str:
    """The short form Ollama shows: default host and namespace dropped, the tag always there."""
    path, tag = _split_tag(name.strip())
    parts = path.split("/")
    if len(parts) == 3 and parts[0].lower() == DEFAULT_HOST:
        parts = parts[1:]
    if len(parts) == 2 and parts[0].lower() == DEFAULT_NAMESPACE:
        parts = parts[1:]
    return f"{'/'.join(parts)}:{tag}"


def _split_tag(name: str) -> tuple[str, str]:
    path, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        return name, DEFAULT_TAG
    return path, tag or DEFAULT_TAG
