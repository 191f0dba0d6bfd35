"""What a simulated fleet is made of."""

from olla.fleet.endpoint import EndpointSpec
from olla.fleet.model_names import canonical
from olla.simulation.events import NodeLimits
from olla.simulation.machine import Arrival, Machine, Result, RunningMachine
from olla.simulation.model_catalogue import ModelSpec

MODEL = ModelSpec("m:latest", 4_000_000_000, digest="d")


def test_rates_follow_from_the_size_of_a_model_unless_they_are_known() -> None:
    """Tokens per second times bytes are a machine's; a known model's own come first."""
    machine = Machine(EndpointSpec("a", "a", 1), NodeLimits(), 8e12, 4e11, (MODEL,))
    assert RunningMachine(machine, 0).speed(MODEL) == (2000.0, 100.0)
    known = Machine(
        EndpointSpec("a", "a", 1),
        NodeLimits(),
        8e12,
        4e11,
        (MODEL,),
        rates=((canonical("m"), 7.0, 3.0),),
    )
    assert RunningMachine(known, 0).speed(MODEL) == (7.0, 3.0)


def test_a_delay_runs_from_arrival_to_first_token() -> None:
    """None for a request that got none."""
    result = Result(Arrival(2.0, "m", 10, 10))
    assert result.delay is None
    result.first = 5.0
    assert result.delay == 3.0
