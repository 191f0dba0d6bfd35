"""Whether a request may be let in at all: asked before its body is read."""

from typing import Final

from olla.access.rights import FORWARDING_HEADERS, Caller, refuse_management, refuse_pinning
from olla.dialects.dialect import Right
from olla.dialects.paths import BodyUse, Target
from olla.failures import Failed, Failure, Kind
from olla.proxy.incoming import Incoming

__all__ = ["allow"]
_MANAGE: Final = Right.MANAGE
_STREAMED: Final = BodyUse.STREAMED


def allow(incoming: Incoming, target: Target, via: str | None) -> None:
    """Let it pass, or not. `via` is this router's own name in the `Via` field.

    Raises:
        Failed: it has come from this router itself, or asks for what it may not, or its body is
            encoded.
    """
    if incoming.plain and target.right is not _MANAGE:
        return
    own = incoming.header("Via") if via is not None else None
    if own is not None and via is not None and via in own:
        # It would multiply without end.
        message = (
            "this request has come through this router before: an endpoint in its "
            "configuration leads back to it; take that endpoint out"
        )
        raise Failed(Failure(Kind.LOOP, message))
    _check_rights(incoming, target)
    encoding = incoming.header("Content-Encoding") if target.body is not _STREAMED else None
    if encoding is not None and encoding.strip().lower() != "identity":
        message = f"request bodies cannot be encoded ({encoding[:40]}); send it as it is"
        raise Failed(Failure(Kind.ENCODING_UNSUPPORTED, message))
    transfer = incoming.header("Transfer-Encoding")
    if transfer is not None and transfer.strip().lower() != "chunked":
        # Only the chunks are taken off; what is below them would arrive as if it were plain.
        message = f"a request may be sent in chunks, but not as '{transfer[:40]}'"
        raise Failed(Failure(Kind.ENCODING_UNSUPPORTED, message))


def _check_rights(incoming: Incoming, target: Target) -> None:
    pinned = incoming.header("X-Olla-Endpoint")
    if target.right is not _MANAGE and pinned is None:
        return
    caller = Caller(
        incoming.peer,
        forwarded=any(incoming.header(name) for name in FORWARDING_HEADERS),
        origin=incoming.header("Origin"),
    )
    refusal = None
    if target.right is _MANAGE:
        refusal = refuse_management(caller, target.operation.value)
    if refusal is None and pinned is not None:
        refusal = refuse_pinning(caller)
    if refusal is not None:
        raise Failed(refusal)
