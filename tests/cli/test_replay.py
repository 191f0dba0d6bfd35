"""Tests of `olla replay`."""

import json
from pathlib import Path

from click.testing import CliRunner

from olla.cli import main
from tests.routers import Fleet
from tests.test_app import LLAMA, generate


async def test_the_decision_log_of_a_router_can_be_replayed(tmp_path: Path) -> None:
    """The command reads the file that the router has written."""
    log = tmp_path / "decisions.jsonl"
    extra = f"routing: {{decision_log: '{log}'}}\n"
    async with Fleet({"a": (LLAMA,), "b": (LLAMA,)}, extra) as fleet:
        for _ in range(5):
            await generate(fleet, LLAMA)
    arguments = ["replay", str(log), "-p", "round-robin", "-p", "shortest-expected-delay"]
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["name"] for row in rows] == [
        "recorded (shortest-expected-delay)",
        "round-robin",
        "shortest-expected-delay",
    ]
    assert all(row["requests"] == 5 and row["unanswered"] == 0 for row in rows)
    table = CliRunner().invoke(main, arguments)
    assert "round-robin" in table.stdout


def test_another_file_is_an_error(tmp_path: Path) -> None:
    """It does not cause a traceback."""
    other = tmp_path / "notes.txt"
    other.write_text("hello\n")
    result = CliRunner().invoke(main, ["replay", str(other)])
    assert result.exit_code == 1
    assert "line 1 is no line of a decision log" in result.output
