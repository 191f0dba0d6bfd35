"""Tests of `olla check`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result

Invoke = Callable[..., Result]


def test_a_valid_file_exits_with_zero_and_shows_the_settings(
    invoke: Invoke, tmp_path: Path
) -> None:
    """The settings go to standard output as YAML, the notices to standard error."""
    (tmp_path / "f.yaml").write_text("server: {port: 1234, request_logging: true}")
    result = invoke("check", "--config", "f.yaml")
    assert result.exit_code == 0
    assert yaml.safe_load(result.stdout)["server"]["port"] == 1234
    assert result.stdout.startswith("# in force, from f.yaml\n")
    assert result.stderr.startswith(
        "note: f.yaml:1:22: server.request_logging: has no effect here: "
    )


def test_an_invalid_file_exits_with_two_and_lists_every_problem(
    invoke: Invoke, tmp_path: Path
) -> None:
    """One problem per line with its position, and nothing on standard output."""
    (tmp_path / "f.yaml").write_text("server: {prot: 1}\nproxy:\n  read_timeout: soon\n")
    result = invoke("check", "-c", "f.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    first, second, last = result.stderr.splitlines()
    assert first == "f.yaml:1:10: server.prot: unknown key; did you mean port?"
    assert second.startswith("f.yaml:3:3: proxy.read_timeout: 'soon' is not a valid duration")
    assert last == "2 problems found"


def test_a_missing_file_is_a_problem(invoke: Invoke) -> None:
    """The command does not fall back to the defaults."""
    result = invoke("check", "--config", "nowhere.yaml")
    assert result.exit_code == 2
    assert result.stderr.startswith("nowhere.yaml: file not found")
    assert result.stderr.endswith("1 problem found\n")


def test_without_an_option_the_file_of_serve_is_checked(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Environment variables included."""
    assert "# in force, from built-in defaults" in invoke("check").stdout
    (tmp_path / "olla.yaml").write_text("server: {port: 1}")
    monkeypatch.setenv("OLLA_SERVER_PORT", "2")
    result = invoke("check")
    assert result.stdout.startswith("# in force, from olla.yaml\n")
    assert yaml.safe_load(result.stdout)["server"]["port"] == 2


def test_the_schema_describes_every_section(invoke: Invoke) -> None:
    """JSON with descriptions on standard output, for editors."""
    result = invoke("check", "--schema")
    schema = json.loads(result.stdout)
    assert result.exit_code == 0
    assert "server" in schema["properties"]
    assert schema["$defs"]["Server"]["properties"]["port"]["description"]
    assert schema["additionalProperties"] is False
