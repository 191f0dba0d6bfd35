"""Quick tests that a release can be built and installed.

`make dist` builds and installs it completely.
"""

import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUN = [
    *PROJECT["dependencies"],
    *PROJECT["optional-dependencies"]["postgresql"],
    *PROJECT["optional-dependencies"]["redis"],
]
BUILD = [*RUN, *PROJECT["optional-dependencies"]["build"]]


@pytest.mark.parametrize(("lock", "wanted"), [("run", RUN), ("build", BUILD)])
def test_a_lock_has_every_dependency_in_its_range(lock: str, wanted: list[str]) -> None:
    """Each requirement of pyproject.toml is locked at an allowed version, with hashes."""
    text = (ROOT / "packaging" / f"{lock}.lock").read_text()
    locked = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE))
    for each in map(Requirement, wanted):
        version = locked.get(each.name.lower())
        assert version is not None, f"{each.name} is missing: make lock"
        assert each.specifier.contains(version), f"{each} is locked at {version}: make lock"
    for block in re.split(r"\n(?=[A-Za-z0-9])", text)[1:]:
        assert "--hash=sha256:" in block, block.partition(" ")[0]


@pytest.mark.timeout(90)
def test_the_source_distribution_can_be_built(tmp_path: Path) -> None:
    """It contains the build backend and setup.py, which installation needs."""
    subprocess.run(
        [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
        timeout=60,
    )
    (made,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(made) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"packaging/backend.py", "setup.py", "pyproject.toml", "LICENSE"} <= names
    assert {"olla/py.typed", "olla/proxy/exchange/exchange.py", "config/olla.yaml"} <= names
    assert any(name.startswith("olla/web/") for name in names)
    assert not any(name.startswith("tests/") for name in names)
