"""`docs/headers.md` lists the headers that the code adds and drops."""

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
    """The header names in a part of the page, in lower case; `X-*` unchanged."""
    return {name.lower() for name in re.findall(r"`([A-Za-z][\w-]*\*?)`", text)}


def part(text: str, title: str) -> str:
    """The text below a title, up to the next title."""
    return text.partition(f"### {title}\n")[2].partition("\n#")[0]


DROPPED = named(part(ANSWERS, "Dropped from an endpoint's response"))


@pytest.mark.parametrize(
    "name", sorted(name.decode() for name in HOP_BY_HOP | ENDS_HERE | NOT_IN_TRAILERS | CHALLENGES)
)
def test_headers_that_are_dropped_from_responses_are_documented(name: str) -> None:
    """Each dropped header is listed by its name or its prefix."""
    assert name in DROPPED or any(
        each.endswith("*") and name.startswith(each[:-1]) for each in DROPPED
    )


@pytest.mark.parametrize("start", [each.decode() for each in BEGINNINGS + LIMITS])
def test_header_prefixes_that_are_dropped_are_documented(start: str) -> None:
    """Each dropped prefix is listed with an asterisk."""
    assert f"{start}*" in DROPPED


@pytest.mark.parametrize(
    "name", sorted(name.decode() for name in headers.OURS_UPSTREAM | headers.CREDENTIALS)
)
def test_headers_that_are_dropped_from_requests_or_rewritten_are_documented(name: str) -> None:
    """Each one is in one of the two request tables."""
    assert name in named(REQUESTS)


@pytest.mark.parametrize("name", sorted(name.decode() for name in headers.MEANT))
def test_names_that_are_dropped_with_underscores_are_documented(name: str) -> None:
    """Each one is listed by its name or its prefix."""
    assert "-" not in name or any(
        name == each or (each.endswith("*") and name.startswith(each[:-1]))
        for each in named(REQUESTS)
    )


@pytest.mark.parametrize("start", [each.decode() for each in headers.MEANT_BEGINNINGS])
def test_prefixes_that_are_dropped_with_underscores_are_documented(start: str) -> None:
    """Each one is listed with an asterisk."""
    assert f"{start}*" in named(REQUESTS)
