"""Load YAML into typed settings; report every problem at once, with line and nearest known key."""

from olla.settings.dump import effective_yaml
from olla.settings.endpoint_specs import endpoint_specs
from olla.settings.loading import LoadedSettings, load, parse
from olla.settings.model import Settings
from olla.settings.problems import Problem, SettingsError

__all__ = [
    "LoadedSettings",
    "Problem",
    "Settings",
    "SettingsError",
    "effective_yaml",
    "endpoint_specs",
    "load",
    "parse",
]
