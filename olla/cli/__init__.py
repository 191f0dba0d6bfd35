"""The `olla` command: one module per subcommand, imported only when it runs."""

import importlib
import sys
from pathlib import Path
from typing import Any

import click

__all__ = ["main"]

_COMMANDS = {
    "serve": ("serve", "Run the router."),
    "check": ("check", "Check a configuration file."),
    "demo": ("demo", "Run the router in front of three simulated nodes."),
    "simulate-node": ("simulate_node", "Run one simulated Ollama node."),
    "replay": ("replay", "Replay a decision log under other policies."),
    "status": ("status", "Show the fleet, from a running router."),
    "keys": ("keys", "Create, list and revoke API keys."),
}


class _Commands(click.Group):
    """Imports a command's module on demand, so that `olla --version` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command with a name; None if there is no such command."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"olla.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Return the command that the arguments name, or fail with the nearest name."""
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], list(_COMMANDS), 1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"No such command '{args[0]}'.{hint}")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command. A failure to write output, such as a full disk, is reported on one line,
        without a traceback."""
        try:
            try:
                return super().main(*args, **options)
            finally:
                sys.stdout.flush()
        except OSError as error:
            sys.stdout = None  # else the interpreter tries to flush it again at exit
            click.echo(f"olla: cannot write the output: {error.strerror or error}", err=True)
            sys.exit(1)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, one per line, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from olla import __version__

        click.echo(f"olla {__version__}")
        ctx.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Without a command, olla runs the router like `olla serve`. "
    "See olla COMMAND --help for details.",
    invoke_without_command=True,
)
@click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path),
    help="Configuration file, if no command is given; see `olla serve --help`.",
)
@click.option(
    "--validate-config",
    is_flag=True,
    help="Check the configuration file like `olla check`, and exit.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version.",
)
@click.pass_context
def main(context: click.Context, config: Path | None, validate_config: bool) -> None:
    """One address for a fleet of Ollama servers.

    \b
    Examples:
      olla demo                         try it, without any other server
      olla check --config fleet.yaml    check a configuration file
      olla serve --config fleet.yaml    run the router
      olla status                       show the state of the fleet
    """
    if context.invoked_subcommand is not None:
        if config is not None or validate_config:
            context.fail("-c and --validate-config must follow the command")
        return
    if validate_config:
        from olla.cli.check import command as check

        context.invoke(check, config=config)
    else:
        from olla.cli.serve import command as serve

        context.invoke(serve, config=config)
