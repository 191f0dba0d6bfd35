"""Tables and a chart of the results."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.routing.baselines import LATE
from benchmarks.routing.runs import BOUND, Outcome
from benchmarks.routing.workloads import WORKLOADS

__all__ = ["markdown", "plot", "table"]

Groups = dict[str, dict[str, list[Outcome]]]
_COLUMNS: tuple[tuple[str, Callable[[Outcome], float], str], ...] = (
    ("mean", lambda each: each.mean, "{:.2f}"),
    ("p50", lambda each: each.p50, "{:.2f}"),
    ("p95", lambda each: each.p95, "{:.2f}"),
    ("p99", lambda each: each.p99, "{:.1f}"),
    ("whole", lambda each: each.whole, "{:.1f}"),
    ("loads/request", lambda each: each.loads, "{:.4f}"),
    ("good/s", lambda each: each.good, "{:.2f}"),
    ("no answer", lambda each: each.lost / max(1, each.requests), "{:.1%}"),
)


def grouped(outcomes: Iterable[Outcome]) -> Groups:
    """Group the outcomes by workload and policy, in the order of the workloads."""
    groups: Groups = {name: {} for name in WORKLOADS}
    for each in outcomes:
        groups[each.job.workload].setdefault(each.job.policy, []).append(each)
    return {name: policies for name, policies in groups.items() if policies}


def _cells(runs: Sequence[Outcome], bound: Sequence[Outcome] | None) -> list[str]:
    cells: list[str] = []
    for name, value, form in _COLUMNS:
        values = [value(each) for each in runs]
        cell = form.format(statistics.fmean(values))
        if name == "mean" and len(values) > 1:
            cell += f" ±{statistics.stdev(values):.2f}"
        cells.append(cell)
    ratio = ""
    if bound:
        ratio = f"{statistics.fmean(each.mean for each in runs) / _mean(bound):.1f}×"
    return [cells[0], ratio, *cells[1:]]


def _mean(runs: Sequence[Outcome]) -> float:
    return max(1e-9, statistics.fmean(each.mean for each in runs))


def rows(policies: dict[str, list[Outcome]]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of one workload's table."""
    head = ["policy", "mean", "÷ bound", *(name for name, _, _ in _COLUMNS[1:])]
    bound = policies.get(BOUND)
    return head, [[name, *_cells(runs, bound)] for name, runs in policies.items()]


def table(outcomes: Iterable[Outcome]) -> str:
    """Format the results for a terminal."""
    parts: list[str] = []
    for name, policies in grouped(outcomes).items():
        head, lines = rows(policies)
        widths = [max(len(row[at]) for row in [head, *lines]) for at in range(len(head))]
        parts.append(f"{name}: {WORKLOADS[name].about}")
        for row in [head, *lines]:
            shown = [row[0].ljust(widths[0])]
            shown += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            parts.append("  " + "  ".join(shown))
        parts.append("")
    return "\n".join(parts)


def markdown(outcomes: Sequence[Outcome], about: str) -> str:
    """Format the results for the documentation."""
    parts = [
        "# Routing policies compared",
        "",
        about,
        "",
        "Times are seconds to the first token, `whole` to the last; means over the seeds, ± their "
        "standard deviation. `÷ bound` compares with each request alone on the fastest node that "
        "has its model in memory. `good/s` counts requests with a first token within 30 s, "
        "`no answer` requests that were rejected, left or broke.",
        "",
        "![Mean time to first token by policy](routing-benchmark.svg)",
        "",
    ]
    for name, policies in grouped(outcomes).items():
        head, lines = rows(policies)
        parts += [f"## {name}", "", f"{WORKLOADS[name].about[0].upper()}"
                  f"{WORKLOADS[name].about[1:]}.", ""]  # fmt: skip
        parts.append("| " + " | ".join(head) + " |")
        parts.append("|---|" + "--:|" * (len(head) - 1))
        for line in lines:
            cells = [f"**{cell}**" if line[0] == LATE and cell else cell for cell in line]
            parts.append("| " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)


def plot(outcomes: Sequence[Outcome], path: Path) -> bool:
    """Chart the mean by policy for the first three workloads; returns False without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "olla"
    from matplotlib import pyplot

    groups = list(grouped(outcomes).items())[:3]
    figure, axes = pyplot.subplots(1, len(groups), figsize=(4.2 * len(groups), 3.6), sharey=True)
    for axis, (name, policies) in zip([axes] if len(groups) == 1 else axes, groups, strict=True):
        names = list(policies)
        means = [_mean(policies[each]) for each in names]
        colours = [
            "#2a7" if each == LATE else "#bbb" if each == BOUND else "#58b" for each in names
        ]
        axis.barh(names, means, color=colours)
        axis.set_xscale("log")
        axis.invert_yaxis()
        axis.set_title(name)
        axis.set_xlabel("mean seconds to first token")
        for at, mean in enumerate(means):
            axis.text(mean, at, f" {mean:.2g}", va="center", fontsize=8)
        axis.set_xlim(right=max(means) * 4)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True
