"""The container image, as far as it can be told without building it."""

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
    """What follows the last instruction of that name."""
    return re.findall(rf"^{name} (.+)$", DOCKERFILE, re.MULTILINE)[-1]


def copied() -> dict[str, str]:
    """What the image takes from the repository, and where to."""
    pairs = {}
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        *sources, target = line.split()
        pairs.update(dict.fromkeys(sources, target))
    return pairs


def health_check() -> list[str]:
    """The command that tells how the container is, with this Python."""
    python, *arguments = json.loads(instruction("HEALTHCHECK").partition(" CMD ")[2])
    assert python == "python"
    return [sys.executable, *arguments]


def test_what_is_copied_is_there_and_not_left_out() -> None:
    """Each source of a COPY exists, and `.dockerignore` lets it into the context."""
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert copied()
    for source in copied():
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in allowed), source


def test_everything_that_is_let_in_is_copied() -> None:
    """Nothing else goes into the context."""
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert set(allowed) == set(copied())


def test_it_starts_the_router_with_the_copied_configuration() -> None:
    """The command line is one that `olla` takes, and the file is where it looks."""
    entry, arguments = json.loads(instruction("ENTRYPOINT")), json.loads(instruction("CMD"))
    assert entry == ["olla"]
    with click.Context(main) as context:
        command = main.get_command(context, arguments[0])
    assert command is not None
    assert command.make_context("olla", arguments[1:]).params["config"] == Path(
        copied()["config/olla.yaml"]
    )


def test_it_listens_for_others_on_the_port_it_exposes() -> None:
    """The shipped file, with what the image sets, listens on every interface."""
    variables = dict(re.findall(r"^ENV (OLLA_\w+)=(\S+)$", DOCKERFILE, re.MULTILINE))
    server = load(ROOT / "config/olla.yaml", variables).settings.server
    assert server.host == "0.0.0.0"
    assert server.port == int(instruction("EXPOSE"))


def test_the_health_check_tells_a_router_that_serves_from_none(free_port: int) -> None:
    """Exit status 0 in front of a router, another one where nobody listens."""
    with threaded_fleet({"a": ("llama3.2:latest",)}) as fleet:
        for port, well in ((urlsplit(fleet.url).port, True), (free_port, False)):
            environment = {**os.environ, "OLLA_SERVER_PORT": str(port)}
            ran = subprocess.run(
                health_check(), env=environment, capture_output=True, check=False, timeout=10
            )
            assert (ran.returncode == 0) is well, ran.stderr


def test_it_does_not_run_as_root() -> None:
    """The user is a number other than 0, which an orchestrator can check."""
    assert int(instruction("USER")) > 0
