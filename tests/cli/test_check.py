"""`olla check`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result

Invoke = Callable[..., Result]


def test_a_right_file_ends_with_zero_and_shows_what_is_in_force(
    invoke: Invoke, tmp_path: Path
) -> None:
    """The settings go to standard output as YAML, the notices to standard error."""
    (tmp_path / "f.yaml").write_text("server: {port: 1234, request_logging: true}")
    told = invoke("check", "--config", "f.yaml")
    assert told.exit_code == 0
    assert yaml.safe_load(told.stdout)["server"]["port"] == 1234
    assert told.stdout.startswith("# in force, from f.yaml\n")
    assert told.stderr.startswith("note: f.yaml:1:22: server.request_logging: has no effect here: ")


def test_a_wrong_file_ends_with_two_and_lists_every_problem(invoke: Invoke, tmp_path: Path) -> None:
    """One a line with its place, and nothing on standard output."""
    (tmp_path / "f.yaml").write_text("server: {prot: 1}\nproxy:\n  read_timeout: soon\n")
    told = invoke("check", "-c", "f.yaml")
    assert (told.exit_code, told.stdout) == (2, "")
    first, second, last = told.stderr.splitlines()
    assert first == "f.yaml:1:10: server.prot: unknown key; did you mean port?"
    assert second.startswith("f.yaml:3:3: proxy.read_timeout: 'soon' is not a valid duration")
    assert last == "2 problems found"


def test_a_file_that_is_not_there_is_a_problem(invoke: Invoke) -> None:
    """Not a fall-back to the defaults."""
    told = invoke("check", "--config", "nowhere.yaml")
    assert told.exit_code == 2
    assert told.stderr.startswith("nowhere.yaml: file not found")
    assert told.stderr.endswith("1 problem found\n")


def test_without_a_file_the_one_that_serve_would_take_is_checked(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Environment included."""
    assert "# in force, from built-in defaults" in invoke("check").stdout
    (tmp_path / "olla.yaml").write_text("server: {port: 1}")
    monkeypatch.setenv("OLLA_SERVER_PORT", "2")
    told = invoke("check")
    assert told.stdout.startswith("# in force, from olla.yaml\n")
    assert yaml.safe_load(told.stdout)["server"]["port"] == 2


def test_the_schema_describes_every_section(invoke: Invoke) -> None:
    """For editors: JSON on standard output, with descriptions."""
    told = invoke("check", "--schema")
    schema = json.loads(told.stdout)
    assert told.exit_code == 0
    assert "server" in schema["properties"]
    assert schema["$defs"]["Server"]["properties"]["port"]["description"]
    assert schema["additionalProperties"] is False
