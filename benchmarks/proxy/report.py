"""Tables, a chart and a documentation page of the measurements."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.proxy.measures import Rows
from benchmarks.proxy.targets import DIRECT

__all__ = ["as_json", "text", "write"]

Steps = dict[str, dict[str, float]]

_TABLE = (
    ("CPU µs a request, 16 connections", "CPU µs / request, 16 connections", "{:.1f}"),
    ("CPU µs a request, 1 connection", "1 connection", "{:.0f}"),
    ("CPU µs a request, 64 connections", "64 connections", "{:.1f}"),
    ("CPU µs a request, 64 KB bodies", "64 KB bodies", "{:.0f}"),
    ("CPU µs a request, 4 MB bodies", "4 MB bodies", "{:.0f}"),
    ("requests a second, 16 connections", "requests/s, 16 connections", "{:.0f}"),
    ("requests a second, 1 connection", "1 connection", "{:.0f}"),
    ("requests a second, 64 connections", "64 connections", "{:.0f}"),
    ("CPU µs a chunk, 100 streams", "CPU µs / chunk, 100 streams", "{:.1f}"),
    ("delay of a chunk p50 µs, 100 streams", "delay of a chunk p50, µs", "{:.0f}"),
    ("KB a slow stream, 1000", "KB / slow stream, 1,000", "{:.1f}"),
    ("KB a slow stream, 5000", "5,000", "{:.1f}"),
    ("delay of a chunk p99 ms, 5000 slow streams", "delay of a chunk p99 of 5,000, ms", "{:.1f}"),
    ("start-up s", "start to first connection, s", "{:.2f}"),
)
_BAR = "CPU µs a request, 16 connections"


def spread(values: Sequence[float], form: str = "{:.1f}") -> str:
    """Format the median, with the lowest and highest value if there are several."""
    median = form.format(statistics.median(values))
    if len(values) < 2:
        return median
    low, high = form.format(min(values)), form.format(max(values))
    return f"{median} ({low}–{high})"


def added(rows: Rows, what: str, name: str) -> float | None:
    """Return the median that a target adds over a direct connection, in microseconds."""
    values, direct = rows.get((what, name)), rows.get((what, DIRECT))
    if not values or not direct:
        return None
    return statistics.median(values) - statistics.median(direct)


def _ratio(rows: Rows, what: str, name: str, base: str) -> str:
    """Return the median of the ratios between two targets, of rounds measured side by side."""
    values, other = rows.get((what, name)), rows.get((what, base))
    if not values or not other:
        return ""
    ratios = [a / b for a, b in zip(values, other, strict=False) if b]
    return f"{statistics.median(ratios):.2f}×" if ratios else ""


def lines(rows: Rows, names: Sequence[str]) -> list[list[str]]:
    """Return the table: a head, then a row per measurement."""
    table = [["", *names]]
    for what, label, form in _TABLE:
        cells = [spread(rows[what, name], form) if (what, name) in rows else "" for name in names]
        if any(cells):
            table.append([label, *cells])
        if what in (
            "CPU µs a request, 16 connections",
            "CPU µs a request, 64 KB bodies",
            "CPU µs a chunk, 100 streams",
        ):
            table.append(["÷ nginx", *(_ratio(rows, what, name, "nginx") for name in names)])
    for what, label in (
        ("latency p50 µs, 1 connection", "added latency p50, µs"),
        ("time to first byte p50 µs", "added time to first byte p50, µs"),
    ):
        found = [added(rows, what, name) for name in names]
        table.append([label, *("" if each is None else f"{each:.0f}" for each in found)])
    errors = [
        sum(sum(values) for (what, who), values in rows.items() if who == name and "errors" in what)
        for name in names
    ]
    table.append(["errors, lost chunks", *(f"{each:.0f}" for each in errors)])
    return table


def single(rows: Rows) -> list[tuple[str, str]]:
    """Return the measurements of olla alone."""
    found = []
    for (what, name), values in rows.items():
        if name == "olla" and (what.startswith("MB ") or "endpoints" in what or "blob" in what):
            found.append((what, spread(values)))
    three = rows.get(("CPU µs a request, 3 endpoints", "olla"))
    many = rows.get(("CPU µs a request, 500 endpoints", "olla"))
    if three and many:
        ratio = statistics.median([b / a for a, b in zip(three, many, strict=True)])
        found.append(("500 endpoints ÷ 3 endpoints", f"{ratio:.2f}×"))
    return found


def _aligned(table: Iterable[Sequence[str]]) -> str:
    cells = [list(line) for line in table]
    widths = [max(len(line[at]) for line in cells) for at in range(len(cells[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )


def _budget(steps: Steps) -> list[list[str]]:
    compiled, plain = steps["compiled"], steps["not compiled"]
    table = [["µs in olla's code, without kernel and event loop", *steps]]
    return table + [[name, f"{compiled[name]:.1f}", f"{plain[name]:.1f}"] for name in compiled]


def text(rows: Rows, names: Sequence[str], steps: Steps) -> str:
    """Format the results for a terminal."""
    parts = [_aligned(lines(rows, names))]
    if single(rows):
        parts.append(_aligned(single(rows)))
    parts.append(_aligned(_budget(steps)))
    return "\n\n".join(parts)


def as_json(rows: Rows, steps: Steps) -> dict[str, object]:
    """Return every value of every round."""
    found: dict[str, dict[str, list[float]]] = {}
    for (what, name), values in rows.items():
        found.setdefault(name, {})[what] = values
    return {"targets": found, "steps": steps}


def _markdown(table: Sequence[Sequence[str]]) -> str:
    head, *rest = table
    rule = ["---", *["--:" for _ in head[1:]]]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *rest])


_PAGE = """\
# What olla costs

Written by `make bench`: medians of {rounds} interleaved rounds, lowest and highest in brackets. \
The proxy alone runs on one core, backend and load generator on another. CPU time is the run time \
of the proxy's processes as the kernel accounts it. Requests are POSTs with a JSON body of 400 \
bytes and a response of the same size; streams are 200 chunks of about 120 bytes, 10 ms apart. \
Absolute figures depend on the machine, so compare columns, not figures from elsewhere.

olla runs as shipped: default policy, learning, breaker, time-outs, metrics and request log on, \
compiled as by pip with a C compiler. *fast_path: off* is the same with all requests parsed by \
aiohttp; *not compiled* is the same Python without the compiler. nginx adds the same number of \
headers but reads no body and makes no choice. The other routers run with their defaults and one \
worker.

![CPU time per request](benchmarks.svg)

{table}

{single}

## Where the time goes

{budget}

Each step was measured alone with the data of one request. *exchange* is the rest of the total: \
connections, attempt, relay, records.

A separate benchmark measures how long one request body can stall all others, and how much memory \
it takes: [The cost of one request body](bodies-benchmark.md).
"""


def write(folder: Path, rows: Rows, names: Sequence[str], steps: Steps, *, rounds: int) -> None:
    """Write the page and its chart."""
    page = _PAGE.format(
        rounds=rounds,
        table=_markdown(lines(rows, names)),
        single=_markdown([["olla alone", ""], *map(list, single(rows))]),
        budget=_markdown(_budget(steps)),
    )
    (folder / "benchmarks.md").write_text(page)
    _chart(folder / "benchmarks.svg", rows, names)


def _chart(path: Path, rows: Rows, names: Sequence[str]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "olla"
    from matplotlib import pyplot

    shown = [name for name in names if (_BAR, name) in rows]
    values = [statistics.median(rows[_BAR, name]) for name in shown]
    figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(shown) + 1.2))
    colors = ["#2563eb" if name == "olla" else "#94a3b8" for name in shown]
    bars = axes.barh(shown[::-1], values[::-1], color=colors[::-1])
    axes.bar_label(bars, [f"{value:,.0f}" for value in values[::-1]], padding=4)
    axes.set_xscale("log")
    axes.set_xlabel("CPU µs per request, 16 connections (logarithmic)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.15)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
