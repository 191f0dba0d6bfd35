"""Statistics of responses, and explanations of routing decisions."""

from olla.dialects.dialect import Ending, Summary
from olla.proxy.exchange.request_features import answer_stats, format_explanation
from olla.routing.candidates import Exclusion
from olla.routing.decision import Considered
from olla.routing.delay import Delay
from tests.views import features


def test_an_explanation_lists_each_nonzero_term() -> None:
    """Best first, in seconds with three digits; excluded endpoints with the reason."""
    rows = [
        Considered("a", (0.4, 0), Delay(prefill=0.5, saved=0.1)),
        Considered("b", (12.3, 1), Delay(load=12.0, prefill=0.3), spillover=2.0),
        Considered("c", exclusion=Exclusion.UNROUTABLE),
    ]
    assert format_explanation(rows) == (
        "a=0.400s(prefill=0.500 saved=-0.100); "
        "b=14.300s(load=12.000 prefill=0.300 spillover=2.000); c:unroutable"
    )


def test_an_explanation_fits_into_a_header() -> None:
    """For large fleets and for endpoint names with non-ASCII characters."""
    rows = [Considered(f"knoten-ä-{n}", exclusion=Exclusion.NO_MODEL) for n in range(500)]
    text = format_explanation(rows)
    assert text.isascii()
    assert text.endswith("; 468 more")


def test_response_statistics_contain_the_counts_of_the_summary() -> None:
    """Tokens and seconds."""
    summary = Summary(Ending.COMPLETE, 10, 20, 0.1, 0.2, 0.3, 0.7)
    answer = answer_stats(features(), summary, streamed=False)
    assert (answer.prompt_tokens, answer.output_tokens) == (10, 20)
    assert (answer.prompt_seconds, answer.output_seconds, answer.total_seconds) == (0.2, 0.3, 0.7)
    assert not answer.streamed
