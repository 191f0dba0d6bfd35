"""Every command in the README works."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.routers import threaded_fleet

README = Path("README.md").read_text()
TRIES = re.findall(r"^# try\n(curl .+)$", README, re.MULTILINE)
MODELS = ("llama3.2:latest", "mistral:latest")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_examples_get_answers() -> None:
    """Each one gets a successful answer from a router over simulated nodes."""
    assert len(TRIES) >= 5
    with threaded_fleet({"a": MODELS, "b": MODELS}) as fleet:
        for line in TRIES:
            command = shlex.split(line.replace("http://localhost:40114", fleet.url))
            ran = subprocess.run([*command, "-f"], capture_output=True, check=False, timeout=15)
            assert ran.returncode == 0, line
            assert ran.stdout, line


def test_the_commands_in_the_table_exist() -> None:
    """The README names every command and no other."""
    from olla.cli import main

    named = set(re.findall(r"`olla ([a-z-]+)", README))
    assert named == set(main.list_commands(None))  # type: ignore[arg-type]


def test_the_make_targets_exist() -> None:
    """Every `make …` in the README is a target."""
    targets = set(re.findall(r"^([a-z]+):", Path("Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", README)) - {"it", "them"} <= targets


def test_the_example_configuration_loads() -> None:
    """The YAML example loads without notices."""
    from olla.settings import parse

    example = re.search(r"```yaml\n(.+?)```", README, re.DOTALL)
    assert example is not None
    assert parse(example[1], {}).notices == []
