"""The build: setuptools, and what compiling needs besides, where it is wanted.

An editable installation is never compiled (edits would have no effect), so it needs nothing more;
neither does one with OLLA_COMPILE=0.
"""

import os
import tomllib
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 a build backend is a module of functions


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """mypyc, and the libraries whose types it has to see."""
    needed: list[str] = build_meta.get_requires_for_build_wheel(config_settings)
    if os.environ.get("OLLA_COMPILE") != "0":
        project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
        tools = project["optional-dependencies"]["build"]
        needed += [each for each in tools if each.startswith("mypy")]
        needed += project["dependencies"]
    return needed
