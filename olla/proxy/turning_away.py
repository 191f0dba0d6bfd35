"""Who is not let in: it is told so, and comes to a limit if it asks too often."""

from olla.dialects.paths import Target
from olla.failures import Failure
from olla.proxy.allowing import CATEGORIES, NOT_LET_IN
from olla.proxy.exchange import Exchange
from olla.proxy.gate import Gate
from olla.proxy.incoming import Incoming

__all__ = ["turn_away"]


def turn_away(
    gate: Gate, exchange: Exchange, incoming: Incoming, target: Target, failure: Failure
) -> None:
    """Refuse what was not let in; who has no right to it is charged for asking."""
    if failure.status not in NOT_LET_IN or exchange.visit is not None:
        exchange.refuse(failure)
        return

    def paid(refused: Failure | None) -> None:
        if not exchange.finished:
            exchange.refuse(refused or failure)

    visit = gate.turned_away(incoming, CATEGORIES[target.operation])
    exchange.enter(visit)
    visit.pay(None, paid)
