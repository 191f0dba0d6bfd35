"""What endpoints answer is read leniently by the entry and strictly as a whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.fleet.endpoint import ModelFilter
from olla.fleet.names import canonical
from olla.fleet.profiles import ListFormat
from olla.probing.reading import instances, models, unix_seconds

ALL = ModelFilter()
OLLAMA, OPENAI = ListFormat.OLLAMA, ListFormat.OPENAI

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["models", "data", "name", "id", "size", "x"]), inner)
    ),
    max_leaves=12,
)


def names_of(answer: dict[str, object], allowed: ModelFilter = ALL) -> set[str]:
    """The endpoint's own spellings of what may be used."""
    found = models(answer, OLLAMA, allowed)
    assert found is not None
    return {model.name for model in found.values()}


def listed(*names: str) -> dict[str, object]:
    """A list of models in Ollama's shape."""
    return {"models": [{"name": name} for name in names]}


def test_ollamas_list() -> None:
    """Name, digest and size; the entry itself is kept for merged lists."""
    entry = {"name": "Llama3:8B", "model": "Llama3:8B", "digest": "sha256:ab", "size": 7, "x": 1}
    found = models({"models": [entry]}, OLLAMA, ALL)
    assert found is not None
    model = found[canonical("llama3:8b")]
    assert (model.name, model.digest, model.size, model.entry) == ("Llama3:8B", "ab", 7, entry)


def test_openais_list() -> None:
    """`id` is the name, and there is no digest."""
    found = models({"object": "list", "data": [{"id": "Qwen/Qwen3"}]}, OPENAI, ALL)
    assert found is not None
    assert [(model.name, model.digest) for model in found.values()] == [("Qwen/Qwen3", None)]


@pytest.mark.parametrize(("style", "key"), [(OLLAMA, "models"), (OPENAI, "data")])
@pytest.mark.parametrize("empty", [[], None])
def test_no_models_is_a_list_too(style: ListFormat, key: str, empty: object) -> None:
    """An empty list, or the null that Ollama's /v1/models has for it."""
    assert models({key: empty}, style, ALL) == {}


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"data": [{"id": "m"}]},
        {"models": "m"},
        {"models": {"name": "m"}},
        {"models": 3},
        {"models": ["m"]},
        {"models": [{"name": 5}]},
        {"models": [{"name": ""}, {"name": " "}, {"title": "m"}]},
        {"models": [{"name": "m" * 2000}]},
    ],
)
def test_what_is_no_list_is_none(answer: dict[str, object] | None) -> None:
    """Another shape, or a list in which no entry has a usable name."""
    assert models(answer, OLLAMA, ALL) is None
    assert instances(answer) is None


def test_one_bad_entry_leaves_the_others() -> None:
    """It is passed over."""
    answer = {"models": [{"name": "a"}, {"name": 5}, "b", None, {"name": "c", "size": "big"}]}
    assert names_of(answer) == {"a", "c"}


def test_odd_values_are_not_told() -> None:
    """A size that is no size and a digest that is none are not known, and the model is."""
    entry = {"name": "m", "size": -1, "digest": 7, "size_vram": True, "context_length": 1.5}
    found = models({"models": [entry]}, OLLAMA, ALL)
    assert found is not None
    assert [(model.size, model.digest) for model in found.values()] == [(None, None)]
    (instance,) = instances({"models": [entry]}) or []
    assert (instance.size_vram, instance.context_length) == (None, None)


def test_what_is_in_memory() -> None:
    """Sizes, context and expiry of an instance."""
    entry = {
        "model": "m:1b",
        "size": 9,
        "size_vram": 8,
        "digest": "ab",
        "context_length": 4096,
        "expires_at": "2026-11-20T10:00:00Z",
    }
    (instance,) = instances({"models": [entry]}) or []
    assert (instance.name, instance.digest) == ("m:1b", "ab")
    assert (instance.size, instance.size_vram, instance.context_length) == (9, 8, 4096)
    assert instance.expires_at == 1795168800.0


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
def test_the_operator_says_which_models_may_be_used(
    include: tuple[str, ...], exclude: tuple[str, ...], expected: set[str]
) -> None:
    """Globs over names, case aside, `:latest` optional; exclude wins, nothing included is all."""
    answer = listed("llama3.2:latest", "Llama3.2:70B", "user/code:7b")
    assert names_of(answer, ModelFilter(include, exclude)) == expected


def test_a_filter_knows_the_short_and_the_raw_spelling() -> None:
    """A list that writes the registry's host out is filtered by either."""
    answer = listed("registry.ollama.ai/library/llama3:latest")
    assert names_of(answer, ModelFilter(include=("llama3",)))
    assert names_of(answer, ModelFilter(include=("registry.ollama.ai/*",)))


def test_a_filter_that_leaves_nothing_leaves_a_list() -> None:
    """The answer was sound; there is only nothing to be used."""
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
def test_times_with_offset_and_nanoseconds(text: str, seconds: float) -> None:
    """Go's spellings, the far future that means "for ever" included."""
    assert unix_seconds(text) == pytest.approx(seconds, abs=1e-5)


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
        "99999-01-01T00:00:00Z",
        "2026-13-01T00:00:00Z",
        ["2026-11-20T10:00:00Z"],
    ],
)
def test_what_is_no_time_is_none(value: object) -> None:
    """Nor is one without an offset, nor Go's word for no time at all."""
    assert unix_seconds(value) is None


@given(anything)
def test_no_answer_is_too_odd(answer: object) -> None:
    """Whatever JSON an endpoint sends, reading it raises nothing."""
    value = answer if isinstance(answer, dict) else {"models": answer, "data": answer}
    models(value, OLLAMA, ALL)
    models(value, OPENAI, ModelFilter(("a*",), ("*b",)))
    instances(value)
