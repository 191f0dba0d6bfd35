"""Keys are kept as they were made."""

import asyncio

import msgspec
import pytest
from sqlalchemy import text

from olla.access.keys import Key, form_key
from olla.dialects.dialect import Right
from olla.store import MakerRevoked, StoreError
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
    assert await store.keys.revoke(id, 1.0) == ()


async def test_a_key_is_revoked_once(store: Store) -> None:
    """The first time stays, and only that counts as a change."""
    made = await store.keys.create(key(1))
    (revoked,) = await store.keys.revoke(made.id, 5.5)
    assert revoked.revoked == 5.5
    assert await store.keys.revoke(made.id, 7.0) == (revoked,)
    assert await store.keys.every() == [revoked]
    assert await store.keys.revision() == 2


async def test_nobody_revokes_the_key_of_somebody_else(store: Store) -> None:
    """Where an owner is given it has to be that one's."""
    made = await store.keys.create(key(1))
    assert await store.keys.revoke(made.id, 5.0, owner="bob") == ()
    assert await store.keys.revoke(made.id, 5.0, made_by="anonymous") == ()
    assert await store.keys.revision() == 1
    (revoked,) = await store.keys.revoke(made.id, 6.0, owner="ada")
    assert revoked.revoked == 6.0


async def test_the_store_says_which_key_made_which(store: Store) -> None:
    """A key, a key of the configuration, a caller without one, or nobody."""
    makers = ("", "1", "static:ci#0123", "anonymous")
    for number, maker in enumerate(makers):
        await store.keys.create(key(number, made_by=maker))
    assert [each.made_by for each in await store.keys.every()] == list(makers)
    assert [each.id for each in await store.keys.find(made_by="anonymous")] == ["4"]
    assert await store.keys.find(made_by="anonymous", owner="bob") == []


async def test_keys_that_a_key_made_are_revoked_with_it(store: Store) -> None:
    """Down to the last, whoever owns them, as one change; the others stay."""
    for number, maker in enumerate(("", "1", "2", "2", "", "5", "12"), 1):
        # "12" is no key: a maker's id is compared as a whole.
        made = key(number, owner=f"owner-{number}", made_by="" if maker == "12" else maker)
        await store.keys.create(made)
    before = await store.keys.revision()
    (early,) = await store.keys.revoke("4", 3.0)
    ended = await store.keys.revoke("1", 9.0)
    assert [(each.id, each.revoked) for each in ended] == [("1", 9.0), ("2", 9.0), ("3", 9.0)]
    assert await store.keys.revision() == before + 2
    found = {each.id: each.revoked for each in await store.keys.every()}
    assert found == {"1": 9.0, "2": 9.0, "3": 9.0, "4": early.revoked} | dict.fromkeys("567")


async def test_a_loop_of_makers_ends(store: Store) -> None:
    """Which only a hand can have written."""
    await store.keys.create(key(1))
    await store.keys.create(key(2, made_by="1"))
    async with store.keys._connections.writing() as connection:
        await connection.execute(text("UPDATE keys SET made_by = '2' WHERE id = 1"))
    assert [each.id for each in await store.keys.revoke("1", 9.0)] == ["1", "2"]


async def test_a_revoked_key_makes_no_other(store: Store) -> None:
    """Nor does one that is not there."""
    await store.keys.create(key(1))
    await store.keys.revoke("1", 5.0)
    for maker in ("1", "7"):
        with pytest.raises(MakerRevoked):
            await store.keys.create(key(2, made_by=maker))
    assert len(await store.keys.every()) == 1


async def test_no_key_outlives_its_maker_however_they_meet(
    url: str, store: Store, opened: Open
) -> None:
    """Keys are made while their makers are revoked, by several processes at once."""
    other = await opened(url)
    await store.keys.create(key(0))
    makers = ["1"]

    async def make(number: int) -> None:
        by = store if number % 2 else other
        try:
            made = await by.keys.create(key(number, made_by=makers[-1]))
        except MakerRevoked:
            return
        makers.append(made.id)

    async def revoke() -> None:
        await other.keys.revoke("1", 9.0)

    tasks = [make(number) for number in range(1, 20)]
    await asyncio.gather(*tasks[:10], revoke(), *tasks[10:])
    assert [each.id for each in await store.keys.every() if each.revoked is None] == []


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
