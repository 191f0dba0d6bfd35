"""`olla serve`: run the router."""

import os
from pathlib import Path

import click

from olla.cli.runner import load_or_exit, run

__all__ = ["command"]


@click.command("serve")
@click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path),
    help="Configuration file. Default: $OLLA_CONFIG_FILE, config/olla.local.yaml, "
    "config/olla.yaml or olla.yaml, else one Ollama at localhost:11434.",
)
@click.option("--host", help="Interface to listen on; overrides server.host.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port to listen on; overrides server.port."
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Minimum severity of log events; overrides logging.level.",
)
def command(config: Path | None, host: str | None, port: int | None, log_level: str | None) -> None:
    """Run the router until SIGTERM or Ctrl-C; running requests finish first.

    SIGHUP, or a change of the file, reloads the settings. If the file has problems, they are logged
    and nothing changes.

    \b
    Examples:
      olla serve --config fleet.yaml
      olla serve --config fleet.yaml --host 0.0.0.0 --port 8080
    """
    environ = dict(os.environ)
    for name, value in (
        ("OLLA_SERVER_HOST", host),
        ("OLLA_SERVER_PORT", port),
        ("OLLA_LOGGING_LEVEL", log_level),
    ):
        if value is not None:
            environ[name] = str(value)
    loaded = load_or_exit(config, environ)
    from olla.app import serve
    from olla.settings import load

    run(serve(loaded, reload=lambda: load(config, environ)))
