"""The merged list's plain functions."""

import json

import pytest

from olla.surfaces.models.merge import lowest_version, merged, openai_model, running
from tests.surfaces.known_fleet import NEWER, loaded, tag, view


@pytest.mark.parametrize(
    ("versions", "lowest"),
    [
        ([], None),
        (["0.12.0"], "0.12.0"),
        (["0.12.0", "0.9.10", "0.9.9"], "0.9.9"),
        (["0.33.0", "0.33.0-rc2"], "0.33.0-rc2"),
        (["0.0.0", "0.5.1"], "0.5.1"),
        (["0.0.0"], "0.0.0"),
        (["v1.2.3", "1.10"], "v1.2.3"),
        (["unknown", "0.5.1"], "0.5.1"),
    ],
)
def test_versions_compare_by_number(versions: list[str], lowest: str | None) -> None:
    """Parts are numbers, a release candidate is older than its release, 0.0.0 is no version."""
    assert lowest_version(versions) == lowest


def test_holders_are_all_who_have_it_in_order() -> None:
    """A merged model knows every endpoint that has it."""
    (one,) = merged([view("a", tag("m")), view("b", tag("M:latest", NEWER))])
    assert one.holders == ("a", "b")
    assert json.loads(one.model.entry)["modified_at"] == NEWER


def test_among_equals_the_first_endpoints_entry_counts() -> None:
    """The same entry on two endpoints always shows the first one's."""
    views = [view("a", tag("m", size=1)), view("b", tag("m", size=2))]
    assert merged(views)[0].model.size == 1


def test_an_instance_known_by_two_names_runs_once() -> None:
    """Two names of one model file are one entry of what runs."""
    once = view("a", tag("m:latest"), tag("n:latest"), resident=(loaded("m:latest"),))
    assert [resident_model.name for resident_model, _ in running([once])] == ["m:latest"]


def test_an_unreadable_date_is_the_epoch() -> None:
    """A date that cannot be read does not break the list."""
    (one,) = merged([view("a", tag("m", "not a date"))])
    assert openai_model(one)["created"] == 0
