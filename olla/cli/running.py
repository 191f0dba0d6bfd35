"""What commands that run a router share: reading the file, the event loop, how errors end."""

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from olla.settings import Loaded, SettingsError, load

__all__ = ["load_or_exit", "run"]


def load_or_exit(path: Path | None, environ: dict[str, str] | None = None) -> Loaded:
    """The settings; with problems, prints all of them and exits with 2."""
    try:
        return load(path, os.environ if environ is None else environ)
    except SettingsError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        count = len(error.problems)
        click.echo(f"{count} problem{'s' if count > 1 else ''} found", err=True)
        sys.exit(2)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run to the end on uvloop where there is one; a router that cannot start exits with 1."""
    from olla.app import StartError
    from olla.settings import SettingsError as Unusable

    try:
        import uvloop
    except ImportError:
        runner = asyncio.Runner()
    else:
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        with runner:
            runner.run(main)
    except (StartError, Unusable) as error:
        click.echo(f"olla: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
