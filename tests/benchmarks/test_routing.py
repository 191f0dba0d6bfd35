"""The comparison of policies: traces, drawn requests, and complete accounting."""

import statistics
from pathlib import Path

import pytest

from benchmarks.routing import traces
from benchmarks.routing.baselines import BY_NAME
from benchmarks.routing.report import markdown, table
from benchmarks.routing.runs import BOUND, Job, run
from benchmarks.routing.workloads import WORKLOADS

HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def test_a_trace_starts_at_its_first_request(tmp_path: Path) -> None:
    """It has seconds and tokens; timestamps have seven fractional digits."""
    file = tmp_path / "trace.csv"
    file.write_text(
        HEAD + "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:05.4799600,3180,8\n"
    )
    first, second = traces.read(file)
    assert (first.at, first.prompt, first.output) == (0.0, 4808, 10)
    assert (second.at, second.prompt, second.output) == (1.5, 3180, 8)


@pytest.mark.parametrize(
    "text", ["", HEAD, HEAD + "soon,1,2\n", HEAD + "2023-11-16 18:17:03,x,2\n"]
)
def test_an_invalid_trace_is_rejected(tmp_path: Path, text: str) -> None:
    """The error names the file, and the line if there is one."""
    file = tmp_path / "trace.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"trace\.csv"):
        traces.read(file)


@pytest.mark.parametrize("shape", [traces.CONVERSATION, traces.CODE], ids=["conversation", "code"])
def test_drawn_requests_have_the_medians_and_the_rate_of_the_trace(shape: traces.Shape) -> None:
    """The comparison is then meaningful without the traces."""
    drawn = traces.load(shape, None, 1, per_second=2.0)
    assert statistics.median(each.prompt for each in drawn) == pytest.approx(
        shape.prompt[0], rel=0.05
    )
    assert statistics.median(each.output for each in drawn) == pytest.approx(
        shape.output[0], rel=0.1
    )
    assert len(drawn) / drawn[-1].at == pytest.approx(2.0, rel=0.01)
    assert [each.at for each in drawn] == sorted(each.at for each in drawn)


@pytest.mark.parametrize("workload", list(WORKLOADS))
def test_every_request_of_a_workload_is_accounted_for(workload: str) -> None:
    """This holds for the default policy, and two runs are equal."""
    job = Job(workload, "shortest-expected-delay", 3, limit=60)
    first, second = run(job), run(job)
    assert first.requests > 0
    assert (first.mean, first.loads, first.lost) == (second.mean, second.loads, second.lost)
    assert f"--workload {workload}" in job.command


@pytest.mark.parametrize("policy", list(BY_NAME))
def test_no_policy_is_faster_than_the_bound(policy: str) -> None:
    """In the bound, no request waits."""
    bound, outcome = (run(Job("plain", each, 3, limit=60)) for each in (BOUND, policy))
    assert outcome.mean >= bound.mean
    assert outcome.p95 >= bound.p95


def test_tables_list_every_policy_with_its_ratio() -> None:
    """This covers the tables for a terminal and for the documentation."""
    outcomes = [run(Job("plain", each, 3, limit=40)) for each in (BOUND, "least-connections")]
    for text in (table(outcomes), markdown(outcomes, "About.")):
        assert "least-connections" in text
        assert "1.0×" in text
