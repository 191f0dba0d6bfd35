"""Tests of the container image, as far as possible without building it."""

import json
import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import urlsplit

import click

from olla.cli import main
from olla.settings import load
from tests.routers import threaded_fleet

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def instruction(name: str) -> str:
    """Return the arguments of the last instruction with a name."""
    return re.findall(rf"^{name} (.+)$", DOCKERFILE, re.MULTILINE)[-1]


def copied() -> dict[str, str]:
    """Return the sources that the image copies from the repository, with their targets."""
    pairs = {}
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        *sources, target = line.split()
        pairs.update(dict.fromkeys(sources, target))
    return pairs


def health_check() -> list[str]:
    """Return the command of the health check, run by this Python."""
    python, *arguments = json.loads(instruction("HEALTHCHECK").partition(" CMD ")[2])
    assert python == "python"
    return [sys.executable, *arguments]


def test_copied_files_exist_and_are_not_ignored() -> None:
    """Each source of a COPY exists, and `.dockerignore` includes it in the build context."""
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert copied()
    for source in copied():
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in allowed), source


def test_the_build_context_has_only_copied_files() -> None:
    """`.dockerignore` excludes everything else."""
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert set(allowed) == set(copied())


def test_the_image_runs_the_router_with_the_copied_configuration() -> None:
    """The command line is valid, and names the file where it was copied to."""
    entry, arguments = json.loads(instruction("ENTRYPOINT")), json.loads(instruction("CMD"))
    assert entry == ["olla"]
    with click.Context(main) as context:
        command = main.get_command(context, arguments[0])
    assert command is not None
    assert command.make_context("olla", arguments[1:]).params["config"] == Path(
        copied()["config/olla.yaml"]
    )


def test_the_router_listens_on_the_exposed_port() -> None:
    """The shipped file, with the variables of the image, listens on all interfaces."""
    variables = dict(re.findall(r"^ENV (OLLA_\w+)=(\S+)$", DOCKERFILE, re.MULTILINE))
    server = load(ROOT / "config/olla.yaml", variables).settings.server
    assert server.host == "0.0.0.0"
    assert server.port == int(instruction("EXPOSE"))


def test_the_health_check_detects_a_running_router(free_port: int) -> None:
    """Exit status 0 with a router, and non-zero without a listener."""
    with threaded_fleet({"a": ("llama3.2:latest",)}) as fleet:
        for port, healthy in ((urlsplit(fleet.url).port, True), (free_port, False)):
            environment = {**os.environ, "OLLA_SERVER_PORT": str(port)}
            ran = subprocess.run(
                health_check(), env=environment, capture_output=True, check=False, timeout=10
            )
            assert (ran.returncode == 0) is healthy, ran.stderr


def test_the_image_does_not_run_as_root() -> None:
    """The user is a number other than 0, which an orchestrator can check."""
    assert int(instruction("USER")) > 0
