"""Authorize requests to the fleet before their bodies are read."""

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
"""The statuses of rejections that are charged to the caller's quota."""


def authorize(
    authenticator: Authenticator, incoming: IncomingRequest, target: Target, via: str | None
) -> Quota:
    """Authenticate and authorize a request, and return its quota.

    `via` is this router's name in the `Via` field, None to skip the loop check.

    Raises:
        UnknownKey: the request has a key that this router does not know; the store may know it.
        Failed: the key is rejected or lacks the right, the request comes from this router itself,
            or its body has an unsupported coding.
    """
    caller = authenticator.identify(incoming)
    if not (incoming.plain and target.right in caller.rights) or target.operation is _OTHER:
        _require_target(caller, incoming, target)
        _check_fields(caller, incoming, target, via)
    return authenticator.quota(caller, CATEGORIES[target.operation], incoming)


def require(caller: Caller, right: Right, what: str) -> None:
    """Reject a caller that lacks `right`; `what` names the operation in the message.

    Raises:
        Failed: the caller lacks the right.
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
    """Check the headers that olla acts on.

    Raises:
        Failed: the request comes from this router, names an endpoint without the admin right, or
            its body has an unsupported coding.
    """
    via_field = incoming.header("Via") if via is not None else None
    if via_field is not None and via is not None and via in via_field:
        # The router would forward the request to itself without end.
        message = (
            "this request has already passed through this router: one of its configured endpoints "
            "leads back to it; remove that endpoint"
        )
        raise Failed(Failure(Kind.LOOP, message))
    if incoming.header("X-Olla-Endpoint") is not None:
        require(caller, _ADMIN, "X-Olla-Endpoint")
    if target.body is not _STREAMED:
        coding = coding_of(incoming.listed("Content-Encoding"))
        if coding and target.body is not _JSON:
            message = f"only JSON bodies may be encoded as {coding} here; send this body unencoded"
            raise Failed(Failure(Kind.ENCODING_UNSUPPORTED, message))
    transfer = incoming.header("Transfer-Encoding")
    if transfer is not None and transfer.strip().lower() != "chunked":
        # Only chunked is decoded: with another coding below it, the endpoint would read the coded
        # bytes as plain.
        message = f"Transfer-Encoding '{transfer[:40]}' is not supported; use chunked"
        raise Failed(Failure(Kind.ENCODING_UNSUPPORTED, message))
