"""Compare routing policies on a fleet of discrete events.

Everything except the clock is production code: admission, routing, twin and estimates. --help lists
the workloads. The traces are not shipped; without them, similar requests are drawn.
"""

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import msgspec

from benchmarks.routing.baselines import BY_NAME, LATE
from benchmarks.routing.report import markdown, plot, table
from benchmarks.routing.runs import BOUND, Job, Outcome, run
from benchmarks.routing.workloads import WORKLOADS

_QUICK_LIMIT = 500
_UNLIMITED = 1_000_000


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    names = "\n".join(f"  {each.name:20}{each.about}" for each in WORKLOADS.values())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.routing",
        description=f"{__doc__}\nworkloads:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="one seed and short runs (half a minute)"
    )
    parser.add_argument("--workload", action="append", choices=[*WORKLOADS], metavar="NAME")
    parser.add_argument("--policy", action="append", choices=[BOUND, *BY_NAME], metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default 5)")
    parser.add_argument("--seed", type=int, help="run this seed only")
    parser.add_argument("--limit", type=int, help="maximum number of requests per run")
    parser.add_argument("--traces", type=Path, help="folder with the trace files")
    parser.add_argument("--json", type=Path, help="write all outcomes to this file")
    parser.add_argument("--docs", type=Path, help="write the table and chart to this folder")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error("--seeds must be at least 1")
    if options.traces is not None and not options.traces.is_dir():
        parser.error(f"--traces: {options.traces} is not a folder")
    return options


def jobs(options: argparse.Namespace) -> list[Job]:
    """Return all runs, ordered by seed, so that the first results already compare policies."""
    seeds = [options.seed] if options.seed is not None else range(1, options.seeds + 1)
    if options.quick:
        seeds = list(seeds)[:1]
    limit = options.limit or (_QUICK_LIMIT if options.quick else _UNLIMITED)
    folder = str(options.traces) if options.traces is not None else None
    return [
        Job(workload, policy, seed, folder, limit)
        for seed in seeds
        for workload in options.workload or WORKLOADS
        for policy in options.policy or [BOUND, *BY_NAME]
    ]


def run_all(todo: list[Job]) -> list[Outcome]:
    """Run the jobs on all cores, and show the progress."""
    start, done = time.monotonic(), []
    shown = sys.stderr.isatty()
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        running = {pool.submit(run, job): job for job in todo}
        for future in as_completed(running):
            try:
                done.append(future.result())
            except BaseException:
                print(f"\nfailed; repeat with: {running[future].command}", file=sys.stderr)
                raise
            if shown or len(done) % 50 == 0 or len(done) == len(todo):
                end = "\r" if shown else "\n"
                seconds = time.monotonic() - start
                line = f"{len(done)}/{len(todo)} runs, {seconds:.0f} s"
                print(line, file=sys.stderr, end=end, flush=True)
    order = {job: at for at, job in enumerate(todo)}
    return sorted(done, key=lambda each: order[each.job])


def main() -> None:
    """Run all jobs, print the tables and write the files."""
    options = arguments()
    outcomes = run_all(jobs(options))
    print(table(outcomes))
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(outcomes), indent=1))
    if options.docs is not None:
        source = (
            "Measured with recorded traces (Azure LLM inference, 2023)."
            if options.traces is not None
            else "Measured with requests drawn from the distributions of recorded traces."
        )
        seeds = len({each.job.seed for each in outcomes})
        about = (
            f"{source} Written by `make bench-routing`, {seeds} seeds. The default policy is "
            f"`{LATE}`; `random`, `power-of-two` and `loaded-first-unguarded` serve as "
            "baselines only. Rates, load times and memory are learned during the run, from a "
            "cold start."
        )
        (options.docs / "routing-benchmark.md").write_text(markdown(outcomes, about))
        if not plot(outcomes, options.docs / "routing-benchmark.svg"):
            print("no chart written: matplotlib is not installed", file=sys.stderr)


if __name__ == "__main__":
    main()
