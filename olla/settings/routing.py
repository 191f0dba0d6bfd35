"""Define the `routing` section: load balancing, the queue and model loads."""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from olla.settings.section import Section, key_error
from olla.settings.values import Duration

__all__ = ["ContextLength", "Routing"]


class ContextLength(Section):
    """Limits on the `num_ctx` of requests. It is not changed unless one of these is set."""

    max: Annotated[int, Field(ge=1)] | None = None
    """Tokens. Larger values are clamped to this."""
    round_to: Annotated[int, Field(ge=1)] | None = None
    """Tokens. Values are rounded up to a multiple of this, so that similar requests share one
    loaded model."""

    @model_validator(mode="after")
    def _fits_together(self) -> "ContextLength":
        if self.max is not None and self.round_to is not None and self.max % self.round_to:
            raise key_error("round_to", f"max ({self.max}) must be a multiple of round_to")
        return self


class Routing(Section):
    """Options of the shortest-expected-delay policy: priorities, the queue and model loads."""

    spillover: Annotated[Duration, Field(ge=0)] = 2.0
    """Use an endpoint of lower priority when its expected delay is shorter by more than this."""
    max_queue: Annotated[int, Field(ge=0)] = 1000
    """Maximum number of queued requests; further ones get 503."""
    queue_timeout: Annotated[Duration, Field(gt=0)] = 600.0
    """How long a request may stay queued before it gets 504. If the expected wait is longer, it
    gets 503 immediately."""
    load_grace: Annotated[Duration, Field(ge=0)] = 120.0
    """How long a load started by olla continues after its last waiting request has gone."""
    prewarm: bool = True
    """Load another instance of a busy model where that saves more seconds than it takes."""
    num_ctx: ContextLength = ContextLength()
    embedding_endpoints: tuple[str, ...] = ()
    """Names of endpoints reserved for embeddings. Embeddings then use no other endpoints."""
    decision_log: str | None = None
    """File to which every routing decision is appended, for `olla replay`. It contains names and
    lengths, no content."""

    @field_validator("decision_log")
    @classmethod
    def _valid_file(cls, value: str | None) -> str | None:
        if value is not None and (not value.strip() or "\0" in value):
            raise ValueError("name a file, or omit the key for no log")
        return value
