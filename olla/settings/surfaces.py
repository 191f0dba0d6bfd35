"""What a file may say of the surfaces: what olla serves besides the prefixed paths."""

import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from olla.dialects.routes import native_routes
from olla.fleet.profiles import PROFILES
from olla.settings.problems import Key
from olla.settings.section import Section, about_key

__all__ = ["Chat", "ManagedModel", "Management", "Surfaces", "taken_over"]

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_NUMBER = re.compile(r"[-+]?\d{1,18}(\.\d{1,18})?([eE][-+]?\d{1,2})?")
_TAKEN = ("/internal", "/metrics", "/version", "/admin", "/olla/models", "/olla/openapi.json")
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
        raise ValueError(f"'{value}' is no prefix; write a path such as /olla/management")
    if any(path == taken or path.startswith(f"{taken}/") for taken in _TAKEN):
        raise ValueError(f"'{value}' is olla's own; take another prefix")
    for proxied in _PROXIED:
        if path == proxied or path.startswith(f"{proxied}/"):
            message = f"'{value}' would hide what is passed on to endpoints at {proxied}"
            raise ValueError(f"{message}; take another prefix")
    if path == "/olla":
        raise ValueError(f"'{value}' has olla's other paths below it; write such as /olla/chat")
    return path


def _as_written(value: Any) -> Any:
    """What a parameter means: the file's scalars come as text."""
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
    """Serve them as /olla/ollama/ is served, for clients that cannot take a prefix."""


class ManagedModel(Section):
    """How the management API shows a model, and what it asks of it by default."""

    name: str | None = None
    """Its name for people; the model's own by default."""
    description: str = ""
    """What it is good for."""
    is_active: bool = True
    """Whether it may be used by this API."""
    parameters: dict[str, Parameter] = Field(default={})
    """Defaults of requests, such as temperature, top_p and max_tokens."""


class Management(Section):
    """The management API: models, chat and generate, with keys of tiers."""

    enabled: bool = True
    """Serve it."""
    prefix: Prefix = "/olla/management"
    """Where it is."""
    models: dict[str, ManagedModel] = Field(default={})
    """What there is to say of models, by name."""


class Chat(Section):
    """The chat service: one message, one answer; status, usage and keys."""

    enabled: bool = True
    """Serve it."""
    prefix: Prefix = ""
    """Where it is; empty is the root."""
    default_model: str = "smollm:latest"
    """The model of requests that name none."""
    self_service: bool = False
    """Let members make, see and revoke keys of their own, and see their own usage."""
    open_keys: bool = False
    """Let everybody make, see and revoke keys of the tier member without a key, as the service's
    documentation shows it. Of no use with access.require_key."""


class Surfaces(Section):
    """What olla serves besides the prefixed paths."""

    root: Root = Root()
    management: Management = Management()
    chat: Chat = Chat()

    @model_validator(mode="after")
    def _different_prefixes(self) -> "Surfaces":
        both = self.management.enabled and self.chat.enabled
        if both and self.management.prefix == self.chat.prefix:
            prefix = self.chat.prefix or "the root"
            raise about_key(
                "management",
                f"management and chat are both at {prefix}, and both have /chat; give one of them "
                "another prefix, or switch it off",
            )
        return self


def taken_over(surfaces: Surfaces) -> Iterator[tuple[Key, str]]:
    """Which paths of Ollama's own API, at the root, a surface answers in its place: said to who
    has set that prefix."""
    native = native_routes() if surfaces.root.enabled else {}
    management, chat = surfaces.management, surfaces.chat
    for word, whose, enabled, prefix, paths in (
        ("management", "management API", management.enabled, management.prefix, _MANAGEMENT_PATHS),
        ("chat", "chat service", chat.enabled, chat.prefix, _CHAT_PATHS),
    ):
        taken = [f"{prefix}{path}" for path in paths if f"{prefix}{path}" in native]
        if enabled and taken:
            be = "are" if len(taken) > 1 else "is"
            message = f"{' and '.join(taken)} {be} the {whose}'s here, not Ollama's"
            yield ("surfaces", word, "prefix"), f"{message}; that is at /olla/ollama{prefix}"
