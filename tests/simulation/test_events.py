"""What goes into a node's scheduler: its limits are Ollama's unless told otherwise."""

from olla.simulation.events import NodeLimits
from olla.simulation.server import NodeOptions


def test_limits_are_ollamas_defaults() -> None:
    """One slot a model, three models, 512 in the queue, five minutes."""
    limits = NodeLimits()
    assert (limits.num_parallel, limits.max_loaded_models) == (1, 3)
    assert (limits.max_queue, limits.keep_alive) == (512, 300.0)


def test_a_nodes_options_have_the_same_defaults() -> None:
    """What a node on a port is made of by default is what the scheduler is made of."""
    options, limits = NodeOptions(), NodeLimits()
    for name in ("vram", "num_parallel", "max_loaded_models", "max_queue", "keep_alive"):
        assert getattr(options, name) == getattr(limits, name)
    for name in ("load_bandwidth", "warm_bandwidth"):
        assert getattr(options, name) == getattr(limits, name)
