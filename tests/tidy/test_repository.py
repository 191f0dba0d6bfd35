"""Tests of the repository's own rules."""

import ast
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from olla.admission.queue_types import Action, Entered
from olla.routing.decision import Decision
from olla.routing.journal import JournalLine
from olla.simulation.events import Outcome

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "olla").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
FUNCTION_LINES_MAX = 80

ELSEWHERE = {
    "proxy/exchange/translation.py": "wire/test_translation.py",
    "translation/decoding.py": "translation/test_anthropic_requests.py",
    "translation/merging.py": "translation/test_anthropic_answers.py",
    "translation/turns.py": "translation/test_anthropic_requests.py",
    "__main__.py": "cli/test_serve.py",
    "app/access_wiring.py": "access_control/test_authentication.py",
    "app/chat_service.py": "gateways/test_chat_service_examples.py",
    "app/composition.py": "test_app.py",
    "app/internal_routes.py": "access_control/test_authentication.py",
    "app/process.py": "faults/test_reload.py",
    "app/store_service.py": "access_control/test_authentication.py",
    "cli/runner.py": "cli/test_serve.py",
    "clock.py": "test_app.py",
    "proxy/background/endpoint_request.py": "proxy/background/test_model_loader.py",
    "proxy/background/rerouting.py": "faults/test_stuck_models.py",
    "proxy/background/stall_detector.py": "faults/test_stuck_models.py",
    "proxy/exchange/context.py": "test_app.py",
    "proxy/exchange/request_parsing.py": "faults/test_bad_requests.py",
    "proxy/exchange/token_estimate.py": "access_control/test_usage.py",
    "proxy/http/raw_response.py": "proxy/server/test_aiohttp_internals.py",
    "proxy/internal/routes.py": "access_control/test_authentication.py",
    "proxy/server/aiohttp_check.py": "proxy/server/test_aiohttp_internals.py",
    "proxy/server/server.py": "wire/test_http.py",
    "store/migrations/env.py": "store/test_schema_upgrade.py",
    "store/migrations/versions/v0001_keys_and_usage.py": "store/test_schema.py",
    "store/migrations/versions/v0002_made_by.py": "store/test_schema_upgrade.py",
    "surfaces/chat/keys_and_usage.py": "gateways/test_chat_service_examples.py",
    "surfaces/management/keys.py": "surfaces/management/test_api.py",
    "surfaces/management/wire.py": "surfaces/test_json_requests.py",
    "surfaces/openapi/operations.py": "surfaces/openapi/test_document.py",
    "surfaces/responses.py": "surfaces/status/test_api.py",
    "surfaces/status/fleet_report.py": "surfaces/status/test_api.py",
    "translation/calls.py": "translation/test_openai_answers.py",
    "translation/answer.py": "translation/test_openai_answers.py",
    "translation/codec.py": "translation/test_openai_answers.py",
    "translation/conversation.py": "translation/test_openai_requests.py",
    "translation/servers.py": "translation/test_openai_requests.py",
    "telemetry/live_gauges.py": "telemetry/test_metrics.py",
}
"""Modules that are tested by a file with another name."""


def relative(path: Path) -> str:
    """Return the path relative to `olla/` or `tests/`."""
    return str(path.relative_to(ROOT)).partition("/")[2]


def tracked() -> list[Path]:
    """Return the files of the repository, including new ones; without git, all files that are
    neither hidden nor generated."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        made = re.compile(r"^\.(?!ci/|docker|git)|\.egg-info/|__pycache__/")
        files = (path for path in ROOT.rglob("*") if path.is_file())
        return [path for path in files if not made.search(path.relative_to(ROOT).as_posix())]
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_modules_have_docstrings_and_short_functions(path: Path) -> None:
    """No function is longer than the limit."""
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES_MAX, node.name


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_module_has_a_test(path: Path) -> None:
    """`tests/a/test_b.py` tests `olla/a/b.py`, or the file that ELSEWHERE names."""
    name = relative(path)
    if path.name == "__init__.py":
        return
    here = Path(name)
    mirrored = ROOT / "tests" / here.parent / f"test_{here.name}"
    other = ROOT / "tests" / ELSEWHERE[name] if name in ELSEWHERE else mirrored
    assert mirrored.exists() or other.exists(), f"tests/{here.parent}/test_{here.name}"


@pytest.mark.parametrize(("module", "test"), ELSEWHERE.items())
def test_every_entry_of_elsewhere_is_needed(module: str, test: str) -> None:
    """ELSEWHERE names existing files, and only modules without a test of the same name."""
    here = Path(module)
    assert (ROOT / "olla" / module).exists()
    assert (ROOT / "tests" / test).exists()
    assert not (ROOT / "tests" / here.parent / f"test_{here.name}").exists()


@pytest.mark.parametrize("path", TESTS, ids=relative)
def test_every_test_states_its_promise(path: Path) -> None:
    """Every test function and method has a docstring."""
    for node in ast.walk(ast.parse(path.read_text())):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if is_function and node.name.startswith("test_"):
            assert ast.get_docstring(node), node.name


OUTCOMES = {
    member.__name__
    for union in (Action, Decision, Entered, JournalLine, Outcome)
    for member in get_args(union)
}
"""Classes that are the cases of a closed union."""


def names_in(node: ast.AST) -> set[str]:
    """Return the names in a piece of code."""
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_outcomes_are_matched_exhaustively(path: Path) -> None:
    """With a `match` that ends with `assert_never`, so that mypy reports a missing case. An `if`
    chain once had no branch for a fallback, and queued requests vanished."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and names_in(node.func) == {"isinstance"}:
            assert not names_in(node.args[1]) & OUTCOMES, f"line {node.lineno}"
        if isinstance(node, ast.Match):
            patterns = [each for case in node.cases for each in ast.walk(case.pattern)]
            classes = [each.cls for each in patterns if isinstance(each, ast.MatchClass)]
            if any(names_in(each) & OUTCOMES for each in classes):
                last = node.cases[-1]
                assert isinstance(last.pattern, ast.MatchAs), f"line {node.lineno}"
                assert "assert_never" in names_in(last.body[0]), f"line {node.lineno}"


def test_only_the_queue_writes_the_waiting_requests() -> None:
    """The queue of a ticket and the waiting requests of a model instance are one fact. Written in
    two places, they once disagreed, and idle endpoints were priced as busy."""
    writers = set()
    for path in SOURCES:
        if relative(path).startswith("simulation/"):
            continue  # the queue of a simulated node
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                writers |= {relative(path)} if node.attr == "waiting" else set()
    assert writers == {"admission/queue.py", "fleet/instance.py"}


def test_no_module_has_a_generic_name() -> None:
    """A generic name attracts unrelated code."""
    named = {path.stem for path in SOURCES} & {"utils", "helpers", "services", "managers", "common"}
    assert not named


def test_the_repository_has_no_reminders_and_no_machine_paths() -> None:
    """No reminders in the code, and no machine paths or registry hosts in any file."""
    reminder = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
    machine = re.compile("/wo" + "rk/|/ro" + "ot/|pypi" + r"\.org|npmjs" + r"\.org|deb" + "ian.org")
    files = tracked()
    assert ROOT / "pyproject.toml" in files
    for path in files:
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        assert not machine.search(text), path
        if path.suffix == ".py":
            assert not reminder.search(text), path


def test_the_packages_are_listed_consistently() -> None:
    """The import contract, the docstring of the package and the README list the same folders."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = contracts["contracts"][0]["layers"]
    in_contract = {name.strip() for layer in layers for name in layer.split("|")}
    docstring = ast.get_docstring(ast.parse((ROOT / "olla/__init__.py").read_text())) or ""
    in_docstring = re.findall(r"^    ([a-z]+) +\S", docstring, re.MULTILINE)
    readme = (ROOT / "README.md").read_text()
    way = readme.partition("<!-- way:begin -->")[2].partition("<!-- way:end -->")[0]
    in_readme = re.findall(r"^([a-z]+) +\S", way, re.MULTILINE)
    assert in_readme == in_docstring
    assert set(in_docstring) | {"record", "failures", "resolver", "clock", "tasks"} == in_contract


def test_every_task_has_an_owner() -> None:
    """Tasks are created in one place, which reports their exceptions. So are threads for blocking
    calls: hung calls would fill asyncio's pool."""
    makes = re.compile(r"\b(?:create_task|ensure_future|TaskGroup|to_thread|run_in_executor)\(")
    found = [relative(path) for path in SOURCES if makes.search(path.read_text())]
    assert found == ["tasks.py"]
