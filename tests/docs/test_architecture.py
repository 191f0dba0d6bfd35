"""ARCHITECTURE.md names modules, folders, types, failures and states that exist."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from olla.failures import FACTS, Kind
from olla.fleet import breaker, health
from olla.settings.schema_walk import all_paths

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "olla"
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
SOURCES = sorted(PACKAGE.rglob("*.py"))
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DIAGRAMS = [body for kind, body in _FENCE.findall(PAGE) if kind == "mermaid"]
CODE = set(re.findall(r"`([^`\n]+)`", _FENCE.sub("", PAGE)))
PATHS = {each for each in CODE if re.fullmatch(r"\w+(?:/\w+)+|\w+/(?:\w+/)*", each)}
FOREIGN = {
    *("Host", "Origin", "Connection", "RequestReadTimeout", "SO_LINGER", "PYTHON_IMAGE"),
    *("asyncio.Protocol", "web.Server"),
}
"""Names that look like olla's and belong to HTTP, to the system or to other programs."""
PHASES = [
    line.strip("| ").split(" | ")
    for line in PAGE.partition("## Phases and failures")[2].partition("\n## ")[0].splitlines()
    if line.startswith("| ") and not line.startswith("| phase ")
]


def exists(path: str, *roots: Path) -> bool:
    """Whether a name such as `proxy/server/server` is a module or a folder below a root."""
    return any(
        (root / path).is_dir() or (root / f"{path}.py").is_file() or (root / path).is_file()
        for root in roots
    )


def defined() -> set[str]:
    """Every class, function, method (`Class.name`) and constant of the package."""
    names: set[str] = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.ClassDef):
                names.add(node.name)
                names |= {
                    f"{node.name}.{each.name}"
                    for each in node.body
                    if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
                }
                names |= {
                    f"{node.name}.{each.target.id}"
                    for each in node.body
                    if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
                }
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names |= {each.id for each in targets if isinstance(each, ast.Name)}
    return names


DEFINED = defined()


@pytest.mark.parametrize("path", sorted(PATHS))
def test_modules_and_folders_in_the_text_exist(path: str) -> None:
    """Every name with a slash in code style is a module or a folder of the repository."""
    assert exists(path.rstrip("/"), PACKAGE, PACKAGE / "proxy", ROOT)


@pytest.mark.parametrize("name", sorted(each for each in CODE if re.fullmatch(r"\w+\.py", each)))
def test_top_level_modules_in_the_text_exist(name: str) -> None:
    """Every file name in code style is a module of the package or a file of the repository."""
    assert exists(name, PACKAGE, ROOT)


@pytest.mark.parametrize("number", range(len(DIAGRAMS)))
def test_modules_in_the_diagrams_exist(number: int) -> None:
    """Every name with a slash in a diagram is a module of the package."""
    for path in re.findall(r"\b[a-z_]+/[a-z_]+\b", DIAGRAMS[number]):
        assert exists(path, PACKAGE, PACKAGE / "proxy"), path


@pytest.mark.parametrize("number", range(len(DIAGRAMS)))
def test_functions_in_the_diagrams_exist(number: int) -> None:
    """Every call in a diagram names a function of the package."""
    for name in re.findall(r"\b(\w+)\(", DIAGRAMS[number]):
        assert name in DEFINED | {"on_end"}, name


@pytest.mark.parametrize(
    "name",
    sorted(
        each.removesuffix("()")
        for each in CODE - FOREIGN
        if re.fullmatch(r"[A-Z][a-z]+(?:[A-Z][a-z]*)*(?:\.\w+)?|[A-Z]+_[A-Z]+|\w+\(\)", each)
    ),
)
def test_classes_and_functions_in_the_text_exist(name: str) -> None:
    """Every class, `Class.method`, CONSTANT and function() in code style is defined."""
    assert name in DEFINED


@pytest.mark.parametrize(
    "name",
    sorted(
        each
        for each in CODE - FOREIGN
        if re.fullmatch(r"[a-z_]+\.[a-z_]+", each)
        and not each.endswith((".py", ".md", ".toml", ".yaml", ".lock"))
    ),
)
def test_dotted_names_are_settings(name: str) -> None:
    """A module is written with slashes; a dotted name is a key of the configuration."""
    assert name in set(all_paths())


def layout() -> set[str]:
    """The paths in the tree under *Layout*, folders with a slash at the end."""
    tree = PAGE.partition("\n## Layout\n")[2].partition("```\n")[2].partition("```")[0]
    found: set[str] = set()
    above: list[str] = []
    for line in tree.splitlines()[1:]:
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2 - 1
        above = [*above[:depth], name]
        found.add("".join(above))
    return found


def test_every_folder_is_in_the_layout() -> None:
    """The tree lists every folder and top-level module of the package, and no others."""
    folders = {f"{path.parent.relative_to(PACKAGE)}/" for path in SOURCES} - {"./"}
    folders.add("web/")
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert layout() == folders | modules


@pytest.mark.parametrize("contract", [each for each in CONTRACTS if each["type"] == "layers"])
def test_the_layers_are_those_of_the_contract(contract: dict[str, object]) -> None:
    """Both import contracts, with their layers in order, word for word."""
    layers = contract["layers"]
    assert isinstance(layers, list)
    assert f"`{' > '.join(layers)}`" in PAGE


@pytest.mark.parametrize("kind", list(Kind))
def test_every_failure_has_a_phase(kind: Kind) -> None:
    """Each kind stands in the phase table, and only where its status and its retry are right."""
    rows = [row for row in PHASES if f"`{kind.value}`" in row[2]]
    assert rows
    for row in rows:
        for status, kinds in re.findall(r"\b(\d{3}) ((?:`\w+`(?:, )?)+)", row[2]):
            if f"`{kind.value}`" in kinds:
                assert int(status) == FACTS[kind].status
        assert row[3].startswith("yes") == FACTS[kind].elsewhere


def edges() -> list[tuple[str, str, list[str]]]:
    """The arrows of the state diagram: from, to, events."""
    diagram = next(each for each in DIAGRAMS if each.startswith("stateDiagram"))
    found = re.findall(r"^ *(\w+) --> (\w+): (.+)$", diagram, re.MULTILINE)
    return [(one, two, re.split(r", (?:or )?", events)) for one, two, events in found]


def test_the_states_of_an_endpoint_are_in_the_diagram() -> None:
    """Every state of health and breaker appears."""
    drawn = {each for one, two, _ in edges() for each in (one, two)}
    states = {each.value for each in (*health.Health, *breaker.BreakerState)}
    assert drawn - {"routable"} == {each.replace("-", "_") for each in states}


@pytest.mark.parametrize("edge", edges(), ids=lambda edge: f"{edge[0]}-{edge[1]}")
def test_the_arrows_of_the_diagram_are_transitions(edge: tuple[str, str, list[str]]) -> None:
    """Every arrow is in the transition table that its states belong to."""
    start, end, events = (edge[0].replace("_", "-"), edge[1].replace("_", "-"), edge[2])
    if start in {each.value for each in breaker.BreakerState}:
        after = breaker.TRANSITIONS[breaker.BreakerState(start)]
        assert {after[breaker.BreakerEvent(each)].value for each in events} == {end}
        return
    routable = [each for each in health.Health if each.routable]
    for state in routable if start == "routable" else [health.Health(start)]:
        for event in events:
            known = health.HealthState(state, timeouts=health.SUSPICION_LIMIT - 1)
            last = event.startswith(f"{health.SUSPICION_LIMIT} x ")
            if not last:
                known = health.HealthState(state)
            reached = health.advance(known, health.HealthEvent(event.split()[-1]), 0.0).health
            assert reached.routable if end == "routable" else reached.value == end


def test_every_way_out_of_rotation_is_in_the_diagram() -> None:
    """Each event that takes a routable endpoint out has its arrow."""
    drawn = {
        event.split()[-1] for start, _, events in edges() if start == "routable" for event in events
    }
    out = {
        event.value
        for event, state in health.TRANSITIONS[health.Health.HEALTHY].items()
        if not state.routable
    }
    assert drawn == out | {health.HealthEvent.TIMEOUT.value}
