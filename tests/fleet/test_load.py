"""What is in flight, by olla's own count."""

from olla.fleet.load import Load


def test_counts_go_up_and_down_per_endpoint_and_model() -> None:
    """And names at zero are forgotten."""
    load = Load()
    load.add("a", "m")
    load.add("a", None)
    load.add("b", "m")
    assert (load.on("a"), load.on("b"), load.total()) == (2, 1, 3)
    assert (load.on_model("a", "m"), load.on_model("a", "x")) == (1, 0)
    load.remove("a", "m")
    load.remove("a", None)
    load.remove("b", "m")
    assert load.total() == 0
    assert not load._by_endpoint
    assert not load._by_model
