"""The composition root: settings become a router, and one that runs takes new settings."""

from olla.app.composition import App, StartError
from olla.app.options import paths_for
from olla.app.process import serve

__all__ = ["App", "StartError", "paths_for", "serve"]
