"""Decide whether a failed request is retried on another endpoint.

Only before the first byte has gone to the client, and at most once per endpoint. Inference does not
change a node, so it may be retried after any failure, within the retry budget. An operation that
changes a node is retried only if the connection was never made.
"""

from typing import Final

import msgspec

from olla.dialects.dialect import Right
from olla.dialects.paths import Target
from olla.failures import Failure, Phase, kind_of_status
from olla.fleet.snapshot import EndpointView
from olla.proxy.exchange.context import Upstreams
from olla.routing.features import Features

__all__ = ["is_final_error", "retry_features"]

_MANAGE: Final = Right.MANAGE
_CONNECT: Final = Phase.CONNECT


def is_final_error(target: Target, view: EndpointView, status: int) -> bool:
    """Return whether an endpoint's error goes to the client instead of causing a retry."""
    if kind_of_status(status) is None:
        return True
    if status >= 500:
        return False
    if not target.needs_model:
        return True
    # The endpoint rejected the client's own key, as other endpoints would.
    return status in (401, 403) and view.spec.forward_authorization


def retry_features(
    upstreams: Upstreams,
    target: Target,
    features: Features,
    endpoint: str,
    failure: Failure,
) -> Features | None:
    """Return the features for a retry after a failure of `endpoint`; None for no retry."""
    facts = failure.facts
    if not facts.elsewhere:
        return None
    if target.right is _MANAGE and facts.phase is not _CONNECT:
        return None  # the endpoint may have executed it
    retry = msgspec.structs.replace(features, tried=(*features.tried, endpoint))
    dispatcher, now = upstreams.admission.dispatcher, upstreams.clock.now()
    if not dispatcher.could_serve(retry, upstreams.fleet.snapshot, now):
        return None
    free = facts.phase is _CONNECT
    return retry if dispatcher.retries.spend(in_flight=dispatcher.leases, free=free) else None
