"""Define the `surfaces` section: the APIs that olla serves besides the prefixed paths."""

import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from olla.dialects.routes import native_routes
from olla.fleet.profiles import PROFILES
from olla.settings.problems import Key
from olla.settings.section import Section, key_error

__all__ = ["Chat", "ManagedModel", "Management", "Surfaces", "shadowed_paths"]

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_NUMBER = re.compile(r"[-+]?\d{1,18}(\.\d{1,18})?([eE][-+]?\d{1,2})?")
_RESERVED = ("/internal", "/metrics", "/version", "/admin", "/olla/models", "/olla/openapi.json")
_PROXIED = (
    "/v1",
    *(f"/olla/{name}" for name in ("openai", "proxy", "anthropic")),
    *(f"/olla/{name}" for row in PROFILES.values() for name in row.prefixes),
)
_MANAGEMENT_PATHS = ("/models", "/chat", "/generate", "/api-keys")
_CHAT_PATHS = ("/chat", "/chat/stream", "/api/status", "/api/usage", "/api/keys")


def _prefix(value: str) -> str:
    path = value.rstrip("/")
    if not _PREFIX.fullmatch(path):
        raise ValueError(f"'{value}' is not a valid prefix; write a path such as /olla/management")
    if any(path == reserved or path.startswith(f"{reserved}/") for reserved in _RESERVED):
        raise ValueError(f"'{value}' is reserved for olla; choose another prefix")
    for proxied in _PROXIED:
        if path == proxied or path.startswith(f"{proxied}/"):
            message = f"'{value}' would hide {proxied}, which is forwarded to endpoints"
            raise ValueError(f"{message}; choose another prefix")
    if path == "/olla":
        raise ValueError(f"'{value}' is the parent of olla's other paths; use e.g. /olla/chat")
    return path


def _as_written(value: Any) -> Any:
    """Convert a parameter to its type; scalars arrive as text from the file."""
    if isinstance(value, list):
        return [_as_written(each) for each in value]
    if not isinstance(value, str):
        return value
    if _NUMBER.fullmatch(value):
        return float(value) if any(sign in value for sign in ".eE") else int(value)
    return {"true": True, "false": False}.get(value.lower(), value)


Parameter = Annotated[Any, BeforeValidator(_as_written)]
Prefix = Annotated[str, AfterValidator(_prefix)]


class Root(Section):
    """`/api/*` and `/v1/*` without a prefix."""

    enabled: bool = True
    """Serve these paths like /olla/ollama/, for clients that cannot use a prefix."""


class ManagedModel(Section):
    """How the management API shows a model, and its default parameters."""

    name: str | None = None
    """Display name; the model's name by default."""
    description: str = ""
    """Description of the model and its uses."""
    is_active: bool = True
    """Allow requests to this model by the management API."""
    parameters: dict[str, Parameter] = Field(default={})
    """Default parameters of requests, such as temperature, top_p and max_tokens."""


class Management(Section):
    """The management API: models, chat and generate, with tiered keys."""

    enabled: bool = True
    """Serve the management API."""
    prefix: Prefix = "/olla/management"
    """Path prefix of the management API."""
    models: dict[str, ManagedModel] = Field(default={})
    """Display name, description and defaults of models, by model name."""


class Chat(Section):
    """The chat service: one message, one answer; status, usage and keys."""

    enabled: bool = True
    """Serve the chat service."""
    prefix: Prefix = ""
    """Path prefix of the chat service; empty is the root."""
    default_model: str = "smollm:latest"
    """Model for requests that do not name one."""
    self_service: bool = False
    """Let members create, list and revoke their own keys, and read their own usage."""
    open_keys: bool = False
    """Let any client create, list and revoke keys of the tier member without a key, as in the
    service's documentation. Has no effect with access.require_key."""


class Surfaces(Section):
    """APIs that olla serves besides the prefixed paths."""

    root: Root = Root()
    management: Management = Management()
    chat: Chat = Chat()

    @model_validator(mode="after")
    def _different_prefixes(self) -> "Surfaces":
        both = self.management.enabled and self.chat.enabled
        if both and self.management.prefix == self.chat.prefix:
            prefix = self.chat.prefix or "the root"
            raise key_error(
                "management",
                f"management and chat are both at {prefix}, and both serve /chat; change the "
                "prefix of one, or disable it",
            )
        return self


def shadowed_paths(surfaces: Surfaces) -> Iterator[tuple[Key, str]]:
    """Yield a notice for each surface whose prefix shadows paths of Ollama's API at the root."""
    native = native_routes() if surfaces.root.enabled else {}
    management, chat = surfaces.management, surfaces.chat
    for section, title, enabled, prefix, paths in (
        ("management", "management API", management.enabled, management.prefix, _MANAGEMENT_PATHS),
        ("chat", "chat service", chat.enabled, chat.prefix, _CHAT_PATHS),
    ):
        shadowed = [f"{prefix}{path}" for path in paths if f"{prefix}{path}" in native]
        if enabled and shadowed:
            verb = "belong" if len(shadowed) > 1 else "belongs"
            message = f"{' and '.join(shadowed)} {verb} to the {title} here, not to Ollama's API"
            yield (
                ("surfaces", section, "prefix"),
                f"{message}; Ollama's is at /olla/ollama{prefix}",
            )
