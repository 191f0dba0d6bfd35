"""Compare olla with other proxies: CPU time per request and chunk, latency, memory.

Only the proxy runs on one core; backend and load run on another. CPU time is the run time of the
proxy's processes as the kernel accounts it, so that other load on the machine hardly matters.
Rounds are interleaved: every target passes every measurement once before the next round begins.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.proxy import budget, report
from benchmarks.proxy.load import require_wrk, wrk
from benchmarks.proxy.measures import CELLS, Rows, blob, cpu_clock, memory, steadiness
from benchmarks.proxy.processes import Measured, start_backend
from benchmarks.proxy.targets import COMPILED, DIRECT, TARGETS, Target, peer, start_olla

_SMALL = """'{"model":"bench","prompt":"%s","stream":false}'""" % ("p" * 355)


def say(text: str) -> None:
    """Print the progress to standard error."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def begin(targets: list[Target], backend: int, folder: Path) -> dict[str, tuple[Target, Measured]]:
    """Start all targets; skip those that cannot be started, with a notice."""
    running: dict[str, tuple[Target, Measured]] = {}
    for target in targets:
        try:
            measured = target.begin(backend, folder)
        except (FileNotFoundError, RuntimeError) as error:
            say(f"skipping {target.name}: {str(error).splitlines()[0]}")
            continue
        say(f"{target.name} listens after {measured.start_up:.2f} s")
        running[target.name] = (target, measured)
    return running


def rounds(
    running: dict[str, tuple[Target, Measured]], backend: int, count: int, seconds: float
) -> Rows:
    """Run the interleaved measurements."""
    rows: Rows = {}

    def note(name: str, values: dict[str, float]) -> None:
        for what, value in values.items():
            rows.setdefault((what, name), []).append(value)

    for name, (_, measured) in running.items():
        note(name, {"start-up s": measured.start_up})
    for number in range(count):
        for cell in CELLS:
            if cell.name in ("1 connection", "first byte"):
                note(DIRECT, cell.run(backend, "/api/generate", lambda: 0.0, seconds))
            for name, (target, measured) in running.items():
                if target.heavy and not cell.heavy:
                    continue
                length = 1.0 if target.heavy else seconds
                try:
                    values = cell.run(measured.port, target.path, cpu_clock(measured), length)
                except (OSError, subprocess.CalledProcessError) as error:
                    say(f"{name} failed at {cell.name}: {error!r}")
                    continue
                note(name, values)
        say(f"round {number + 1} of {count} done")
    return rows


def endpoints(backend: int, folder: Path, seconds: float, count: int) -> Rows:
    """Measure the cost per request with 3, 50 and 500 endpoints that all have the model."""
    rows: Rows = {}
    running = {number: start_olla(backend, folder, endpoints=number) for number in (3, 50, 500)}
    try:
        time.sleep(3)
        for measured in running.values():
            wrk(measured.port, "/api/generate", _SMALL, 16, 2.0)
        for _ in range(count):
            for number, measured in running.items():
                clock = cpu_clock(measured)
                before = clock()
                result = wrk(measured.port, "/api/generate", _SMALL, 16, seconds)
                cost = (clock() - before) / max(1, result.count) * 1e6
                rows.setdefault((f"CPU µs a request, {number} endpoints", "olla"), []).append(cost)
    finally:
        for measured in running.values():
            measured.stop()
    return rows


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proxy", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, fewer targets")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="duration of a measurement")
    parser.add_argument("--docs", type=Path, help="write the table and chart to this folder")
    parser.add_argument("--json", type=Path, default=Path("build/benchmark-proxy.json"))
    parser.add_argument("--only", help="target names, separated by semicolons")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    return options


def installed_targets(options: argparse.Namespace) -> list[Target]:
    """Return the requested targets that can be installed here."""
    wanted = options.only.split(";") if options.only else None
    targets: list[Target] = []
    for each in TARGETS:
        if wanted is not None and each.name not in wanted:
            continue
        if each.package is not None:
            if options.quick:
                continue
            try:
                peer(each.package)
            except FileNotFoundError as error:
                say(f"skipping {each.name}: it cannot be installed here ({error})")
                continue
        targets.append(each)
    return targets


def measure(
    targets: list[Target], backend: int, folder: Path, options: argparse.Namespace
) -> tuple[Rows, list[str]]:
    """Run all measurements; returns the values and the names of the targets that started."""
    running = begin(targets, backend, folder)
    try:
        for target, measured in running.values():
            warm_up = CELLS[1]
            warm_up.run(measured.port, target.path, lambda: 0.0, 1.0)
        rows = rounds(running, backend, options.rounds, options.seconds)
    finally:
        for _, measured in running.values():
            measured.stop()
    rows |= endpoints(backend, folder, options.seconds, options.rounds)
    say("cost at 3, 50 and 500 endpoints done")
    for target in targets:
        if target.heavy:
            continue
        for streams in (1000,) if options.quick else (1000, 5000):
            for what, value in memory(target, backend, folder, streams).items():
                rows[what, target.name] = [value]
        say(f"memory of slow streams: {target.name} done")
    olla = next((each for each in targets if each.name == "olla"), None)
    if olla is not None:
        requests = 60_000 if options.quick else 300_000
        alone = steadiness(olla, backend, folder, requests)
        size = (1 if options.quick else 4) << 30
        for what, value in (alone | blob(olla, backend, folder, size)).items():
            rows[what, olla.name] = [value]
    return rows, [each.name for each in targets if each.name in running]


def main() -> None:
    """Run, print the tables, and write the page if requested."""
    options = arguments()
    require_wrk()
    if not COMPILED.exists():
        sys.exit(f"{COMPILED} does not exist; run make compiled first")
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {0})
    targets = installed_targets(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        backend = start_backend(folder)
        try:
            rows, names = measure(targets, backend.port, folder, options)
        finally:
            backend.stop()
    steps = budget.measure_steps(quick=options.quick)
    print(report.text(rows, names, steps))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report.as_json(rows, steps), indent=2) + "\n")
    say(f"all figures are in {options.json}")
    if options.docs is not None:
        report.write(options.docs, rows, names, steps, rounds=options.rounds)
        say(f"written: {options.docs / 'benchmarks.md'}")


if __name__ == "__main__":
    main()
