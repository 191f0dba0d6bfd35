"""Which key is suggested for a misspelled one: tests of every single typing error."""

import pytest

from olla.settings import SettingsError, parse
from olla.settings.messages import explain
from olla.settings.schema_walk import keys_below

ENDPOINT = ("discovery", "static", "endpoints", 0)
LETTERS = "abcdefghijklmnopqrstuvwxyz_-"
SECTIONS = [
    (),
    ("server",),
    ("server", "request_limits"),
    ("proxy",),
    ("discovery",),
    ("logging",),
    ENDPOINT,
    (*ENDPOINT, "auth"),
    (*ENDPOINT, "model_filter"),
]


def typos_of(name: str) -> set[str]:
    """Return every variant of a name with one typing error."""
    typos = set()
    for at in range(len(name)):
        before, letter, after = name[:at], name[at], name[at + 1 :]
        typos |= {before + after, before + name[at : at + 2][::-1] + name[at + 2 :]}
        typos |= {before + other + after for other in LETTERS}
        typos |= {before + other + letter + after for other in LETTERS}
    return typos


def suggested(parent: tuple[str | int, ...], wrong: str) -> str:
    """Return the key that the message for an unknown key suggests."""
    error = {"loc": (wrong,), "type": "extra_forbidden", "input": "1"}
    data: object = {wrong: "1"}
    for part in reversed(parent):
        data = [data] if isinstance(part, int) else {part: data}
    _, message = explain({**error, "loc": (*parent, wrong)}, data)
    return message.partition("did you mean ")[2].removesuffix("?")


@pytest.mark.parametrize("parent", SECTIONS)
def test_the_suggested_key_is_one_typo_away(parent: tuple[str | int, ...]) -> None:
    """A key that is two typing errors away is never preferred to a key that is one away."""
    names = keys_below(parent)
    typos = {name: typos_of(name) for name in names}
    for name in names:
        for wrong in sorted(typos[name] - {*names, ""}):
            near = {each for each in names if wrong in typos[each]}
            answer = suggested(parent, wrong)
            assert answer in near or answer not in names, (wrong, answer)
            assert answer, wrong


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("{url: 'http://a', auth: {ken: x}}", "key"),
        ("{url: 'http://a', auth: {ken_file: x}}", "key_file"),
        ("{url: 'http://a', model_filter: {eiclude: [x]}}", "exclude"),
        ("{URL: 'http://a'}", "url"),
        ("{url: 'http://a', Name: x}", "name"),
    ],
)
def test_typos_take_precedence_over_similarity(text: str, key: str) -> None:
    """`ken` is more similar to `token` than to `key`, but is one letter away from `key`."""
    with pytest.raises(SettingsError) as caught:
        parse(f"discovery: {{static: {{endpoints: [{text}]}}}}", {})
    messages = [each.message for each in caught.value.problems]
    assert f"unknown key; did you mean {key}?" in messages
