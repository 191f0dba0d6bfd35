"""The composition root: build a router from settings, run it, and reload its settings."""

from olla.app.composition import App, StartError
from olla.app.options import paths_for
from olla.app.process import serve

__all__ = ["App", "StartError", "paths_for", "serve"]
