"""A request as routing sees it, and an explanation as the client sees it."""

from olla.dialects.dialect import Ending, Summary
from olla.proxy.exchange.request_features import answer_of, explanation
from olla.routing.candidates import Exclusion
from olla.routing.decision import Considered
from olla.routing.delay import Delay
from tests.views import features


def test_an_explanation_tells_each_term_that_counts() -> None:
    """Best first, seconds with three digits; what is no candidate with its reason."""
    rows = [
        Considered("a", (0.4, 0), Delay(prefill=0.5, saved=0.1)),
        Considered("b", (12.3, 1), Delay(load=12.0, prefill=0.3), spillover=2.0),
        Considered("c", exclusion=Exclusion.UNROUTABLE),
    ]
    assert explanation(rows) == (
        "a=0.400s(prefill=0.500 saved=-0.100); "
        "b=14.300s(load=12.000 prefill=0.300 spillover=2.000); c:unroutable"
    )


def test_an_explanation_fits_into_a_header() -> None:
    """However large the fleet, and whatever the endpoints are called."""
    rows = [Considered(f"knoten-ä-{n}", exclusion=Exclusion.NO_MODEL) for n in range(500)]
    text = explanation(rows)
    assert text.isascii()
    assert text.endswith("; 468 more")


def test_an_answer_carries_the_counts_of_the_summary() -> None:
    """And the prompt's length as it was sent."""
    summary = Summary(Ending.COMPLETE, 10, 20, 0.1, 0.2, 0.3, 0.7)
    answer = answer_of(features(), summary, streamed=False)
    assert (answer.prompt_tokens, answer.output_tokens) == (10, 20)
    assert (answer.prompt_seconds, answer.output_seconds, answer.total_seconds) == (0.2, 0.3, 0.7)
    assert not answer.streamed
