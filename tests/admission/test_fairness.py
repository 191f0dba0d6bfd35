"""In order of arrival, put off by what the caller has had and waits for."""

from hypothesis import given
from hypothesis import strategies as st

from olla.admission.fairness import FairShares


class Queue:
    """Requests that wait for one server."""

    def __init__(self) -> None:
        self.shares = FairShares()
        self.waiting: list[tuple[float, int, str, float]] = []
        self.done: dict[str, float] = {}
        self.count = 0

    def ask(self, caller: str, work: float, now: float = 0.0) -> float:
        """A request comes."""
        place = self.shares.place(caller, now)
        self.shares.waits(caller, work, now)
        self.count += 1
        self.waiting.append((place, self.count, caller, work))
        return place

    def serve(self, seconds: float, now: float = 0.0) -> None:
        """Work for so long, the lowest places first."""
        self.waiting.sort()
        while self.waiting and seconds > 0:
            _, _, caller, work = self.waiting.pop(0)
            self.shares.leaves(caller, work, now)
            self.shares.served(caller, work, now)
            self.done[caller] = self.done.get(caller, 0.0) + work
            seconds -= work


def test_a_caller_alone_is_served_in_order_of_arrival() -> None:
    """However long its requests are."""
    queue = Queue()
    places = [queue.ask("a", work, float(at)) for at, work in enumerate((5.0, 1.0, 3.0))]
    assert places == sorted(places)


def test_whoever_asks_for_little_passes_a_backlog() -> None:
    """All but what it would have got before anyway."""
    queue = Queue()
    flood = [queue.ask("flood", 1.0) for _ in range(100)]
    assert queue.ask("light", 1.0, 2.0) <= flood[3]


def test_what_was_had_lately_counts() -> None:
    """Even when nothing of it waits any more; after some minutes it is forgotten."""
    shares = FairShares()
    shares.served("heavy", 50.0, 0.0)
    assert shares.place("heavy", 1.0) > shares.place("light", 1.0) + 40.0
    assert shares.place("heavy", 900.0) < 901.0


def test_nobody_is_put_off_for_ever() -> None:
    """What comes later than a place goes after it, whoever asks."""
    queue = Queue()
    place = [queue.ask("heavy", 10.0) for _ in range(5)][-1]
    assert queue.ask("light", 0.1, place + 1.0) > place


def test_leaving_the_queue_gives_back_what_was_waited_for() -> None:
    """An abandoned request is no burden to the next one."""
    shares = FairShares()
    shares.waits("a", 30.0, 0.0)
    shares.leaves("a", 30.0, 0.0)
    assert shares.place("a", 0.0) == 0.0


def test_a_weight_divides_what_counts() -> None:
    """Twice the weight, half the delay."""
    shares = FairShares()
    for caller in ("plain", "premium"):
        shares.waits(caller, 30.0, 0.0)
    assert shares.place("plain", 0.0) == 30.0
    assert shares.place("premium", 0.0, weight=2.0) == 15.0


@given(st.floats(0.1, 10.0), st.floats(0.1, 10.0))
def test_two_backlogs_share_seconds_not_requests(short: float, long: float) -> None:
    """Half each, whatever one request of theirs takes, up to one request."""
    queue = Queue()
    for _ in range(400):
        queue.ask("short", short)
    for _ in range(400):
        queue.ask("long", long)
    queue.serve(100 * min(short, long))
    done = [queue.done.get(caller, 0.0) for caller in ("short", "long")]
    assert abs(done[0] - done[1]) <= 2 * max(short, long)


def test_callers_that_have_gone_are_forgotten() -> None:
    """A million addresses do not stay in memory; who waits does."""
    shares = FairShares()
    shares.waits("waiting", 5.0, 0.0)
    for number in range(30_000):
        shares.served(f"caller-{number}", 1.0, float(number))
    assert len(shares._shares) <= 10_001
    assert shares.place("waiting", 30_000.0) == 30_005.0
