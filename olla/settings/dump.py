"""Write the settings in force as YAML, with secrets masked."""

import re
from typing import Any

import yaml

from olla.settings.endpoint import Endpoint
from olla.settings.masking import masked_url
from olla.settings.model import Settings

__all__ = ["effective_yaml"]

_SECRET = frozenset({"token", "key", "password"})
_PASSWORD = re.compile(r"(://[^:/@]*):.*@")


def effective_yaml(settings: Settings) -> str:
    """Dump the settings in force, defaults included, as YAML.

    Secrets, header values and URL queries are masked. Keys that have neither a value nor a default
    are omitted.
    """
    data = settings.model_dump(mode="json", exclude_none=True)
    static = data["discovery"]["static"]
    static["endpoints"] = [_masked_endpoint(each) for each in settings.discovery.static.endpoints]
    for key in data["access"]["keys"]:
        key["key"] = "***"
    for section in ("store", "state"):
        if "url" in data[section]:
            data[section]["url"] = _PASSWORD.sub(r"\1:***@", data[section]["url"])
    return yaml.safe_dump(_escaped(data), sort_keys=False, allow_unicode=True)


def _escaped(data: Any) -> Any:
    """Escape `${`, so that it reads back as text and not as a variable."""
    if isinstance(data, str):
        return data.replace("${", "$${")
    if isinstance(data, dict):
        return {name: _escaped(each) for name, each in data.items()}
    return [_escaped(each) for each in data] if isinstance(data, list) else data


def _masked_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    defaults = {"check_timeout": endpoint.effective_check_timeout}
    data = endpoint.model_copy(update=defaults).model_dump(mode="json", exclude_none=True)
    for name in {"url", "health_check_url", "model_url"} & data.keys():
        data[name] = masked_url(data[name])
    for name in data["headers"]:
        data["headers"][name] = "***"
    for name in _SECRET & set(data.get("auth", ())):
        data["auth"][name] = "***"
    return data
