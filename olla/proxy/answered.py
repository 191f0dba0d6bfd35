"""An endpoint's own error, as a failure."""

from olla.failures import Failure, Kind, kind_of_status
from olla.proxy.head import ResponseHead

__all__ = ["answered", "own_error", "retry_after"]


_ADVICE = {
    Kind.UPSTREAM_UNAUTHORIZED: ": it refuses what olla shows to it; set its auth "
    "(discovery.static.endpoints), or forward_authorization where clients have keys of their own",
    Kind.UPSTREAM_MODEL_GONE: ": it does not have the model any more",
}
"""What the operator may do about it."""


def retry_after(head: ResponseHead) -> float | None:
    """The seconds an endpoint asks to be left alone; None where it does not say in seconds."""
    value = head.get(b"retry-after") or b""
    return float(value) if value.isdigit() and len(value) < 10 else None


def answered(endpoint: str, status: int, retry_after: float | None) -> Failure:
    """The endpoint has answered with an error of its own."""
    kind = kind_of_status(status) or Kind.UPSTREAM_STATUS
    return Failure(
        kind,
        f"endpoint '{endpoint}' answered {status}{_ADVICE.get(kind, '')}",
        endpoint,
        retry_after=retry_after,
        endpoint_status=status,
    )


def own_error(endpoint: str, status: int, retry_after: float | None) -> Failure | None:
    """The same for an answer that was relayed; None where it says nothing of the endpoint."""
    if status == 404 or kind_of_status(status) is None:
        return None
    return answered(endpoint, status, retry_after)
