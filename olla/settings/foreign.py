"""Keys of the Go router's files that mean nothing here, and keys this version does not have yet.

The first are accepted and reported once, so that such a file runs as it is; the second are
problems, because a file that asks for keys or limits must not run without them.
"""

__all__ = ["FOREIGN", "NOT_YET"]

_FIXED = "olla decides this by itself"

FOREIGN: dict[str, str] = {
    "server.read_timeout": "request bodies are bounded by size, not by time",
    "server.read_header_timeout": "an idle connection is bounded by server.idle_timeout",
    "server.write_timeout": "a stream may take as long as it takes; see proxy.read_timeout",
    "server.request_logging": "every request is logged, in batches",
    "server.rate_limits": "NO RATE LIMIT IS IN FORCE: this version has none",
    "server.cors": "answers carry the endpoint's own CORS headers",
    "proxy.engine": "there is one engine",
    "proxy.profile": "every answer is passed on as it comes",
    "proxy.stream_buffer_size": _FIXED,
    "proxy.profile_filter": "all kinds of server are known",
    "proxy.retry": "every other endpoint that can serve a request is tried once",
    "proxy.max_retries": "every other endpoint that can serve a request is tried once",
    "proxy.retry_backoff": "another endpoint is tried at once",
    "proxy.tls_handshake_timeout": "proxy.connection_timeout covers the TLS handshake",
    "proxy.sticky_sessions": "requests go where they can start; nothing is pinned",
    "discovery.refresh_interval": "see discovery.model_discovery.interval",
    "discovery.health_check": "endpoints are asked at once, and then every check_interval",
    "discovery.model_discovery.enabled": "models are always read: routing needs them",
    "discovery.model_discovery.timeout": "an endpoint's check_timeout holds",
    "discovery.model_discovery.concurrent_workers": "endpoints are asked independently",
    "discovery.model_discovery.retry_attempts": "a list is read again at the next interval",
    "discovery.model_discovery.retry_backoff": "a list is read again at the next interval",
    "discovery.static.endpoints.*.preserve_path": "an endpoint URL's path is always kept",
    "model_registry.type": "the registry is in memory",
    "model_registry.routing_strategy.options.discovery_refresh_on_miss": (
        "endpoints are always asked again before a model is called not found"
    ),
    "model_registry.enable_unifier": "lists are always the whole fleet's",
    "model_registry.unification": "lists always show what the endpoints last answered",
    "translators": "Anthropic requests are passed on to endpoints that speak it",
    "dashboard": "this version has no dashboard",
    "engineering": "see /internal/process",
}
"""Path of the key (`*` for a place in a list) to what holds instead."""

NOT_YET: dict[str, str] = {
    "access": "keys, tiers and limits",
    "store": "a store",
    "state": "state shared by replicas",
    "telemetry": "settings for telemetry",
    "routing": "settings for routing",
}
"""Sections that this version does not have."""
