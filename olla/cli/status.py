"""`olla status`: show the fleet as a running router sees it."""

import http.client
import json
import sys
import urllib.error
import urllib.request
from typing import Any, NoReturn

import click

__all__ = ["command"]

_TIMEOUT = 5.0
_BODY_MAX = 64 * 1024 * 1024
_PIPED_WIDTH = 240
"""Table width without a terminal: programs that read the table need unwrapped lines."""


@click.command("status")
@click.option(
    "--url", default="http://localhost:40114", show_default=True, help="Address of the router."
)
@click.option(
    "--key",
    envvar="OLLA_KEY",
    help="Key with the right 'list', if the router requires keys. Prefer $OLLA_KEY, which other "
    "users of this machine cannot see.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the router's response, unchanged.")
def command(url: str, key: str | None, as_json: bool) -> None:
    """Show the endpoints of a running router: health, loaded models, in-flight requests.

    \b
    Examples:
      olla status
      olla status --url http://router:40114 --json
    """
    address = f"{url.rstrip('/')}/internal/status"
    if not address.startswith(("http://", "https://")):
        raise click.BadParameter("must begin with http:// or https://", param_hint="--url")
    if key is not None and not (key.isascii() and key.isprintable() and key.strip()):
        raise click.BadParameter("a key must be printable ASCII", param_hint="--key")
    body = _fetch(address, key)
    try:
        text = body.decode()
        status: dict[str, Any] = json.loads(text)
        heading, rows = _heading(status), [_row(each) for each in status["endpoints"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        _fail(f"the server at {address} is not an olla router; check --url")
    if as_json:
        click.echo(text)
    else:
        _show(heading, rows)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Reports redirects as errors: following one would send the key to another host."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """Follow no redirect."""


def _fetch(address: str, key: str | None) -> bytes:
    """Return the body of the response; exit with 1 on failure."""
    try:
        fields = {} if key is None else {"Authorization": f"Bearer {key}"}
        request = urllib.request.Request(address, headers=fields)
    except ValueError as error:
        _fail(f"{address} is not a URL: {error}")
    # Connect to the router directly, ignoring the proxy variables of the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())
    try:
        with opener.open(request, timeout=_TIMEOUT) as response:
            body: bytes = response.read(_BODY_MAX)
            return body
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403):
            _fail(
                f"{address} returned {error.code} {error.reason}; set OLLA_KEY or --key to a key "
                "with the right 'list' (`olla keys create` creates one)"
            )
        if 300 <= error.code < 400:
            to = error.headers.get("Location", "another address")
            _fail(f"{address} redirects to {to}; use that address as --url")
        _fail(f"{address} returned {error.code} {error.reason}; is it an olla router?")
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        _fail(f"cannot reach a router at {address}: {reason}; is it running, and is --url right?")


def _fail(message: str) -> NoReturn:
    from olla.settings.masking import masked  # imported lazily: settings are slow to import

    click.echo(f"olla: {_printable(masked(message))}", err=True)
    sys.exit(1)


def _printable(text: str) -> str:
    """Escape control characters: endpoints choose the names of models."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def _heading(status: dict[str, Any]) -> str:
    requests = status["requests"]
    return (
        f"olla {status['version']}, {status['status']}, policy {status['policy']}, "
        f"{requests['total']} requests, {requests['failures']} failures, "
        f"{requests['in_flight']} in flight"
    )


def _row(endpoint: dict[str, Any]) -> tuple[bool, list[str]]:
    """Return whether an endpoint is routable, and its table cells."""
    return bool(endpoint["routable"]), [
        str(endpoint["name"]),
        str(endpoint["type"]),
        str(endpoint["status"]),
        str(endpoint["in_flight"]),
        str(endpoint["models"]),
        ", ".join(str(each["name"]) for each in endpoint["resident"]) or "-",
        str(endpoint["reason"] or ""),
    ]


def _show(heading: str, rows: list[tuple[bool, list[str]]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    console.print(Text(_printable(heading)))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("endpoint", "type", "status", "in flight", "models", "in memory", "remark"):
        table.add_column(name, overflow="fold")
    for routable, cells in rows:
        # Text, not markup: names and reasons of other systems may contain brackets.
        shown = [Text(_printable(cell)) for cell in cells]
        shown[2].stylize("green" if routable else "red")
        table.add_row(*shown)
    console.print(table)
