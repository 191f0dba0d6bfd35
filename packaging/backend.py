"""The build backend: setuptools, plus the requirements of compiling.

Editable installs are never compiled, because edits would have no effect. They have no further
requirements, and neither have builds with OLLA_COMPILE=0.
"""

import os
import tomllib
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 a build backend is a module with hook functions


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Return mypyc, and the libraries whose types it checks."""
    needed: list[str] = build_meta.get_requires_for_build_wheel(config_settings)
    if os.environ.get("OLLA_COMPILE") != "0":
        project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
        tools = project["optional-dependencies"]["build"]
        needed += [each for each in tools if each.startswith("mypy")]
        needed += project["dependencies"]
    return needed
