"""Whether another endpoint is tried after one has failed a request.

Only before the first byte has gone to the client, and each endpoint once. Inference changes
nothing on a node, so it may be done again after any failure, within the retry budget. What does
change a node is done again only where the connection was never made.
"""

from typing import Final

import msgspec

from olla.dialects.dialect import Right
from olla.dialects.paths import Target
from olla.failures import Failure, Phase, kind_of_status
from olla.fleet.snapshot import EndpointView
from olla.proxy.exchange.context import Upstreams
from olla.routing.features import Features

__all__ = ["elsewhere", "is_an_answer"]

_MANAGE: Final = Right.MANAGE
_CONNECT: Final = Phase.CONNECT


def is_an_answer(target: Target, view: EndpointView, status: int) -> bool:
    """Whether an endpoint's error is what the client is to get, rather than a reason to ask
    another one."""
    if kind_of_status(status) is None:
        return True
    if status >= 500:
        return False
    if not target.needs_model:
        return True
    # The client's own key was refused: no other endpoint makes it a better one.
    return status in (401, 403) and view.spec.forward_authorization


def elsewhere(
    upstreams: Upstreams,
    target: Target,
    features: Features,
    endpoint: str,
    failure: Failure,
) -> Features | None:
    """What routing is to know of the request now that `endpoint` has failed it; None when it is
    not to be tried again."""
    facts = failure.facts
    if not facts.elsewhere:
        return None
    if target.right is _MANAGE and facts.phase is not _CONNECT:
        return None  # it may have been done
    again = msgspec.structs.replace(features, tried=(*features.tried, endpoint))
    dispatcher, now = upstreams.admission.dispatcher, upstreams.clock.now()
    if not dispatcher.could_serve(again, upstreams.fleet.snapshot, now):
        return None
    free = facts.phase is _CONNECT
    return again if dispatcher.retries.spend(in_flight=dispatcher.leases, free=free) else None
