"""Names are compared as Ollama compares them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.fleet.names import canonical, display

PART = st.text("abcXYZ019_.-", min_size=1, max_size=8)


@pytest.mark.parametrize(
    "name",
    [
        "llama3",
        "Llama3",
        "llama3:latest",
        "library/llama3",
        "registry.ollama.ai/library/LLAMA3:LATEST",
        "  llama3 ",
    ],
)
def test_spellings_of_one_model_are_one(name: str) -> None:
    """Host, namespace, tag and case may be left out or differ."""
    assert canonical(name) == canonical("llama3")


@pytest.mark.parametrize(
    ("one", "other"),
    [("m:7b", "m"), ("a/m", "m"), ("host:5000/ns/m", "ns/m"), ("hf.co/u/m:Q4", "u/m:Q4")],
)
def test_different_models_are_different(one: str, other: str) -> None:
    """Tag, namespace and host tell models apart."""
    assert canonical(one) != canonical(other)


def test_a_ports_colon_is_no_tag() -> None:
    """The tag is what follows the last colon after the last slash."""
    assert canonical("host:5000/ns/m") == "host:5000/ns/m:latest"


@given(model=PART, tag=PART, namespace=PART)
def test_canonical_is_stable_and_display_keeps_the_model(
    model: str, tag: str, namespace: str
) -> None:
    """Applied twice it changes nothing, and what is shown is the same model."""
    for name in (model, f"{model}:{tag}", f"{namespace}/{model}:{tag}"):
        once = canonical(name)
        assert canonical(once) == once == canonical(name.upper())
        assert canonical(display(name)) == once
        assert canonical(display(once)) == once


def test_the_shown_form_is_short_and_has_its_tag() -> None:
    """As `ollama list` shows it."""
    assert display("registry.ollama.ai/library/Llama3") == "Llama3:latest"
    assert display("user/m:7b") == "user/m:7b"
