"""Keys of the Go router's files that mean nothing here, and keys this version does not have yet.

The first are accepted and reported once, so that such a file runs as it is; the second are
problems, because a file that asks for keys or limits must not run without them. Reports too where
a key that both have does more, or other, than it did there.
"""

from collections.abc import Iterator
from typing import Any

from olla.settings.document import Document
from olla.settings.endpoint_url import read_address
from olla.settings.problems import Key
from olla.settings.values import duration

__all__ = ["FOREIGN", "NOT_YET", "foreign_names", "foreign_variable", "take_out"]

_FIXED = "olla decides this by itself"

FOREIGN: dict[str, str] = {
    "server.write_timeout": "a stream may take long; server.send_timeout bounds slow readers",
    "server.request_logging": "every request is logged, in batches",
    "server.rate_limits.cleanup_interval": "what is not used any more is forgotten by itself",
    "server.rate_limits.health_requests_per_minute": "/internal/health is cheap and not limited",
    "server.rate_limits.per_endpoint": "endpoints are not limited, callers are",
    "proxy.engine": "there is one engine",
    "proxy.profile": "every answer is passed on as it comes",
    "proxy.stream_buffer_size": _FIXED,
    "proxy.profile_filter": "all kinds of server are known",
    "proxy.retry": "every other endpoint that can serve a request is tried once",
    "proxy.max_retries": "every other endpoint that can serve a request is tried once",
    "proxy.retry_backoff": "another endpoint is tried at once",
    "proxy.max_idle_conns": "idle connections end by proxy.connection_keep_alive",
    "proxy.max_conns_per_host": "connections are made as they are needed",
    "proxy.idle_conn_timeout": "idle connections end by proxy.connection_keep_alive",
    "proxy.tls_handshake_timeout": "proxy.connection_timeout covers the TLS handshake",
    "proxy.sticky_sessions": "requests go where they can start; nothing is pinned",
    "discovery.refresh_interval": "see discovery.model_discovery.interval",
    "discovery.health_check": "endpoints are asked at once, and then every check_interval",
    "discovery.model_discovery.enabled": "models are always read: routing needs them",
    "discovery.model_discovery.timeout": "an endpoint's check_timeout holds",
    "discovery.model_discovery.concurrent_workers": "endpoints are asked independently",
    "discovery.model_discovery.retry_attempts": "a list is read again at the next interval",
    "discovery.model_discovery.retry_backoff": "a list is read again at the next interval",
    "model_registry.type": "the registry is in memory",
    "model_registry.routing_strategy.options.discovery_refresh_on_miss": (
        "endpoints are always asked again before a model is called not found"
    ),
    "model_registry.enable_unifier": "lists are always the whole fleet's",
    "model_registry.unification": "lists always show what the endpoints last answered",
    "profiles": "all kinds of server are known; connections are pooled for each endpoint",
    "translators": "Anthropic requests are passed on to endpoints that speak it",
    "dashboard": "this version has no dashboard",
    "engineering": "see /internal/process",
}
"""Path of a key to what holds instead."""

NOT_YET: dict[str, str] = {
    "telemetry": "settings for telemetry",
}
"""Path of a key to what this version does not have."""

_ENDPOINT_KEYS = ("preserve_path",)


def take_out(document: Document) -> None:
    """Take out of the data what means nothing here, and report it in the document."""
    for path, what in NOT_YET.items():
        key = tuple(path.split("."))
        if _take(document.data, key) is not None:
            document.add(key, f"this version does not have {what}; leave the section out")
    theirs = False
    for path, instead in FOREIGN.items():
        key = tuple(path.split("."))
        if key in document.marks:
            theirs = True
            _take(document.data, key)
            document.note(key, f"has no effect here: {instead}")
    _note_log_file(document)
    if theirs:
        _note_response_timeout(document)
    _note_url_paths(document, theirs)


def foreign_names(above: Key) -> Iterator[str]:
    """The names that are accepted and mean nothing below a key."""
    if len(above) == 4 and above[:3] == ("discovery", "static", "endpoints"):
        yield from _ENDPOINT_KEYS
    for path in (*FOREIGN, *NOT_YET):
        *parents, name = path.split(".")
        if tuple(parents) == above:
            yield name


def foreign_variable(name: str) -> str | None:
    """What holds instead of what an environment variable says; None when it is not foreign."""
    for path, instead in FOREIGN.items():
        prefix = "OLLA_" + path.upper().replace(".", "_")
        if name == prefix or name.startswith(f"{prefix}_"):
            return instead
    return None


def _take(data: dict[str, Any], key: Key) -> Any:
    """Remove a key and return its value; None when it is not there, or has none."""
    found: Any = data
    for part in key[:-1]:
        found = found.get(part) if isinstance(found, dict) else None
    return found.pop(key[-1], None) if isinstance(found, dict) else None


def _note_log_file(document: Document) -> None:
    logging = document.data.get("logging")
    if isinstance(logging, dict) and logging.get("output") == "file":
        del logging["output"]
        document.note(
            ("logging", "output"), "has no effect here: olla writes to stdout or stderr, no files"
        )


def _note_response_timeout(document: Document) -> None:
    """The Go router reads this key and lets answers run on; here it cuts them."""
    proxy = document.data.get("proxy")
    if not isinstance(proxy, dict) or not proxy.get("response_timeout"):
        return
    try:
        limit = duration(proxy["response_timeout"])
    except ValueError:
        return
    if limit:
        document.note(
            ("proxy", "response_timeout"),
            f"this is in force here: an answer is cut after {limit:g} s in all, streams included; "
            "leave it out for no limit",
        )


def _note_url_paths(document: Document, theirs: bool) -> None:
    """An endpoint URL's path is always kept, which the Go router does only when it is told to."""
    for key, endpoint in document.endpoints():
        asked = endpoint.pop("preserve_path", None)
        try:
            path = read_address(str(endpoint.get("url"))).path
        except ValueError:
            continue
        if path.rpartition("/")[2] in ("v1", "api"):
            document.note(
                (*key, "url"),
                f"requests bring their own path, such as /v1/models or /api/tags, and {path} "
                "is put before it; leave it out unless the server really has it twice",
            )
        elif path and (theirs or asked is not None) and str(asked).lower() != "true":
            document.note(
                (*key, "preserve_path" if asked is not None else "url"),
                f"the path {path} is kept before every request's, as with preserve_path: true",
            )
