"""What a file may say of the surfaces: what olla serves besides the prefixed paths."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from olla.settings.section import Section, about_key

__all__ = ["Chat", "ManagedModel", "Management", "Surfaces"]

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_NUMBER = re.compile(r"[-+]?\d{1,18}(\.\d{1,18})?([eE][-+]?\d{1,2})?")
_TAKEN = ("/internal", "/metrics", "/version", "/olla/models")


def _prefix(value: str) -> str:
    path = value.rstrip("/")
    if not _PREFIX.fullmatch(path):
        raise ValueError(f"'{value}' is no prefix; write a path such as /olla/management")
    if any(path == taken or path.startswith(f"{taken}/") for taken in _TAKEN):
        raise ValueError(f"'{value}' is olla's own; take another prefix")
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
