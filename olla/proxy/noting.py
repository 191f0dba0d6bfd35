"""What becomes part of a request's record while it moves."""

from typing import assert_never

from olla.record import RequestRecord
from olla.routing.decision import Choice, ChooseEndpoint, ChooseFallback, ChooseLine

__all__ = ["note_choice"]


def note_choice(record: RequestRecord, choice: Choice, asked_for: str | None) -> None:
    """Where it goes, and why. `asked_for` is the model as the client spelled it."""
    view = choice.twin.view
    record.endpoint = choice.twin.name
    record.endpoint_type = choice.twin.kind or view.spec.type
    record.reason = choice.reason._value_  # the public way runs Python code
    match choice:
        case ChooseLine():
            record.decision = "routed"
            record.model = view.models[choice.model].name
        case ChooseEndpoint():
            record.decision = "routed"
            record.model = asked_for
        case ChooseFallback():
            record.decision = "fallback"
            record.model = asked_for
        case never:
            assert_never(never)
