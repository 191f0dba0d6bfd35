"""Every kind of failure has its consequences in one table."""

import pytest

from olla.failures import FACTS, Failed, Failure, Kind, Origin, Phase


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_facts(kind: Kind) -> None:
    """Status, origin and phase; its code on the wire is unique."""
    assert 400 <= FACTS[kind].status < 600
    assert [each for each in Kind if each.value == kind.value] == [kind]


@pytest.mark.parametrize("kind", Kind)
def test_the_facts_are_consistent(kind: Kind) -> None:
    """Only failures of endpoints count against them; no failover happens after the first byte."""
    facts = FACTS[kind]
    if facts.against_endpoint or facts.elsewhere:
        assert facts.origin is Origin.ENDPOINT
    if facts.elsewhere:
        assert facts.phase in (Phase.CONNECT, Phase.HEAD)
    if facts.origin is Origin.CLIENT:
        assert facts.status < 500


def test_an_exception_carries_a_failure() -> None:
    """The exception has the failure's message."""
    failure = Failure(Kind.NOT_FOUND, "nothing here")
    assert str(Failed(failure)) == "nothing here"
    assert Failed(failure).failure.status == 404
