"""Settings as text: what is in force, secrets masked."""

from typing import Any

import yaml

from olla.settings.model import Settings

__all__ = ["effective_yaml"]

_SECRET = frozenset({"token", "key", "password"})


def effective_yaml(settings: Settings) -> str:
    """The settings in force as YAML. Secrets and the values of headers are masked."""
    data = settings.model_dump(mode="json")
    for endpoint in data["discovery"]["static"]["endpoints"]:
        _mask(endpoint)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _mask(endpoint: dict[str, Any]) -> None:
    for name in endpoint.get("headers") or {}:
        endpoint["headers"][name] = "***"
    auth = endpoint.get("auth")
    if auth is not None:
        endpoint["auth"] = {
            name: "***" if name in _SECRET else value
            for name, value in auth.items()
            if value is not None
        }
