"""YAML -> typed settings; every problem at once, with its line and the nearest known key."""

from olla.settings.endpoints import endpoint_specs
from olla.settings.loading import Loaded, Problem, SettingsError, load, parse
from olla.settings.model import Settings
from olla.settings.showing import effective_yaml

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
