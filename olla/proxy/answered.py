"""An endpoint's own error, as a failure."""

from olla.failures import Failure, Kind, kind_of_status
from olla.fleet.retry_after import retry_after
from olla.proxy.fields import Passed

__all__ = ["answered", "own_error", "pause_of"]


_ADVICE = {
    Kind.UPSTREAM_UNAUTHORIZED: ": it refuses what olla shows to it; set its auth "
    "(discovery.static.endpoints), or forward_authorization where clients have keys of their own",
    Kind.UPSTREAM_MODEL_GONE: ": it does not have the model any more",
}
"""What the operator may do about it."""


def pause_of(passed: Passed, wall: float) -> float | None:
    """The seconds an endpoint asks to be left alone, as of `wall` (Unix time); None where it does
    not say."""
    value = passed.retry_after
    return retry_after(value.decode("latin-1"), wall) if value else None


def answered(endpoint: str, status: int, pause: float | None) -> Failure:
    """The endpoint has answered with an error of its own."""
    kind = kind_of_status(status) or Kind.UPSTREAM_STATUS
    return Failure(
        kind,
        f"endpoint '{endpoint}' answered {status}{_ADVICE.get(kind, '')}",
        endpoint,
        retry_after=pause,
        endpoint_status=status,
    )


def own_error(endpoint: str, status: int, pause: float | None) -> Failure | None:
    """The same for an answer that was relayed; None where it says nothing of the endpoint."""
    if status == 404 or kind_of_status(status) is None:
        return None
    return answered(endpoint, status, pause)
