"""The types of leases and tickets, and of the actions that the dispatcher's shell carries out."""

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
    """A lease was released twice, which would have falsified the count of requests in flight."""


class Lease:
    """The right to one slot of an endpoint, from its grant to `Dispatcher.release`.

    `counted` is False for operations that occupy no slot. `trial`: it tests an endpoint with a
    half-open breaker. `asked_at` is the request's arrival, `granted_at` the time of the grant, and
    `predicted` the expected seconds to the first token at arrival. `instance` and `model` are those
    of the choice; None if the endpoint does not list the model, or the request needs none.
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
        """Return whether it is for an endpoint, and for a model there if one is given."""
        return self.choice.twin.name == endpoint and (instance is None or self.instance is instance)

    @property
    def waited(self) -> float:
        """Return the seconds that it waited in olla."""
        return self.granted_at - self.asked_at


class Ticket:
    """A place in the queue, assigned to an instance. Only `Queue` assigns it.

    `model` is the name under which the instance's endpoint lists it: one of several that the
    request may name. `order` and `work` are those of `fleet.instance.WaitingRequest`.
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
        """Whether a load started while it waited for that model there."""


class AnswerStats(msgspec.Struct, frozen=True):
    """The statistics of a complete response: counts in tokens, times in seconds.

    None if the endpoint did not report them. `total_seconds` is the endpoint's own total.
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
    """A ticket is granted a lease."""

    ticket: Ticket
    lease: Lease


class Refused(msgspec.Struct, frozen=True):
    """A ticket is refused: no endpoint can serve it, or it has timed out."""

    ticket: Ticket
    refusal: Refuse


class BeginLoad(msgspec.Struct, frozen=True):
    """Load a model on an endpoint, by a request from olla itself.

    `features` are those of the request that it is loaded for.
    """

    loading: ModelLoad
    features: Features


class AbandonLoad(msgspec.Struct, frozen=True):
    """Cancel a load that is no longer needed: close its connection."""

    loading: ModelLoad


Action = Granted | Refused | BeginLoad | AbandonLoad
"""The actions of a shell."""
Entered = Lease | Ticket | Refuse
"""The outcomes of a new request."""
