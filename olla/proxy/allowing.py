"""Whether a request is let in at all, and who asks: before its body is read."""

from typing import Final

from olla.access.caller import Caller, refuse
from olla.access.policy import category_of
from olla.dialects.dialect import Operation, Right
from olla.dialects.paths import BodyUse, Target
from olla.failures import Failed, Failure, Kind
from olla.proxy.gate import Gate, Visit
from olla.proxy.incoming import Incoming

__all__ = ["CATEGORIES", "NOT_LET_IN", "entitled", "let_in"]
_ADMIN: Final = Right.ADMIN
CATEGORIES: Final = {operation: category_of(operation) for operation in Operation}
_STREAMED: Final = BodyUse.STREAMED
NOT_LET_IN: Final = frozenset({401, 403})
"""The statuses of refusals that count against the limits of who asked."""


def let_in(gate: Gate, incoming: Incoming, target: Target, via: str | None) -> Visit:
    """Let it in, or not. `via` is this router's own name in the `Via` field.

    Raises:
        UnknownKey: it shows a key that is not known here; the store may know it.
        Failed: it has come from this router itself, or asks for what it may not, or its body is
            encoded, or its key is not taken.
    """
    caller = _allowed(gate, gate.identify(incoming), incoming, target, via)
    return gate.visit(caller, CATEGORIES[target.operation], incoming)


def _allowed(
    gate: Gate, caller: Caller, incoming: Incoming, target: Target, via: str | None
) -> Caller:
    if incoming.plain and target.right in caller.rights:
        return caller
    own = incoming.header("Via") if via is not None else None
    if own is not None and via is not None and via in own:
        # It would multiply without end.
        message = (
            "this request has come through this router before: an endpoint in its "
            "configuration leads back to it; take that endpoint out"
        )
        raise Failed(Failure(Kind.LOOP, message))
    caller = entitled(gate, caller, incoming, target.right, target.word)
    if incoming.header("X-Olla-Endpoint") is not None:
        caller = entitled(gate, caller, incoming, _ADMIN, "X-Olla-Endpoint")
    encoding = incoming.header("Content-Encoding") if target.body is not _STREAMED else None
    if encoding is not None and encoding.strip().lower() != "identity":
        message = f"request bodies cannot be encoded ({encoding[:40]}); send it as it is"
        raise Failed(Failure(Kind.ENCODING_UNSUPPORTED, message))
    transfer = incoming.header("Transfer-Encoding")
    if transfer is not None and transfer.strip().lower() != "chunked":
        # Only the chunks are taken off; what is below them would arrive as if it were plain.
        message = f"a request may be sent in chunks, but not as '{transfer[:40]}'"
        raise Failed(Failure(Kind.ENCODING_UNSUPPORTED, message))
    return caller


def entitled(gate: Gate, caller: Caller, incoming: Incoming, right: Right, what: str) -> Caller:
    """The caller, or who it is on this machine: without a key, programs here may do everything.

    Raises:
        Failed: it has no right to `what`.
    """
    refusal = refuse(caller, right, what)
    if refusal is None:
        return caller
    local = gate.local(incoming) if caller.key is None else None
    if local is None:
        raise Failed(refusal)
    return local
