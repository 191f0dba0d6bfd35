"""What is with an endpoint: how far it has come, and how it is fetched back."""

from olla.failures import Failure
from olla.fleet.instance import ModelInstance
from olla.fleet.stalls import Progress
from olla.proxy.exchange.exchange import Exchange

__all__ = ["moving", "reroute"]


def moving(exchange: Exchange) -> Progress | None:
    """How far what is with an endpoint has come; None when nothing is."""
    attempt, lease = exchange.attempt, exchange.lease
    flight = lease.flight if lease is not None else None
    if attempt is None or flight is None or flight.instance is None:
        return None
    return Progress(flight.instance, flight.at, attempt.last_activity(), flight.expected)


def reroute(
    exchange: Exchange, endpoint: str, instance: ModelInstance | None, failure: Failure
) -> None:
    """An endpoint, or a model on it (`instance`), was found dead or stuck: whoever has not had a
    byte goes elsewhere, if somebody else can serve, and a stream that is silent ends."""
    attempt, lease = exchange.attempt, exchange.lease
    if attempt is None or lease is None or not lease.concerns(endpoint, instance):
        return
    if attempt.relay is not None:
        attempt.stop_if_silent(failure)
    elif exchange.prepare_retry(failure):
        attempt.abort()
        exchange.retry(failure)
