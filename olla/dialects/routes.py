"""Which path of a wire format is which operation. A table; `paths` reads it."""

import enum

import msgspec

from olla.dialects.dialect import Category, Operation

__all__ = ["BodyUse", "Route", "category_of", "native_routes", "server_routes", "v1_routes"]


class BodyUse(enum.Enum):
    """What is done with a request's body."""

    NONE = "none"
    """Read and sent on, not looked into."""
    JSON = "json"
    """Read whole and peeked into, whatever its Content-Type."""
    STREAMED = "streamed"
    """Sent on as it comes, never held."""
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


def category_of(operation: Operation, method: str) -> Category:
    """The right an operation needs."""
    if operation in _MANAGES:
        return Category.MANAGE
    if operation in _LISTS:
        return Category.LIST
    if operation is Operation.OTHER:
        return Category.LIST if method in _GET else Category.MANAGE
    return Category.INFERENCE


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
        needs_model = body in (BodyUse.JSON, BodyUse.MULTIPART)
        return Route(operation, "openai", methods, body, needs_model)

    routes = {
        f"{base}/models": row(Operation.LIST, _GET, BodyUse.NONE),
        f"{base}/models/*": row(Operation.MODEL, _GET, BodyUse.NONE),
        f"{base}/chat/completions": row(Operation.CHAT),
        f"{base}/completions": row(Operation.GENERATE),
        f"{base}/embeddings": row(Operation.EMBED),
        f"{base}/responses": row(Operation.RESPONSES),
        f"{base}/audio/transcriptions": row(Operation.TRANSCRIBE, _POST, BodyUse.MULTIPART),
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


def server_routes() -> dict[str, Route]:
    """Inference paths that llama.cpp and vLLM serve beside the OpenAI API.

    Their model is often left out, because such a server has only one.
    """

    def row(operation: Operation) -> Route:
        return Route(operation, "openai", _POST, BodyUse.JSON, needs_model=True)

    return {
        "/completion": row(Operation.INFER),
        "/completions": row(Operation.INFER),
        "/infill": row(Operation.INFER),
        "/embedding": row(Operation.INFER),
        "/embeddings": row(Operation.INFER),
        "/rerank": row(Operation.INFER),
        "/reranking": row(Operation.INFER),
        "/score": row(Operation.INFER),
        "/pooling": row(Operation.INFER),
        "/tokenize": row(Operation.TOKENIZE),
        "/detokenize": row(Operation.TOKENIZE),
        "/apply-template": row(Operation.TOKENIZE),
    }
