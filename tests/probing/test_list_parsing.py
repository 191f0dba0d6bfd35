"""Tests of parsing lists: lenient for entries, strict for the list, bounded in size."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.fleet.endpoint import ModelFilter
from olla.fleet.model_names import canonical
from olla.fleet.profiles import ListFormat
from olla.fleet.snapshot import Model, ResidentModel
from olla.probing import list_parsing
from olla.probing.list_parsing import MODELS_MAX, Listing, first_entries, printable
from tests.surfaces.known_fleet import all_of

ALL = ModelFilter()
OLLAMA, OPENAI = ListFormat.OLLAMA, ListFormat.OPENAI
NINES = int("9" * 400)

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-NINES, NINES)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "\ud800", "a\nb"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["models", "data", "name", "id", "size", "x", "details", "family", "expires_at"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


def in_bytes(answer: object) -> bytes:
    """Encode an answer as JSON; bytes stay unchanged."""
    return answer if isinstance(answer, bytes) else json.dumps(answer).encode()


def listing(
    answer: object, style: ListFormat = OLLAMA, allowed: ModelFilter = ALL, *, more: bool = False
) -> Listing | None:
    """Parse a list of models."""
    return all_of(list_parsing.models(in_bytes(answer), style, allowed, more=more))


def models(
    answer: object, style: ListFormat = OLLAMA, allowed: ModelFilter = ALL
) -> Mapping[str, Model] | None:
    """Return the models of a list."""
    found = listing(answer, style, allowed)
    return None if found is None else found.models


def resident_models(answer: object) -> tuple[ResidentModel, ...] | None:
    """Parse a list of loaded models."""
    return all_of(list_parsing.resident_models(in_bytes(answer)))


def model_of(entry: Mapping[str, Any], style: ListFormat = OLLAMA) -> Model:
    """Return the model of one entry."""
    found = models({"models" if style is OLLAMA else "data": [entry]}, style)
    assert found is not None
    (model,) = found.values()
    return model


def names_of(answer: dict[str, object], allowed: ModelFilter = ALL) -> set[str]:
    """Return the names of the allowed models, as the endpoint spells them."""
    found = models(answer, OLLAMA, allowed)
    assert found is not None
    return {model.name for model in found.values()}


def listed(*names: str) -> dict[str, object]:
    """Return a list of models in Ollama's format."""
    return {"models": [{"name": name} for name in names]}


def test_a_list_of_ollama_is_parsed() -> None:
    """Name, digest and size. The entry is stored for merged lists."""
    entry = {"name": "Llama3:8B", "model": "Llama3:8B", "digest": "sha256:ab", "size": 7, "x": 1}
    found = models({"models": [entry]}, OLLAMA, ALL)
    assert found is not None
    model = found[canonical("llama3:8b")]
    assert (model.name, model.digest, model.size) == ("Llama3:8B", "ab", 7)
    assert json.loads(model.entry) == entry


def test_a_list_of_openai_is_parsed() -> None:
    """`id` is the name, even if there are other names. OpenAI lists have no digests."""
    found = models({"object": "list", "data": [{"name": "Qwen 3", "id": "Qwen/Qwen3"}]}, OPENAI)
    assert found is not None
    assert [(model.name, model.digest) for model in found.values()] == [("Qwen/Qwen3", None)]


@pytest.mark.parametrize(("style", "key"), [(OLLAMA, "models"), (OPENAI, "data")])
@pytest.mark.parametrize("empty", [[], None])
def test_an_empty_list_is_valid(style: ListFormat, key: str, empty: object) -> None:
    """It is an empty array, or null as in Ollama's /v1/models."""
    assert models({key: empty}, style, ALL) == {}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"\xff\xfe",
        b"[1]",
        b'{"models":[{"name":"a"}',
        b'{"models":[{"name":"a"},',
        b'{"models":[{"name":"a" "b"}]}',
        b'{"models":[{"name":"a"} {"name":"b"}]}',
        b'{"models":[' + b"[" * 5000,
        b"{" + b'"a":1,' * 100 + b'"models":[]}',
        {},
        {"data": [{"id": "m"}]},
        {"models": "m"},
        {"models": {"name": "m"}},
        {"models": 3},
        {"models": ["m"]},
        {"models": [{"name": 5}]},
        {"models": [{"name": ""}, {"name": " "}, {"title": "m"}]},
        {"models": [{"name": "m" * 2000}]},
        {"models": [{"name": "two\nlines"}, {"name": "\x1b[31m"}, {"name": "\ud800"}]},
        {"models": [{"name": "m", "x": "y" * 70_000}]},
    ],
)
def test_an_invalid_list_is_none(answer: object) -> None:
    """Another structure, incomplete JSON, or a list in which no entry has a usable name."""
    assert models(answer, OLLAMA, ALL) is None
    assert resident_models(answer) is None


def test_an_invalid_entry_is_skipped() -> None:
    """The other entries are kept."""
    answer = {"models": [{"name": "a"}, {"name": 5}, "b", None, {"name": "c", "size": "big"}]}
    assert names_of(answer) == {"a", "c"}


def test_invalid_values_count_as_missing() -> None:
    """The model itself is kept."""
    entry = {"name": "m", "size": -1, "digest": 7, "size_vram": True, "context_length": 1.5}
    model = model_of(entry)
    assert (model.size, model.digest) == (None, None)
    (resident_model,) = resident_models({"models": [entry]}) or []
    assert (resident_model.size_vram, resident_model.context_length) == (None, None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", NINES),
        ("size", 2**53),
        ("size", "7"),
        ("modified_at", "yesterday"),
        ("modified_at", "2026-13-01T00:00:00Z"),
        ("expires_at", "2026-11-20"),
        ("digest", ["d"]),
        ("digest", "a\nb"),
        ("details", "none"),
        ("capabilities", {"tools": True}),
        ("remote_host", 5),
    ],
)
def test_a_field_of_the_wrong_type_is_omitted(key: str, value: object) -> None:
    """A typed client rejects the whole merged list if it cannot read one field."""
    assert json.loads(model_of({"name": "m", key: value, "y": 1}).entry) == {"name": "m", "y": 1}


def test_details_are_validated() -> None:
    """Known fields have the right type or are omitted; others are kept within bounds."""
    details = {
        "family": "llama",
        "families": ["llama", 5],
        "parameter_size": 8,
        "context_length": NINES,
        "more": {"n_params": 5, "n_ctx": NINES, "pi": 3.1, "none": None},
    }
    entry = json.loads(model_of({"name": "m", "details": details}).entry)
    more = {"n_params": 5, "n_ctx": None, "pi": 3.1, "none": None}
    assert entry["details"] == {"family": "llama", "more": more}


def test_nested_values_are_trimmed() -> None:
    """In depth, length and number. Numbers that no client can read become null."""
    deep: object = 1
    for _ in range(50):
        deep = [deep]
    entry = {
        "id": "m",
        "deep": deep,
        "long": "x" * 6_000,
        "many": [1] * 1_000,
        "keys": {str(number): 0 for number in range(1_000)},
        "odd": "half \ud83d of a pair",
        "k" * 9_000: 1,
    }
    text = model_of(entry, OPENAI).entry
    assert len(text) < 12_000
    found = json.loads(text)
    assert found["deep"] == [[[[[[None]]]]]]
    assert sum(len(key) for key in found) < 4_200
    assert (len(found["long"]), len(found["many"])) == (4096, 256)
    assert len(found["keys"]) == 256
    assert found["odd"] == "half ? of a pair"


def test_values_that_clients_cannot_parse_become_null() -> None:
    """Python's spellings of numbers, and numbers that overflow."""
    body = b'{"data":[{"id":"m","a":NaN,"b":Infinity,"c":-1e999,"d":1e5,"e":' + b"7" * 9_000
    model = all_of(list_parsing.models(body + b"}]}", OPENAI, ALL))
    assert model is not None
    entry = json.loads(model.models[canonical("m")].entry)
    assert entry == {"id": "m", "a": None, "b": None, "c": None, "d": 100000.0, "e": None}


def test_unusable_names_are_replaced_by_the_usable_one() -> None:
    """All name fields of the stored entry agree."""
    entry = {"name": "a\x00b", "model": "m:1b", "size": 1}
    assert json.loads(model_of(entry).entry) == {"name": "m:1b", "model": "m:1b", "size": 1}


def test_a_long_list_is_cut() -> None:
    """After ten thousand entries of any kind; the rest is not parsed."""
    entries = b",".join(b'{"name":"m%d"}' % number for number in range(MODELS_MAX + 5))
    whole = listing(b'{"models":[%b]}' % entries)
    assert whole is not None
    assert (len(whole.models), whole.cut) == (MODELS_MAX, True)
    odd = listing(b'{"models":[{"name":"a"}' + b",[]" * 50_000 + b"rubbish")
    assert odd is not None
    assert (set(odd.models), odd.cut) == ({canonical("a")}, True)
    short = listing(listed("a", "b"))
    assert short is not None
    assert not short.cut


@pytest.mark.parametrize(
    "body", [b'{"models":[{"name":"a"},{"name":"b"},{"na', b'{"models":[{"name":"a"},{"name":"b"}']
)
def test_a_cut_body_has_its_complete_entries(body: bytes) -> None:
    """The listing is marked as cut, even if the cut is within a character."""
    found = listing(body, more=True)
    assert found is not None
    assert ({model.name for model in found.models.values()}, found.cut) == ({"a", "b"}, True)
    assert listing(b'{"models":[{"name":"a"},{"x":"\xc3', more=True) is not None
    assert listing(b'{"models', more=True) is None


def test_loaded_models_are_parsed() -> None:
    """Sizes, context length and expiry of an instance."""
    entry = {
        "model": "m:1b",
        "size": 9,
        "size_vram": 8,
        "digest": "ab",
        "context_length": 4096,
        "expires_at": "2026-11-20T10:00:00Z",
    }
    (resident_model,) = resident_models({"models": [entry]}) or []
    assert (resident_model.name, resident_model.digest) == ("m:1b", "ab")
    assert (resident_model.size, resident_model.size_vram, resident_model.context_length) == (
        9,
        8,
        4096,
    )
    assert resident_model.expires_at == 1795168800.0


def test_a_long_list_of_loaded_models_is_cut() -> None:
    """No node has hundreds of loaded models."""
    assert len(resident_models(listed(*(f"m{number}" for number in range(1000)))) or ()) == 256


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ((), (), {"llama3.2:latest", "Llama3.2:70B", "user/code:7b"}),
        (("llama3*",), (), {"llama3.2:latest", "Llama3.2:70B"}),
        (("LLAMA3.2",), (), {"llama3.2:latest"}),
        (("llama3.2:70b",), (), {"Llama3.2:70B"}),
        (("*",), ("*:70b",), {"llama3.2:latest", "user/code:7b"}),
        ((), ("user/*",), {"llama3.2:latest", "Llama3.2:70B"}),
        (("llama*",), ("llama*",), set()),
        (("*code*",), (), {"user/code:7b"}),
        (("llama3.[12]:latest",), (), {"llama3.2:latest"}),
    ],
)
def test_filters_select_models(
    include: tuple[str, ...], exclude: tuple[str, ...], expected: set[str]
) -> None:
    """Globs on names, case-insensitive, `:latest` is optional; exclude takes precedence, an empty
    include means all."""
    answer = listed("llama3.2:latest", "Llama3.2:70B", "user/code:7b")
    assert names_of(answer, ModelFilter(include, exclude)) == expected


def test_a_filter_matches_the_short_and_the_raw_name() -> None:
    """A list may spell out the registry's host."""
    answer = listed("registry.ollama.ai/library/llama3:latest")
    assert names_of(answer, ModelFilter(include=("llama3",)))
    assert names_of(answer, ModelFilter(include=("registry.ollama.ai/*",)))


def test_a_filter_that_matches_no_model_gives_an_empty_list() -> None:
    """The answer was valid, so it is not a failure."""
    assert models(listed("m"), OLLAMA, ModelFilter(include=("other",))) == {}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-20T10:00:00Z", 1795168800.0),
        ("2026-11-20T11:00:00+01:00", 1795168800.0),
        ("2026-11-20T02:30:00.5-07:30", 1795168800.5),
        ("2026-11-20T10:00:00.123456789Z", 1795168800.123456),
        ("2026-11-20T10:00:00.123456789+00:00", 1795168800.123456),
        ("2318-11-05T14:38:31.83753-07:00", 11008474711.83753),
    ],
)
def test_times_with_offset_and_nanoseconds_are_parsed(text: str, seconds: float) -> None:
    """In Go's formats, including the far future that means "forever"."""
    (resident_model,) = resident_models({"models": [{"name": "m", "expires_at": text}]}) or []
    assert resident_model.expires_at == pytest.approx(seconds, abs=1e-5)
    assert model_of({"name": "m", "modified_at": text}).created == pytest.approx(seconds, abs=1e-5)


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        "",
        "soon",
        "2026-11-20",
        "2026-11-20T10:00:00",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "99999-01-01T00:00:00Z",
        "2026-13-01T00:00:00Z",
        ["2026-11-20T10:00:00Z"],
    ],
)
def test_an_invalid_time_is_none(value: object) -> None:
    """So is a time without an offset, and Go's zero time."""
    (resident_model,) = resident_models({"models": [{"name": "m", "expires_at": value}]}) or []
    assert resident_model.expires_at is None
    assert model_of({"name": "m", "modified_at": value}).created == 0


@pytest.mark.parametrize(
    ("created", "seconds"), [(7, 7), (7.9, 7), (-1, 0), (NINES, 0), (2**48, 0), ("7", 0), (True, 0)]
)
def test_the_creation_time_of_an_openai_model_is_parsed(created: object, seconds: int) -> None:
    """In Unix seconds up to the year 9999."""
    assert model_of({"id": "m", "created": created}, OPENAI).created == seconds


def test_the_first_entries_are_read() -> None:
    """From a list of any length; None if the body is not a list."""
    assert first_entries(b'{"data":[{"id":"a"},{"id":"b"},', OPENAI, 1) == [{"id": "a"}]
    assert first_entries(b'{"data":null}', OPENAI, 5) == []
    assert first_entries(b'{"models":[]}', OPENAI, 5) is None
    assert first_entries(b"<html>", OPENAI, 5) is None


def test_text_of_a_node_is_printable() -> None:
    """It is on one line and cannot control a terminal."""
    assert printable("v1\n\x1b[31m" + "x" * 100, 9) == "v1??[31mx"


@given(anything)
def test_arbitrary_json_can_be_parsed(answer: object) -> None:
    """Parsing raises no exception, and the stored entries are JSON that every client can read."""
    value = answer if isinstance(answer, dict) else {"models": answer, "data": answer}
    for found in (
        models(value, OLLAMA, ALL),
        models(value, OPENAI, ModelFilter(("a*",), ("*b",))),
    ):
        for model in (found or {}).values():
            assert model.name.isprintable()
            json.loads(model.entry, parse_int=_sane)
    for resident_model in resident_models(value) or ():
        json.loads(resident_model.entry, parse_int=_sane)


def _sane(digits: str) -> int:
    assert len(digits) <= 17
    return int(digits)
