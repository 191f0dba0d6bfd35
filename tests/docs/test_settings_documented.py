"""The shipped configuration file and the settings have the same keys and defaults."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from olla.settings import Settings, load, parse

SHIPPED = Path("config/olla.yaml")
OPEN_ENDED = {"model_aliases", "headers", "parameters"}
NAMED = {"tiers", "categories", "models"}
"""The keys below these are names that the operator chooses."""


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the settings sections in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from sections(argument)


def known_keys(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Yield every key of the settings as a dotted path."""
    for name, field in model.model_fields.items():
        yield f"{path}{name}"
        for section in sections(field.annotation):
            yield from known_keys(section, f"{path}{name}.")


def shown_keys(data: Any, path: str = "") -> Iterator[str]:
    """Yield every key in a file as a dotted path, without list indexes."""
    if isinstance(data, list):
        for each in data:
            yield from shown_keys(each, path)
    elif isinstance(data, dict):
        for name, below in data.items():
            yield f"{path}{name}"
            if name in NAMED and isinstance(below, dict):
                below = list(below.values())
            if name not in OPEN_ENDED:
                yield from shown_keys(below, f"{path}{name}.")


def uncommented() -> Any:
    """Return the shipped file with every commented example enabled."""
    lines = []
    for line in SHIPPED.read_text().splitlines():
        example = re.match(r"^( *)# ?((?: *)(?:- )?[a-z_]+:(?: .*|$))", line)
        if example and (line.startswith(" ") or re.match(r"# ?[ a-z]", line)):
            lines.append(example[1] + example[2])
        elif not line.lstrip().startswith("#"):
            lines.append(line)
    return yaml.safe_load("\n".join(lines))


def test_the_shipped_file_shows_every_key() -> None:
    """config/olla.yaml contains every setting and no unknown key."""
    assert set(shown_keys(uncommented())) == set(known_keys(Settings))


def test_the_shipped_file_states_the_defaults() -> None:
    """The shipped file loads without notices and changes only the endpoint's type."""
    loaded = load(SHIPPED, {})
    assert loaded.notices == []
    shipped, default = loaded.settings.model_dump(), parse("", {}).settings.model_dump()
    assert shipped["discovery"]["static"]["endpoints"][0].pop("type") == "ollama"
    assert default["discovery"]["static"]["endpoints"][0].pop("type") == "auto"
    assert shipped == default


def test_commented_keys_show_their_defaults() -> None:
    """Every key that is commented out, outside of examples, has its default value."""
    shown = uncommented()
    del shown["model_aliases"], shown["server"]["max_connections"]
    for name in ("keys", "tiers", "categories", "trusted_proxies"):
        del shown["access"][name]
    del shown["store"]["url"], shown["state"]["url"], shown["surfaces"]["management"]["models"]
    for name in ("num_ctx", "embedding_endpoints", "decision_log"):
        del shown["routing"][name]
    (endpoint,) = shown["discovery"].pop("static")["endpoints"]
    settings = parse(yaml.safe_dump(shown), {}).settings
    assert settings == parse("", {}).settings
    examples = {"type", "num_parallel", "health_check_url", "model_url", "model_filter"}
    learned = {"vram", "max_loaded_models", "load_bandwidth"}
    for name in examples | learned | {"headers", "auth"}:
        del endpoint[name]
    text = yaml.safe_dump({"discovery": {"static": {"endpoints": [endpoint]}}})
    (static,) = parse(text, {}).settings.discovery.static.endpoints
    assert static.effective_check_timeout == static.check_timeout == 2
    assert (
        static.model_copy(update={"check_timeout": None})
        == (settings.discovery.static.endpoints[0])
    )


def test_every_setting_has_a_description() -> None:
    """The JSON Schema describes every key for editors."""
    missing = [
        f"{model.__name__}.{name}"
        for model in [Settings, *_all_sections(Settings)]
        for name, field in model.model_fields.items()
        if not field.description and not list(sections(field.annotation))
    ]
    assert missing == []


def _all_sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for field in model.model_fields.values():
        for section in sections(field.annotation):
            yield section
            yield from _all_sections(section)
