"""The operations of a wire format by path: a table, which `paths` reads."""

import enum

import msgspec

from olla.dialects.dialect import Operation, Right

__all__ = [
    "READS",
    "READS_EVERYWHERE",
    "BodyUse",
    "Route",
    "native_routes",
    "right_of",
    "routes_of",
    "unknown_right",
    "v1_routes",
]


class BodyUse(enum.Enum):
    """How a request's body is treated."""

    NONE = "none"
    """Read and forwarded without inspection."""
    JSON = "json"
    """Read whole and inspected, whatever its Content-Type."""
    STREAMED = "streamed"
    """Forwarded as it arrives, never stored."""
    MULTIPART = "multipart"
    """Read whole; the model is a form field."""


class Route(msgspec.Struct, frozen=True):
    """One operation of a wire format, at one path.

    `methods` are those that are allowed; `needs_model` that only endpoints which have the model
    can serve it; a path that ends in `/*` takes one more parameter, slashes included.
    """

    operation: Operation
    dialect: str
    methods: frozenset[str]
    body: BodyUse
    needs_model: bool


_GET = frozenset({"GET", "HEAD"})
_POST = frozenset({"POST"})
_DELETE = frozenset({"DELETE"})

_MANAGES = frozenset(
    {
        Operation.PULL,
        Operation.PUSH,
        Operation.CREATE,
        Operation.COPY,
        Operation.DELETE,
        Operation.BLOB,
    }
)
_LISTS = frozenset(
    {
        Operation.HEARTBEAT,
        Operation.VERSION,
        Operation.LIST,
        Operation.MODEL,
        Operation.RUNNING,
        Operation.SHOW,
    }
)


_EMBEDS = frozenset({Operation.EMBED, Operation.RERANK})
READS_EVERYWHERE = frozenset(
    {"/", "/docs", "/favicon.ico", "/health", "/metrics", "/openapi.json", "/ping", "/redoc"}
    | {"/version"}
)
"""Paths that only read, on every kind of server."""
READS = {
    "docker-model-runner": frozenset({"/engines/df", "/engines/ps"}),
    "lemonade": frozenset({"/api/v1/health", "/api/v1/stats", "/api/v1/system-info"}),
    "litellm": frozenset(
        {"/health/liveliness", "/health/liveness", "/health/readiness"}
        | {"/model/info", "/model_group/info", "/v1/model/info"}
    ),
    "llamacpp": frozenset(
        {"/bundle.css", "/bundle.js", "/index.html", "/lora-adapters", "/props", "/slots"}
        | {"/v1/health"}
    ),
    "lm-studio": frozenset({"/api/v0/models", "/api/v1/models"}),
    "lmdeploy": frozenset({"/is_sleeping", "/nodes/status"}),
    "sglang": frozenset(
        {"/get_load", "/get_model_info", "/get_server_info", "/model_info", "/server_info"}
        | {"/v1/loads"}
    ),
    "vllm": frozenset({"/is_sleeping", "/load", "/server_info"}),
    "vllm-mlx": frozenset({"/v1/status"}),
}
"""Paths that only read, by kind of server.

The method GET is not sufficient: with GET, SGLang drops its cache, slows down and opens sessions,
and LMDeploy terminates.
"""
_ASKS_ITS_MODELS = {"litellm": frozenset({"/health"})}
"""Exceptions: LiteLLM's health check sends a paid request to each of its models."""


TRANSLATED_TO = {
    ("anthropic", Operation.MESSAGES): "openai",
    ("ollama", Operation.CHAT): "openai",
    ("ollama", Operation.GENERATE): "openai",
}
"""The dialect that an operation can be translated to, for endpoints that do not speak its own."""


def right_of(operation: Operation) -> Right:
    """Return the right that an operation of the table needs."""
    if operation in _MANAGES:
        return Right.MANAGE
    if operation in _LISTS:
        return Right.LIST
    return Right.EMBED if operation in _EMBEDS else Right.GENERATE


def unknown_right(
    method: str, path: str, profiles: frozenset[str] | None, *, queried: bool
) -> Right:
    """Return the right needed for a path that is not in the table of its prefix.

    `profiles` are the kinds of server behind the prefix, None for any. Only a GET of a path that is
    known to read needs less than MANAGE, and only without a query (`queried`): llama.cpp loads the
    model that `GET /props?model=` names. `proxy.auth.authorize` requires MANAGE for a body.
    The right is never less than the path needs where it is known.
    """
    if method == "OPTIONS":
        return Right.LIST  # safe by definition (RFC 9110, section 9.3.7)
    if method not in _GET or queried:
        return Right.MANAGE
    kinds = profiles or frozenset()
    if any(path in _ASKS_ITS_MODELS.get(kind, ()) for kind in kinds):
        return Right.MANAGE
    if path in READS_EVERYWHERE or any(path in READS.get(kind, ()) for kind in kinds):
        return Right.LIST
    return Right.MANAGE


def native_routes() -> dict[str, Route]:
    """Ollama's own API."""

    def row(
        operation: Operation,
        methods: frozenset[str] = _POST,
        body: BodyUse = BodyUse.JSON,
        needs_model: bool = True,
    ) -> Route:
        return Route(operation, "ollama", methods, body, needs_model)

    none = BodyUse.NONE
    return {
        "/": row(Operation.HEARTBEAT, _GET, none, needs_model=False),
        "/api/version": row(Operation.VERSION, _GET, none, needs_model=False),
        "/api/tags": row(Operation.LIST, _GET, none, needs_model=False),
        "/api/ps": row(Operation.RUNNING, _GET, none, needs_model=False),
        "/api/show": row(Operation.SHOW),
        "/api/generate": row(Operation.GENERATE),
        "/api/chat": row(Operation.CHAT),
        "/api/embed": row(Operation.EMBED),
        "/api/embeddings": row(Operation.EMBED),
        "/api/pull": row(Operation.PULL, needs_model=False),
        "/api/push": row(Operation.PUSH),
        "/api/create": row(Operation.CREATE, needs_model=False),
        "/api/copy": row(Operation.COPY),
        "/api/delete": row(Operation.DELETE, _DELETE),
        "/api/blobs/*": row(
            Operation.BLOB, frozenset({"HEAD", "POST"}), BodyUse.STREAMED, needs_model=False
        ),
    }


def v1_routes(base: str, *, anthropic: bool) -> dict[str, Route]:
    """The OpenAI API below `base` (such as `/v1`), and Anthropic's beside it."""

    def row(
        operation: Operation, methods: frozenset[str] = _POST, body: BodyUse = BodyUse.JSON
    ) -> Route:
        needs_model = body is not BodyUse.NONE
        return Route(operation, "openai", methods, body, needs_model)

    routes = {
        f"{base}/models": row(Operation.LIST, _GET, BodyUse.NONE),
        f"{base}/models/*": row(Operation.MODEL, _GET, BodyUse.NONE),
        f"{base}/chat/completions": row(Operation.CHAT),
        f"{base}/completions": row(Operation.GENERATE),
        f"{base}/embeddings": row(Operation.EMBED),
        f"{base}/responses": row(Operation.RESPONSES),
        f"{base}/audio/transcriptions": row(Operation.TRANSCRIBE, _POST, BodyUse.MULTIPART),
        f"{base}/audio/translations": row(Operation.TRANSCRIBE, _POST, BodyUse.MULTIPART),
        f"{base}/rerank": row(Operation.RERANK),
        f"{base}/score": row(Operation.RERANK),
        f"{base}/pooling": row(Operation.EMBED),
    }
    if anthropic:
        messages = Route(Operation.MESSAGES, "anthropic", _POST, BodyUse.JSON, True)
        count = Route(Operation.COUNT_TOKENS, "anthropic", _POST, BodyUse.JSON, True)
        routes[f"{base}/messages"] = messages
        routes[f"{base}/messages/count_tokens"] = count
    return routes


def routes_of(profile: str, *, anthropic: bool) -> dict[str, Route]:
    """All that is known of the paths of one kind of server, other than Ollama.

    Servers' own inference paths are here besides the OpenAI API, so that they need the right to
    infer and not that to manage. Their model may be left out: many such servers have only one.
    """
    routes: dict[str, Route] = {}
    for base in _BASES.get(profile, ("/v1",)):
        routes |= v1_routes(base, anthropic=anthropic)
    routes |= {path: _own_row(operation) for path, operation in _OWN_PATHS.items()}
    if profile == "lm-studio":
        for path, operation in _LM_STUDIO_PATHS.items():
            routes[path] = _own_row(operation)
    routes["/models"] = Route(Operation.LIST, "openai", _GET, BodyUse.NONE, needs_model=False)
    return routes


def _own_row(operation: Operation) -> Route:
    return Route(operation, "openai", _POST, BodyUse.JSON, needs_model=True)


_BASES = {
    "docker-model-runner": ("/v1", "/engines/v1", "/engines/llama.cpp/v1"),
    "lemonade": ("/v1", "/api/v1"),
}
"""The further bases of the OpenAI API, by kind of server."""

_OWN_PATHS = {
    "/chat/completions": Operation.CHAT,
    "/responses": Operation.RESPONSES,
    "/completion": Operation.INFER,
    "/completions": Operation.INFER,
    "/infill": Operation.INFER,
    "/generate": Operation.INFER,
    "/embedding": Operation.INFER,
    "/embeddings": Operation.INFER,
    "/encode": Operation.INFER,
    "/classify": Operation.INFER,
    "/pooling": Operation.INFER,
    "/rerank": Operation.INFER,
    "/reranking": Operation.INFER,
    "/score": Operation.INFER,
    "/v1/reranking": Operation.RERANK,
    "/v1/classify": Operation.INFER,
    "/v2/rerank": Operation.RERANK,
    "/tokenize": Operation.TOKENIZE,
    "/detokenize": Operation.TOKENIZE,
    "/v1/tokenize": Operation.TOKENIZE,
    "/v1/detokenize": Operation.TOKENIZE,
    "/apply-template": Operation.TOKENIZE,
}
"""Paths of llama.cpp, vLLM, SGLang and LiteLLM."""

_LM_STUDIO_PATHS = {
    "/api/v0/chat/completions": Operation.CHAT,
    "/api/v0/completions": Operation.GENERATE,
    "/api/v0/embeddings": Operation.EMBED,
    "/api/v1/chat": Operation.INFER,
}
