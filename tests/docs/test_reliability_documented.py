"""Every fault in the reliability table has its test."""

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


def test_the_table_is_there() -> None:
    """Four cells in each row."""
    assert len(ROWS) > 25
    assert {len(row) for row in ROWS} == {4}


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_fault_has_a_test(row: list[str]) -> None:
    """One at least, and each that is named exists."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[3])
    assert named
    for file, function in named:
        tree = ast.parse((ROOT / file).read_text())
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        assert function in {each.name for each in ast.walk(tree) if isinstance(each, functions)}


@pytest.mark.parametrize("setting", re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", PAGE, re.MULTILINE))
def test_a_time_out_is_a_setting(setting: str) -> None:
    """By the name the configuration knows."""
    section, name = setting.split(".")
    shipped = (ROOT / "config/olla.yaml").read_text()
    assert re.search(rf"^#? ?{section}:", shipped, re.MULTILINE)
    assert f"{name}:" in shipped


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.value.startswith("upstream_")])
def test_every_kind_of_answer_is_in_the_table(kind: Kind) -> None:
    """By the word that metrics and logs have for it."""
    assert f"`{kind.value}`" in PAGE
