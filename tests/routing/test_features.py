"""What routing may know of a request."""

from math import inf

from olla.routing.features import Features


def test_a_request_that_says_nothing_asks_for_nothing_special() -> None:
    """No load options, no bounds, no place in a queue."""
    plain = Features(models=("m",), dialect="ollama")
    assert plain.load_options == ()
    assert plain.keep_alive is None
    assert plain.output_max == inf
    assert plain.order == inf
    assert not plain.embedding
