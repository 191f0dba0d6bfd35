"""The page of headers says what the code does."""

import re
from pathlib import Path

import pytest

from olla.proxy.http import headers
from olla.proxy.http.message_fields import (
    BEGINNINGS,
    CHALLENGES,
    ENDS_HERE,
    HOP_BY_HOP,
    LIMITS,
    NOT_IN_TRAILERS,
)

PAGE = (Path(__file__).parents[2] / "docs/headers.md").read_text()
ANSWERS, _, REQUESTS = PAGE.partition("\n## Requests")


def named(text: str) -> set[str]:
    """The fields that a part of the page names, in lower case; `X-*` as it stands."""
    return {name.lower() for name in re.findall(r"`([A-Za-z][\w-]*\*?)`", text)}


def part(text: str, title: str) -> str:
    """What stands below a title, up to the next."""
    return text.partition(f"### {title}\n")[2].partition("\n#")[0]


DROPPED = named(part(ANSWERS, "Dropped from an endpoint's answer"))


@pytest.mark.parametrize(
    "name", sorted(name.decode() for name in HOP_BY_HOP | ENDS_HERE | NOT_IN_TRAILERS | CHALLENGES)
)
def test_a_field_of_answers_that_is_dropped_is_documented(name: str) -> None:
    """By its name, or by how it begins."""
    assert name in DROPPED or any(
        each.endswith("*") and name.startswith(each[:-1]) for each in DROPPED
    )


@pytest.mark.parametrize("start", [each.decode() for each in BEGINNINGS + LIMITS])
def test_a_family_of_fields_that_is_dropped_is_documented(start: str) -> None:
    """With an asterisk."""
    assert f"{start}*" in DROPPED


@pytest.mark.parametrize(
    "name", sorted(name.decode() for name in headers.OURS_UPSTREAM | headers.CREDENTIALS)
)
def test_a_field_of_requests_that_is_dropped_or_written_anew_is_documented(name: str) -> None:
    """In one of the two tables."""
    assert name in named(REQUESTS)


@pytest.mark.parametrize("name", sorted(name.decode() for name in headers.MEANT))
def test_a_name_that_must_not_be_spelled_with_underscores_is_documented(name: str) -> None:
    """By itself, or by how it begins."""
    assert "-" not in name or any(
        name == each or (each.endswith("*") and name.startswith(each[:-1]))
        for each in named(REQUESTS)
    )


@pytest.mark.parametrize("start", [each.decode() for each in headers.MEANT_BEGINNINGS])
def test_a_family_that_must_not_be_spelled_with_underscores_is_documented(start: str) -> None:
    """With an asterisk."""
    assert f"{start}*" in named(REQUESTS)
