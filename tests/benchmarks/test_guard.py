"""The guard on a request's cost detects increases."""

import json

from benchmarks.guard.__main__ import COUNTS, WHOLE, compared


def test_an_increase_over_three_percent_is_reported() -> None:
    """It reports a step that grew by more than its share, and the whole request."""
    before = {WHOLE: 100_000, "a": 10_000, "b": 10_000, "small": 600}
    now = {WHOLE: 103_100, "a": 10_290, "b": 10_500, "small": 790}
    lines, over = compared(before, now)
    assert len(lines) == 4
    assert [line.split("  ")[1] for line in over] == [WHOLE, "b"]


def test_new_and_removed_steps_are_reported() -> None:
    """The file must be rewritten when the steps change."""
    _, over = compared({"a": 1000, "gone": 1000}, {"a": 1000, "new": 1000})
    assert [line.split()[0] for line in over] == ["new", "gone"]


def test_a_decrease_passes() -> None:
    """This holds whether or not the file is rewritten."""
    assert compared({"a": 1000}, {"a": 100})[1] == []


def test_the_recorded_counts_cover_both_builds() -> None:
    """The compiled and the plain build have the same steps, and the environment is recorded."""
    recorded = json.loads(COUNTS.read_text())
    assert recorded["compiled"].keys() == recorded["plain"].keys()
    assert WHOLE in recorded["plain"]
    assert {"python", "aiohttp", "msgspec"} <= recorded["environment"].keys()
