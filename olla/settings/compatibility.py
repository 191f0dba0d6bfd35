"""Handle keys of the Go router that have no effect here, and keys that are not supported yet.

The first are accepted and reported once, so that a file of the Go router runs unchanged. The
second are problems, because a file that asks for keys or limits must not run without them. Keys
with a different effect than in the Go router are reported too.
"""

from collections.abc import Iterator
from typing import Any

from olla.settings.document import Document
from olla.settings.endpoint_url import read_address
from olla.settings.problems import Key
from olla.settings.values import duration

__all__ = ["FOREIGN", "NOT_YET", "foreign_names", "foreign_variable", "remove_unsupported"]

_FIXED = "olla chooses this automatically"

FOREIGN: dict[str, str] = {
    "server.write_timeout": "a stream may take long; server.send_timeout bounds slow readers",
    "server.request_logging": "every request is logged, in batches",
    "server.rate_limits.cleanup_interval": "unused entries are removed automatically",
    "server.rate_limits.health_requests_per_minute": "/internal/health is cheap and not limited",
    "server.rate_limits.per_endpoint": "limits apply to callers, not to endpoints",
    "proxy.engine": "olla has a single engine",
    "proxy.profile": "every response is relayed as it arrives",
    "proxy.stream_buffer_size": _FIXED,
    "proxy.profile_filter": "all server types are enabled",
    "proxy.retry": "every other endpoint that can serve a request is tried once",
    "proxy.max_retries": "every other endpoint that can serve a request is tried once",
    "proxy.retry_backoff": "another endpoint is tried immediately",
    "proxy.max_idle_conns": "proxy.connection_keep_alive closes idle connections",
    "proxy.max_conns_per_host": "connections are opened as needed",
    "proxy.idle_conn_timeout": "proxy.connection_keep_alive closes idle connections",
    "proxy.tls_handshake_timeout": "proxy.connection_timeout covers the TLS handshake",
    "proxy.sticky_sessions": "requests go where they can start first; nothing is pinned",
    "discovery.refresh_interval": "see discovery.model_discovery.interval",
    "discovery.health_check": "endpoints are probed at startup, and then every check_interval",
    "discovery.model_discovery.enabled": "models are always discovered: routing needs them",
    "discovery.model_discovery.timeout": "an endpoint's check_timeout applies",
    "discovery.model_discovery.concurrent_workers": "endpoints are probed independently",
    "discovery.model_discovery.retry_attempts": "a list is read again at the next interval",
    "discovery.model_discovery.retry_backoff": "a list is read again at the next interval",
    "model_registry.type": "the registry is in memory",
    "model_registry.routing_strategy.options.discovery_refresh_on_miss": (
        "endpoints always list their models again before a model is reported as not found"
    ),
    "model_registry.enable_unifier": "lists always cover the whole fleet",
    "model_registry.unification": "lists always show the last answers of the endpoints",
    "profiles": "all server types are enabled; connections are pooled per endpoint",
    "translators": "Anthropic requests are forwarded to endpoints that support the API",
    "dashboard": "this version has no dashboard",
    "engineering": "see /internal/process",
}
"""Path of a key -> what applies instead."""

NOT_YET: dict[str, str] = {
    "telemetry": "settings for telemetry",
}
"""Path of a key -> what this version does not support."""

_ENDPOINT_KEYS = ("preserve_path",)


def remove_unsupported(document: Document) -> None:
    """Remove keys without effect from the data, and report them in the document."""
    for path, what in NOT_YET.items():
        key = tuple(path.split("."))
        if _take(document.data, key) is not None:
            document.add(key, f"this version does not support {what}; remove the section")
    is_foreign = False
    for path, instead in FOREIGN.items():
        key = tuple(path.split("."))
        if key in document.marks:
            is_foreign = True
            _take(document.data, key)
            document.note(key, f"has no effect here: {instead}")
    _note_log_file(document)
    if is_foreign:
        _note_response_timeout(document)
    _note_url_paths(document, is_foreign)


def foreign_names(above: Key) -> Iterator[str]:
    """Yield the names below a key that are accepted without effect, or not supported yet."""
    if len(above) == 4 and above[:3] == ("discovery", "static", "endpoints"):
        yield from _ENDPOINT_KEYS
    for path in (*FOREIGN, *NOT_YET):
        *parents, name = path.split(".")
        if tuple(parents) == above:
            yield name


def foreign_variable(name: str) -> str | None:
    """Return what applies instead of a variable of the Go router; None for other variables."""
    for path, instead in FOREIGN.items():
        prefix = "OLLA_" + path.upper().replace(".", "_")
        if name == prefix or name.startswith(f"{prefix}_"):
            return instead
    return None


def _take(data: dict[str, Any], key: Key) -> Any:
    """Remove a key and return its value; None if the key is missing or has no value."""
    found: Any = data
    for part in key[:-1]:
        found = found.get(part) if isinstance(found, dict) else None
    return found.pop(key[-1], None) if isinstance(found, dict) else None


def _note_log_file(document: Document) -> None:
    logging = document.data.get("logging")
    if isinstance(logging, dict) and logging.get("output") == "file":
        del logging["output"]
        document.note(
            ("logging", "output"),
            "has no effect here: olla logs to stdout or stderr, not to files",
        )


def _note_response_timeout(document: Document) -> None:
    """Report `response_timeout`: the Go router ignores it for running answers, olla does not."""
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
            f"this takes effect here: a response, streams included, is aborted after {limit:g} s "
            "in total; omit the key for no limit",
        )


def _note_url_paths(document: Document, is_foreign: bool) -> None:
    """Report paths in endpoint URLs: olla always keeps them, the Go router only on request."""
    for key, endpoint in document.endpoints():
        preserve_path = endpoint.pop("preserve_path", None)
        try:
            path = read_address(str(endpoint.get("url"))).path
        except ValueError:
            continue
        if path.rpartition("/")[2] in ("v1", "api"):
            document.note(
                (*key, "url"),
                f"{path} is prepended to the path of each request, such as /v1/models or "
                "/api/tags; remove it unless the server really has it twice",
            )
        elif (
            path
            and (is_foreign or preserve_path is not None)
            and str(preserve_path).lower() != "true"
        ):
            document.note(
                (*key, "url" if preserve_path is None else "preserve_path"),
                f"{path} is prepended to the path of each request, as with preserve_path: true",
            )
