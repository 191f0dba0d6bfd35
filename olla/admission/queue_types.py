"""What the dispatcher gives out: leases and tickets; and what it asks its shell to do."""

from typing import assert_never

import msgspec

from olla.failures import Failure
from olla.fleet.instance import InFlightRequest, ModelInstance, ModelLoad
from olla.routing.decision import Choice, ChooseEndpoint, ChooseFallback, ChooseInstance, Refuse
from olla.routing.features import Features

__all__ = [
    "AbandonLoad",
    "Action",
    "AnswerStats",
    "BeginLoad",
    "Entered",
    "Granted",
    "Lease",
    "LeaseError",
    "Refused",
    "Ticket",
]


class LeaseError(Exception):
    """A lease was released twice: the count of what is in flight would have gone wrong."""


class Lease:
    """The right to one slot of an endpoint, from when it is granted to `Dispatcher.release`.

    `counted` is False for operations that occupy no slot; `trial` is True when it tries out an
    endpoint whose breaker is half-open. `asked_at` is when the request came, `granted_at` when it
    got the lease; `predicted` the seconds to the first token that were expected when it came.
    `instance` and `model` are those of the choice; None if the endpoint does not list the model, or
    none is needed.
    """

    __slots__ = (
        "asked_at",
        "choice",
        "features",
        "flight",
        "granted_at",
        "instance",
        "model",
        "predicted",
        "released",
        "trial",
    )

    def __init__(
        self,
        choice: Choice,
        features: Features,
        *,
        asked_at: float,
        granted_at: float,
        trial: bool,
        predicted: float | None,
    ) -> None:
        self.choice = choice
        match choice:
            case ChooseInstance():
                self.instance: ModelInstance | None = choice.instance
                self.model: str | None = choice.model
            case ChooseEndpoint() | ChooseFallback():
                self.instance = self.model = None
            case never:
                assert_never(never)
        self.features = features
        self.flight: InFlightRequest | None = None
        self.asked_at = asked_at
        self.granted_at = granted_at
        self.trial = trial
        self.predicted = predicted
        self.released = False

    @property
    def counted(self) -> bool:
        """Whether it occupies a slot."""
        return self.flight is not None

    def concerns(self, endpoint: str, instance: ModelInstance | None) -> bool:
        """Whether it is for an endpoint, and there for a model where one is given."""
        return self.choice.twin.name == endpoint and (instance is None or self.instance is instance)

    @property
    def waited(self) -> float:
        """Seconds it waited in olla."""
        return self.granted_at - self.asked_at


class Ticket:
    """A place in the queue, assigned to a line for now. `Queue` alone assigns it.

    `model` is the name under which the line's endpoint lists it: one of several that the request
    may name. `order` and `work` are those of `fleet.resident_model.WaitingRequest`.
    """

    __slots__ = (
        "asked_at",
        "asked_for",
        "deadline",
        "failure",
        "features",
        "instance",
        "loaded_for",
        "model",
        "order",
        "predicted",
        "work",
    )

    def __init__(
        self,
        features: Features,
        asked_for: str,
        instance: ModelInstance,
        model: str,
        *,
        work: float,
        asked_at: float,
        deadline: float,
        predicted: float,
    ) -> None:
        self.features = features
        self.asked_for = asked_for
        self.instance = instance
        self.model = model
        self.order = features.order
        self.work = work
        self.asked_at = asked_at
        self.deadline = deadline
        self.predicted = predicted
        self.failure: Failure | None = None
        """Why it could not be served where it was assigned before."""
        self.loaded_for = False
        """Whether a load began while it waited for that model there."""


class AnswerStats(msgspec.Struct, frozen=True):
    """What an answer that came to its end tells: counts in tokens, times in seconds.

    None where the endpoint did not say; `total_seconds` is the endpoint's own whole time.
    """

    prompt_bytes: int = 0
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    prompt_seconds: float | None = None
    output_seconds: float | None = None
    load_seconds: float | None = None
    total_seconds: float | None = None
    streamed: bool = True


class Granted(msgspec.Struct, frozen=True):
    """A ticket's turn has come."""

    ticket: Ticket
    lease: Lease


class Refused(msgspec.Struct, frozen=True):
    """A ticket is refused: no endpoint can serve it, or its time is up."""

    ticket: Ticket
    refusal: Refuse


class BeginLoad(msgspec.Struct, frozen=True):
    """Have a model loaded on an endpoint, by a request of olla's own.

    `features` are those of the request that it is loaded for.
    """

    loading: ModelLoad
    features: Features


class AbandonLoad(msgspec.Struct, frozen=True):
    """Nobody wants that load any more: hang up."""

    loading: ModelLoad


Action = Granted | Refused | BeginLoad | AbandonLoad
"""What a shell is asked to do."""
Entered = Lease | Ticket | Refuse
"""What becomes of a request that comes in."""
