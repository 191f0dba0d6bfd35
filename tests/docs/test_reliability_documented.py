"""`docs/reliability.md` names tests, settings, failures and log events that exist."""

import ast
import re
from pathlib import Path

import pytest

from olla.failures import Kind

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reliability.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.partition("## Faults")[2].partition("\n## ")[0].splitlines()
    if line.startswith("| ") and not line.startswith("| fault ")
]


def test_the_table_of_faults_is_complete() -> None:
    """Every row has four cells."""
    assert len(ROWS) > 25
    assert {len(row) for row in ROWS} == {4}


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_fault_has_a_test(row: list[str]) -> None:
    """Every row names at least one test, and each named test exists."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[3])
    assert named
    for file, function in named:
        tree = ast.parse((ROOT / file).read_text())
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        assert function in {each.name for each in ast.walk(tree) if isinstance(each, functions)}


@pytest.mark.parametrize("setting", re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", PAGE, re.MULTILINE))
def test_a_time_out_is_a_setting(setting: str) -> None:
    """Every time-out is listed under its key in the shipped configuration."""
    section, name = setting.split(".")
    shipped = (ROOT / "config/olla.yaml").read_text()
    assert re.search(rf"^#? ?{section}:", shipped, re.MULTILINE)
    assert f"{name}:" in shipped


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.value.startswith("upstream_")])
def test_every_endpoint_error_is_in_the_table(kind: Kind) -> None:
    """Every error status of an endpoint is listed by its label in metrics and logs."""
    assert f"`{kind.value}`" in PAGE


@pytest.mark.parametrize("event", sorted(set(re.findall(r"\blog `([^`]+)`", PAGE))))
def test_log_events_exist(event: str) -> None:
    """Every log event on the page begins a text of the sources."""
    assert any(f'"{event}' in path.read_text() for path in (ROOT / "olla").rglob("*.py"))
