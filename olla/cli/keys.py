"""`olla keys`: create, list and revoke keys in the store, without a running router.

Exit status 1: the store cannot be used, or there is no such key. 2: the settings or the command
line are invalid.
"""

import asyncio
import json
import secrets
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from olla.access.keys import DEFAULT_RIGHTS, Key, maker_shown
from olla.access.limiter import Limiter
from olla.access.policy import TIERS
from olla.app.access_wiring import store_url
from olla.app.store_service import REFRESH_INTERVAL
from olla.cli.runner import load_or_exit
from olla.clock import Clock, SystemClock
from olla.dialects.dialect import Right
from olla.failures import Failed
from olla.settings import Settings
from olla.settings.access import one_of_tiers
from olla.settings.values import duration, one_of
from olla.store import StoreError
from olla.store.database import Store
from olla.surfaces.chat.api import TIERS as CHAT_TIERS
from olla.surfaces.key_book import KeyBook, shown_key
from olla.surfaces.management.api import OWN as MANAGEMENT
from olla.surfaces.responses import iso_time

__all__ = ["command"]

T = TypeVar("T")
_PIPED_WIDTH = 240
_PATIENCE = 10.0
"""Seconds that the store may take to open."""
_ORDER = [right.value for right in Right]


def _lifetime(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """Parse a duration such as `30d` into seconds."""
    if value is None:
        return None
    try:
        seconds = duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if seconds <= 0:
        raise click.BadParameter("a key must be valid for some time, such as 30d")
    return seconds


def _operations(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Parse names of operations; each value may contain several, separated by commas."""
    named = tuple(name.strip().lower() for each in value for name in each.split(","))
    try:
        return tuple(one_of(_ORDER, name, "operation") for name in named)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


_config = click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path),
    help="Configuration file with the store; by default the one that `olla serve` would use.",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("keys")
def command() -> None:
    """Create, list and revoke API keys in the configured store.

    Works without a running router. A running router applies the change within a second.

    \b
    Examples:
      olla keys create --admin --name root
      olla keys create --name ci --tier premium --model 'llama3*' --expires 30d
      olla keys list --owner alice
      olla keys revoke 7
    """


@command.command("create")
@_config
@click.option("--name", default="default", show_default=True, help="Name of the key.")
@click.option("--owner", default="", help="Owner of the key, for usage.")
@click.option("--tier", default="standard", show_default=True, help="Tier whose limits apply.")
@click.option("--admin", is_flag=True, help="Allow every operation, including keys and usage.")
@click.option(
    "--operation",
    "--operations",
    "operations",
    multiple=True,
    callback=_operations,
    metavar="NAME[,NAME]",
    help="Allowed operation: generate, embed, list, manage, admin. Default: the first three.",
)
@click.option("--model", "models", multiple=True, help="Glob of allowed models; default: all.")
@click.option("--endpoint", "endpoints", multiple=True, help="Allowed endpoint; default: all.")
@click.option(
    "--expires",
    "lifetime",
    metavar="TIME",
    callback=_lifetime,
    help="Time until the key expires, such as 30d; default: never.",
)
@_as_json
def create(
    config: Path | None,
    name: str,
    owner: str,
    tier: str,
    admin: bool,
    operations: tuple[str, ...],
    models: tuple[str, ...],
    endpoints: tuple[str, ...],
    lifetime: float | None,
    as_json: bool,
) -> None:
    """Create a key, and show it once.

    \b
    Examples:
      olla keys create --admin --name root
      olla keys create --name alice --owner alice --tier member
      olla keys create --name ci --operation embed --model 'nomic-*' --expires 30d
    """
    if admin and operations:
        raise click.UsageError("--admin allows every operation; omit --operation")
    settings = load_or_exit(config).settings
    rights = frozenset(map(Right, operations)) or DEFAULT_RIGHTS
    if not name.strip():
        raise click.UsageError("--name must not be empty")
    if not all(each.strip() for each in (*models, *endpoints)):
        raise click.UsageError("names must not be empty; omit --model and --endpoint to allow all")
    _check_tier(settings, tier)
    unknown = set(endpoints) - {each.name for each in settings.discovery.static.endpoints}
    for each in sorted(unknown):
        _note(f"the configuration has no endpoint named '{each}'")
    secret, key = _with_store(
        settings,
        lambda book: book.create(
            name=name,
            owner=owner,
            tier=tier,
            rights=frozenset(Right) if admin else rights,
            models=models,
            endpoints=endpoints,
            lifetime=lifetime,
        ),
        "keys",
    )
    try:
        if as_json:
            shown = shown_key(key)
            click.echo(json.dumps({"id": shown.pop("id"), "key": secret, **shown}, indent=2))
            return
        click.echo(secret)
    except OSError:
        # A key that was not shown is useless, but would stay valid.
        _with_store(settings, lambda book: book.revoke(key.id, None), f"revoked {key.id}")
        raise
    until = f", until {iso_time(key.expires)}" if key.expires is not None else ""
    allowed = ", ".join(each for each in _ORDER if Right(each) in key.rights)
    click.echo(
        f"\nKey {key.id} of tier '{tier}' allows {allowed}{until}. It is not shown again.\n"
        f"Send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY', for example:\n"
        f"  curl -H 'Authorization: Bearer {secret[:6]}…' {_address(settings)}/api/tags",
        err=True,
    )


@command.command("list")
@_config
@click.option("--owner", help="List only keys of this owner.")
@_as_json
def list_keys(config: Path | None, owner: str | None, as_json: bool) -> None:
    """List the keys in the store, including revoked and expired ones. The store has only digests,
    so the keys themselves cannot be shown.

    \b
    Examples:
      olla keys list
      olla keys list --owner alice --json
    """
    settings = load_or_exit(config).settings
    keys = _with_store(settings, lambda book: book.keys(owner))
    static = len(settings.access.keys) if settings.access is not None else 0
    if as_json:
        click.echo(json.dumps([shown_key(key) for key in keys], indent=2))
    elif keys:
        _show(keys)
    else:
        click.echo("no keys; create one with: olla keys create --name NAME", err=True)
    if static:
        _note(f"the configuration has {static} more (access.keys)")


@command.command("revoke")
@_config
@click.argument("id")
@click.option("--owner", help="Revoke the key only if it belongs to this owner.")
def revoke(config: Path | None, id: str, owner: str | None) -> None:
    """Revoke the key with this ID and all keys that it created, permanently. `olla keys list` shows
    the ids.

    \b
    Examples:
      olla keys revoke 7
    """
    settings = load_or_exit(config).settings
    key, *others = _with_store(settings, lambda book: book.revoke(id, owner), f"revoked {id}")
    click.echo(f"revoked key {key.id} ({_printable(key.name)}, {key.shown}…)")
    if others:
        ids = ", ".join(each.id for each in others)
        click.echo(f"also revoked {len(others)} that it created, directly or indirectly: {ids}")
    immediately = "immediately, or " if settings.state.url is not None else ""
    _note(f"running routers reject it {immediately}within {REFRESH_INTERVAL:g} s")


class _Direct:
    """Gives a `KeyBook` direct access to the store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def create(self, key: Key) -> Key:
        """See `KeyStore`."""
        return await self._store.keys.create(key)

    async def revoke(
        self, id: str, *, owner: str | None = None, made_by: str | None = None
    ) -> tuple[Key, ...]:
        """See `KeyStore`."""
        at = self._clock.wall()
        return await self._store.keys.revoke(id, at, owner=owner, made_by=made_by)

    async def tried(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """See `KeyStore`."""
        return await work(self._store)


def _with_store(
    settings: Settings,
    work: Callable[[KeyBook], Coroutine[Any, Any, T]],
    announcement: str | None = None,
) -> T:
    """Run work on the store, and announce the change to running routers. Exits with 1 on
    failure."""

    async def main() -> T:
        store = await Store.open(store_url(settings), patience=_PATIENCE)
        clock = SystemClock()
        try:
            result = await work(KeyBook(_Direct(store, clock), clock))
        finally:
            await store.close()
        if announcement is not None and settings.state.url is not None:
            await _announce(settings.state.url, clock, announcement)
        return result

    try:
        return asyncio.run(main())
    except StoreError as error:
        _fail(f"the store cannot be used: {error}")
    except Failed as failed:
        _fail(failed.failure.message)


async def _announce(url: str, clock: Clock, what: str) -> None:
    """Announce a change to routers with shared state; without it they find the change
    themselves."""
    from olla.state.shared_limits import SharedLimits
    from olla.telemetry.logging import Level, LogStyle, make_logger

    logger = make_logger(Level.ERROR, LogStyle.CONSOLE, sys.stderr.write, clock)
    shared = SharedLimits(
        url, Limiter(), clock, timeout=1.0, logger=logger, name=secrets.token_hex(8)
    )
    await shared.start()
    try:
        if shared.up:
            await shared.announce(what)
    finally:
        await shared.stop()


def _check_tier(settings: Settings, tier: str) -> None:
    """Report which limits apply to a tier that the configuration does not define.

    Raises:     click.UsageError: there is no such tier.
    """
    tiers = settings.access.tiers
    known = {*TIERS, *tiers}
    if tier not in known:
        raise click.UsageError(one_of_tiers(known, tier))
    if tier in tiers:
        return
    surfaces = settings.surfaces
    built_in = [
        f"{limit.amount} requests per minute {where}"
        for where, enabled, limits in (
            ("at the management API", surfaces.management.enabled, MANAGEMENT.tiers),
            ("at the chat service", surfaces.chat.enabled, CHAT_TIERS),
        )
        if enabled and limits is not None
        for limit in limits.get(tier, ())
    ]
    exceptions = f" except {' and '.join(built_in)}" if built_in else ""
    _note(f"access.tiers does not define '{tier}', so it has no limits{exceptions}")


def _address(settings: Settings) -> str:
    host = settings.server.host
    shown = "localhost" if host in ("0.0.0.0", "::", "") else host
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{settings.server.port}"


def _note(text: str) -> None:
    click.echo(f"note: {_printable(text)}", err=True)


def _fail(message: str) -> NoReturn:
    click.echo(f"olla: {_printable(message)}", err=True)
    sys.exit(1)


def _printable(text: str) -> str:
    """Escape control characters, which could control a terminal."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def _show(keys: list[Key]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    now = SystemClock().wall()
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in (
        "id",
        "name",
        "owner",
        "tier",
        "begins with",
        "operations",
        "only",
        "created",
        "by",
        "state",
    ):
        table.add_column(name, overflow="fold")
    for key in keys:
        state, style = _state(key, now)
        cells = [
            *(key.id, key.name, key.owner or "-", key.tier, key.shown),
            " ".join(each for each in _ORDER if Right(each) in key.rights) or "nothing",
            " ".join([each or "''" for each in (*key.models, *(f"@{at}" for at in key.endpoints))])
            or "-",
            (iso_time(key.created) or "")[:10],
            maker_shown(key.made_by) or "-",
            state,
        ]
        # Text, not markup: names may contain brackets.
        shown = [Text(_printable(cell)) for cell in cells]
        shown[-1].stylize(style)
        table.add_row(*shown)
    console.print(table)


def _state(key: Key, now: float) -> tuple[str, str]:
    """Return the state of a key, and its color."""
    if key.revoked is not None:
        return f"revoked {(iso_time(key.revoked) or '')[:10]}", "red"
    if key.expired(now):
        return f"expired {(iso_time(key.expires) or '')[:10]}", "red"
    if key.expires is not None:
        return f"until {(iso_time(key.expires) or '')[:10]}", "green"
    return "active", "green"
