"""What becomes part of a request's record while it moves."""

from olla.record import RequestRecord
from olla.routing.decision import Choose

__all__ = ["note_choice"]


def note_choice(record: RequestRecord, choice: Choose, asked_for: str | None) -> None:
    """Where it goes, and why. `asked_for` is the model as the client spelled it."""
    view = choice.twin.view
    record.endpoint = choice.twin.name
    record.endpoint_type = choice.twin.kind or view.spec.type
    record.decision = "fallback" if choice.fallback else "routed"
    record.reason = choice.reason._value_  # the public way runs Python code
    record.model = view.models[choice.model].name if choice.model else asked_for
