"""Compare routing policies on a fleet in discrete events.

Everything but the clock is production: admission, routing, twin and estimates. See --help for the
workloads; the traces are not shipped, requests of the same shape are drawn where they are absent.
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
_WHOLE = 1_000_000


def arguments() -> argparse.Namespace:
    """What to run."""
    names = "\n".join(f"  {each.name:20}{each.about}" for each in WORKLOADS.values())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.routing",
        description=f"{__doc__}\nworkloads:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one seed, short runs: half a minute")
    parser.add_argument("--workload", action="append", choices=[*WORKLOADS], metavar="NAME")
    parser.add_argument("--policy", action="append", choices=[BOUND, *BY_NAME], metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds (default 5)")
    parser.add_argument("--seed", type=int, help="this seed only")
    parser.add_argument("--limit", type=int, help="how many requests a run has at most")
    parser.add_argument("--traces", type=Path, help="folder with the trace files")
    parser.add_argument("--json", type=Path, help="write all outcomes to this file")
    parser.add_argument("--docs", type=Path, help="write table and picture into this folder")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error("--seeds must be at least 1")
    if options.traces is not None and not options.traces.is_dir():
        parser.error(f"--traces: {options.traces} is no folder")
    return options


def jobs(options: argparse.Namespace) -> list[Job]:
    """All runs, seed by seed, so that what is done first is already a comparison."""
    seeds = [options.seed] if options.seed is not None else range(1, options.seeds + 1)
    if options.quick:
        seeds = list(seeds)[:1]
    limit = options.limit or (_QUICK_LIMIT if options.quick else _WHOLE)
    folder = str(options.traces) if options.traces is not None else None
    return [
        Job(workload, policy, seed, folder, limit)
        for seed in seeds
        for workload in options.workload or WORKLOADS
        for policy in options.policy or [BOUND, *BY_NAME]
    ]


def run_all(todo: list[Job]) -> list[Outcome]:
    """Run them on all cores, with progress."""
    began, done = time.monotonic(), []
    shown = sys.stderr.isatty()
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        running = {pool.submit(run, job): job for job in todo}
        for future in as_completed(running):
            try:
                done.append(future.result())
            except BaseException:
                print(f"\nfailed; to repeat it: {running[future].command}", file=sys.stderr)
                raise
            if shown or len(done) % 50 == 0 or len(done) == len(todo):
                end = "\r" if shown else "\n"
                seconds = time.monotonic() - began
                line = f"{len(done)}/{len(todo)} runs, {seconds:.0f} s"
                print(line, file=sys.stderr, end=end, flush=True)
    order = {job: at for at, job in enumerate(todo)}
    return sorted(done, key=lambda each: order[each.job])


def main() -> None:
    """Run, print, write."""
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
            print("no picture: matplotlib is not installed", file=sys.stderr)


if __name__ == "__main__":
    main()
