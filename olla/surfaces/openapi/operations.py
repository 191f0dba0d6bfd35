"""What olla's own surfaces take and answer, one row an operation: the table behind the OpenAPI
document.

Shapes that are checked on the way in are in `wire`; here are those that are only documented.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from pydantic import Field

from olla.settings.surfaces import Surfaces
from olla.surfaces.management.wire import (
    ChatAnswer,
    ChatRequest,
    ErrorAnswer,
    GenerateRequest,
    KeyList,
    KeyMade,
    KeyRequest,
    KeyRevoked,
    ModelList,
    OwnErrorAnswer,
    TextAnswer,
    Wire,
)

__all__ = ["Row", "rows"]

Shape = type[Wire]


class Health(Wire):
    """The process serves."""

    status: Literal["healthy"]
    version: str
    uptime_seconds: float


class Ready(Wire):
    """Whether requests can be served."""

    status: Literal["ready", "not_ready"]
    draining: bool
    endpoints: int
    endpoints_routable: int
    models: int


class Counts(Wire):
    """How much of the fleet there is."""

    endpoints: int
    endpoints_routable: int
    models: int


class EndpointStatus(Wire):
    """One endpoint."""

    name: str
    url: str | None
    """Its address, for keys with the right `admin`; null for others."""
    type: str
    status: str
    breaker: str
    routable: bool
    reason: str | None
    """Why it gets no requests, or only some."""
    priority: int
    in_flight: int
    models: int
    models_cut: bool
    """Whether it lists more models than the router reads."""
    resident: list[dict[str, Any]]
    """The models in its memory."""


class RequestCounts(Wire):
    """What was asked since the start, of the endpoints and models that the caller may see."""

    total: int
    failures: int
    client_errors: int
    in_flight: int
    bytes_in: int
    bytes_out: int


class Status(Wire):
    """The router and its fleet."""

    timestamp: str
    status: Literal["healthy", "degraded", "unavailable", "draining"]
    version: str
    started_at: str
    uptime_seconds: float
    settings: str
    policy: str
    draining: bool
    counts: Counts
    requests: RequestCounts
    open_connections: int | None
    """Null for keys for a part of the fleet."""
    endpoints: list[EndpointStatus]


class Version(Wire):
    """What this is."""

    name: Literal["olla"]
    version: str
    description: str
    dialects: list[str]
    supported_backends: list[str]
    links: dict[str, str]


class UnifiedModel(Wire):
    """A model, in OpenAI's shape."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    olla: dict[str, Any]
    """What the fleet knows of it, and which endpoints have it."""


class UnifiedModels(Wire):
    """Every model of the fleet, once."""

    object: Literal["list"]
    data: list[UnifiedModel]


class ServiceMessage(Wire):
    """One message for the chat service."""

    message: str = Field(min_length=1)
    """What is asked."""
    model: str | None = None
    """The model; the configured default where it is left out."""


class ServiceResponse(Wire):
    """What the model says."""

    model: str
    response: str
    done: bool


class ServiceAnswer(Wire):
    """The answer to one message."""

    user: str
    tier: str
    response: ServiceResponse


class ServiceServer(Wire):
    """How long it has been running."""

    uptime_seconds: float
    uptime_human: str


class ServiceSystem(Wire):
    """The router's machine."""

    ram_total_gb: float
    ram_used_gb: float
    ram_percent: float
    cpu_percent: float


class ServiceModel(Wire):
    """A model."""

    name: str
    size_gb: float


class ServiceOllama(Wire):
    """The fleet."""

    online: bool
    models: list[ServiceModel]


class ServiceUsage(Wire):
    """What was used, and the limits."""

    total_requests: int
    active_anonymous_ips: int | None
    """Null for keys for a part of the fleet."""
    anon_rate_limit: str
    member_rate_limit: str


class ServiceStatus(Wire):
    """The chat service."""

    server: ServiceServer
    system: ServiceSystem
    ollama: ServiceOllama
    usage: ServiceUsage


class Row(msgspec.Struct, frozen=True):
    """One operation.

    `answers` maps statuses to what is answered: a shape, a media type for what is no JSON, or None
    for any JSON. `needs` is the right it takes, empty for none. `query` names parameters with their
    meaning; `error` is the shape of errors, `errors` are their statuses.
    """

    method: str
    path: str
    tag: str
    summary: str
    answers: Mapping[int, Shape | str | None]
    needs: str = "list"
    body: Shape | None = None
    query: Mapping[str, str] = {}
    streams: str = ""
    """The media type of the answer where a stream was asked for."""
    error: Shape = OwnErrorAnswer
    errors: tuple[int, ...] = ()


_ENTRY = (401, 403, 405, 429, 500, 503)
"""What any path that knows its callers may say."""
_BODY = (400, 408, 413)
_FLEET = (404, 502, 504)


def rows(surfaces: Surfaces) -> list[Row]:
    """All operations of the surfaces that are switched on."""
    found = list(_OWN)
    if surfaces.management.enabled:
        found += _management(surfaces.management.prefix)
    if surfaces.chat.enabled:
        found += _chat_service(surfaces.chat.prefix)
    return found


_OWN = (
    Row("get", "/internal/health", "status", "Whether the process serves", {200: Health}, ""),
    Row(
        "get",
        "/internal/ready",
        "status",
        "Whether some endpoint can take requests",
        {200: Ready, 503: Ready},
        "",
    ),
    Row("get", "/version", "status", "What runs here", {200: Version}, ""),
    Row("get", "/internal/status", "status", "The fleet", {200: Status}, errors=_ENTRY),
    Row("get", "/olla/models", "status", "All models", {200: UnifiedModels}, errors=_ENTRY),
)


def _management(prefix: str) -> list[Row]:
    tag, entry, error = "management", _ENTRY, ErrorAnswer
    asking = (*_BODY, *entry, *_FLEET)
    return [
        Row(
            *("get", f"{prefix}/models", tag, "The models that the caller may use"),
            {200: ModelList},
            error=error,
            errors=entry,
        ),
        Row(
            *("post", f"{prefix}/chat", tag, "Go on with a conversation"),
            {200: ChatAnswer},
            "generate",
            ChatRequest,
            streams="text/event-stream",
            error=error,
            errors=asking,
        ),
        Row(
            *("post", f"{prefix}/generate", tag, "Go on with a text"),
            {200: TextAnswer},
            "generate",
            GenerateRequest,
            streams="text/event-stream",
            error=error,
            errors=asking,
        ),
        Row(
            *("get", f"{prefix}/api-keys", tag, "All keys"),
            {200: KeyList},
            "admin",
            error=error,
            errors=entry,
        ),
        Row(
            *("post", f"{prefix}/api-keys", tag, "Make a key"),
            {201: KeyMade},
            "admin",
            KeyRequest,
            error=error,
            errors=(*_BODY, *entry),
        ),
        Row(
            *("delete", f"{prefix}/api-keys/{{id}}", tag, "Revoke a key and those that it made"),
            {200: KeyRevoked},
            "admin",
            error=error,
            errors=(404, *entry),
        ),
    ]


def _chat_service(prefix: str) -> list[Row]:
    tag, asking = "chat service", (*_BODY, *_ENTRY, *_FLEET)
    owner = {"user_id": "Whose."}
    usage = {"limit": "How many entries, 50 by default.", **owner}
    return [
        Row(
            *("post", f"{prefix}/chat", tag, "One message, one answer"),
            {200: ServiceAnswer},
            "generate",
            ServiceMessage,
            errors=asking,
        ),
        Row(
            *("post", f"{prefix}/chat/stream", tag, "One message, the answer line by line"),
            {200: "application/x-ndjson"},
            "generate",
            ServiceMessage,
            errors=asking,
        ),
        Row(
            *("get", f"{prefix}/api/status", tag, "The service, its machine and the fleet"),
            {200: ServiceStatus},
            errors=_ENTRY,
        ),
        Row(
            *("get", f"{prefix}/api/usage", tag, "The last requests"),
            {200: None},
            "admin",
            query=usage,
            errors=(400, *_ENTRY),
        ),
        Row(
            *("get", f"{prefix}/api/keys", tag, "The keys of a user"),
            {200: None},
            "admin",
            query=owner,
            errors=(400, *_ENTRY),
        ),
        Row(
            *("post", f"{prefix}/api/keys", tag, "Make a key"),
            {200: None, 201: None},
            "admin",
            query={**owner, "name": "What it is known by."},
            errors=(400, *_ENTRY),
        ),
        Row(
            *("delete", f"{prefix}/api/keys/{{id}}", tag, "Revoke a key"),
            {200: None},
            "admin",
            query=owner,
            errors=(400, 404, *_ENTRY),
        ),
    ]
