"""Which key is suggested for one that is nearly right: every slip there is, not a sample."""

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


def slips_of(name: str) -> set[str]:
    """What one slip of the finger makes of a name."""
    slips = set()
    for at in range(len(name)):
        before, letter, after = name[:at], name[at], name[at + 1 :]
        slips |= {before + after, before + name[at : at + 2][::-1] + name[at + 2 :]}
        slips |= {before + other + after for other in LETTERS}
        slips |= {before + other + letter + after for other in LETTERS}
    return slips


def suggested(above: tuple[str | int, ...], wrong: str) -> str:
    """The key that the message for an unknown one names."""
    error = {"loc": (wrong,), "type": "extra_forbidden", "input": "1"}
    data: object = {wrong: "1"}
    for part in reversed(above):
        data = [data] if isinstance(part, int) else {part: data}
    _, message = explain({**error, "loc": (*above, wrong)}, data)
    return message.partition("did you mean ")[2].removesuffix("?")


@pytest.mark.parametrize("above", SECTIONS)
def test_the_suggested_key_is_one_slip_away(above: tuple[str | int, ...]) -> None:
    """A key that needs two slips is never suggested before one that needs one."""
    names = keys_below(above)
    slips = {name: slips_of(name) for name in names}
    for name in names:
        for wrong in sorted(slips[name] - {*names, ""}):
            near = {each for each in names if wrong in slips[each]}
            answer = suggested(above, wrong)
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
def test_nearest_is_by_slips_not_by_likeness(text: str, key: str) -> None:
    """`ken` shares more with `token` than with `key`, and is still one letter from `key`."""
    with pytest.raises(SettingsError) as caught:
        parse(f"discovery: {{static: {{endpoints: [{text}]}}}}", {})
    messages = [each.message for each in caught.value.problems]
    assert f"unknown key; did you mean {key}?" in messages
