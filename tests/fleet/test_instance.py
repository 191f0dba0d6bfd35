"""A model on an endpoint: what fits what is loaded, and what is left of what is under way."""

import pytest

from olla.fleet.instance import InFlightRequest, ModelInstance
from tests.views import MODEL, send, twins, view

CONTEXT = (("num_ctx", 8192.0),)


def instance_of(*, resident: bool = True, profile: str = "ollama") -> ModelInstance:
    """The line of `m` on an endpoint."""
    there = view("a", resident=["m:latest"] if resident else [], profile=profile)
    return twins(there).by_name["a"].names[MODEL]


def test_the_same_options_fit_and_others_do_not() -> None:
    """Other load options mean a full reload; so does leaving `num_ctx` out."""
    instance = instance_of()
    instance.options = CONTEXT
    assert instance.fits(CONTEXT)
    assert not instance.fits(())
    assert not instance.fits((("num_ctx", 4096.0),))


def test_an_omitted_num_gpu_takes_what_is_there() -> None:
    """Only that option does."""
    instance = instance_of()
    instance.options = (("num_ctx", 8192.0), ("num_gpu", 20.0))
    assert instance.fits(CONTEXT)
    assert not instance.fits((("num_ctx", 8192.0), ("num_gpu", 30.0)))


def test_what_others_loaded_is_known_by_its_context() -> None:
    """A request that names no context takes it; one that does needs the same."""
    instance = instance_of()
    instance.options, instance.context = None, 8192
    assert instance.fits(())
    assert instance.fits(CONTEXT)
    assert not instance.fits((("num_ctx", 4096.0),))


def test_a_server_that_tells_nothing_is_always_ready() -> None:
    """Its models are taken to be served at once."""
    assert instance_of(resident=False, profile="vllm").ready(CONTEXT, 1e9)


def test_an_idle_model_is_ready_until_it_expires() -> None:
    """And one that is worked on stays."""
    kept = twins(view("a", resident=["m:latest"]))
    instance = kept.by_name["a"].names[MODEL]
    instance.expires_at = 10.0
    assert instance.ready((), 9.9)
    assert not instance.ready((), 10.0)
    send(kept, "a")
    assert instance.ready((), 1e6)


def test_what_is_left_shrinks_and_never_ends_before_its_end() -> None:
    """A request that outlives its expectation has some left; one that does so by far may hang."""
    flight = InFlightRequest(None, 0.0, 10.0)
    assert flight.left(0.0) == 10.0
    assert flight.left(4.0) == pytest.approx(6.0)
    assert flight.left(20.0) == flight.left(50.0) == pytest.approx(2.0)
    assert flight.left(100.0) == pytest.approx(50.0)


def test_an_embedding_is_short() -> None:
    """It has no output to wait for."""
    instance = instance_of()
    whole = instance.service(100.0)
    instance.embedding = True
    assert instance.service(100.0) < whole


def test_the_output_a_client_allows_bounds_the_service() -> None:
    """Ten tokens do not take as long as two hundred."""
    instance = instance_of()
    assert instance.service(100.0, 10.0) < instance.service(100.0)
