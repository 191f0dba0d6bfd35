"""Links, files and make targets that the pages name exist."""

import re
import tomllib
from pathlib import Path

import pytest

from olla.dialects.routes import READS, READS_EVERYWHERE
from olla.settings import parse

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def name(path: Path) -> str:
    """The path within the repository."""
    return str(path.relative_to(ROOT))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub forms them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link leads to a file of the repository and to a heading in it."""
    for link in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, heading = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not heading or heading in anchors(target.read_text()), link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_named_files_exist(page: Path) -> None:
    """Every `path/file.ext` or `path/` in code style exists in the repository or a package."""
    roots = (ROOT, ROOT / "olla", ROOT / "tests", page.parent)
    for path in re.findall(
        r"`([\w.-]+(?:/[\w.-]+)*(?:/|\.(?:py|md|toml|yaml)))`", page.read_text()
    ):
        if path.startswith((".venv", "/")):
            continue
        assert any((root / path).exists() for root in roots), path


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_named_make_targets_exist(page: Path) -> None:
    """Every `make …` in code style or in a fenced block is a target."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), re.MULTILINE)
    assert set(named) <= targets


def test_the_change_log_has_the_current_version() -> None:
    """The newest entry is the version in pyproject.toml."""
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == PYPROJECT["project"]["version"]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_yaml_examples_load_without_notices(page: Path) -> None:
    """Every YAML block is a valid configuration once the variables that it names are set."""
    for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        variables = dict.fromkeys(re.findall(r"\$\{(\w+)\}", block), "example-value")
        assert parse(block, variables).notices == []


def test_the_paths_that_are_known_to_read_are_documented() -> None:
    """The table in docs/access.md names the paths of the code, by kind of server."""
    page = (ROOT / "docs/access.md").read_text()
    for kind, paths in {"every type": READS_EVERYWHERE, **READS}.items():
        (row,) = re.findall(rf"^\| `?{kind}`? \| (.*) \|$", page, re.MULTILINE)
        assert set(re.findall("`(/[^`]*)`", row.partition(" Not ")[0])) == paths
