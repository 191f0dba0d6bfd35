"""Report the progress of in-flight requests, and reroute them when their endpoint fails."""

from olla.failures import Failure
from olla.fleet.instance import ModelInstance
from olla.fleet.stalls import Progress
from olla.proxy.exchange.exchange import Exchange

__all__ = ["progress_of", "reroute"]


def progress_of(exchange: Exchange) -> Progress | None:
    """Return the progress of an exchange's attempt; None if no model instance serves it."""
    attempt, lease = exchange.attempt, exchange.lease
    in_flight = lease.flight if lease is not None else None
    if attempt is None or in_flight is None or in_flight.instance is None:
        return None
    return Progress(in_flight.instance, in_flight.at, attempt.last_activity(), in_flight.expected)


def reroute(
    exchange: Exchange, endpoint: str, instance: ModelInstance | None, failure: Failure
) -> None:
    """Reroute an exchange whose endpoint, or model instance on it, has failed or is stuck.

    An exchange whose client has not received a byte is retried on another endpoint if one can
    serve it. A stream that is silent ends with `failure`.
    """
    attempt, lease = exchange.attempt, exchange.lease
    if attempt is None or lease is None or not lease.concerns(endpoint, instance):
        return
    if attempt.relay is not None:
        attempt.stop_if_silent(failure)
    elif exchange.prepare_retry(failure):
        attempt.abort()
        exchange.retry(failure)
