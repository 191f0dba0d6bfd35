"""Who asked without a key a moment ago is counted once, and forgotten."""

from olla.record import RequestRecord
from olla.telemetry.anonymous_addresses import Addresses
from tests.surfaces.known_fleet import StillClock


def ended(clock: StillClock, caller: str, tier: str = "anonymous", key: str = "") -> RequestRecord:
    """A request that has just ended."""
    record = RequestRecord("1", "POST", "/chat", "10.0.0.1", clock.now(), clock.wall())
    record.ended, record.caller, record.tier, record.key_name = clock.now(), caller, tier, key
    return record


def test_an_address_counts_once_for_a_minute() -> None:
    """From its last request on."""
    clock = StillClock()
    addresses = Addresses(clock)
    addresses(ended(clock, "addr:10.0.0.1"))
    clock.monotonic += 30
    addresses(ended(clock, "addr:10.0.0.2"))
    addresses(ended(clock, "addr:10.0.0.2"))
    assert addresses.active() == 2
    clock.monotonic += 31
    assert addresses.active() == 1
    addresses(ended(clock, "addr:10.0.0.1"))
    clock.monotonic += 31
    assert addresses.active() == 1


def test_keys_and_who_was_not_let_in_do_not_count() -> None:
    """Whatever the tier of a key is called."""
    clock = StillClock()
    addresses = Addresses(clock)
    addresses(ended(clock, "key:1", "member", "ci"))
    addresses(ended(clock, "key:2", "anonymous", "odd"))
    addresses(ended(clock, "", ""))
    assert addresses.active() == 0


def test_so_many_are_known_at_most() -> None:
    """The one that was silent for longest goes first."""
    clock = StillClock()
    addresses = Addresses(clock, most=2)
    for each in ("a", "b", "a", "c", "a"):
        addresses(ended(clock, f"addr:{each}"))
    assert addresses.active() == 2
