"""Callers and their rights."""

from ipaddress import ip_network

import pytest

from olla.access.caller import (
    ANONYMOUS,
    Caller,
    client_address,
    of_address,
    of_key,
    refuse,
    refuse_model,
)
from olla.access.keys import DEFAULT_RIGHTS, Key
from olla.dialects.dialect import Right
from olla.failures import Kind


def with_key(**changes: object) -> Caller:
    """The caller of a key."""
    return of_key(Key("7", b"d", "oa-abc", "ci", **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.1", "fe80::1%eth0", "", "x"])
def test_no_right_comes_from_an_address(address: str) -> None:
    """A caller without a key has the rights that the configuration gives to all of them."""
    for rights in (frozenset[Right](), DEFAULT_RIGHTS, DEFAULT_RIGHTS | {Right.MANAGE}):
        caller = of_address(address, rights)
        assert caller.rights == rights
        for right in Right:
            assert (refuse(caller, right, "chat") is None) is (right in rights)


@pytest.mark.parametrize("right", list(Right))
def test_a_refusal_names_the_command_and_the_setting_that_help(right: Right) -> None:
    """Without a key; no setting opens admin, so none is named for it."""
    refusal = refuse(of_address("127.0.0.1", frozenset()), right, "pull")
    assert refusal is not None
    assert refusal.kind is Kind.FORBIDDEN
    assert f"the right '{right.value}'" in refusal.message
    if right is Right.ADMIN:
        assert "`olla keys create --admin`" in refusal.message
        assert "anonymous_operations" not in refusal.message
    else:
        assert f"`olla keys create --operation {right.value}`" in refusal.message
        assert f"add '{right.value}' to access.anonymous_operations" in refusal.message


def test_a_key_may_what_it_says() -> None:
    """Infer and list, if it says nothing; the refusal tells what it may."""
    assert refuse(with_key(), Right.GENERATE, "chat") is None
    refusal = refuse(with_key(), Right.MANAGE, "pull")
    assert refusal is not None
    assert "embed, generate, list" in refusal.message
    assert "`olla keys create --operation manage`" in refusal.message
    nothing = refuse(with_key(rights=frozenset()), Right.LIST, "list")
    assert nothing is not None
    assert "nothing" in nothing.message
    assert refuse(with_key(rights=frozenset(Right)), Right.ADMIN, "keys") is None


@pytest.mark.parametrize(
    ("globs", "model", "allowed"),
    [
        (("llama3*",), "llama3.2", True),
        (("llama3*",), "LLAMA3.2:latest", True),
        (("llama3*",), "mistral", False),
        (("llama3.2",), "llama3.2:latest", True),
        (("llama3.2",), "llama3.2:1b", False),
        (("Llama3.2:*",), "llama3.2:1b", True),
        (("a", "b*"), "bert", True),
        (("*",), "anything", True),
        ((), "anything", True),
        (("llama3*",), "xllama3", False),
    ],
)
def test_a_key_is_for_the_models_it_names(
    globs: tuple[str, ...], model: str, allowed: bool
) -> None:
    """By globs, over names as Ollama compares them."""
    refusal = refuse_model(with_key(models=globs), model, needed=True)
    assert (refusal is None) is allowed
    if refusal is not None:
        assert refusal.status == 403


def test_a_key_for_some_models_cannot_leave_the_choice_to_the_endpoint() -> None:
    """Where a model is needed and none is named, the endpoint would take what it has."""
    caller = with_key(models=("llama3*",))
    assert refuse_model(caller, None, needed=True) is not None
    assert refuse_model(caller, None, needed=False) is None
    assert refuse_model(with_key(), None, needed=True) is None


def test_addresses_count_one_by_one_but_for_what_belongs_to_one() -> None:
    """An IPv6 network of 64 bits is one caller, and a mapped address is the one it maps."""
    assert of_address("10.0.0.1", DEFAULT_RIGHTS).id == "addr:10.0.0.1"
    assert of_address("::ffff:10.0.0.1", DEFAULT_RIGHTS).id == "addr:10.0.0.1"
    first, second = (of_address(f"2001:db8::{last}", DEFAULT_RIGHTS).id for last in "12")
    assert first == second == "addr:2001:db8::/64"
    assert of_address("fe80::1%eth0", DEFAULT_RIGHTS).id == "addr:fe80::/64"
    assert of_address("odd", DEFAULT_RIGHTS).id == "addr:odd"
    assert of_address("10.0.0.1", DEFAULT_RIGHTS).tier == ANONYMOUS


def test_a_static_key_counts_under_its_name_and_a_stored_one_under_its_number() -> None:
    """Neither shows the key."""
    assert with_key().id == "key:7"
    assert of_key(Key("static:ci", b"d", "s", "ci", owner="team")).id == "static:ci"
    assert of_key(Key("static:ci", b"d", "s", "ci", owner="team")).owner == "team"


TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("10.0.0.1", "203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", "198.51.100.9, 203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", "198.51.100.9, 203.0.113.5, 10.0.0.2", "203.0.113.5"),
        ("10.0.0.1", "203.0.113.5:4711", "203.0.113.5"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("fd00::1", "2001:db8::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", "forged, x", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.9", "10.0.0.9"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("203.0.113.7", "198.51.100.9", "203.0.113.7"),
    ],
)
def test_forwarding_proxies_are_believed_as_far_as_they_are_trusted(
    peer: str, forwarded: str | None, address: str
) -> None:
    """The last address that no trusted proxy has: what stands before it anybody may have
    written."""
    assert client_address(peer, forwarded, TRUSTED) == address
