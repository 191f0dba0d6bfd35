"""Tests of `make` and the CI script, as far as possible without running them."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
CI = ROOT / ".ci" / "run"


def make(*arguments: str, **variables: str) -> list[str]:
    """Return the output lines of make."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PORT", "CONFIG", "MAKEFLAGS", "MAKELEVEL")
    }
    ran = subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=15,
    )
    return ran.stdout.splitlines()


def test_make_alone_shows_every_target() -> None:
    """Without a target, make changes nothing and lists the targets."""
    shown = [line.split()[0] for line in make()]
    phony = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)[0].split()
    assert sorted(shown) == sorted(phony)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "demo"),
        ({"PORT": "8080"}, "demo --port 8080"),
        ({"CONFIG": "my fleet.yaml"}, 'serve --config "my fleet.yaml"'),
        ({"CONFIG": "fleet.yaml", "PORT": "1"}, 'serve --config "fleet.yaml" --port 1'),
    ],
)
def test_make_run_runs_the_router(variables: dict[str, str], expected: str) -> None:
    """In front of simulated nodes, or with a configuration; both optionally with a port."""
    given = [f"{name}={value}" for name, value in variables.items()]
    for lines in (make("--dry-run", "run", *given), make("--dry-run", "run", **variables)):
        assert lines[-1].split("/olla ")[1].strip() == expected


def test_an_old_python_is_rejected_before_setup(tmp_path: Path) -> None:
    """The message says which Python is needed and how to select it."""
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    ran = subprocess.run(
        ["make", "--file", str(ROOT / "Makefile"), f"PYTHON={old}", ".venv/bin/python"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=15,
    )
    assert ran.returncode != 0
    assert "needs Python 3.11" in ran.stdout
    assert not (tmp_path / ".venv").exists()


def test_the_ci_script_is_valid() -> None:
    """It is executable, valid bash, and stops at the first failure."""
    assert os.access(CI, os.X_OK)
    subprocess.run(["bash", "-n", CI], check=True)
    assert "set -euo pipefail" in CI.read_text()
    targets = re.search(r"for target in (.+); do", CI.read_text())
    assert targets is not None
    assert {"check", "test"} <= set(targets[1].split())
