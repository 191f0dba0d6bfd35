"""How many at a time: told, or found out."""

from olla.fleet.slots import Slots


def find_out(real: int, *, first: int = 1, seconds: int = 4000) -> Slots:
    """Slots after so many seconds of steady demand on a line that has `real` of them."""
    slots = Slots(None, first)
    for second in range(seconds):
        now = float(second)
        crowd = slots.limit
        if slots.may_try(crowd, now):
            slots.trying(slots.limit, now)
            slots.saw(crowd, now, waited=crowd >= real)
        elif crowd - 1 > 0:
            slots.saw(crowd - 1, now, waited=crowd - 1 >= real)
    return slots


def test_what_was_told_stays() -> None:
    """Nothing that is seen changes the operator's word."""
    slots = Slots(4)
    assert not slots.may_try(4, 0.0)
    slots.saw(8, 0.0, waited=False)
    slots.saw(2, 1.0, waited=True)
    slots.saw(2, 2.0, waited=True)
    assert slots.limit == 4


def test_the_limit_is_found_from_below() -> None:
    """From one up to what there is, and not beyond."""
    for real in (1, 2, 4, 16):
        assert find_out(real).limit == real


def test_the_limit_is_found_from_above() -> None:
    """Requests that wait within the limit lower it."""
    assert find_out(2, first=8).limit == 2


def test_one_slow_answer_lowers_nothing() -> None:
    """It takes two in a row."""
    slots = Slots(None, 4)
    slots.saw(3, 0.0, waited=True)
    slots.saw(3, 1.0, waited=False)
    slots.saw(3, 2.0, waited=True)
    assert slots.limit == 4


def test_a_try_that_had_to_wait_is_repeated_later_and_later() -> None:
    """So that a node with one slot is not bothered for ever."""
    slots, now, gaps = Slots(None), 0.0, []
    for _ in range(4):
        before = now
        while not slots.may_try(1, now):
            now += 1.0
        gaps.append(now - before)
        slots.trying(slots.limit, now)
        slots.saw(1, now, waited=True)
    assert gaps[1] < gaps[2] < gaps[3]


def test_a_large_server_is_filled_in_a_few_rounds() -> None:
    """A quarter more at a time: from 8 to 200 in some fifteen first bytes' time."""
    slots, rounds = Slots(None, 8), 0
    while slots.limit < 200:
        rounds += 1
        in_flight = slots.limit
        while slots.may_try(in_flight, float(rounds)):
            slots.trying(in_flight, float(rounds))
            in_flight += 1
        for crowd in range(slots.limit, in_flight):
            slots.saw(crowd, float(rounds), waited=False)
        assert rounds < 20
