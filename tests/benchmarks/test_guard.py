"""The guard on a request's cost tells more from as much."""

import json

from benchmarks.guard.__main__ import COUNTS, WHOLE, compared


def test_what_takes_over_three_per_cent_more_is_named() -> None:
    """A station that grew by more than its share, and the whole request; nothing else."""
    before = {WHOLE: 100_000, "a": 10_000, "b": 10_000, "small": 600}
    now = {WHOLE: 103_100, "a": 10_290, "b": 10_500, "small": 790}
    lines, over = compared(before, now)
    assert len(lines) == 4
    assert [line.split("  ")[1] for line in over] == [WHOLE, "b"]


def test_new_and_vanished_stations_are_named() -> None:
    """The file has to be renewed when the stations change."""
    _, over = compared({"a": 1000, "gone": 1000}, {"a": 1000, "new": 1000})
    assert [line.split()[0] for line in over] == ["new", "gone"]


def test_less_is_no_failure() -> None:
    """What got cheaper passes, whether the file is renewed or not."""
    assert compared({"a": 1000}, {"a": 100})[1] == []


def test_the_kept_counts_are_of_both_builds() -> None:
    """Compiled and plain, with the same stations, and what they were made with."""
    kept = json.loads(COUNTS.read_text())
    assert kept["compiled"].keys() == kept["plain"].keys()
    assert WHOLE in kept["plain"]
    assert {"python", "aiohttp", "msgspec"} <= kept["environment"].keys()
