"""Authorizes requests to the fleet, before their bodies are read."""

from typing import Final

from olla.access.caller import Caller, refuse
from olla.access.policy import category_of
from olla.dialects.dialect import Operation, Right
from olla.dialects.paths import BodyUse, Target
from olla.failures import Failed, Failure, Kind
from olla.proxy.auth.authenticate import Authenticator, Quota
from olla.proxy.http.content_coding import coding_of
from olla.proxy.http.request import IncomingRequest

__all__ = ["CATEGORIES", "UNAUTHORIZED", "authorize", "require"]

_ADMIN: Final = Right.ADMIN
CATEGORIES: Final = {operation: category_of(operation) for operation in Operation}
_STREAMED: Final = BodyUse.STREAMED
_JSON: Final = BodyUse.JSON
_OTHER: Final = Operation.OTHER
_SHOWN_MAX = 100
"""Characters of a path in a refusal."""
UNAUTHORIZED: Final = frozenset({401, 403})
"""The statuses of refusals that count against the limits of the caller."""


def authorize(
    authenticator: Authenticator, incoming: IncomingRequest, target: Target, via: str | None
) -> Quota:
    """The visit of a request that may go on. `via` is this router's own name in the `Via` field.

    Raises:
        UnknownKey: it shows a key that is not known here; the store may know it.
        Failed: its key is not accepted or has no right to it, it has come from this router itself,
            or its body is encoded.
    """
    caller = authenticator.identify(incoming)
    if not (incoming.plain and target.right in caller.rights) or target.operation is _OTHER:
        _require_target(caller, incoming, target)
        _check_fields(caller, incoming, target, via)
    return authenticator.quota(caller, CATEGORIES[target.operation], incoming)


def require(caller: Caller, right: Right, what: str) -> None:
    """Reject a caller without the right to `what`.

    Raises:
        Failed: it has not that right.
    """
    refusal = refuse(caller, right, what)
    if refusal is not None:
        raise Failed(refusal)


def _require_target(caller: Caller, incoming: IncomingRequest, target: Target) -> None:
    """Reject a caller without the right to a target; a body for an unknown path needs MANAGE.

    SGLang reads the body of a GET as an order (`GET /slow_down`).

    Raises:
        Failed: it has not that right.
    """
    if target.operation is not _OTHER:
        require(caller, target.right, target.word)
        return
    right = Right.MANAGE if incoming.has_body else target.right
    path = target.upstream_target.partition("?")[0]
    require(caller, right, f"{incoming.method} {path[:_SHOWN_MAX]}")


def _check_fields(
    caller: Caller, incoming: IncomingRequest, target: Target, via: str | None
) -> None:
    """Reject a request because of a header that olla itself obeys.

    Raises:
        Failed: it has come from this router, names an endpoint without the right to do so, or its
            body has a coding.
    """
    own = incoming.header("Via") if via is not None else None
    if own is not None and via is not None and via in own:
        # It would multiply without end.
        message = (
            "this request has come through this router before: an endpoint in its "
            "configuration leads back to it; take that endpoint out"
        )
        raise Failed(Failure(Kind.LOOP, message))
    if incoming.header("X-Olla-Endpoint") is not None:
        require(caller, _ADMIN, "X-Olla-Endpoint")
    if target.body is not _STREAMED:
        coding = coding_of(incoming.listed("Content-Encoding"))
        if coding and target.body is not _JSON:
            message = f"only JSON bodies can be encoded as {coding} here; send it as it is"
            raise Failed(Failure(Kind.ENCODING_UNSUPPORTED, message))
    transfer = incoming.header("Transfer-Encoding")
    if transfer is not None and transfer.strip().lower() != "chunked":
        # Only the chunks are taken off; what is below them would arrive as if it were plain.
        message = f"a request may be sent in chunks, but not as '{transfer[:40]}'"
        raise Failed(Failure(Kind.ENCODING_UNSUPPORTED, message))
