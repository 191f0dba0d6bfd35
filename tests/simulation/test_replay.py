"""What if."""

import msgspec
import pytest

from olla.routing.journal import Decided, EndpointFacts, FleetFacts, ModelFacts
from olla.routing.policies import POLICIES
from olla.simulation.replay import JournalError, read_journal, recorded, replay

MODELS = tuple(ModelFacts(f"m{number}", f"d{number}", 4e9, 2000.0, 100.0, 1) for number in range(2))
FLEET = FleetFacts(
    0.0,
    "round-robin",
    tuple(EndpointFacts(name, 100, 16e9, 3, 1e9, 4e9, MODELS) for name in ("a", "b")),
)


def request(at: float, model: str = "m0", **more: object) -> Decided:
    """An answered request."""
    known: dict[str, object] = {
        "prompt_tokens": 200, "output_tokens": 50, "first": 0.5, "whole": 1.0, **more
    }  # fmt: skip
    return Decided(at, model, "chat", "a", "model_loaded", 200, **known)  # type: ignore[arg-type]


def lines(*written: object) -> list[bytes]:
    """A log."""
    return [msgspec.json.encode(each) + b"\n" for each in written]


def test_what_happened_is_told_as_it_was_recorded() -> None:
    """Failures are counted, not averaged."""
    failed = msgspec.structs.replace(request(3.0), status=503, first=None)
    journal = read_journal(lines(FLEET, request(1.0), request(2.0, first=1.5), failed))
    figures = recorded(journal)
    assert figures.mean == 1.0
    assert (figures.requests, figures.unanswered, figures.loads) == (3, 1, None)


def test_a_replay_answers_every_request_with_the_recorded_lengths() -> None:
    """The fleet is as it was learned: one slot, 2000 tokens a second, 4 s to load."""
    journal = read_journal(lines(FLEET, *(request(10.0 * n) for n in range(20))))
    figures = replay(journal, POLICIES["shortest-expected-delay"])
    assert (figures.requests, figures.unanswered, figures.loads) == (20, 0, 1)
    assert figures.p50 == pytest.approx(0.1, rel=0.01)


def test_policies_can_be_told_apart() -> None:
    """Turns load two models on both nodes; the default keeps each in its place."""
    journal = read_journal(lines(FLEET, *(request(2.0 * n, f"m{n // 2 % 2}") for n in range(100))))
    tight = msgspec.structs.replace(
        journal,
        fleet=msgspec.structs.replace(
            FLEET,
            endpoints=tuple(msgspec.structs.replace(each, memory=7e9) for each in FLEET.endpoints),
        ),
    )
    default, turns = (
        replay(tight, POLICIES[name]) for name in ("shortest-expected-delay", "round-robin")
    )
    assert default.loads is not None
    assert turns.loads is not None
    assert default.loads < turns.loads
    assert default.mean < turns.mean


def test_a_last_line_that_was_cut_is_passed_over() -> None:
    """The router may be writing it at this moment."""
    written = lines(FLEET, request(1.0))
    journal = read_journal([*written, b'{"kind":"requ'])
    assert len(journal.requests) == 1


def test_a_line_that_a_full_disk_has_cut_is_passed_over() -> None:
    """In the middle of the log, as it goes on once there is room again."""
    first, second = lines(FLEET, request(1.0))
    for cut in (1, 12, len(second) - 3):
        journal = read_journal([first, second[:cut] + b"\n", second])
        assert len(journal.requests) == 1


@pytest.mark.parametrize(
    "written", [[], [b"\n"], [b"hello\n"], lines(FLEET), lines(request(1.0)), [b'{"kind":"x"}\n']]
)
def test_what_is_no_decision_log_is_told(written: list[bytes]) -> None:
    """With the line where there is one."""
    with pytest.raises(JournalError):
        read_journal(written)
