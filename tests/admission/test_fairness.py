"""Start-time fair queueing over expected seconds."""

from hypothesis import given
from hypothesis import strategies as st

from olla.admission.fairness import FairShares


def serve(shares: FairShares, backlog: list[tuple[float, str, float]], seconds: float) -> float:
    """Serve the lowest places for so many seconds of work; what remains is left in `backlog`."""
    backlog.sort()
    while backlog and seconds > 0:
        place, _, work = backlog.pop(0)
        shares.served(place)
        seconds -= work
    return seconds


def test_a_caller_alone_is_served_in_order_of_arrival() -> None:
    """However long its requests are."""
    shares = FairShares()
    places = [shares.place("a", work) for work in (5.0, 1.0, 3.0)]
    assert places == sorted(places)


def test_a_newcomer_does_not_wait_for_a_backlog() -> None:
    """Its place is before what the other asked for beyond its share."""
    shares = FairShares()
    flood = [shares.place("flood", 1.0) for _ in range(100)]
    shares.served(flood[0])
    assert shares.place("light", 1.0) <= flood[1]


def test_being_idle_earns_nothing() -> None:
    """Who comes late gets a share from now on, not what it has missed."""
    shares = FairShares()
    for _ in range(50):
        shares.served(shares.place("busy", 1.0))
    assert shares.place("late", 1.0) >= shares.place("busy", 1.0) - 2.0


@given(st.floats(0.1, 10.0), st.floats(0.1, 10.0))
def test_two_backlogs_share_seconds_not_requests(short: float, long: float) -> None:
    """Half each, whatever one request of theirs takes, up to one request."""
    shares = FairShares()
    backlog = [(shares.place("short", short), "short", short) for _ in range(400)]
    backlog += [(shares.place("long", long), "long", long) for _ in range(400)]
    serve(shares, backlog, 100 * min(short, long))
    left = {
        name: sum(work for _, who, work in backlog if who == name) for name in ("short", "long")
    }
    done_short, done_long = 400 * short - left["short"], 400 * long - left["long"]
    assert abs(done_short - done_long) <= 2 * max(short, long)


def test_callers_that_have_gone_are_forgotten() -> None:
    """A million addresses do not stay in memory."""
    shares = FairShares()
    for number in range(30_000):
        shares.served(shares.place(f"caller-{number}", 1.0))
    assert len(shares._ends) <= 10_001
