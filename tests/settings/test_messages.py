"""Unknown keys: whatever one slip of the finger makes of a key, the key itself is suggested."""

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


def all_keys(model: type[BaseModel] = Settings, above: Key = ()) -> Iterator[Key]:
    """Every key there is, endpoints counted once."""
    for name, field in model.model_fields.items():
        yield (*above, name)
        inner = section_in(field.annotation)
        if inner is not None:
            place: Key = ()
            if getattr(field.annotation, "__origin__", None) is dict:
                place = ("generation",)
            elif getattr(field.annotation, "__origin__", None) is tuple:
                place = (0,)
            yield from all_keys(inner, (*above, name, *place))


def as_text(key: Key) -> str:
    """A file that says nothing but this key."""
    data: object = "1"
    for part in reversed(key):
        data = [data] if isinstance(part, int) else {part: data}
    return yaml.safe_dump(data)


@st.composite
def slips(draw: st.DrawFn) -> tuple[Key, str]:
    """A key, and its name with one character left out, put in, replaced or swapped."""
    key = draw(st.sampled_from(sorted(all_keys(), key=str)))
    name = str(key[-1])
    at = draw(st.integers(0, len(name) - 1))
    letter = draw(st.sampled_from(string.ascii_lowercase + "_-"))
    slip = draw(
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
    return key, slip


@given(slips())
def test_one_wrong_character_in_a_key_is_found_and_the_key_suggested(slip: tuple[Key, str]) -> None:
    """No typing error in a key passes silently."""
    key, wrong = slip
    above = key[:-1]
    assume(wrong not in keys_below(above) and wrong not in list(foreign_names(above)))
    with pytest.raises(SettingsError) as caught:
        parse(as_text((*above, wrong)), {})
    messages = [
        each.message for each in caught.value.problems if each.message.startswith("unknown key")
    ]
    assert messages == [f"unknown key; did you mean {key[-1]}?"] or _near(messages[0], wrong, above)


def _near(message: str, wrong: str, above: Key) -> bool:
    """Whether the suggestion is another key that is as near, such as host and port for hort."""
    suggested = message.rpartition("did you mean ")[2].removesuffix("?")
    known = [*keys_below(above), *foreign_names(above)]
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
def test_a_key_in_the_wrong_section_is_told_where_it_belongs(text: str, message: str) -> None:
    """Indentation is the other slip that YAML invites."""
    with pytest.raises(SettingsError) as caught:
        parse(text, {})
    assert caught.value.problems[0].message == f"unknown key; {message}"
