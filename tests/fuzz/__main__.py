"""Fuzz the parser edges with coverage to guide it, for a bounded time each.

Needs atheris (`make fuzz` installs it). A finding is printed with the bytes that led to it, and
written to a file `crash-…` in the folder for findings.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.seeds import SEEDS

PARSERS = (
    *(
        "olla.proxy.http.response_head",
        "olla.proxy.http.framing",
        "olla.proxy.server.hot_head",
        "olla.dialects",
    ),
    "olla.settings.document",
)


def arguments() -> argparse.Namespace:
    """What to run."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="0, the default, for another each time")
    parser.add_argument("--only", choices=[*SEEDS], help="this target alone")
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz"), help="folder")
    parser.add_argument("--one", choices=[*SEEDS], help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args()


def fuzz(target: str, rest: list[str]) -> None:
    """Fuzz one target in this process; does not return."""
    import atheris

    with atheris.instrument_imports(include=[*PARSERS]):
        from tests.fuzz.targets import TARGETS

    atheris.Setup([sys.argv[0], *rest], TARGETS[target])
    atheris.Fuzz()


def main() -> int:
    """Each target in a process of its own; returns the exit status."""
    chosen = arguments()
    if chosen.one:
        fuzz(chosen.one, chosen.rest)
    chosen.findings.mkdir(parents=True, exist_ok=True)
    found = 0
    for target in [chosen.only] if chosen.only else [*SEEDS]:
        with tempfile.TemporaryDirectory() as corpus:
            for number, seed in enumerate(SEEDS[target]):
                (Path(corpus) / f"seed-{number}").write_bytes(seed)
            command = [sys.executable, "-m", "tests.fuzz", "--one", target, "--", corpus]
            command += [f"-max_total_time={chosen.seconds}", "-max_len=512", "-timeout=10"]
            command += [f"-seed={chosen.seed}"]
            command += [f"-artifact_prefix={chosen.findings}/", "-print_final_stats=1"]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
        told = {
            line.rpartition(":")[2].strip()
            for line in ran.stderr.splitlines()
            if line.startswith("stat::number_of_executed_units")
        }
        print(f"{target:10} {'ok' if ran.returncode == 0 else 'FOUND SOMETHING'}, "
              f"{', '.join(told) or 'no'} inputs in {chosen.seconds} s", flush=True)  # fmt: skip
        if ran.returncode != 0:
            print(ran.stdout[-3000:], ran.stderr[-3000:])
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
