"""Model names compare as Ollama compares them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.fleet.model_names import canonical, display

part = st.from_regex(
    re.compile(r"[a-z0-9_][a-z0-9_.-]{0,8}", re.ASCII | re.IGNORECASE), fullmatch=True
)
"""What Ollama takes for a model, a tag, and (without dots there) a namespace."""
host = st.builds(
    lambda name, port: name if port is None else f"{name}:{port}",
    part,
    st.none() | st.integers(1, 65535),
)


@st.composite
def names(draw: st.DrawFn) -> str:
    """`[host/][namespace/]model[:tag]`."""
    model = draw(part)
    prefix = draw(st.sampled_from(["", "namespace", "host"]))
    if prefix:
        model = f"{draw(part)}/{model}"
    if prefix == "host":
        model = f"{draw(host)}/{model}"
    return f"{model}:{draw(part)}" if draw(st.booleans()) else model


@pytest.mark.parametrize(
    ("name", "full", "short"),
    [
        ("llama3", "registry.ollama.ai/library/llama3:latest", "llama3:latest"),
        ("Llama3:8B", "registry.ollama.ai/library/llama3:8b", "Llama3:8B"),
        ("library/llama3", "registry.ollama.ai/library/llama3:latest", "llama3:latest"),
        (
            "registry.ollama.ai/library/LLAMA3:LATEST",
            "registry.ollama.ai/library/llama3:latest",
            "LLAMA3:LATEST",
        ),
        ("user/m:7b", "registry.ollama.ai/user/m:7b", "user/m:7b"),
        ("hf.co/user/repo:Q4_K_M", "hf.co/user/repo:q4_k_m", "hf.co/user/repo:Q4_K_M"),
        ("host:5000/ns/m", "host:5000/ns/m:latest", "host:5000/ns/m:latest"),
        ("host:5000/ns/m:1b", "host:5000/ns/m:1b", "host:5000/ns/m:1b"),
        ("  llama3 ", "registry.ollama.ai/library/llama3:latest", "llama3:latest"),
        ("llama3:", "registry.ollama.ai/library/llama3:latest", "llama3:latest"),
    ],
)
def test_known_spellings(name: str, full: str, short: str) -> None:
    """What the defaults, the tag rule and the blanks make of them."""
    assert canonical(name) == full
    assert display(name) == short


@given(names())
def test_canonical_is_stable(name: str) -> None:
    """A canonical name is its own canonical name."""
    assert canonical(canonical(name)) == canonical(name)


@given(names())
def test_display_is_stable(name: str) -> None:
    """What is shown is shown as itself."""
    assert display(display(name)) == display(name)


@given(names())
def test_what_is_shown_names_the_same_model(name: str) -> None:
    """Shortening loses nothing, and shortening the full name gives the short one."""
    assert canonical(display(name)) == canonical(name)
    assert display(canonical(name)) == display(name).lower()


@given(names())
def test_case_and_blanks_do_not_matter(name: str) -> None:
    """Not in any part."""
    assert canonical(f" {name.upper()}\t") == canonical(name.lower())


@given(part, part)
def test_defaults_may_be_left_out(model: str, tag: str) -> None:
    """Host, namespace and tag, one after the other."""
    full = canonical(f"registry.ollama.ai/library/{model}:{tag}")
    assert canonical(f"library/{model}:{tag}") == full
    assert canonical(f"{model}:{tag}") == full
    assert canonical(model) == canonical(f"{model}:latest")


@given(part, part, part, part)
def test_different_parts_are_different_models(
    one: str, other: str, namespace: str, tag: str
) -> None:
    """Model, tag and namespace each tell models apart."""
    if one.lower() != other.lower():
        assert canonical(one) != canonical(other)
        assert canonical(f"{tag}:{one}") != canonical(f"{tag}:{other}")
        assert canonical(f"{one}/{namespace}") != canonical(f"{other}/{namespace}")


@pytest.mark.parametrize(
    ("one", "other"),
    [("m:7b", "m"), ("a/m", "m"), ("host:5000/ns/m", "ns/m"), ("hf.co/u/m:Q4", "u/m:Q4")],
)
def test_tag_namespace_and_host_tell_models_apart(one: str, other: str) -> None:
    """What one name says and the other leaves out is no default here."""
    assert canonical(one) != canonical(other)


@given(st.text(max_size=50))
def test_no_text_is_too_odd(text: str) -> None:
    """Names come from clients: whatever they send has a canonical form, and a stable one."""
    assert canonical(canonical(text)) == canonical(text)
    assert display(text)
