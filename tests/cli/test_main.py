"""Tests of the `olla` command itself: help, version and usage errors."""

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


def test_the_version_is_shown_without_heavy_imports() -> None:
    """It must be quick, so it imports no HTTP library, settings or event loop."""
    code = (
        "import sys\nfrom olla.cli import main\n"
        "try:\n    main(['--version'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'aiohttp', 'pydantic', 'yaml', 'rich', 'asyncio', 'uvloop'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"olla {__version__}\n"


def test_help_lists_every_command(invoke: Invoke) -> None:
    """With one line each, and examples."""
    result = invoke("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in result.output
    assert "Examples:" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_complete_help(name: str, invoke: Invoke) -> None:
    """Usage, a description of every option, and an example."""
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"olla {name}" in result.output
    options = result.output.partition("Options:")[2]
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
def test_usage_errors_exit_with_two_and_the_reason(
    arguments: list[str], message: str, invoke: Invoke
) -> None:
    """On standard error, with a pointer to the help."""
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "--help" in result.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["check"], ["keys", "--help"]], ids=" ".join)
def test_output_that_cannot_be_written_is_an_error(arguments: list[str], tmp_path: Path) -> None:
    """One line and exit status 1, without a traceback."""
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
    assert ended.stderr.splitlines()[-1].startswith("olla: cannot write the output")
    assert "Traceback" not in ended.stderr


def test_a_key_that_could_not_be_shown_is_revoked(tmp_path: Path) -> None:
    """Otherwise it would stay valid although it was never shown."""
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
    """`olla -c FILE --validate-config` is the same as `olla check -c FILE`."""
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("server: {port: 1234}\n")
    bad.write_text("server: {prot: 1234}\n")
    shown = invoke("-c", str(good), "--validate-config")
    assert shown.exit_code == 0
    assert "port: 1234" in shown.output
    assert invoke("-c", str(bad), "--validate-config").exit_code == 2
    assert "must follow the command" in invoke("-c", str(good), "status").output


def test_without_a_command_the_router_runs(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """`olla -c FILE` is the same as `olla serve -c FILE`."""
    started: list[Path | None] = []
    monkeypatch.setattr(serve.command, "callback", lambda config, **_: started.append(config))
    assert invoke("-c", "x.yaml").exit_code == 0
    assert started == [Path("x.yaml")]
