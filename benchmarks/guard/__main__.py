"""Count the instructions of each step of a request, and compare them with the recorded counts.

The steps run under callgrind, compiled and from the plain sources. A step that takes over 3 % more
than `benchmarks/guard/counts.json` fails the check. If the increase is intended, run with --write,
and give the reason in the commit that changes the file.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from benchmarks.guard.measured import REPEATS, ROUNDS

COUNTS = Path(__file__).with_name("counts.json")
SHARE_MAX = 0.03
"""Allowed increase of a step."""
NOISE_SHARE = 0.002
"""Allowed increase of any step, as a share of the whole request. The path of a checkout changes
addresses of objects, and with them the collisions in dictionaries: the same code differed by 500 of
9,000 instructions in two folders."""
WHOLE = "the whole request"
BUILDS = {"compiled": "build/compiled", "plain": "."}
LIBRARIES = ("aiohttp", "msgspec", "uvloop")

Counts = dict[str, dict[str, int]]


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--write", action="store_true", help="record these counts")
    return parser.parse_args()


def environment() -> dict[str, str]:
    """Return the versions on which the counts depend."""
    platform_ = {"python": platform.python_version(), "machine": platform.machine()}
    return platform_ | {name: version(name) for name in LIBRARIES}


def counted(place: str) -> dict[str, int]:
    """Count the instructions of each step, for the modules in a folder.

    Raises:
        SystemExit: the measured process failed; its output is shown.
    """
    with tempfile.TemporaryDirectory() as folder:
        ran = subprocess.run(
            [
                *("setarch", "-R", "valgrind", "--tool=callgrind", "--dump-before=getsid"),
                f"--callgrind-out-file={folder}/out",
                *(sys.executable, "-P", "-m", "benchmarks.guard.measured"),
            ],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": f"{Path(place).absolute()}:{Path.cwd()}",
                "PYTHONHASHSEED": "0",
                "OLLA_HOME": os.devnull,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise SystemExit(f"the measured process failed:\n{ran.stderr[-3000:]}")
        dumps = sorted(Path(folder).glob("out.*"), key=lambda path: int(path.suffix[1:]))
        totals = [int(re.search(r"^totals: (\d+)", each.read_text(), re.M)[1]) for each in dumps]  # type: ignore[index]
    # The first dump precedes the first mark. Then dumps within and between steps alternate.
    measured = totals[1::2]
    empty, *each = [min(measured[i : i + ROUNDS]) for i in range(0, len(measured), ROUNDS)]
    return {
        name: round((instructions - empty) / REPEATS)
        for name, instructions in zip(ran.stdout.splitlines(), each, strict=True)
    }


def compared(before: dict[str, int], now: dict[str, int]) -> tuple[list[str], list[str]]:
    """Return one line per step, and those whose increase is too large."""
    lines: list[str] = []
    over: list[str] = []
    noise = before.get(WHOLE, 0) * NOISE_SHARE
    for name, count in now.items():
        known = before.get(name)
        change = "new" if known is None else f"{count / known - 1:+.1%}" if known else ""
        line = f"  {name:32}{known if known is not None else '-':>10}{count:>10}  {change}"
        lines.append(line)
        if known is None or count > known + max(known * SHARE_MAX, noise):
            over.append(line)
    lines += [f"  {name:32}{before[name]:>10}         -  removed" for name in before.keys() - now]
    over += [line for line in lines if line.endswith("removed")]
    return lines, over


def main() -> int:
    """Measure, and compare or record the counts."""
    options = arguments()
    if shutil.which("valgrind") is None:
        print("bench-guard needs valgrind: apt install valgrind")
        return 2
    print("counting instructions under callgrind (two minutes)", flush=True)
    with ThreadPoolExecutor(len(BUILDS)) as pool:
        now: Counts = dict(zip(BUILDS, pool.map(counted, BUILDS.values()), strict=True))
    here = environment()
    if options.write:
        COUNTS.write_text(json.dumps({"environment": here, **now}, indent=1) + "\n")
    recorded = json.loads(COUNTS.read_text())
    over: list[str] = []
    for build, counts in now.items():
        lines, more = compared(recorded[build], counts)
        over += more
        print(f"{build:34}{'before':>10}{'now':>10}", *lines, sep="\n")
    others = {
        name: each for name, each in recorded["environment"].items() if here.get(name) != each
    }
    if others:
        print(f"not compared: the counts were recorded with {others}, this environment has {here}")
        return 0
    if over:
        print("increased by over 3 %:", *over, sep="\n")
        print("if intended, run make bench-guard WRITE=1 and give the reason in the commit")
        return 1
    print("no step increased by over 3 %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
