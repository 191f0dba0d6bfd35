"""A key with one typing error is reported, and the right key is suggested."""

import string
from collections.abc import Iterator

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel

from olla.settings import Settings, SettingsError, parse
from olla.settings.compatibility import foreign_names
from olla.settings.problems import Key
from olla.settings.schema_walk import keys_below, section_in


def all_keys(model: type[BaseModel] = Settings, parent: Key = ()) -> Iterator[Key]:
    """Yield every key, with one endpoint and one entry per mapping."""
    for name, field in model.model_fields.items():
        yield (*parent, name)
        inner = section_in(field.annotation)
        if inner is not None:
            item: Key = ()
            if getattr(field.annotation, "__origin__", None) is dict:
                item = ("generation",)
            elif getattr(field.annotation, "__origin__", None) is tuple:
                item = (0,)
            yield from all_keys(inner, (*parent, name, *item))


def as_text(key: Key) -> str:
    """Return a file with this key only."""
    data: object = "1"
    for part in reversed(key):
        data = [data] if isinstance(part, int) else {part: data}
    return yaml.safe_dump(data)


@st.composite
def typos(draw: st.DrawFn) -> tuple[Key, str]:
    """Draw a key, and its name with one character omitted, added, replaced or swapped."""
    key = draw(st.sampled_from(sorted(all_keys(), key=str)))
    name = str(key[-1])
    at = draw(st.integers(0, len(name) - 1))
    letter = draw(st.sampled_from(string.ascii_lowercase + "_-"))
    typo = draw(
        st.sampled_from(
            [
                name[:at] + name[at + 1 :],
                name[:at] + letter + name[at:],
                name[:at] + letter + name[at + 1 :],
                name[:at] + name[at : at + 2][::-1] + name[at + 2 :],
                name[:at] + name[at].upper() + name[at + 1 :],
            ]
        )
    )
    return key, typo


@given(typos())
def test_a_key_with_one_typo_is_reported_with_a_suggestion(typo: tuple[Key, str]) -> None:
    """No typing error in a key passes silently."""
    key, wrong = typo
    parent = key[:-1]
    assume(wrong not in keys_below(parent) and wrong not in list(foreign_names(parent)))
    with pytest.raises(SettingsError) as caught:
        parse(as_text((*parent, wrong)), {})
    messages = [
        each.message for each in caught.value.problems if each.message.startswith("unknown key")
    ]
    assert messages == [f"unknown key; did you mean {key[-1]}?"] or _near(
        messages[0], wrong, parent
    )


def _near(message: str, wrong: str, parent: Key) -> bool:
    """Return whether the suggestion is another key at the same distance, as host and port for
    hort."""
    suggested = message.rpartition("did you mean ")[2].removesuffix("?")
    known = [*keys_below(parent), *foreign_names(parent)]
    return suggested in known and abs(len(suggested) - len(wrong)) <= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port: 1", "it belongs at server.port"),
        ("static: {}", "it belongs at discovery.static"),
        ("server: {load_balancer: x}", "it belongs at proxy.load_balancer"),
        ("check_timeout: 1s", "it belongs at discovery.static.endpoints[].check_timeout"),
        ("proxy: {require_key: true}", "it belongs at access.require_key"),
        (
            "access: {burst: 1}",
            "it belongs at access.tiers.NAME.burst or access.categories.NAME.burst",
        ),
    ],
)
def test_a_key_in_the_wrong_section_is_reported_with_the_right_one(text: str, message: str) -> None:
    """Wrong indentation is a common mistake in YAML."""
    with pytest.raises(SettingsError) as caught:
        parse(text, {})
    assert caught.value.problems[0].message == f"unknown key; {message}"
