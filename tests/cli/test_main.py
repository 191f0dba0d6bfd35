"""The command itself: help, version, and what is said about wrong use."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from olla import __version__
from olla.cli import serve

Invoke = Callable[..., Result]
COMMANDS = ["serve", "check", "demo", "simulate-node", "status"]


def test_the_version_is_told_without_loading_anything_heavy() -> None:
    """A version should come at once: no HTTP, no settings, no event loop."""
    code = (
        "import sys\nfrom olla.cli import main\n"
        "try:\n    main(['--version'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'aiohttp', 'pydantic', 'yaml', 'rich', 'asyncio', 'uvloop'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout == f"olla {__version__}\n"


def test_help_lists_every_command(invoke: Invoke) -> None:
    """With a line each and examples."""
    told = invoke("--help")
    assert told.exit_code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in told.output
    assert "Examples:" in told.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, invoke: Invoke) -> None:
    """Usage, every option with a text, and an example."""
    told = invoke(name, "--help")
    assert told.exit_code == 0
    assert "Example" in told.output
    assert f"olla {name}" in told.output
    options = told.output.partition("Options:")[2]
    for line in options.splitlines():
        if line.lstrip().startswith("-"):
            assert "  " in line.strip() or len(line.split()) <= 2, line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serv"], "No such command 'serv'. Did you mean 'serve'?"),
        (["quite-different"], "No such command 'quite-different'."),
        (["--nonsense"], "No such option"),
        (["serve", "--prot", "1"], "No such option"),
        (["serve", "--port", "70000"], "70000 is not in the range"),
        (["serve", "--log-level", "loud"], "'loud' is not one of"),
        (["demo", "--nodes", "0"], "0 is not in the range"),
        (["demo", "--time-scale", "0"], "0.0 is not in the range"),
        (["simulate-node", "--vram", "much"], "'much' is not a valid size; write bytes"),
        (["status", "--url", "gpu-1"], "must begin with http://"),
        (["check", "surplus"], "unexpected extra argument"),
    ],
)
def test_wrong_use_ends_with_two_and_says_what_is_wrong(
    arguments: list[str], message: str, invoke: Invoke
) -> None:
    """On standard error, with a pointer to the help."""
    told = invoke(*arguments)
    assert told.exit_code == 2
    assert message in told.stderr
    assert "--help" in told.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["check"], ["keys", "--help"]], ids=" ".join)
def test_output_that_cannot_be_written_is_an_error(arguments: list[str], tmp_path: Path) -> None:
    """One line says so, and the exit status: no traceback, and no success."""
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "olla", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "OLLA_HOME": str(tmp_path)},
        )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("olla: the output cannot be written")
    assert "Traceback" not in ended.stderr


def test_a_key_that_could_not_be_shown_is_revoked(tmp_path: Path) -> None:
    """Else it would stay valid, and its owner would not know it."""
    environ = {**os.environ, "OLLA_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "olla", "keys"]
    with open("/dev/full", "w") as full:
        ended = subprocess.run([*command, "create"], stdout=full, check=False, env=environ)
    assert ended.returncode == 1
    listed = subprocess.run(
        [*command, "list", "--json"], capture_output=True, check=True, env=environ
    )
    assert [key["is_active"] for key in json.loads(listed.stdout)] == [False]


def test_without_a_command_the_configuration_can_be_checked(invoke: Invoke, tmp_path: Path) -> None:
    """`olla -c FILE --validate-config` is `olla check -c FILE`."""
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("server: {port: 1234}\n")
    bad.write_text("server: {prot: 1234}\n")
    shown = invoke("-c", str(good), "--validate-config")
    assert shown.exit_code == 0
    assert "port: 1234" in shown.output
    assert invoke("-c", str(bad), "--validate-config").exit_code == 2
    assert "belong after the command" in invoke("-c", str(good), "status").output


def test_without_a_command_the_router_runs(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """`olla -c FILE` is `olla serve -c FILE`."""
    started: list[Path | None] = []
    monkeypatch.setattr(serve.command, "callback", lambda config, **_: started.append(config))
    assert invoke("-c", "x.yaml").exit_code == 0
    assert started == [Path("x.yaml")]
