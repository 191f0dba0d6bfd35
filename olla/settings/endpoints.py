"""From an endpoint's settings to what the fleet knows of it."""

import base64
from pathlib import Path
from urllib.parse import urlsplit

from olla.fleet.endpoint import EndpointSpec, ModelFilter
from olla.settings.loading import Problem, SettingsError
from olla.settings.model import Auth, Endpoint, Settings

__all__ = ["endpoint_specs"]


def endpoint_specs(settings: Settings) -> tuple[EndpointSpec, ...]:
    """The configured endpoints, secrets read from their files.

    Raises:
        SettingsError: a file with a secret cannot be read.
    """
    return tuple(_spec(each) for each in settings.discovery.static.endpoints)


def _spec(endpoint: Endpoint) -> EndpointSpec:
    parts = urlsplit(endpoint.url)
    tls = parts.scheme == "https"
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    port = parts.port or (443 if tls else 80)
    authority = shown if port == (443 if tls else 80) else f"{shown}:{port}"
    headers = dict(endpoint.headers)
    if endpoint.auth is not None:
        name, value = _credentials(endpoint.auth, endpoint.shown_name)
        headers[name] = value
    return EndpointSpec(
        name=endpoint.shown_name,
        host=host,
        port=port,
        tls=tls,
        authority=authority,
        base_path=parts.path.rstrip("/"),
        type=endpoint.type,
        priority=endpoint.priority,
        check_interval=endpoint.check_interval,
        check_timeout=endpoint.check_timeout or min(2.0, endpoint.check_interval / 2),
        num_parallel=endpoint.num_parallel,
        alive_path=endpoint.health_check_url,
        list_path=endpoint.model_url,
        headers=tuple(headers.items()),
        forward_authorization=endpoint.forward_authorization,
        models=ModelFilter(endpoint.model_filter.include, endpoint.model_filter.exclude),
    )


def _credentials(auth: Auth, endpoint: str) -> tuple[str, str]:
    def secret(name: str) -> str:
        value: str | None = getattr(auth, name)
        if value is not None:
            return value
        file: str = getattr(auth, f"{name}_file")
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            problem = Problem(
                file, 0, 0, f"{endpoint}: auth.{name}_file", f"cannot be read: {error}"
            )
            raise SettingsError([problem]) from None

    if auth.type == "bearer":
        return "Authorization", f"Bearer {secret('token')}"
    if auth.type == "api_key":
        return auth.header, secret("key")
    pair = f"{secret('username')}:{secret('password')}".encode()
    return "Authorization", f"Basic {base64.b64encode(pair).decode()}"
