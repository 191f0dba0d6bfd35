"""What a file may say of how requests are spread, and of how they wait."""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from olla.settings.section import Section, about_key
from olla.settings.values import Duration

__all__ = ["ContextLength", "Routing"]


class ContextLength(Section):
    """What becomes of the `num_ctx` a request names. Left alone when nothing is said."""

    max: Annotated[int, Field(ge=1)] | None = None
    """Tokens. A request that asks for more gets this."""
    round_to: Annotated[int, Field(ge=1)] | None = None
    """Rounded up to a multiple of this, so that similar requests share one loaded model."""

    @model_validator(mode="after")
    def _fits_together(self) -> "ContextLength":
        if self.max is not None and self.round_to is not None and self.max % self.round_to:
            raise about_key("round_to", f"max ({self.max}) must be a multiple of round_to")
        return self


class Routing(Section):
    """Shortest expected delay: priorities, the queue, loads."""

    spillover: Annotated[Duration, Field(ge=0)] = 2.0
    """An endpoint of a lower priority is used when it is sooner by more than this."""
    max_queue: Annotated[int, Field(ge=0)] = 1000
    """How many requests may wait in olla; one more gets 503."""
    queue_timeout: Annotated[Duration, Field(gt=0)] = 600.0
    """How long a request may wait; then it gets 504, or 503 at once when that is foreseen."""
    load_grace: Annotated[Duration, Field(ge=0)] = 120.0
    """How long a load that olla has begun goes on when nobody waits for it any more."""
    prewarm: bool = True
    """Load one more copy of a busy model where that saves more seconds than it takes."""
    num_ctx: ContextLength = ContextLength()
    embedding_endpoints: tuple[str, ...] = ()
    """Names of endpoints that are kept for embeddings, which then go nowhere else."""
    decision_log: str | None = None
    """File to which every decision is appended, for `olla replay`: names and lengths only."""

    @field_validator("decision_log")
    @classmethod
    def _some_file(cls, value: str | None) -> str | None:
        if value is not None and (not value.strip() or "\0" in value):
            raise ValueError("name a file, or leave the key out for no log")
        return value
