"""Keys are kept as they were made."""

import asyncio

import msgspec
import pytest

from olla.access.keys import Key, form_key
from olla.dialects.dialect import Right
from olla.store import StoreError
from olla.store.database import Store
from tests.store.conftest import Open


def key(number: int, **more: object) -> Key:
    """A key that has no id yet."""
    _, digest, shown = form_key(bytes([number]) * 32)
    fields = {"name": f"key {number}", "owner": "ada", "created": 1_700_000_000.125, **more}
    return Key("", digest, shown, **fields)  # type: ignore[arg-type]


async def test_a_key_comes_back_as_it_was_made(store: Store) -> None:
    """With its id, and nothing else is different; a restriction, too, to strange names."""
    plain = await store.keys.create(key(1))
    wanted = key(
        2,
        tier="gold",
        rights=frozenset({Right.ADMIN, Right.LIST}),
        models=("llama*", 'a,"b"', "ü"),
        endpoints=("gpu-1",),
        expires=1_800_000_000.5,
    )
    restricted = await store.keys.create(wanted)
    assert (plain.id, restricted.id) == ("1", "2")
    assert plain == msgspec.structs.replace(key(1), id="1")
    assert restricted == msgspec.structs.replace(wanted, id="2")
    assert await store.keys.every() == [plain, restricted]


async def test_there_is_one_key_of_a_digest(store: Store) -> None:
    """A second one is refused, and changes nothing."""
    await store.keys.create(key(1))
    with pytest.raises(StoreError, match=r"(?i)unique"):
        await store.keys.create(key(1))
    assert len(await store.keys.every()) == 1
    assert await store.keys.revision() == 1


async def test_keys_are_found_by_owner_and_id(store: Store) -> None:
    """By either, and by both at once."""
    mine = await store.keys.create(key(1))
    other = await store.keys.create(key(2, owner="bob"))
    assert await store.keys.find(owner="ada") == [mine]
    assert await store.keys.find(id=other.id) == [other]
    assert await store.keys.find(owner="ada", id=other.id) == []
    assert await store.keys.find() == [mine, other]


@pytest.mark.parametrize(
    "id", ["", "x", "0", "01", "-1", "²", "9999999999", "9" * 5000, "static:a"]
)
async def test_what_is_no_id_finds_nothing(store: Store, id: str) -> None:
    """Neither an error nor another's key."""
    await store.keys.create(key(1))
    assert await store.keys.find(id=id) == []
    assert await store.keys.revoke(id, 1.0) is None


async def test_a_key_is_revoked_once(store: Store) -> None:
    """The first time stays, and only that counts as a change."""
    made = await store.keys.create(key(1))
    revoked = await store.keys.revoke(made.id, 5.5)
    assert revoked is not None
    assert revoked.revoked == 5.5
    assert await store.keys.revoke(made.id, 7.0) == revoked
    assert await store.keys.every() == [revoked]
    assert await store.keys.revision() == 2


async def test_nobody_revokes_the_key_of_somebody_else(store: Store) -> None:
    """Where an owner is given it has to be that one's."""
    made = await store.keys.create(key(1))
    assert await store.keys.revoke(made.id, 5.0, owner="bob") is None
    assert await store.keys.revision() == 1
    revoked = await store.keys.revoke(made.id, 6.0, owner="ada")
    assert revoked is not None
    assert revoked.revoked == 6.0


async def test_others_see_that_keys_have_changed(url: str, store: Store, opened: Open) -> None:
    """The revision grows for everybody, with every change, also when they come at once."""
    other = await opened(url)
    assert await other.keys.revision() == 0
    made = await asyncio.gather(
        *((store if number % 2 else other).keys.create(key(number)) for number in range(12))
    )
    assert {each.id for each in made} == {str(number) for number in range(1, 13)}
    assert await other.keys.revision() == await store.keys.revision() == 12
    assert await other.keys.every() == await store.keys.every()
