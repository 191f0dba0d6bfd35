"""Every way it can go wrong has its consequences in one table."""

import pytest

from olla.failures import FACTS, Failed, Failure, Kind, Origin, Phase


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_its_facts(kind: Kind) -> None:
    """Status, origin and phase; and the code on the wire is its own."""
    assert 400 <= FACTS[kind].status < 600
    assert [each for each in Kind if each.value == kind.value] == [kind]


@pytest.mark.parametrize("kind", Kind)
def test_the_facts_fit_together(kind: Kind) -> None:
    """Only endpoints' failures count against them; nothing is tried elsewhere after a byte."""
    facts = FACTS[kind]
    if facts.against_endpoint or facts.elsewhere:
        assert facts.origin is Origin.ENDPOINT
    if facts.elsewhere:
        assert facts.phase in (Phase.CONNECT, Phase.HEAD)
    if facts.origin is Origin.CLIENT:
        assert facts.status < 500


def test_a_failure_is_carried_by_an_exception() -> None:
    """With its message as the exception's."""
    failure = Failure(Kind.NOT_FOUND, "nothing here")
    assert str(Failed(failure)) == "nothing here"
    assert Failed(failure).failure.status == 404
