"""YAML -> typed settings; every problem at once, with its line and the nearest known key."""

from olla.settings.loading import Loaded, load, parse
from olla.settings.model import Settings
from olla.settings.problems import Problem, SettingsError
from olla.settings.showing import effective_yaml
from olla.settings.specs import endpoint_specs

__all__ = [
    "Loaded",
    "Problem",
    "Settings",
    "SettingsError",
    "effective_yaml",
    "endpoint_specs",
    "load",
    "parse",
]
