"""Convert settings to the options of the components."""

from olla.admission.rejections import QueueLimits
from olla.dialects.paths import Paths, ScopeSpec
from olla.fleet.model_names import canonical
from olla.fleet.profiles import PROFILES
from olla.proxy.bounds.client_timeouts import ClientTimeouts
from olla.proxy.exchange.attempt import Timeouts
from olla.proxy.exchange.context_length import ContextRule
from olla.proxy.http.allowed_hosts import AllowedHosts
from olla.proxy.http.browser_guard import BrowserGuard
from olla.proxy.http.cors import CorsPolicy
from olla.routing.decision import Fallback, RoutingOptions, Strategy
from olla.settings import Settings

__all__ = [
    "aliases",
    "browser_guard",
    "client_timeouts",
    "context_rule",
    "load_timeout",
    "needs_restart",
    "paths_for",
    "queue_limits",
    "routing_options",
    "timeouts",
]

_RESTART = (
    "server.host",
    "server.port",
    "server.fast_path",
    "logging",
    "routing.decision_log",
    "store",
    "state",
)
"""Keys whose changes need a restart."""


def paths_for(*, root_enabled: bool) -> Paths:
    """Return the paths of all server types."""
    scopes = [ScopeSpec(row.name, row.prefixes, row.dialects) for row in PROFILES.values()]
    return Paths(scopes, root_enabled=root_enabled)


def routing_options(settings: Settings) -> RoutingOptions:
    """Return how endpoints are chosen."""
    strategy = settings.model_registry.routing_strategy
    return RoutingOptions(
        strategy=Strategy(strategy.type),
        fallback=Fallback(strategy.options.fallback_behavior),
        spillover=settings.routing.spillover,
        embedding_endpoints=frozenset(settings.routing.embedding_endpoints),
        prewarm=settings.routing.prewarm,
    )


def queue_limits(settings: Settings) -> QueueLimits:
    """Return the limits of the queue: length and waiting time."""
    routing = settings.routing
    return QueueLimits(
        max_queue=routing.max_queue,
        timeout=routing.queue_timeout,
        load_grace=routing.load_grace,
    )


def timeouts(settings: Settings) -> Timeouts:
    """Return the time-outs of an attempt."""
    proxy = settings.proxy
    return Timeouts(
        first_byte=proxy.response_header_timeout,
        silence=proxy.read_timeout,
        total=proxy.response_timeout,
    )


def client_timeouts(settings: Settings) -> ClientTimeouts:
    """Return the time-outs of client connections."""
    server = settings.server
    return ClientTimeouts(
        idle=server.idle_timeout,
        head=server.read_header_timeout,
        silence=server.read_timeout,
        body=server.body_timeout,
        send=server.send_timeout,
        min_rate=server.min_rate,
    )


def aliases(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the models of each alias, best first; all names are canonical."""
    return {
        canonical(alias): tuple(dict.fromkeys(canonical(name) for name in names))
        for alias, names in settings.model_aliases.items()
    }


def context_rule(settings: Settings) -> ContextRule:
    """Return the limits on the context length of requests."""
    return ContextRule(settings.routing.num_ctx.max, settings.routing.num_ctx.round_to)


def browser_guard(settings: Settings, *, host_name: str, on_loopback: bool) -> BrowserGuard:
    """Return the rules for requests from browsers.

    `host_name` is the machine's host name. `on_loopback` says that only programs on this machine
    can reach the router.
    """
    cors = settings.server.cors
    hosts = AllowedHosts(settings.server.allowed_hosts, hostname=host_name, guarded=on_loopback)
    if not cors.enabled:
        return BrowserGuard(CorsPolicy(), hosts, enabled=False)
    policy = CorsPolicy(
        cors.allowed_origins,
        methods=cors.allowed_methods,
        headers=cors.allowed_headers,
        exposed=cors.exposed_headers,
        credentials=cors.allow_credentials,
        max_age=cors.max_age,
    )
    return BrowserGuard(policy, hosts)


def load_timeout(settings: Settings) -> float:
    """Return the time-out for loads that olla starts, in seconds; 0 means no limit."""
    return 2 * timeouts(settings).first_byte


def needs_restart(before: Settings, after: Settings) -> list[str]:
    """Return the changed keys that need a restart."""

    def value(settings: object, path: str) -> object:
        for name in path.split("."):
            settings = getattr(settings, name)
        return settings

    return [path for path in _RESTART if value(before, path) != value(after, path)]
