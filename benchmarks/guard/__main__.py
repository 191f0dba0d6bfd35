"""Count the instructions of one request's stations, and compare with what they took before.

Runs them under callgrind, compiled and as the sources are. What takes over 3 % more than
`benchmarks/guard/counts.json` says fails. If that is meant, run with --write, and say why in the
commit that changes the file.
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

from benchmarks.guard.measured import REPEATS

COUNTS = Path(__file__).with_name("counts.json")
SHARE_MAX = 0.03
"""How much more a station may take."""
NOISE_SHARE = 0.002
"""Of the whole request: how much more any station may take. Where a checkout lies moves objects in
memory, and with them the collisions in dictionaries: the same code differed by 500 of 9,000
instructions in two folders."""
WHOLE = "the whole request"
BUILDS = {"compiled": "build/compiled", "plain": "."}
LIBRARIES = ("aiohttp", "msgspec", "uvloop")

Counts = dict[str, dict[str, int]]


def arguments() -> argparse.Namespace:
    """What to do with the counts."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--write", action="store_true", help="keep these counts from now on")
    return parser.parse_args()


def environment() -> dict[str, str]:
    """What the counts depend on beside the code."""
    made = {"python": platform.python_version(), "machine": platform.machine()}
    return made | {name: version(name) for name in LIBRARIES}


def counted(place: str) -> dict[str, int]:
    """Instructions of each station, one by one, for the modules in a folder.

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
    # What came before the first mark, then by turns: between two marks, and what led to the next.
    within = totals[1::2]
    empty, *each = within
    return {
        name: round((instructions - empty) / REPEATS)
        for name, instructions in zip(ran.stdout.splitlines(), each, strict=True)
    }


def compared(before: dict[str, int], now: dict[str, int]) -> tuple[list[str], list[str]]:
    """One line a station, and of these the ones that take too much more."""
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
    lines += [f"  {name:32}{before[name]:>10}         -  gone" for name in before.keys() - now]
    over += [line for line in lines if line.endswith("gone")]
    return lines, over


def main() -> int:
    """Measure, and compare or keep."""
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
    kept = json.loads(COUNTS.read_text())
    over: list[str] = []
    for build, counts in now.items():
        lines, more = compared(kept[build], counts)
        over += more
        print(f"{build:34}{'before':>10}{'now':>10}", *lines, sep="\n")
    others = {name: each for name, each in kept["environment"].items() if here.get(name) != each}
    if others:
        print(f"not compared: the counts were made with {others}, here it is {here}")
        return 0
    if over:
        print("takes too much more (over 3 %):", *over, sep="\n")
        print("if that is meant: make bench-guard WRITE=1, and say why in the commit")
        return 1
    print("no station takes over 3 % more")
    return 0


if __name__ == "__main__":
    sys.exit(main())
